"""Look at the directory's database, without bringing it up to date."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text

from sidecar.directory.database import Database
from sidecar.directory.migrate import standing
from sidecar.doctor.finding import Finding, Probe
from sidecar.doctor.patient import Patient
from sidecar.faults import Unavailable

_PLACE = ("directory", "url")
_NETWORKED = frozenset(["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.glusterfs", "ceph", "afs"])
_SETTINGS = (
    ("statement_timeout", "a statement that hangs holds its locks"),
    ("idle_in_transaction_session_timeout", "a transaction that somebody left open holds its locks"),
)


def probes(patient: Patient) -> list[Probe]:
    """Nothing where no directory is kept."""
    config = patient.config
    return [_look(patient)] if config.provision is not None or config.tokens is not None else []


async def _look(patient: Patient) -> Probe:
    section = patient.config.directory
    database = Database(section.url.reveal(), section.timeout.total_seconds())
    try:
        if database.address.kind == "sqlite":
            file = database.address.file
            yield file_system(patient, file)
            if not file.exists():
                # Connecting would make it.
                yield patient.ok("directory-migrations", f"{file} is not there yet; the first start makes it")
                return
        try:
            yield await _migrations(patient, database)
        except Unavailable as fault:
            yield patient.failure("connection", fault.detail, _PLACE, part="directory")
            return
        for finding in await database.read(lambda connection: connection.run_sync(_settings, patient)):
            yield finding
    finally:
        await database.close()


async def _migrations(patient: Patient, database: Database) -> Finding:
    found = await standing(database)
    if not found.present:
        return patient.ok("directory-migrations", "no tables yet; the first start makes them")
    if not found.is_known:
        seen = f"schema {found.present} is of a newer program; this one knows {found.newest} and will not start"
        return patient.failure("directory-migrations", seen, _PLACE)
    if found.present != found.newest:
        seen = f"schema {found.present}, and the next start brings it to {found.newest}"
        return patient.warning("directory-migrations", seen, _PLACE)
    return patient.ok("directory-migrations", f"schema {found.present}, the newest")


def file_system(patient: Patient, file: Path, mounts: Path = Path("/proc/mounts")) -> Finding:
    """Whether SQLite's locks hold where *file* is."""
    kind = file_system_of(file, mounts)
    if kind in _NETWORKED:
        seen = f"{file} is on {kind}, where SQLite's locks do not hold"
        return patient.failure("directory-database", seen, _PLACE)
    return patient.ok("directory-database", f"SQLite on {kind or 'a file system that is not known'}")


def file_system_of(file: Path, mounts: Path) -> str:
    """Kind of file system that *file* is on, by the table *mounts*; "" when that cannot be known."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    place = file.resolve()
    fitting = [(len(where), kind) for _, where, kind, *_ in lines if place.is_relative_to(where.replace("\\040", " "))]
    return max(fitting, default=(0, ""))[1]


def _settings(connection: Connection, patient: Patient) -> list[Finding]:
    kind = connection.dialect.name
    if kind == "sqlite":
        mode = str(connection.scalar(text("PRAGMA journal_mode")))
        if mode != "wal":
            seen = f"journal_mode is {mode}: readers and the writer wait for each other until the next start sets WAL"
            return [patient.warning("directory-database", seen, _PLACE)]
        return [patient.ok("directory-database", "journal_mode WAL")]
    if kind != "postgresql":
        engine = str(connection.scalar(text("SELECT @@default_storage_engine")))
        return [patient.ok("directory-database", f"{kind}, tables in {engine}")]
    unset = [
        f"{name} is 0: {why}"
        for name, why in _SETTINGS
        if str(connection.scalar(text("SELECT current_setting(:name)"), {"name": name})) == "0"
    ]
    # The sidecar bounds its own statements; these are for what remains when a process is gone.
    if unset:
        change = "ALTER ROLE … SET statement_timeout = '30s'; the same for idle_in_transaction_session_timeout."
        return [patient.warning("directory-database", "; ".join(unset), _PLACE, change=change)]
    return [patient.ok("directory-database", "PostgreSQL with time-outs")]

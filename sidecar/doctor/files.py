"""Look at files: who may read secrets, whether audit lines find room, and how old the secrets are."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from sidecar.config.document import Location
from sidecar.config.secret import Dsn, Secret
from sidecar.config.within import within
from sidecar.doctor.finding import Finding, Probe
from sidecar.doctor.patient import Patient

_KEYS = frozenset(["key", "redis_key"])
_FEW_LETTERS = 12
_OLD = 400 * 86400.0
_LITTLE, _NEARLY_NOTHING = 1 << 30, 100 << 20
_LITTLE_SHARE = 0.05


def probes(patient: Patient) -> list[Probe]:
    """Each in a thread: a file system may hang."""
    return [_in_thread(patient, one) for one in (_permissions, _audit, _room, _session_secret)]


async def _in_thread(patient: Patient, one: Any) -> Probe:
    for finding in await asyncio.to_thread(lambda: list(one(patient))):
        yield finding


def _secret_files(patient: Patient) -> Iterator[tuple[Location, Path]]:
    for place, secret in within(patient.config, Secret):
        kind, _, name = secret.origin.partition(" ")
        if kind == "file":
            yield place, patient.folder / name
    for place, path in within(patient.config, Path):
        if place[-1] in _KEYS:
            yield place, path


def _permissions(patient: Patient) -> Iterator[Finding]:
    found = []
    config = Path(patient.document.file)
    holds_password = any(isinstance(one, Dsn) and one.has_inline_password for _, one in within(patient.config, Secret))
    files = [((), config, holds_password), *((place, path, True) for place, path in _secret_files(patient))]
    for place, path, is_secret in files:
        try:
            mode = path.stat().st_mode
        except OSError:
            # The configuration does not load when a secret cannot be read.
            continue
        if mode & stat.S_IWOTH:
            found.append(
                patient.failure("file-permissions", f"everybody may write {path} ({stat.filemode(mode)})", place)
            )
        elif is_secret and mode & stat.S_IROTH:
            seen = f"everybody on this machine may read {path} ({stat.filemode(mode)})"
            found.append(patient.failure("file-permissions", seen, place))
    yield from found
    if not found:
        yield patient.ok(
            "file-permissions", f"nothing is open to others ({len(files)} file{'s' * (len(files) > 1)} looked at)"
        )


def _audit(patient: Patient) -> Iterator[Finding]:
    section = patient.config.audit
    elsewhere = {
        "standard output": section.stdout,
        "syslog (whether it is kept is seen there)": section.syslog is not None,
        "the directory's database": section.database is not None,
        "a webhook": section.webhook is not None,
    }
    places = [name for name, is_there in elsewhere.items() if is_there]
    written = [("file", section.file, section.rotate is not None)] if section.file is not None else []
    written += [("webhook", section.webhook.spool, True)] if section.webhook is not None else []
    refused = [finding for one in written if (finding := _unwritable(patient, *one)) is not None]
    yield from refused
    if not places and not written:
        change = "Set audit.file, audit.stdout, audit.syslog, audit.database or audit.webhook."
        yield patient.warning("audit-sink", "audit lines go nowhere", ("audit",), change=change)
    elif not refused:
        files = [f"{section.file} can be written by the user who asks"] if section.file is not None else []
        yield patient.ok("audit-sink", ", ".join([*files, *places]))


def _unwritable(patient: Patient, setting: str, path: Path, needs_folder: bool) -> Finding | None:  # noqa: FBT001
    """What is wrong with *path*: it cannot be written, nor its folder where files are made or renamed there."""
    # Not opened for appending: a device or a pipe could take it amiss.
    for target in (path, *([path.parent] if needs_folder else [])):
        there = target
        while not there.exists() and there != there.parent:
            there = there.parent
        if not os.access(there, os.W_OK):
            seen = f"{there} cannot be written by the user who asks"
            return patient.failure("audit-sink", seen, ("audit", setting))
    return None


def _room(patient: Patient) -> Iterator[Finding]:
    for place, path in _written(patient):
        folder = path.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        room = os.statvfs(folder)
        free, whole = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
        part, seen = ".".join(map(str, place)), f"{free / (1 << 30):.1f} GiB free for {path}"
        if free < _NEARLY_NOTHING:
            yield patient.failure("disk-space", seen, place, part=part)
        elif free < _LITTLE or free < whole * _LITTLE_SHARE:
            yield patient.warning("disk-space", seen, place, part=part)
        else:
            yield patient.ok("disk-space", seen, part)


def _written(patient: Patient) -> Iterator[tuple[Location, Path]]:
    config = patient.config
    if config.audit.file is not None:
        yield ("audit", "file"), config.audit.file
    if config.audit.webhook is not None:
        yield ("audit", "webhook", "spool"), config.audit.webhook.spool
    url = make_url(config.directory.url.reveal()) if config.provision is not None or config.tokens is not None else None
    if url is not None and url.get_backend_name() == "sqlite" and url.database:
        yield ("directory", "url"), Path(url.database)


def _session_secret(patient: Patient) -> Iterator[Finding]:
    held = patient.config.sessions.secrets
    if not held:
        yield patient.ok("session-secret", "made anew at each start, as sessions in memory are")
        return
    place = ("sessions", "secrets", 0)
    if len(set(held[0].reveal())) < _FEW_LETTERS:
        yield patient.failure("session-secret", "few different letters: it can be guessed", place)
    elif held[0] in [one for where, one in within(patient.config, Secret) if where[:2] != ("sessions", "secrets")]:
        yield patient.failure("session-secret", "another secret of the configuration is the same", place)
    elif (age := _age(patient, held[0])) > _OLD:
        yield patient.warning("session-secret", f"unchanged for {age / 86400:.0f} days", place)
    else:
        yield patient.ok("session-secret", f"{len(held[0].reveal())} characters from {held[0].origin}")


def _age(patient: Patient, secret: Secret) -> float:
    """Seconds since the secret's file was written, 0 when nobody knows."""
    kind, _, name = secret.origin.partition(" ")
    try:
        return time.time() - (patient.folder / name).stat().st_mtime if kind == "file" else 0.0
    except OSError:
        return 0.0

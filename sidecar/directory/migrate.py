"""Bring the directory's tables up to date at start, one replica at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory.address import Address
from sidecar.directory.database import DOWN, Database, reason_of
from sidecar.faults import Unavailable
from sidecar.reason import Reason

_LONGEST = 120.0
_VERSION_TABLE = "sidecar_version"
_MIGRATIONS = Path(__file__).parent / "migrations"
# Any number does, as long as every replica uses the same one: the letters "sidecar" as an integer.
_ADVISORY_LOCK = int.from_bytes(b"sidecar", "big")


async def migrate(database: Database) -> None:
    """Apply what is missing under a lock that all replicas share.

    Raises Unavailable(DIRECTORY_DOWN) when the database is down, or was made by a newer version of the program.
    """
    try:
        async with asyncio.timeout(_LONGEST), _alone(database) as connection:
            await connection.run_sync(_upgrade, database.address.kind)
    except TimeoutError:
        raise Unavailable(Reason.DIRECTORY_DOWN, f"the tables were not ready within {_LONGEST:g} s") from None
    except DOWN as error:
        raise Unavailable(Reason.DIRECTORY_DOWN, f"the tables cannot be prepared: {reason_of(error)}") from None


@asynccontextmanager
async def _alone(database: Database) -> AsyncIterator[AsyncConnection]:
    """A connection inside a transaction, while no other replica has one."""
    if database.address.kind == "sqlite":
        async with _file_lock(database.address), _sqlite_connection(database) as connection:
            yield connection
        return
    async with database.engine.connect() as connection:
        if database.address.kind == "postgresql":
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            yield connection
            await connection.commit()
            return
        # MySQL commits DDL at once, which a lock of the session survives. It ends with the session at the latest.
        name = {"name": f"sidecar:{database.address.url.database}"[:64]}
        got = await connection.scalar(text("SELECT GET_LOCK(:name, :wait)"), {**name, "wait": int(_LONGEST)})
        if got != 1:
            raise Unavailable(Reason.DIRECTORY_DOWN, "another replica is preparing the tables")
        try:
            yield connection
            await connection.commit()
        finally:
            await connection.execute(text("SELECT RELEASE_LOCK(:name)"), name)


@asynccontextmanager
async def _sqlite_connection(database: Database) -> AsyncIterator[AsyncConnection]:
    async with database.engine.connect() as connection:
        await connection.run_sync(_write_ahead)
    async with database.engine.execution_options(sqlite_begin="EXCLUSIVE").begin() as connection:
        yield connection


def _write_ahead(connection: Connection) -> None:
    # Readers and the one writer then do not wait for each other. The mode stays in the file.
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


@asynccontextmanager
async def _file_lock(address: Address) -> AsyncIterator[None]:
    folder = address.file.parent
    if not folder.is_dir():
        raise Unavailable(Reason.DIRECTORY_DOWN, f"the folder {folder} of the directory does not exist")
    # The file names people, so nobody else on the machine reads it.
    os.close(os.open(address.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    lock = os.open(f"{address.file}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # flock has no way to wait that an event loop could wait for.
        while not _locked(lock):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Standing:
    """Which schema a directory has ("" for none yet), which one this program makes, and whether it knows the former."""

    present: str
    newest: str
    is_known: bool


async def standing(database: Database) -> Standing:
    """See how far the tables are, and change nothing; raises Unavailable(DIRECTORY_DOWN)."""
    return await database.read(lambda connection: connection.run_sync(_standing))


def _standing(connection: Connection) -> Standing:
    present, known = _present(connection), versions()
    return Standing(present, known[-1], not present or present in known)


def versions() -> list[str]:
    """All schemas that there have been, the oldest first: the names of their files begin with them."""
    return sorted(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def _present(connection: Connection) -> str:
    if not inspect(connection).has_table(_VERSION_TABLE):
        return ""
    return connection.scalar(text(f"SELECT version_num FROM {_VERSION_TABLE}")) or ""  # noqa: S608 - a constant


def _upgrade(connection: Connection, kind: str) -> None:
    now = _standing(connection)
    if now.present == now.newest:
        return
    if not now.is_known:
        message = (
            f"the directory was made by a newer version of this program (schema {now.present}); start that version"
        )
        raise Unavailable(Reason.DIRECTORY_DOWN, message)
    # Alembic and what it brings cost more than the rest of the directory, and most starts find the tables as they are.
    from sidecar.directory.upgrading import upgrade  # noqa: PLC0415 - for those that do not

    upgrade(connection, _MIGRATIONS, is_transactional=kind != "mysql")

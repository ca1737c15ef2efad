"""Run transactions on the directory's database: bounded in time, repeated after a deadlock, errors translated once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from sidecar.core.unaccepted import certificate_fault
from sidecar.directory.address import Address, address_of
from sidecar.faults import Unavailable
from sidecar.reason import Reason

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]

# What a database that is down, gone or wrong about us shows itself as; anything else is a mistake of ours.
DOWN = (DBAPIError, PoolTimeoutError, OSError)

_MOST_TRIES = 5
# Serialisation failure and deadlock in PostgreSQL; lock wait time-out and deadlock in MySQL.
_PASSING_STATES = frozenset(["40001", "40P01"])
_PASSING_NUMBERS = frozenset([1205, 1213])


class Database:
    """One database and its pool of connections. Every method raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, url: str, timeout: float) -> None:
        """Connect to *url* when first needed; *timeout* in seconds bounds every transaction."""
        self.address: Address = address_of(url, timeout)
        self._timeout = timeout
        self.engine = _engine(self.address, timeout)
        self._writer = self.engine.execution_options(sqlite_begin="IMMEDIATE")
        self._under_way: set[asyncio.Task[Any]] = set()

    async def read(self, work: Work[T]) -> T:
        """Run *work* in a transaction that only reads."""
        return await self._run(self.engine, work)

    async def write(self, work: Work[T]) -> T:
        """Run *work* in a transaction; IntegrityError comes through, everything is undone then."""
        return await self._run(self._writer, work)

    async def _run(self, engine: AsyncEngine, work: Work[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                for _ in range(_MOST_TRIES):
                    try:
                        return await self._transact(engine, work)
                    except IntegrityError:
                        raise
                    except DBAPIError as error:
                        if not _is_passing(error):
                            raise
                raise Unavailable(Reason.DIRECTORY_DOWN, "transactions keep colliding")
        except IntegrityError:
            raise
        except TimeoutError:
            raise Unavailable(Reason.DIRECTORY_DOWN, f"no answer within {self._timeout:g} s") from None
        except DOWN as error:
            raise Unavailable(Reason.DIRECTORY_DOWN, reason_of(error)) from None

    async def _transact(self, engine: AsyncEngine, work: Work[T]) -> T:
        """Run *work* once. Whoever stops waiting for it leaves it to undo itself.

        The driver of SQLite must not be interrupted: closing a connection that is at work can leave a task that never
        ends, and with it a process (aiosqlite 0.22: a second `stop` is waited for in vain).
        """
        if self.address.kind != "sqlite":
            async with engine.begin() as connection:
                return await work(connection)
        is_wanted = True

        async def uninterrupted() -> T:
            async with engine.begin() as connection:
                found = await work(connection)
                if not is_wanted:
                    raise _UnwantedError
                return found

        task = asyncio.create_task(uninterrupted())
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            is_wanted = False
            raise

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        # Reading the exception keeps asyncio from reporting it when nobody waits any more.
        if not task.cancelled():
            task.exception()

    async def ping(self) -> str:
        """Reach the database and describe it, such as "postgresql 15.14"."""

        async def look(connection: AsyncConnection) -> str:
            await connection.execute(text("SELECT COUNT(*) FROM sidecar_version"))
            return ".".join(str(part) for part in connection.dialect.server_version_info or ())

        return f"{self.address.kind} {await self.read(look)}"

    async def close(self) -> None:
        """Let go of all connections, once what runs on them has ended."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._timeout)
        await self.engine.dispose()


class _UnwantedError(Exception):
    """Undoes a transaction for which nobody waits any more."""


def _is_passing(error: DBAPIError) -> bool:
    number = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return getattr(error.orig, "sqlstate", None) in _PASSING_STATES or number in _PASSING_NUMBERS


def reason_of(error: BaseException) -> str:
    """What went wrong, for the log: the kind of error and its code, never a statement or its values."""
    if fault := certificate_fault(error):
        return fault
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    code = getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None)
    if code is None and original.args and isinstance(original.args[0], int):
        code = original.args[0]
    return f"{type(original).__name__} {code}" if code else type(original).__name__


def _engine(address: Address, timeout: float) -> AsyncEngine:
    options: dict[str, Any] = {"connect_args": dict(address.options), "hide_parameters": True, "pool_timeout": timeout}
    if address.kind != "sqlite":
        # Pre-ping notices a server that was restarted; READ COMMITTED avoids MySQL's gap locks.
        options |= {"pool_pre_ping": True, "pool_recycle": 1800, "isolation_level": "READ COMMITTED"}
    engine = create_async_engine(address.url, **options)
    if address.tls is not None:
        event.listen(engine.sync_engine, "do_connect", address.tls.give)
    if address.kind == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # Without this the driver begins transactions by itself, and only before the first change.
    connection.isolation_level = None
    cursor = connection.cursor()
    for statement in ("PRAGMA foreign_keys = ON", "PRAGMA synchronous = FULL"):
        cursor.execute(statement)
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    # A transaction that reads first and writes later cannot wait for another writer, so writers say it at once.
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")

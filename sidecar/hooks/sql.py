"""Run the SQL steps of an order, all or nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ResourceClosedError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncResult

from sidecar.config.provision import SqlStep
from sidecar.config.values import Dsn
from sidecar.core.statement import parse_statement
from sidecar.core.unaccepted import certificate_fault
from sidecar.faults import Unavailable
from sidecar.hooks.context import Fields
from sidecar.hooks.databases import WRITES, open_engine, sqlite_words_of, sqlstate_of
from sidecar.hooks.matching import SUCCESSES, StepError, matched, read_saved, settled, storable, success_of
from sidecar.hooks.values import bindable, readable
from sidecar.model import Change, Outcome, Result
from sidecar.reason import Reason

MOST_ROWS = 1000
_UNIQUE_VIOLATION = "23505"
# SQLSTATEs that mean "not here, not now": connection, resources, operator intervention, locks, deadlocks.
_NOT_NOW = ("08", "53", "57", "55P03", "HYT00", "40001", "40P01")


class CommitLost(Exception):  # noqa: N818 - what happened
    """The connection broke while committing: nobody knows whether the changes are there."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What one statement gave: its rows, and how many rows it touched (or returned)."""

    rows: tuple[Fields, ...]
    affected: int

    def context(self) -> dict[str, Any]:
        """Variables for templates; ``row`` is empty unless there is exactly one row."""
        row = self.rows[0] if len(self.rows) == 1 else Fields()
        return {"row": row, "rows": list(self.rows), "affected": self.affected}


class Database:
    """One SQL connection of the configuration."""

    def __init__(self, name: str, dsn: Dsn, timeout: timedelta) -> None:
        """Connects to nothing yet. Raises ValueError when *dsn* is no address of a database."""
        self._name = name
        self._engine = open_engine(dsn, timeout)
        self._seconds = timeout.total_seconds()

    @property
    def dialect(self) -> str:
        """sqlite, postgresql, mysql or mariadb."""
        return self._engine.dialect.name

    @contextlib.asynccontextmanager
    async def transaction(self, *, writes: bool) -> AsyncIterator[Transaction]:
        """Open a transaction; it is rolled back unless ``commit`` is called.

        Raises ``Unavailable(PROVISIONING_DOWN)`` when the database cannot be reached or is lost before the commit:
        then nothing was changed. Raises CommitLost when it is lost while committing.
        """
        connection = self._engine.connect()
        try:
            async with asyncio.timeout(self._seconds):
                await connection.start()
                await connection.execution_options(**{WRITES: writes})
                await connection.begin()
            yield Transaction(connection, self._seconds)
        except TimeoutError:
            await self._abandon(connection)
            raise self._down("no answer in time") from None
        except (SQLAlchemyError, OSError) as error:
            raise self._down(_kind(error)) from None
        except asyncio.CancelledError:
            await self._abandon(connection)
            raise
        finally:
            await self._leave(connection)

    def _down(self, why: str) -> Unavailable:
        return Unavailable(Reason.PROVISIONING_DOWN, f"{self._name}: {why}")

    async def _abandon(self, connection: AsyncConnection) -> None:
        """Drop a connection that is still busy; the server rolls back what was not committed."""
        with contextlib.suppress(SQLAlchemyError, OSError, TimeoutError):
            async with asyncio.timeout(1):
                await connection.invalidate()

    async def _leave(self, connection: AsyncConnection) -> None:
        with contextlib.suppress(SQLAlchemyError, OSError, TimeoutError):
            async with asyncio.timeout(self._seconds):
                await connection.close()

    async def probe(self) -> str:
        """Sign in and ask for nothing. Raises Unavailable."""
        async with self.transaction(writes=False) as transaction:
            await transaction.run("SELECT 1 AS one", {}, is_query=True)
        version = ".".join(str(part) for part in self._engine.dialect.server_version_info or ())
        return f"{self.dialect} {version}".strip()

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


def _kind(error: BaseException) -> str:
    """Describe an error without its message, which may carry values."""
    if isinstance(error, PoolTimeoutError):
        return "all connections are busy"
    if fault := certificate_fault(error):
        return fault
    if isinstance(error, DBAPIError):
        state = sqlstate_of(error)
        return f"SQLSTATE {state}" if state else sqlite_words_of(error) or type(error.orig).__name__
    return type(error).__name__


class Transaction:
    """Statements that take effect together."""

    def __init__(self, connection: AsyncConnection, seconds: float) -> None:
        """Use *connection*, in which a transaction has begun; each statement has *seconds*."""
        self._connection = connection
        self._seconds = seconds

    async def run(self, sql: str, values: Mapping[str, Any], *, is_query: bool) -> Rows:
        """Run one statement; reads no more than ``MOST_ROWS`` rows.

        Raises DBAPIError as the database says it, TimeoutError, and StepError for an answer out of bounds.
        """
        statement = text(sql)
        async with self._in_time():
            if not is_query:
                result = await self._connection.execute(statement, values)
                return Rows((), await self._count(result.rowcount))
            async with self._connection.stream(statement, values) as stream:
                names = list(_columns(stream))
                found = await stream.fetchmany(MOST_ROWS + 1)
        if len(set(names)) != len(names):
            message = "two columns have the same name: rename one with AS"
            raise StepError(message)
        if len(found) > MOST_ROWS:
            message = f"more than {MOST_ROWS} rows"
            raise StepError(message)
        rows = tuple(Fields(zip(names, map(readable, row), strict=True)) for row in found)
        return Rows(rows, len(rows))

    async def _count(self, told: int) -> int:
        """Rows touched, -1 when the database does not count (DO, CALL); SQLite's driver needs asking after WITH."""
        if told >= 0 or self._connection.dialect.name != "sqlite":
            return told
        return int(await self._connection.scalar(text("SELECT changes()")) or 0)

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Bound one statement; raises TimeoutError."""
        if self._connection.dialect.name != "sqlite":
            async with asyncio.timeout(self._seconds):
                yield
            return
        # SQLite works in a thread, which does not notice that nobody waits any more: interrupt it.
        raw = await self._connection.get_raw_connection()
        interruption = asyncio.get_running_loop().call_later(self._seconds, _interrupt, raw.driver_connection)
        try:
            yield
        except DBAPIError as error:
            if getattr(error.orig, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
                raise TimeoutError from None
            raise
        finally:
            interruption.cancel()

    async def commit(self) -> None:
        """Make the changes durable. Raises CommitLost when nobody knows whether they are."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._connection.commit()
        except (TimeoutError, OSError) as error:
            raise CommitLost from error
        except DBAPIError as error:
            # A deferred constraint speaks up here, and then the database has rolled back and says so.
            if sqlstate_of(error).startswith(("23", "40001")):
                raise
            raise CommitLost from error


def _interrupt(driver: Any) -> None:
    # A coroutine that never waits; it only tells SQLite's own thread-safe flag.
    with contextlib.suppress(StopIteration):
        driver.interrupt().send(None)


def _columns(stream: AsyncResult[Any]) -> Iterable[str]:
    try:
        return stream.keys()
    except ResourceClosedError:
        message = "the statement returns no rows: write exec in place of query"
        raise StepError(message) from None


def bound(step: SqlStep, context: Mapping[str, Any], dialect: str) -> dict[str, Any]:
    """Evaluate the values to bind; raises TemplateError."""
    return {name: bindable(name, template.value(context), dialect) for name, template in step.params.items()}


async def run_sql(
    transaction: Transaction,
    step: SqlStep,
    values: Mapping[str, Any],
    context: Mapping[str, Any],
    *,
    change: Change,
    enriches: bool,
) -> Outcome:
    """Run one SQL step inside *transaction* and say what its answer means.

    *enriches* is for the later steps of a lookup that has already found the account: any number of rows is fine.
    Raises TimeoutError and DBAPIError when the database is not there, StepError and TemplateError for answers that
    cannot be used.
    """
    sql = parse_statement(step.query or step.execute or "").text
    try:
        answer = await transaction.run(sql, values, is_query=step.query is not None)
    except DBAPIError as error:
        return _failed(step, error, context)
    seen = {**context, **answer.context()}
    found = matched(step.outcomes, seen)
    default, detail = _default(step, answer, change, enriches=enriches)
    result = settled(step.outcomes, found, default, f"{answer.affected} rows")
    if result not in SUCCESSES:
        return Outcome(result, detail=detail)
    return Outcome(result, _saved(step, answer, seen), detail)


def _failed(step: SqlStep, error: DBAPIError, context: Mapping[str, Any]) -> Outcome:
    state = sqlstate_of(error)
    if error.connection_invalidated:
        raise error
    empty = Rows((), 0).context()
    result = matched(step.outcomes, {**context, **empty}, sqlstate=state)
    if result is None and state.startswith(_NOT_NOW):
        raise error
    return refusal_of(error) if result is None else Outcome(result, detail=_kind(error))


def refusal_of(error: DBAPIError) -> Outcome:
    """What an error means that no configured outcome describes: a violated unique key is a conflict."""
    result = Result.CONFLICT if sqlstate_of(error) == _UNIQUE_VIOLATION else Result.FAILED
    return Outcome(result, detail=_kind(error))


def _default(step: SqlStep, answer: Rows, change: Change, *, enriches: bool) -> tuple[Result, str]:
    """What an answer means that no configured outcome describes."""
    detail = f"{answer.affected} rows"
    if step.affected is not None and answer.affected != step.affected:
        detail = f"{answer.affected} rows in place of {step.affected}"
        if answer.affected == 0:
            # Nothing inserted: somebody is already there. Nothing updated: nobody is there.
            return (Result.CONFLICT if change is Change.CREATE else Result.NOT_FOUND), detail
        return Result.FAILED, detail
    if change is not Change.LOOKUP or enriches:
        return success_of(change), detail
    if not answer.rows:
        return Result.NOT_FOUND, detail
    return (Result.FOUND if len(answer.rows) == 1 else Result.AMBIGUOUS), detail


def _saved(step: SqlStep, answer: Rows, seen: Mapping[str, Any]) -> dict[str, str]:
    if step.save:
        return read_saved(step.save, seen)
    if len(answer.rows) != 1:
        return {}
    return {name: storable(name, _plain(value)) for name, value in answer.rows[0].items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int | float)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)

"""Open the audit log with all its sinks, and let go of lines that are older than they may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from sidecar.config.models import Config
from sidecar.faults import Unavailable
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.opening import open_audit
from sidecar.telemetry.sinks import Sink

if TYPE_CHECKING:
    from sidecar.directory.audit import AuditBook
    from sidecar.directory.database import Database

_log = structlog.get_logger("audit")
_EVERY = 600.0
# What the verifier forgives is this much younger than what is deleted, so that it never sees half of it as a fault.
GRACE = 3600.0


def open_recording(config: Config, clock: Callable[[], float], *, is_command: bool = False) -> AuditLog:
    """The audit log of *config*; standard output of a command is for what it says. Raises OSError and ValueError."""
    section = config.audit.model_copy(update={"stdout": False}) if is_command else config.audit
    sinks: dict[str, Sink] = {}
    if section.database is not None:
        from sidecar.directory.audit_sink import DatabaseSink  # noqa: PLC0415 - databases are for those who have one

        directory = config.directory
        sinks["database"] = DatabaseSink(directory.url.reveal(), directory.timeout.total_seconds())
    return open_audit(section, clock, sinks, is_command=is_command)


class AuditKeeping:
    """Deletes audit lines from the database when they are older than they may be; one replica at a time."""

    def __init__(self, database: Database, retention: float, clock: Callable[[], float]) -> None:
        """Keep lines for *retention* seconds in *database*."""
        self._database = database
        self._retention = retention
        self._clock = clock

    async def work(self) -> None:
        """Look for ever; a database that is down is asked again later."""
        while True:
            try:
                await self.look()
            except Unavailable as fault:
                _log.warning("old audit lines cannot be deleted", error=str(fault))
            await asyncio.sleep(_EVERY)

    async def look(self) -> int:
        """Delete what is due, if it is this replica's turn. Raises Unavailable."""
        book, now = self._book(), self._clock()
        if not await book.take_turn("audit-prune", now, _EVERY * 0.9):
            return 0
        gone = await book.prune(now - self._retention - GRACE)
        if gone:
            _log.info("old audit lines were deleted", lines=gone)
        return gone

    def _book(self) -> AuditBook:
        from sidecar.directory.audit import AuditBook  # noqa: PLC0415 - as above

        return AuditBook(self._database)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._database.close()


def open_keeping(config: Config, clock: Callable[[], float]) -> AuditKeeping | None:
    """What deletes old lines, where lines are in the database and not for ever."""
    section = config.audit.database
    if section is None or section.retention is None:
        return None
    from sidecar.directory.database import Database  # noqa: PLC0415 - as above

    database = Database(config.directory.url.reveal(), config.directory.timeout.total_seconds())
    return AuditKeeping(database, section.retention.total_seconds(), clock)

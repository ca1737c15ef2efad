"""Write audit lines into the directory's database, from a loop that nothing else runs in."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Coroutine
from typing import Any, TypeVar

from sidecar.core.chain import place_of
from sidecar.directory.audit import AuditBook, Entry, entry_of
from sidecar.directory.database import Database
from sidecar.directory.migrate import migrate
from sidecar.faults import Unavailable
from sidecar.telemetry.aside import Aside

T = TypeVar("T")
# Beyond the database's own patience: connecting and the tables' first preparation.
_LONGER = 5.0


class DatabaseSink:
    """A sink of audit lines: what one call writes comes to stand there as a whole, once, or not at all."""

    def __init__(self, url: str, timeout: float) -> None:
        """Write to the database at *url* when first needed; *timeout* in seconds bounds every transaction."""
        self._url = url
        self._timeout = timeout
        self._aside = Aside("audit-database")
        self._database: Database | None = None
        self._book: AuditBook | None = None
        # The chain that lines have here which are in none.
        self._name = f"-{secrets.token_hex(8)}"[:16]
        self._number = 0

    def write(self, lines: bytes) -> int:
        """Write whole *lines* in one transaction; a second attempt writes none of them twice. Raises OSError."""
        entries: list[Entry] = []
        for line in lines.splitlines():
            entries.append(entry_of(line, self._name, self._number + len(entries) + 1))
        self._do(self._add(entries))
        self._number += len(entries)
        return len(lines)

    async def _add(self, entries: list[Entry]) -> None:
        await (await self._opened()).add(entries)

    def place(self) -> str:
        """The line that stands last there (see core.chain.Place). Raises OSError while that cannot be known."""
        found = place_of(self._do(self._last()).encode())
        return "" if found is None else str(found)

    async def _last(self) -> str:
        return await (await self._opened()).last()

    async def _opened(self) -> AuditBook:
        if self._database is None:
            self._database = Database(self._url, self._timeout)
        if self._book is None:
            await migrate(self._database)
            self._book = AuditBook(self._database)
        return self._book

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._aside.do(work, self._timeout + _LONGER)
        except Unavailable as fault:
            raise OSError(errno.EIO, f"the directory: {fault.detail}") from None

    def close(self) -> None:
        """Let go of the connections."""
        if self._database is not None:
            self._do(self._database.close())
        self._aside.end()

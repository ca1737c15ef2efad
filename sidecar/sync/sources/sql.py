"""Read people from a database, page by page in the order of their key."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from sqlalchemy.exc import DBAPIError

from sidecar.config.sync_source import SqlSource
from sidecar.core.statement import parse_statement
from sidecar.core.sync.entry import Row
from sidecar.faults import Unavailable
from sidecar.hooks.databases import sqlstate_of
from sidecar.hooks.matching import StepError
from sidecar.hooks.sql import Database, Rows
from sidecar.sync.sources.source import End, Reading, down

_MOST_PAGES = 100_000


class SqlPeople:
    """A query. A page is never skipped: the next one begins after the greatest key of the one before."""

    def __init__(self, name: str, section: SqlSource) -> None:
        """Read what *section* says; *name* is for messages."""
        self._name = name
        self._section = section
        self._database = Database(name, section.url, section.timeout)
        self._since: Any = None
        self._newest: Any = None
        self._count = 0
        self._why = ""

    async def begin(self, since: str) -> Reading:
        """See Source."""
        if since and self._section.changes is not None:
            self._since = self._newest = json.loads(since)
            return "changes"
        return "full"

    async def batches(self) -> AsyncIterator[Sequence[Row]]:
        """See Source."""
        query = self._section.query if self._since is None else self._section.changes or ""
        after: Any = self._section.first
        for _ in range(_MOST_PAGES):
            values = {"after": after, "limit": self._section.page, "since": self._since}
            page = await self._ask(query, values)
            if not page.rows:
                break
            self._count += len(page.rows)
            last = self._last_key(page)
            if last is None or last == after:
                break
            self._note_newest(page)
            yield page.rows
            if len(page.rows) < self._section.page:
                break
            after = last
        if self._since is None and self._section.count is not None:
            await self._check_count(self._section.count)

    def _last_key(self, page: Rows) -> Any:
        last = page.rows[-1].get(self._section.key)
        if last is None:
            self._why = f"the query gives no column {self._section.key}"
        return last

    def _note_newest(self, page: Rows) -> None:
        if not self._section.changed:
            return
        found = [row.get(self._section.changed) for row in page.rows]
        known = [value for value in [*found, self._newest] if value is not None]
        self._newest = max(known, default=None, key=lambda value: (isinstance(value, str), value))

    async def _check_count(self, query: str) -> None:
        page = await self._ask(query, {})
        told = next(iter(page.rows[0].values()), None) if page.rows else None
        if told != self._count:
            self._why = f"{self._count} were read, and there are {told}"

    async def _ask(self, query: str, values: Mapping[str, Any]) -> Rows:
        statement = parse_statement(query)
        used = {name: value for name, value in values.items() if name in statement.binds}
        try:
            async with self._database.transaction(writes=False) as transaction:
                return await transaction.run(statement.text, used, is_query=True)
        except Unavailable as fault:
            raise down(fault.detail) from None
        except DBAPIError as error:
            raise down(f"{self._name}: SQLSTATE {sqlstate_of(error)}") from None
        except StepError as error:
            raise down(f"{self._name}: {error}; a page has at most {self._section.page}") from None

    def end(self) -> End:
        """See Source."""
        cursor = "" if self._newest is None or self._section.changes is None else json.dumps(self._newest)
        return End(is_complete=not self._why, why=self._why, cursor=cursor)

    async def probe(self) -> str:
        """See Source."""
        try:
            return await self._database.probe()
        except Unavailable as fault:
            raise down(fault.detail) from None

    async def close(self) -> None:
        """See Source."""
        await self._database.close()

"""Keep audit lines in the directory's database: add them once, read them in both directions, let old ones go."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    CursorResult,
    Double,
    Integer,
    String,
    Table,
    Text,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.core.audit import Event
from sidecar.core.chain import place_of
from sidecar.directory.database import Database
from sidecar.directory.tables import metadata

PORTION = 1000
# Chains that nothing has been heard of for so long are over, even though their processes did not say so.
_SILENT = 366 * 86400.0
_ANCHOR = Event.AUDIT_ANCHOR.value

audit = Table(
    "sidecar_audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
    # Which process's chain, and which of its lines. Bare lines have a made-up chain that begins with a dash.
    Column("chain", String(16), nullable=False),
    Column("number", BigInteger, nullable=False),
    # Of an anchor: first, middle or last.
    Column("kind", String(8), nullable=False),
    Column("time", Double, nullable=False),
    Column("event", String(64), nullable=False),
    Column("reference", String(64), nullable=False),
    Column("line", Text, nullable=False),
)

turn = Table(
    "sidecar_turn",
    metadata,
    Column("name", String(190), primary_key=True),
    Column("until", Double, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line in the table, and the columns that it is found by."""

    chain: str
    number: int
    kind: str
    time: float
    event: str
    reference: str
    line: str
    id: int = 0

    @property
    def is_true(self) -> bool:
        """False when the columns say something else than the line."""
        said = entry_of(self.line.encode(errors="surrogatepass"), self.chain, self.number)
        return (said.chain, said.number, said.kind, said.event, said.reference) == (
            self.chain, self.number, self.kind, self.event, self.reference,
        ) and abs(said.time - self.time) < 0.01  # fmt: skip

    @property
    def where(self) -> str:
        """How an operator finds it."""
        return f"line {self.id}"


def entry_of(line: bytes, chain: str, number: int) -> Entry:
    """What is stored of *line*, without its line feed; *chain* and *number* are for one that is in no chain."""
    place = place_of(line)
    try:
        said = json.loads(line)
    except ValueError:
        said = {}
    said = said if isinstance(said, dict) else {}
    event = str(said.get("event", ""))[:64]
    return Entry(
        chain=chain if place is None else place.chain,
        number=number if place is None else place.number,
        kind=str(said.get("kind", ""))[:8] if event == _ANCHOR else "",
        time=_instant(said.get("time")),
        event=event,
        reference=str(said.get("reference", ""))[:64],
        line=line.decode(errors="replace"),
    )


def _instant(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the database can look for by itself; text that stands somewhere in the line may only spare work."""

    events: frozenset[str] = frozenset()
    reference: str = ""
    needles: tuple[str, ...] = ()
    since: float = 0.0
    until: float = float("inf")
    # One of these stands in the line, where there are any.
    some: tuple[str, ...] = ()

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """As SQL; the values are bound."""
        if self.events:
            yield audit.c.event.in_(sorted(self.events))
        if self.reference:
            yield audit.c.reference == self.reference
        if self.since > 0:
            yield audit.c.time >= self.since
        if self.until != float("inf"):
            yield audit.c.time <= self.until
        for needle in self.needles:
            yield audit.c.line.contains(needle, autoescape=True)
        if self.some:
            yield or_(*(audit.c.line.contains(one, autoescape=True) for one in self.some))


class AuditBook:
    """Audit lines in one database. Every method raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, database: Database) -> None:
        """Read and write in *database*, whose tables are ready."""
        self._database = database

    async def add(self, entries: Sequence[Entry]) -> None:
        """Write *entries* in their order; those that an attempt without an answer wrote already are left alone."""
        try:
            await self._database.write(lambda connection: _insert(connection, entries))
        except IntegrityError:
            present = await self._present(entries)
            missing = [one for one in entries if (one.chain, one.number) not in present]
            if missing:
                await self._database.write(lambda connection: _insert(connection, missing))

    async def _present(self, entries: Sequence[Entry]) -> set[tuple[str, int]]:
        async def look(connection: AsyncConnection) -> set[tuple[str, int]]:
            found: set[tuple[str, int]] = set()
            for chain in {one.chain for one in entries}:
                numbers = [one.number for one in entries if one.chain == chain]
                where = and_(audit.c.chain == chain, audit.c.number.between(min(numbers), max(numbers)))
                rows = await connection.execute(select(audit.c.number).where(where))
                found |= {(chain, number) for (number,) in rows}
            return found

        return await self._database.read(look)

    async def last(self) -> str:
        """The line that was written last; "" when there is none."""
        query = select(audit.c.line).order_by(audit.c.id.desc()).limit(1)
        return await self._database.read(lambda connection: _scalar(connection, query)) or ""

    async def newest(self) -> int:
        """The id of the line that was written last, 0 when there is none."""
        query = select(func.max(audit.c.id))
        return int(await self._database.read(lambda connection: _scalar(connection, query)) or 0)

    async def forward(self, after: int, wanted: Wanted | None = None) -> Sequence[Entry]:
        """The next lines behind the id *after*, the oldest first; none when there are no more."""
        return await self._page(audit.c.id > after, audit.c.id.asc(), wanted or Wanted(), PORTION)

    async def backward(self, before: int | None, wanted: Wanted, most: int = PORTION) -> Sequence[Entry]:
        """The lines before the id *before*, the newest first."""
        return await self._page(
            literal(1) == 1 if before is None else audit.c.id < before, audit.c.id.desc(), wanted, most
        )

    async def _page(self, bound: Any, order: Any, wanted: Wanted, most: int) -> Sequence[Entry]:
        query = select(audit).where(bound, *wanted.conditions()).order_by(order).limit(most)

        async def look(connection: AsyncConnection) -> Sequence[Entry]:
            rows = await connection.execute(query)
            return [Entry(**row) for row in rows.mappings()]

        return await self._database.read(look)

    async def take_turn(self, name: str, now: float, seconds: float) -> bool:
        """True for one of all that ask within *seconds*."""
        try:
            return await self._database.write(lambda connection: _turn(connection, name, now, now + seconds))
        except IntegrityError:
            # Another one made the row meanwhile.
            return False

    # Letting go

    async def prune(self, cutoff: float) -> int:
        """Delete what is older than *cutoff*, in small transactions, and give how many lines that were.

        Each chain begins afterwards with an anchor: the last one before its first line that is kept.
        """
        newest = await self._newest_of_the_old(cutoff)
        gone, chain = 0, await self._next_chain("")
        while chain is not None:
            if chain.startswith("-"):
                gone += await self._cut(chain, audit.c.time <= cutoff)
            else:
                gone += await self._prune(chain, cutoff, is_named=chain == newest)
            chain = await self._next_chain(chain)
        return gone

    async def _newest_of_the_old(self, cutoff: float) -> str:
        """The chain whose line stood last then: the next anchor that is kept may name it."""
        query = select(audit.c.chain).where(audit.c.time <= cutoff).order_by(audit.c.time.desc(), audit.c.id.desc())
        return await self._database.read(lambda connection: _scalar(connection, query.limit(1))) or ""

    async def _next_chain(self, after: str) -> str | None:
        query = select(func.min(audit.c.chain)).where(audit.c.chain > after)
        found: str | None = await self._database.read(lambda connection: _scalar(connection, query))
        return found

    async def _prune(self, chain: str, cutoff: float, *, is_named: bool) -> int:
        mine = audit.c.chain == chain
        young = await self._number(func.min, mine, audit.c.time > cutoff)
        anchor = await self._number(
            func.max, mine, audit.c.kind != "", audit.c.time <= cutoff, *([audit.c.number < young] if young else [])
        )
        gone = await self._cut(chain, audit.c.number < anchor) if anchor else 0
        if young or is_named:
            return gone
        # Nobody writes here any more. From the end on: what is left when this is cut short is a whole beginning.
        kind, time = await self._at(chain, anchor)
        last = await self._number(func.max, mine)
        is_over = kind == "last" and anchor == last
        if not anchor or is_over or time < cutoff - _SILENT:
            return gone + await self._cut(chain, mine, backward=True)
        return gone + await self._cut(chain, audit.c.number > anchor, backward=True)

    async def _number(self, which: Any, *conditions: Any) -> int:
        query = select(which(audit.c.number)).where(*conditions)
        return int(await self._database.read(lambda connection: _scalar(connection, query)) or 0)

    async def _at(self, chain: str, number: int) -> tuple[str, float]:
        query = select(audit.c.kind, audit.c.time).where(audit.c.chain == chain, audit.c.number == number)

        async def look(connection: AsyncConnection) -> tuple[str, float]:
            row = (await connection.execute(query)).first()
            return ("", 0.0) if row is None else (row[0], row[1])

        return await self._database.read(look)

    async def _cut(self, chain: str, condition: ColumnElement[bool], *, backward: bool = False) -> int:
        """Delete the lines of *chain* that fit, a portion at a time, from its beginning or its end."""
        where = and_(audit.c.chain == chain, condition)
        order = audit.c.number.desc() if backward else audit.c.number.asc()
        gone = 0
        while True:
            numbers = select(audit.c.number).where(where).order_by(order).limit(PORTION)

            async def cut(connection: AsyncConnection, numbers: Any = numbers) -> int:
                found = [number for (number,) in await connection.execute(numbers)]
                if not found:
                    return 0
                some = audit.c.number.between(min(found), max(found))
                await connection.execute(delete(audit).where(where, some))
                return len(found)

            count = await self._database.write(cut)
            gone += count
            if count < PORTION:
                return gone


async def _insert(connection: AsyncConnection, entries: Sequence[Entry]) -> None:
    names = [column.name for column in audit.c if column.name != "id"]
    await connection.execute(insert(audit), [{name: getattr(one, name) for name in names} for one in entries])


async def _scalar(connection: AsyncConnection, query: Any) -> Any:
    return await connection.scalar(query)


async def _turn(connection: AsyncConnection, name: str, now: float, until: float) -> bool:
    there = exists(select(turn.c.name).where(turn.c.name == name))
    if not await connection.scalar(select(there)):
        await connection.execute(insert(turn), [{"name": name, "until": until}])
        return True
    changed = await connection.execute(update(turn).where(turn.c.name == name, turn.c.until <= now).values(until=until))
    return cast("CursorResult[Any]", changed).rowcount == 1

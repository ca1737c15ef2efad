"""Keep the runs of synchronisations and the items of their plans."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory.database import Database, Work
from sidecar.directory.sync_tables import sync_item, sync_run
from sidecar.directory.tables import digest

_BATCH = 500
# States of a run that is over: its items are only there to be looked at.
ENDED = frozenset(["done", "failed", "stale", "rejected", "incomplete"])


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run: what was read and planned, by whose wish, and how far it has come; ``head`` are plain data."""

    id: str
    source: str
    hash: str
    state: str
    created: float
    updated: float
    asked_by: str
    approved_by: str
    head: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """One stored item of a plan."""

    number: int
    kind: str
    external_hash: str
    person_id: str
    document: str
    state: str = "due"
    tries: int = 0
    error: str = ""


class SyncRuns:
    """Runs and their items. Every coroutine raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, database: Database) -> None:
        """Keep them in *database*."""
        self._database = database

    async def begin(self, run: RunRecord) -> None:
        """Note a run."""
        row = {name: getattr(run, name) for name in RunRecord.__slots__} | {"head": json.dumps(run.head)}
        await self._database.write(lambda connection: connection.execute(insert(sync_run).values(**row)))

    async def add_items(self, run_id: str, items: Sequence[PlannedItem]) -> None:
        """Store items of a plan."""
        rows = [{"run_id": run_id, **{name: getattr(one, name) for name in PlannedItem.__slots__}} for one in items]
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            await self._database.write(lambda connection, some=some: connection.execute(insert(sync_item), some))  # type: ignore[misc]

    async def drop_items(self, run_id: str, hashes: Iterable[str]) -> list[PlannedItem]:
        """Take the items of these people out of a plan, and give them."""
        wanted = list(hashes)

        async def work(connection: AsyncConnection) -> list[PlannedItem]:
            found: list[PlannedItem] = []
            for some in batches(wanted):
                these = and_(sync_item.c.run_id == run_id, sync_item.c.external_hash.in_(some))
                found += [_item(row) for row in (await connection.execute(select(sync_item).where(these))).mappings()]
                await connection.execute(delete(sync_item).where(these))
            return found

        return await self._database.write(work)

    async def change(self, run_id: str, states: Iterable[str], **values: Any) -> bool:
        """Change a run that is in one of *states*; False when it is in none of them (any more)."""
        if "head" in values:
            values["head"] = json.dumps(values["head"])
        mine = and_(sync_run.c.id == run_id, sync_run.c.state.in_(list(states)))

        async def work(connection: AsyncConnection) -> bool:
            return bool((await connection.execute(update(sync_run).where(mine).values(**values))).rowcount == 1)

        return await self._database.write(work)

    async def runs(self, source: str | None = None, limit: int = 20) -> list[RunRecord]:
        """The newest runs first, of all sources unless one is named."""
        chosen = select(sync_run).order_by(sync_run.c.created.desc(), sync_run.c.id).limit(limit)
        if source is not None:
            chosen = chosen.where(sync_run.c.source == source)

        async def work(connection: AsyncConnection) -> list[RunRecord]:
            return [_run(row) for row in (await connection.execute(chosen)).mappings()]

        return await self._database.read(work)

    async def find(self, name: str, source: str | None = None) -> list[RunRecord]:
        """Runs whose plan's hash, or id, begins with *name*; the newest first."""
        begins = sync_run.c.hash.startswith(name, autoescape=True) | sync_run.c.id.startswith(name, autoescape=True)
        chosen = select(sync_run).where(begins).order_by(sync_run.c.created.desc()).limit(20)
        if source is not None:
            chosen = chosen.where(sync_run.c.source == source)

        async def work(connection: AsyncConnection) -> list[RunRecord]:
            return [_run(row) for row in (await connection.execute(chosen)).mappings()]

        return await self._database.read(work)

    async def items(  # noqa: PLR0917 - what narrows it down
        self,
        run_id: str,
        after: int = -1,
        limit: int = _BATCH,
        state: str = "",
        kinds: Sequence[str] = (),
        external: str = "",
    ) -> list[PlannedItem]:
        """Items of a plan in their order, after the number *after*; of one *state*, of *kinds*, about one person."""
        chosen = select(sync_item).where(sync_item.c.run_id == run_id, sync_item.c.number > after)
        chosen = chosen.order_by(sync_item.c.number).limit(limit)
        if state:
            chosen = chosen.where(sync_item.c.state == state)
        if kinds:
            chosen = chosen.where(sync_item.c.kind.in_(kinds))
        if external:
            chosen = chosen.where(sync_item.c.external_hash == digest(external))

        async def work(connection: AsyncConnection) -> list[PlannedItem]:
            return [_item(row) for row in (await connection.execute(chosen)).mappings()]

        return await self._database.read(work)

    async def item_counts(self, run_id: str) -> dict[str, dict[str, int]]:
        """By state and kind how many items there are."""
        chosen = select(sync_item.c.state, sync_item.c.kind, func.count()).where(sync_item.c.run_id == run_id)
        chosen = chosen.group_by(sync_item.c.state, sync_item.c.kind)

        async def work(connection: AsyncConnection) -> dict[str, dict[str, int]]:
            found: dict[str, dict[str, int]] = {}
            for row in await connection.execute(chosen):
                found.setdefault(row[0], {})[row[1]] = int(row[2])
            return found

        return await self._database.read(work)

    async def prune(self, source: str, keep: int) -> None:
        """Forget all but the newest *keep* runs of *source* that are over, some items at a time."""
        ended = [run for run in await self.runs(source, 1000) if run.state in ENDED][keep:]
        for run in ended:
            while True:
                numbers = [item.number for item in await self.items(run.id)]
                if not numbers:
                    break
                gone = delete(sync_item).where(sync_item.c.run_id == run.id, sync_item.c.number.in_(numbers))
                await self._database.write(lambda connection, gone=gone: connection.execute(gone))  # type: ignore[misc]
            away = delete(sync_run).where(sync_run.c.id == run.id)
            await self._database.write(lambda connection, away=away: connection.execute(away))  # type: ignore[misc]

    async def transact(self, work: Work[Any]) -> Any:
        """Run *work* in one transaction; IntegrityError comes through."""
        return await self._database.write(work)


def batches(values: list[str]) -> Iterable[list[str]]:
    """*values*, as many at a time as one statement takes."""
    return (values[start : start + _BATCH] for start in range(0, len(values), _BATCH))


def _run(row: Mapping[Any, Any]) -> RunRecord:
    values = {name: row[name] for name in RunRecord.__slots__ if name != "head"}
    return RunRecord(**values, head=json.loads(row["head"]))


def _item(row: Mapping[Any, Any]) -> PlannedItem:
    return PlannedItem(**{name: row[name] for name in PlannedItem.__slots__})

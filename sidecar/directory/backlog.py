"""Show people what is owed to the application, and let them try it again or let it go."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory.database import Database
from sidecar.directory.tables import outbox, person
from sidecar.model import Duty

_OPEN = ("due", "dead")


@dataclass(frozen=True, slots=True)
class Debt:
    """Something owed. ``state`` is waiting, dead (put aside) or done; times are epoch seconds, 0.0 for unknown."""

    id: str
    person_id: str
    username: str
    duty: Duty
    state: str
    tries: int
    due: float
    created: float
    error: str
    is_under_way: bool = False


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much is owed: how many wait, how many are put aside, since when the oldest waits (epoch seconds, or 0.0)."""

    waiting: int = 0
    dead: int = 0
    oldest: float = 0.0


class Debts:
    """What is owed to one application. Every coroutine raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, database: Database, application: str) -> None:
        """Look at the items of *application* only."""
        self._database = database
        self._application = application

    def _mine(self, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        return and_(outbox.c.application == self._application, *conditions)

    async def backlog(self) -> Backlog:
        """Count it."""
        counted = select(outbox.c.state, func.count(), func.min(func.coalesce(outbox.c.created, outbox.c.due)))
        counted = counted.where(self._mine(outbox.c.state.in_(_OPEN))).group_by(outbox.c.state)

        async def work(connection: AsyncConnection) -> Backlog:
            found = {row[0]: (int(row[1]), float(row[2])) for row in await connection.execute(counted)}
            waiting, oldest = found.get("due", (0, 0.0))
            return Backlog(waiting, found.get("dead", (0, 0.0))[0], oldest)

        return await self._database.read(work)

    async def page(
        self, now: float, *, states: Collection[str] = _OPEN, person_id: str = "", limit: int = 100, offset: int = 0
    ) -> tuple[Debt, ...]:
        """Those in one of *states* (due, dead, done), the longest owed first."""
        chosen = self._chosen().where(outbox.c.state.in_(list(states)))
        if person_id:
            chosen = chosen.where(outbox.c.person_id == person_id)
        chosen = chosen.order_by(outbox.c.due, outbox.c.id).limit(limit).offset(offset)
        return await self._read(chosen, now)

    async def one(self, item_id: str, now: float) -> Debt | None:
        """The one with this id."""
        found = await self._read(self._chosen().where(outbox.c.id == item_id), now)
        return found[0] if found else None

    def _chosen(self) -> Select[Any]:
        joined = outbox.join(person, person.c.id == outbox.c.person_id)
        return select(outbox, person.c.username).select_from(joined).where(self._mine())

    async def _read(self, chosen: Select[Any], now: float) -> tuple[Debt, ...]:
        async def work(connection: AsyncConnection) -> tuple[Debt, ...]:
            return tuple(_debt(row, now) for row in (await connection.execute(chosen)).mappings())

        return await self._database.read(work)

    async def retry(self, item_ids: Collection[str], now: float) -> int:
        """Try these again, as if they had never failed; how many that were."""
        values = {"state": "due", "due": now, "tries": 0, "lease": "", "lease_until": 0.0}
        is_free = or_(outbox.c.state == "dead", outbox.c.lease_until <= now)
        return await self._change(item_ids, values, is_free)

    async def drop(self, item_ids: Collection[str], by: str) -> int:
        """Owe these no longer, whatever becomes of the accounts; how many that were."""
        # Whoever works on one just now has lost the lease, and cannot bring it back.
        return await self._change(item_ids, {"state": "done", "lease": "", "last_error": f"dropped by {by}"[:500]})

    async def _change(self, item_ids: Collection[str], values: dict[str, Any], *conditions: ColumnElement[bool]) -> int:
        change = update(outbox).where(
            self._mine(outbox.c.id.in_(list(item_ids)), outbox.c.state.in_(_OPEN), *conditions)
        )

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(change.values(**values))).rowcount

        return await self._database.write(work)

    async def forget(self, before: float) -> int:
        """Forget what was due *before* (epoch seconds) and is done; how many that were."""
        gone = delete(outbox).where(self._mine(outbox.c.state == "done", outbox.c.due < before))

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(gone)).rowcount

        return await self._database.write(work)


def _debt(row: Any, now: float) -> Debt:
    return Debt(
        id=row["id"],
        person_id=row["person_id"],
        username=row["username"],
        duty=Duty(row["change"]),
        state="waiting" if row["state"] == "due" else row["state"],
        tries=row["tries"],
        due=row["due"],
        created=row["created"] or 0.0,
        error=row["last_error"],
        is_under_way=row["state"] == "due" and row["lease_until"] > now,
    )

"""Keep the changes that are still owed to the application until somebody has made them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import and_, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory.database import Database
from sidecar.directory.tables import digest, outbox
from sidecar.model import Duty

_LONGEST_ERROR = 500
_MOST_AT_ONCE = 20
# Databases bound the number of values in one statement.
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Owed:
    """A change to owe from *due* (epoch seconds) on; a second one with the same *once* is not added."""

    person_id: str
    duty: Duty
    due: float
    once: str
    payload: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """One change owed. ``tries`` counts the failures so far; ``lease`` proves that the item is ours for now."""

    id: str
    person_id: str
    duty: Duty
    payload: Mapping[str, str]
    tries: int
    idempotency: str
    lease: str


class Outbox:
    """The changes owed to one application. Every method raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, database: Database, application: str) -> None:
        """Look after the items of *application* only."""
        self._database = database
        self._application = application

    async def enqueue(self, owed: Owed) -> None:
        """Owe a change."""
        await self._database.write(lambda connection: add(connection, self._application, owed))

    async def due(self, now: float, lease: float) -> tuple[OutboxItem, ...]:
        """Take what is due at *now*; nobody else gets it for *lease* seconds."""

        async def work(connection: AsyncConnection) -> tuple[OutboxItem, ...]:
            waiting = (
                select(outbox)
                .where(outbox.c.application == self._application, outbox.c.state == "due")
                .where(outbox.c.due <= now, outbox.c.lease_until <= now)
                .order_by(outbox.c.due)
                .limit(_MOST_AT_ONCE)
            )
            rows = (await connection.execute(waiting)).mappings().all()
            return tuple([item for row in rows if (item := await self._lease(connection, dict(row), now, lease))])

        return await self._database.write(work)

    async def _lease(
        self, connection: AsyncConnection, row: Mapping[str, object], now: float, lease: float
    ) -> OutboxItem | None:
        token = uuid.uuid4().hex
        # The condition is asked again, so of several replicas that read the same row one wins.
        claim = (
            update(outbox)
            .where(outbox.c.id == row["id"], outbox.c.state == "due", outbox.c.lease_until <= now)
            .values(lease=token, lease_until=now + lease)
        )
        if (await connection.execute(claim)).rowcount != 1:
            return None
        return OutboxItem(
            id=str(row["id"]),
            person_id=str(row["person_id"]),
            duty=Duty(row["change"]),
            payload=json.loads(str(row["payload"])),
            tries=int(str(row["tries"])),
            idempotency=str(row["idempotency"]),
            lease=token,
        )

    async def done(self, item: OutboxItem) -> None:
        """The change was made."""
        await self._finish(item, state="done", last_error="")

    async def dead(self, item: OutboxItem, error: str) -> None:
        """The change can never be made; it stays for people to look at."""
        await self._finish(item, state="dead", tries=item.tries + 1, last_error=error[:_LONGEST_ERROR])

    async def retry(self, item: OutboxItem, later: float, error: str) -> None:
        """Try again at *later* (epoch seconds)."""
        await self._finish(
            item, state="due", due=later, tries=item.tries + 1, lease_until=0.0, last_error=error[:_LONGEST_ERROR]
        )

    async def _finish(self, item: OutboxItem, **values: object) -> None:
        async def work(connection: AsyncConnection) -> None:
            # One that was withdrawn meanwhile must not come back.
            mine = and_(outbox.c.id == item.id, outbox.c.lease == item.lease, outbox.c.state == "due")
            await connection.execute(update(outbox).where(mine).values(**values, lease=""))

        await self._database.write(work)


async def add(connection: AsyncConnection, application: str, owed: Owed) -> None:
    """Owe a change inside the transaction of *connection*, so that it is owed exactly when its cause happened."""
    known = select(outbox.c.id).where(outbox.c.application == application, outbox.c.idempotency == digest(owed.once))
    if (await connection.execute(known)).first() is None:
        await connection.execute(insert(outbox).values(**_row(application, owed)))


async def owe_settling(connection: AsyncConnection, application: str, person_ids: Collection[str], now: float) -> None:
    """Owe these people's accounts a look, inside the transaction of *connection*.

    One that waits already is enough, since whoever works it off reads how things are then; one that is being worked
    off may have read before.
    """
    everybody = sorted(set(person_ids))
    for start in range(0, len(everybody), _BATCH):
        some = everybody[start : start + _BATCH]
        # No index but that of people, on purpose: every person here would be compared with everything that waits.
        mine = (func.coalesce(outbox.c.application, "") == application) & (outbox.c.change == Duty.SETTLE.value)
        # By the lease itself, not by when it ends: by the clock of another replica it may have ended already.
        is_free = (func.coalesce(outbox.c.state, "") == "due") & (outbox.c.lease == "")
        waiting = select(outbox.c.person_id).where(outbox.c.person_id.in_(some), mine, is_free)
        known = set((await connection.execute(waiting)).scalars())
        if known:
            # One that waits for its next try after a failure need not wait: things are different now.
            sooner = outbox.c.person_id.in_(known) & (outbox.c.due > now)
            await connection.execute(update(outbox).where(sooner, mine, is_free).values(due=now))
        rows = [
            _row(application, Owed(one, Duty.SETTLE, now, f"settle:{one}:{uuid.uuid4().hex}"))
            for one in some
            if one not in known
        ]
        if rows:
            await connection.execute(insert(outbox), rows)


def _row(application: str, owed: Owed) -> dict[str, object]:
    return {
        "id": uuid.uuid4().hex,
        "application": application,
        "person_id": owed.person_id,
        "change": owed.duty.value,
        "payload": json.dumps(dict(owed.payload)),
        "due": owed.due,
        "tries": 0,
        "state": "due",
        "last_error": "",
        "lease_until": 0.0,
        "lease": "",
        "idempotency": digest(owed.once),
        "created": owed.due,
    }


async def withdraw(connection: AsyncConnection, person_id: str, duty: Duty) -> None:
    """Stop owing *duty* to any application for this person."""
    owed = (outbox.c.person_id == person_id) & (outbox.c.change == duty.value) & (outbox.c.state == "due")
    await connection.execute(update(outbox).where(owed).values(state="done", last_error="withdrawn"))

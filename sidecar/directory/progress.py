"""Tell how far the accounts of people have come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory.database import Database
from sidecar.directory.tables import account, outbox


@dataclass(frozen=True, slots=True)
class Progress:
    """``state`` is none, pending, retrying, failed, provisioned or deactivated; ``error`` a reason's code or ""."""

    state: str = "none"
    error: str = ""
    at: float = 0.0


class ProgressReader:
    """Reads the accounts and what is owed to them. Raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, database: Database, application: str) -> None:
        """Look at *application*, as named in the outbox."""
        self._database = database
        self._application = application

    async def of_people(self, person_ids: Iterable[str]) -> Mapping[str, Progress]:
        """How far each of these people (at most a page of them) has come; those without any are left out."""
        wanted = list(person_ids)
        accounts = select(account.c.person_id, account.c.state, account.c.deactivated, account.c.updated)
        accounts = accounts.where(account.c.application == self._application, account.c.person_id.in_(wanted))
        owed = select(outbox.c.person_id, outbox.c.state, outbox.c.tries, outbox.c.last_error, outbox.c.due)
        owed = owed.where(outbox.c.person_id.in_(wanted), outbox.c.application == self._application)
        owed = owed.where(outbox.c.state.in_(["due", "dead"])).order_by(outbox.c.due)

        async def work(connection: AsyncConnection) -> dict[str, Progress]:
            found: dict[str, Progress] = {}
            for row in await connection.execute(accounts):
                settled = "pending" if row.state == "reserved" else "deactivated" if row.deactivated else "provisioned"
                found[row.person_id] = Progress(settled, "", row.updated)
            for item in await connection.execute(owed):
                before = found.get(item.person_id, Progress())
                # What failed for good is over once the account was touched again.
                if item.state == "dead" and before.at > item.due:
                    continue
                state = "failed" if item.state == "dead" else "retrying" if item.tries else "pending"
                found[item.person_id] = Progress(state, item.last_error.partition(":")[0], item.due)
            return found

        return await self._database.read(work)

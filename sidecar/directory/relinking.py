"""Give an account to another person, or to nobody."""

from __future__ import annotations

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory.database import Database
from sidecar.directory.outbox import owe_settling
from sidecar.directory.switching import load_present
from sidecar.directory.tables import account, person
from sidecar.faults import Refused
from sidecar.model import Account, Person
from sidecar.reason import Reason


class Relinker:
    """Moves bindings in one application. Every coroutine raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, database: Database, application: str) -> None:
        """Move bindings of *application*, as named in the outbox."""
        self._database = database
        self._application = application

    async def move(self, giver: str, taker: str, now: float) -> Account:
        """Make the account of *giver* that of *taker*, whose account is settled later.

        Raises Refused: NOT_FOUND (also when the giver has none), CONFLICT when the taker has one or may not have any.
        """

        async def work(connection: AsyncConnection) -> Account:
            people = {}
            # In one order, so that two who exchange accounts do not wait for each other.
            for one in sorted({giver, taker}):
                people[one] = await load_present(connection, self._application, one, lock=True)
            moved, to = _bound(people[giver]), people[taker]
            if to.account is not None or to.reserved:
                raise Refused(Reason.CONFLICT, 409, "that person has an account: unlink it first")
            if not to.active or to.tombstone is not None:
                raise Refused(Reason.CONFLICT, 409, "that person is switched off")
            mine = (account.c.application == self._application) & (account.c.person_id == giver)
            values = {"person_id": taker, "fingerprint": "", "linked": True, "updated": now}
            await connection.execute(update(account).where(mine).values(**values))
            await _step(connection, [giver, taker], now)
            await owe_settling(connection, self._application, [taker], now)
            return moved

        return await self._database.write(work)

    async def unlink(self, giver: str, now: float) -> Account:
        """Make the account nobody's; it stays in the application as it is. Raises Refused(NOT_FOUND)."""

        async def work(connection: AsyncConnection) -> Account:
            freed = _bound(await load_present(connection, self._application, giver, lock=True))
            mine = (account.c.application == self._application) & (account.c.person_id == giver)
            await connection.execute(delete(account).where(mine))
            await _step(connection, [giver], now)
            return freed

        return await self._database.write(work)

    async def owe_settling(self, person_id: str, now: float) -> None:
        """Owe somebody's account a look. Raises Refused: NOT_FOUND, PERSON_DISABLED."""

        async def work(connection: AsyncConnection) -> None:
            known = await load_present(connection, self._application, person_id, lock=True)
            if not known.active:
                raise Refused(Reason.PERSON_DISABLED, 409, f"switched off by {known.disabled_by}")
            # The mark of the last success would say that there is nothing to do.
            mine = (account.c.application == self._application) & (account.c.person_id == person_id)
            await connection.execute(update(account).where(mine).values(fingerprint=""))
            await owe_settling(connection, self._application, [person_id], now)

        await self._database.write(work)

    async def present(self, person_id: str) -> Person:
        """The person, who must be there. Raises Refused(NOT_FOUND)."""
        return await self._database.read(lambda connection: load_present(connection, self._application, person_id))


def _bound(known: Person) -> Account:
    if known.account is None:
        what = "one is being made for them" if known.reserved else "they have none"
        raise Refused(Reason.NOT_FOUND, 404, f"there is no account to take: {what}")
    return known.account


async def _step(connection: AsyncConnection, person_ids: list[str], now: float) -> None:
    step = {"version": person.c.version + 1, "updated": now}
    await connection.execute(update(person).where(person.c.id.in_(person_ids)).values(**step))

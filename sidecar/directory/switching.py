"""Switch people off and on inside a transaction, with everything that follows from it for the accounts.

Each source has a say of its own: a person is on when nobody has them switched off, and nobody lifts what another said.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory import records
from sidecar.directory.outbox import Owed, add, owe_settling, withdraw
from sidecar.directory.tables import account, block, person, scim_user
from sidecar.faults import Refused
from sidecar.model import Duty, Person
from sidecar.reason import Reason

OPERATORS = frozenset(["manual", "console"])


async def load_present(connection: AsyncConnection, application: str, person_id: str, *, lock: bool = False) -> Person:
    """Read a person who must be there, and *lock* their row. Raises Refused(NOT_FOUND)."""
    if lock:
        await connection.execute(select(person.c.id).where(person.c.id == person_id).with_for_update())
    known = await records.load(connection, application, person.c.id == person_id)
    if known is None:
        raise Refused(Reason.NOT_FOUND, 404, "there is no such person")
    return known


async def blockers(connection: AsyncConnection, known: Person) -> tuple[str, ...]:
    """Who has somebody switched off: first the one who did it first, of those who still do."""
    if known.active:
        return ()
    chosen = select(block.c.source).where(block.c.person_id == known.id).order_by(block.c.since, block.c.source)
    return in_order(known.disabled_by, (await connection.execute(chosen)).scalars())


def in_order(first: str, rows: Iterable[str]) -> tuple[str, ...]:
    """Who holds somebody, the *first* one first: a replica that is older than the table knows no other."""
    return tuple(dict.fromkeys((first, *rows)))


async def blockers_of_people(connection: AsyncConnection, people: Collection[str]) -> dict[str, list[str]]:
    """The rows of these people, who need not be off."""
    chosen = select(block.c.person_id, block.c.source).where(block.c.person_id.in_(list(people)))
    found: dict[str, list[str]] = {}
    for person_id, source in await connection.execute(chosen.order_by(block.c.since, block.c.source)):
        found.setdefault(person_id, []).append(source)
    return found


async def switch_off(
    connection: AsyncConnection, application: str, person_id: str, by: tuple[str, float], *, forever: bool = False
) -> Person:
    """Switch a person off, *by* whom and when; see ``Directory.disable``."""
    source, now = by
    known = await load_present(connection, application, person_id, lock=True)
    held = await blockers(connection, known)
    values: dict[str, object] = {"version": known.version + 1, "updated": now}
    if known.active:
        values |= {"active": False, "disabled_by": source}
        await connection.execute(delete(block).where(block.c.person_id == person_id))
    if source not in held:
        await connection.execute(insert(block).values(person_id=person_id, source=source, since=now))
    if forever and known.tombstone is None:
        values["tombstone"] = now
    await connection.execute(update(person).where(person.c.id == person_id).values(**values))
    if known.active:
        await _owe_deactivation(connection, application, known, now)
    return await load_present(connection, application, person_id)


async def _owe_deactivation(connection: AsyncConnection, application: str, known: Person, now: float) -> None:
    rows = await connection.execute(select(account.c.application).where(account.c.person_id == known.id))
    for name in {application, *rows.scalars()}:
        once = f"deactivate:{known.id}:{known.version}"
        await add(connection, name, Owed(known.id, Duty.DEACTIVATE, now, once))


async def lifted_by(connection: AsyncConnection, known: Person, by: str) -> frozenset[str]:
    """Whose word *by* lifts, of those who have somebody switched off: their own.

    An operator's hand is also for what a SCIM client left that has deleted its record, for nobody else could.
    """
    held = await blockers(connection, known)
    left = {one for one in held if by in OPERATORS and one.startswith("scim:")}
    if left:
        theirs = select(scim_user.c.source).where(scim_user.c.person_id == known.id)
        left -= set((await connection.execute(theirs)).scalars())
    return frozenset(left | ({by} & set(held)))


async def switch_on(connection: AsyncConnection, application: str, person_id: str, by: str, now: float) -> Person:
    """Switch a person on again on behalf of *by*; see ``Directory.enable``."""
    known = await load_present(connection, application, person_id, lock=True)
    if not known.active and not await lifted_by(connection, known, by):
        raise refusal(await blockers(connection, known))
    return await lift(connection, application, person_id, by, now)


async def lift(connection: AsyncConnection, application: str, person_id: str, by: str, now: float) -> Person:
    """As ``switch_on``, where it need not have been *by* who switched them off: then nothing happens."""
    known = await load_present(connection, application, person_id, lock=True)
    held = await blockers(connection, known)
    if not known.active and known.tombstone is not None:
        raise refusal(held)
    lifted = await lifted_by(connection, known, by)
    if not lifted:
        return known
    await connection.execute(delete(block).where(block.c.person_id == person_id, block.c.source.in_(lifted)))
    others = [one for one in held if one not in lifted]
    values: dict[str, object] = {"disabled_by": others[0]} if others else {"active": True, "disabled_by": ""}
    step = {"version": known.version + 1, "updated": now}
    await connection.execute(update(person).where(person.c.id == person_id).values(**values, **step))
    if not others:
        await withdraw(connection, person_id, Duty.DEACTIVATE)
        if known.account is not None or known.reserved:
            await owe_settling(connection, application, [person_id], now)
    return await load_present(connection, application, person_id)


def refusal(held: Collection[str]) -> Refused:
    """Somebody is off, and it was others who wanted that."""
    return Refused(Reason.PERSON_DISABLED, 409, f"switched off by {', '.join(held)}")

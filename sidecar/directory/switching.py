"""Switch people off and on inside a transaction, with everything that follows from it for the accounts."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory import records
from sidecar.directory.outbox import Owed, add, owe_settling, withdraw
from sidecar.directory.tables import account, person
from sidecar.model import Duty, Person, Refused
from sidecar.reason import Reason


async def load_present(connection: AsyncConnection, application: str, person_id: str, *, lock: bool = False) -> Person:
    """Read a person who must be there, and *lock* their row. Raises Refused(NOT_FOUND)."""
    if lock:
        await connection.execute(select(person.c.id).where(person.c.id == person_id).with_for_update())
    known = await records.load(connection, application, person.c.id == person_id)
    if known is None:
        raise Refused(Reason.NOT_FOUND, 404, "there is no such person")
    return known


async def switch_off(
    connection: AsyncConnection, application: str, person_id: str, by: tuple[str, float], *, forever: bool = False
) -> Person:
    """Switch a person off, *by* whom and when; see ``Directory.disable``."""
    source, now = by
    known = await load_present(connection, application, person_id, lock=True)
    values: dict[str, object] = {"version": known.version + 1, "updated": now}
    if known.active:
        values |= {"active": False, "disabled_by": source}
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


async def switch_on(connection: AsyncConnection, application: str, person_id: str, by: str, now: float) -> Person:
    """Switch a person on again on behalf of *by*; see ``Directory.enable``."""
    known = await load_present(connection, application, person_id, lock=True)
    if known.active:
        return known
    if known.tombstone is not None or known.disabled_by != by:
        raise Refused(Reason.PERSON_DISABLED, 409, f"switched off by {known.disabled_by}")
    values = {"active": True, "disabled_by": "", "version": known.version + 1, "updated": now}
    await connection.execute(update(person).where(person.c.id == person_id).values(**values))
    await withdraw(connection, person_id, Duty.DEACTIVATE)
    if known.account is not None or known.reserved:
        await owe_settling(connection, application, [person_id], now)
    return await load_present(connection, application, person_id)

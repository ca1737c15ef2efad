"""Carry out one item of a synchronisation's plan, in one transaction with all that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.core.sync.plan import Item, Kind
from sidecar.directory.outbox import Owed, add
from sidecar.directory.profiles import tell, unsay
from sidecar.directory.switching import lift, load_present, switch_off
from sidecar.directory.sync import holds
from sidecar.directory.sync_tables import sync_item, sync_track
from sidecar.directory.tables import digest
from sidecar.faults import Refused
from sidecar.model import Duty, Identity
from sidecar.reason import Reason

_LONGEST_ERROR = 500


class LeaseLost(Exception):  # noqa: N818 - what happened
    """Somebody else works on the source by now: nothing more may be done here."""


@dataclass(frozen=True, slots=True)
class Desk:
    """In whose name items are carried out: which source and application, under which lease, and when."""

    source: str
    application: str
    token: str
    until: float
    now: float


async def carry_out(
    connection: AsyncConnection, desk: Desk, run_id: str, items: Sequence[tuple[int, Item]]
) -> list[str]:
    """Do *items* (number, item) and note that they are done; ids of the people, in their order.

    Raises LeaseLost, and Refused for an item that cannot be done.
    """
    if not await holds(connection, desk.source, desk.token, desk.until):
        raise LeaseLost
    people = [await _do(connection, desk, item) for _, item in items]
    numbers = [number for number, _ in items]
    mine = and_(sync_item.c.run_id == run_id, sync_item.c.number.in_(numbers), sync_item.c.state == "due")
    await connection.execute(update(sync_item).where(mine).values(state="done", error=""))
    return people


async def give_back(connection: AsyncConnection, desk: Desk, run_id: str, number: int, why: tuple[str, str]) -> None:
    """Note that an item failed: *why* is the state that it has now (due or dead) and the error."""
    if not await holds(connection, desk.source, desk.token, desk.until):
        raise LeaseLost
    mine = and_(sync_item.c.run_id == run_id, sync_item.c.number == number)
    values = {"state": why[0], "error": why[1][:_LONGEST_ERROR], "tries": sync_item.c.tries + 1}
    await connection.execute(update(sync_item).where(mine).values(**values))


async def _do(connection: AsyncConnection, desk: Desk, item: Item) -> str:
    if item.after is not None:
        return await _say(connection, desk, item, item.after)
    match item.kind:
        case Kind.WAIT:
            await _track(connection, desk, item, missing=item.missing)
        case Kind.NOTE:
            on: dict[str, Any] = {"off": None} if item.active else {}
            await _track(connection, desk, item, missing=0, since=None, mark=item.mark, **on)
        case Kind.DEACTIVATE:
            await _refuse_foreign(connection, desk, item)
            await switch_off(connection, desk.application, item.person_id, (desk.source, desk.now))
            # The mark of what was read: whoever is told of as before comes back.
            await _track(connection, desk, item, missing=item.missing, off=desk.now, mark=item.mark)
        case Kind.DELETE:
            await _refuse_foreign(connection, desk, item)
            await _delete(connection, desk, item)
        case Kind.SKIP | Kind.INVALID | Kind.CREATE | Kind.UPDATE | Kind.REACTIVATE:
            pass
    return item.person_id


async def _say(connection: AsyncConnection, desk: Desk, item: Item, who: Identity) -> str:
    if item.person_id:
        await _refuse_foreign(connection, desk, item)
    told = await tell(connection, desk.application, who, item.joins, desk.now)
    if item.active:
        await lift(connection, desk.application, told.person_id, desk.source, desk.now)
    else:
        await switch_off(connection, desk.application, told.person_id, (desk.source, desk.now))
    key = and_(sync_track.c.source == desk.source, sync_track.c.external_hash == digest(item.external))
    off = None if item.active else desk.now
    values: dict[str, Any] = {"person_id": told.person_id, "mark": item.mark, "missing": 0, "since": None, "off": off}
    before = (await connection.execute(select(sync_track.c.off).where(key))).first()
    if before is None:
        row = {"source": desk.source, "external_hash": digest(item.external), "external": item.external}
        await connection.execute(insert(sync_track).values(**row, **values))
        return told.person_id
    if before.off is not None and off is not None:
        # The time until somebody is deleted runs from the first day on.
        values["off"] = before.off
    await connection.execute(update(sync_track).where(key).values(**values))
    return told.person_id


async def _refuse_foreign(connection: AsyncConnection, desk: Desk, item: Item) -> None:
    """Whom another source has taken over since the plan was made is not ours to change."""
    known = await load_present(connection, desk.application, item.person_id, lock=True)
    is_other = known.source == "manual" or known.source.startswith(("scim:", "sync:"))
    if known.tombstone is not None or (is_other and known.source != desk.source):
        raise Refused(Reason.CHANGED_MEANWHILE, 409, f"owned by {known.source} by now")


async def _track(connection: AsyncConnection, desk: Desk, item: Item, **values: Any) -> None:
    key = and_(sync_track.c.source == desk.source, sync_track.c.external_hash == digest(item.external))
    await connection.execute(update(sync_track).where(key).values(**values))
    if item.kind is Kind.WAIT:
        await connection.execute(update(sync_track).where(key, sync_track.c.since.is_(None)).values(since=desk.now))


async def _delete(connection: AsyncConnection, desk: Desk, item: Item) -> None:
    await switch_off(connection, desk.application, item.person_id, (desk.source, desk.now), forever=True)
    once = f"delete:{item.person_id}"
    await add(connection, desk.application, Owed(item.person_id, Duty.DELETE, desk.now, once))
    who = Identity(desk.source, desk.source, item.external, "")
    await unsay(connection, desk.application, who, desk.now)
    key = and_(sync_track.c.source == desk.source, sync_track.c.external_hash == digest(item.external))
    await connection.execute(delete(sync_track).where(key))

"""Make one person of two: of somebody who signed in first, and of whom a source told later."""

from __future__ import annotations

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory.outbox import Owed, add, owe_settling
from sidecar.directory.switching import blockers, load_present, switch_off
from sidecar.directory.tables import account, identity, join, member, outbox, person, profile, token
from sidecar.faults import Refused
from sidecar.model import Duty
from sidecar.reason import Reason


async def merge(connection: AsyncConnection, application: str, gone: str, kept: str, now: float) -> None:
    """Give everything of *gone* to *kept*: identities, accounts, what was said, groups, tokens.

    Raises Refused: ACCOUNT_BOUND when *kept* signs in at the same provider as somebody else already,
    ACCOUNT_AMBIGUOUS when both have an account in one application.
    """
    for one in sorted((gone, kept)):
        await load_present(connection, application, one, lock=True)
    # Whoever was switched off a moment ago does not come back as somebody else.
    for source in await blockers(connection, await load_present(connection, application, gone)):
        await switch_off(connection, application, kept, (source, now))
    if await _both(connection, identity.c.issuer, identity.c.person_id, gone, kept):
        raise Refused(Reason.ACCOUNT_BOUND, 403, "that person signs in under another subject already")
    if await _both(connection, account.c.application, account.c.person_id, gone, kept):
        raise Refused(Reason.ACCOUNT_AMBIGUOUS, 403, "both of the people that are one have an account")
    for table in (identity, account, profile, token):
        await connection.execute(update(table).where(table.c.person_id == gone).values(person_id=kept))
    # The next look at the sign-in writes them again.
    await connection.execute(delete(join).where(join.c.person_id == gone))
    theirs = set((await connection.execute(select(member.c.group_id).where(member.c.person_id == gone))).scalars())
    there = set((await connection.execute(select(member.c.group_id).where(member.c.person_id == kept))).scalars())
    await connection.execute(delete(member).where(member.c.person_id == gone))
    if theirs - there:
        rows = [{"group_id": one, "person_id": kept} for one in sorted(theirs - there)]
        await connection.execute(insert(member), rows)
    owed = outbox.c.person_id == gone, outbox.c.state == "due"
    await connection.execute(update(outbox).where(*owed).values(state="done", last_error="merged"))
    end = {"active": False, "disabled_by": "merged", "tombstone": now, "version": person.c.version + 1}
    await connection.execute(update(person).where(person.c.id == gone).values(**end))
    step = {"version": person.c.version + 1, "updated": now}
    await connection.execute(update(person).where(person.c.id == kept).values(**step))
    await _owe(connection, application, kept, now)


async def _both(connection: AsyncConnection, column: object, owner: object, gone: str, kept: str) -> bool:
    """True when both people have a row with the same value in *column*."""
    found = []
    for one in (gone, kept):
        rows = await connection.execute(select(column).where(owner == one))  # type: ignore[call-overload]
        found.append(set(rows.scalars()))
    return bool(found[0] & found[1])


async def _owe(connection: AsyncConnection, application: str, kept: str, now: float) -> None:
    """Whoever is on has the account looked at; whoever is off has it switched off."""
    known = await load_present(connection, application, kept)
    if known.active:
        await owe_settling(connection, application, [kept], now)
        return
    rows = await connection.execute(select(account.c.application).where(account.c.person_id == kept))
    for name in {application, *rows.scalars()}:
        await add(connection, name, Owed(kept, Duty.DEACTIVATE, now, f"deactivate:{kept}:{known.version}"))

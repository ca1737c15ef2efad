"""Keep what every source says of a person, and find out whether those of two sources are one person."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory import records
from sidecar.directory.database import Database
from sidecar.directory.merging import merge
from sidecar.directory.outbox import owe_settling
from sidecar.directory.tables import digest, identity, join, person, profile
from sidecar.faults import Refused
from sidecar.model import Identity, Person, Profile
from sidecar.reason import Reason


@dataclass(frozen=True, slots=True)
class Told:
    """What a source's word came to: whose it is, whether they are new here, and whether anything changed."""

    person_id: str
    is_new: bool = False
    has_changed: bool = False


class Profiles:
    """What sources say of people. Every coroutine raises Unavailable(DIRECTORY_DOWN).

    A source that owns people makes them (``told``); a login only adds to those who are here (``signed_in``).
    """

    def __init__(self, database: Database, application: str) -> None:
        """Owe what a change asks for to *application*, as named in the outbox."""
        self._database = database
        self._application = application

    async def of_person(self, person_id: str) -> tuple[Profile, ...]:
        """Everything that is said of a person, by the names of the sources."""
        return (await self.of_people([person_id])).get(person_id, ())

    async def of_people(self, person_ids: Iterable[str]) -> Mapping[str, tuple[Profile, ...]]:
        """Everything that is said of these people."""
        chosen = select(profile).where(profile.c.person_id.in_(list(person_ids))).order_by(profile.c.source)

        async def work(connection: AsyncConnection) -> dict[str, tuple[Profile, ...]]:
            found: dict[str, list[Profile]] = {}
            for row in (await connection.execute(chosen)).mappings():
                found.setdefault(row["person_id"], []).append(profile_of(row))
            return {key: tuple(rows) for key, rows in found.items()}

        return await self._database.read(work)

    async def said(self, who: Identity) -> Profile | None:
        """What the source of *who* says of the same person so far; None when it knows nobody of that id."""
        return await self._database.read(lambda connection: _stored(connection, who))

    # Sources that own people

    async def told(self, who: Identity, joins: Iterable[str], now: float) -> Told:
        """Take a source's word of somebody: *who* with the source as ``provider`` and ``issuer``.

        Somebody new is joined to whoever signed in with one of the values *joins* before, and is theirs from now on.
        The account is settled later, by the outbox. Raises Refused: ACCOUNT_AMBIGUOUS when the values lead to several
        people, IDENTITY_INCOMPLETE for what cannot be stored.
        """

        async def work(connection: AsyncConnection) -> Told:
            return await tell(connection, self._application, who, joins, now)

        try:
            return await self._database.write(work)
        except IntegrityError:
            # Another replica was told at the same moment, and was faster: this is then the same word again.
            return await self._database.write(work)

    async def forget(self, who: Identity, now: float) -> None:
        """The source knows this person no longer: nothing that it said counts, and its name for them is free."""
        await self._database.write(lambda connection: unsay(connection, self._application, who, now))

    # Logins

    async def signed_in(self, known: Person, who: Identity, joins: Mapping[str, str], now: float) -> None:
        """Note what a sign-in says of somebody who is here; *joins* are values by the source that they lead to."""

        async def work(connection: AsyncConnection) -> None:
            await _write(connection, known.id, who, is_login=True, now=now)
            for source, value in joins.items():
                await _write_joins(connection, source, who.provider, [digest(value)], known.id)

        await self._database.write(work)

    async def joined(self, who: Identity, joins: Mapping[str, str]) -> str | None:
        """Bind somebody who signs in for the first time to the person of a source; their id, None when there is none.

        Raises Refused: ACCOUNT_AMBIGUOUS when the values lead to several people, ACCOUNT_BOUND when that person signs
        in as somebody else already, so that a name given to another inherits nothing.
        """
        records.refuse_unstorable(who)

        async def work(connection: AsyncConnection) -> str | None:
            for partner in await _meant(connection, joins):
                same = select(identity.c.issuer).where(identity.c.person_id == partner)
                if who.issuer in set((await connection.execute(same)).scalars()):
                    raise Refused(Reason.ACCOUNT_BOUND, 403, "that person signs in under another subject already")
                await _bind(connection, partner, who)
                return partner
            return None

        return await self._database.write(work)

    async def merged(self, known: Person, joins: Mapping[str, str], now: float) -> str | None:
        """Make somebody who signed in before one with the person of whom a source told since; that one's id.

        None when no source means anybody else. Raises Refused: ACCOUNT_AMBIGUOUS, ACCOUNT_BOUND.
        """

        async def look(connection: AsyncConnection) -> frozenset[str]:
            return await _meant(connection, joins) - {known.id}

        partner = next(iter(await self._database.read(look)), None)
        if partner is not None:
            into = partner
            await self._database.write(lambda connection: merge(connection, self._application, known.id, into, now))
        return partner


async def _meant(connection: AsyncConnection, joins: Mapping[str, str]) -> frozenset[str]:
    """Ids of the one person whom the sources know by these values."""
    found: set[str] = set()
    for source, value in joins.items():
        theirs = select(join.c.person_id).join(person, person.c.id == join.c.person_id)
        theirs = theirs.where(join.c.source == source, join.c.value_hash == digest(value), join.c.side == "")
        found |= set((await connection.execute(theirs.where(person.c.tombstone.is_(None)))).scalars())
    if len(found) > 1:
        raise Refused(Reason.ACCOUNT_AMBIGUOUS, 403, "the sources know more than one person by these claims")
    return frozenset(found)


async def tell(connection: AsyncConnection, application: str, who: Identity, joins: Iterable[str], now: float) -> Told:
    """As ``Profiles.told``, inside the transaction of *connection*; IntegrityError when somebody else was faster."""
    records.refuse_unstorable(who)
    values = sorted({digest(value) for value in joins if value})
    before = await _stored(connection, who)
    if before is not None:
        return await _told_again(connection, application, before, (who, values), now)
    known = await _partner(connection, who.provider, values)
    is_new = known is None
    if known is None:
        known = uuid.uuid4().hex
        await records.insert_person(connection, known, who, now)
    else:
        await _bind(connection, known, who)
        await adopt(connection, known, who, now)
    await _write(connection, known, who, is_login=False, now=now)
    await _write_joins(connection, who.provider, "", values, known)
    await owe_settling(connection, application, [known], now)
    return Told(known, is_new, has_changed=True)


async def _told_again(
    connection: AsyncConnection, application: str, before: Profile, said: tuple[Identity, list[str]], now: float
) -> Told:
    who, values = said
    await _write_joins(connection, who.provider, "", values, before.person_id)
    if before.identity == who:
        return Told(before.person_id)
    await _write(connection, before.person_id, who, is_login=False, now=now)
    await adopt(connection, before.person_id, who, now)
    await owe_settling(connection, application, [before.person_id], now)
    return Told(before.person_id, has_changed=True)


async def unsay(connection: AsyncConnection, application: str, who: Identity, now: float) -> None:
    """As ``Profiles.forget``, inside the transaction of *connection*."""
    before = await _stored(connection, who)
    if before is None:
        return
    mine = and_(profile.c.source == who.provider, profile.c.external_hash == digest(who.key))
    await connection.execute(delete(profile).where(mine))
    await connection.execute(delete(join).where(_said_by(who.provider, before.person_id)))
    await connection.execute(delete(identity).where(identity.c.key_hash == digest(who.key)))
    await owe_settling(connection, application, [before.person_id], now)


async def _partner(connection: AsyncConnection, source: str, values: list[str]) -> str | None:
    """Id of the one person who signed in with one of *values* before."""
    theirs = select(join.c.person_id).join(person, person.c.id == join.c.person_id)
    theirs = theirs.where(join.c.source == source, join.c.value_hash.in_(values), join.c.side != "")
    found = set((await connection.execute(theirs.where(person.c.tombstone.is_(None)))).scalars())
    if len(found) > 1:
        raise Refused(Reason.ACCOUNT_AMBIGUOUS, 409, f"{source}: more than one person signed in with that value")
    return next(iter(found), None)


async def _bind(connection: AsyncConnection, person_id: str, who: Identity) -> None:
    row = {"key_hash": digest(who.key), "issuer": who.issuer, "subject": who.subject, "person_id": person_id}
    await connection.execute(insert(identity).values(**row))


async def adopt(connection: AsyncConnection, person_id: str, who: Identity, now: float) -> None:
    """The source of *who* owns the person from now on, and knows best what they are called."""
    values = {**records.described(who), "source": who.provider, "updated": now, "version": person.c.version + 1}
    await connection.execute(update(person).where(person.c.id == person_id).values(**values))


async def _stored(connection: AsyncConnection, who: Identity) -> Profile | None:
    mine = and_(profile.c.source == who.provider, profile.c.external_hash == digest(who.key))
    row = (await connection.execute(select(profile).where(mine))).mappings().first()
    return None if row is None else profile_of(row)


async def _write(connection: AsyncConnection, person_id: str, who: Identity, *, is_login: bool, now: float) -> None:
    values = {
        "person_id": person_id,
        "issuer": who.issuer,
        "subject": who.subject,
        "username": who.username,
        "email": who.email,
        "name": who.name,
        "groups": None if who.groups is None else json.dumps(list(who.groups)),
        "claims": json.dumps(dict(who.claims)),
        "is_login": is_login,
        "updated": now,
    }
    mine = and_(profile.c.source == who.provider, profile.c.external_hash == digest(who.key))
    if (await connection.execute(update(profile).where(mine).values(**values))).rowcount == 0:
        key = {"source": who.provider, "external_hash": digest(who.key)}
        await connection.execute(insert(profile).values(**key, **values))


async def _write_joins(
    connection: AsyncConnection, source: str, side: str, values: Iterable[str], person_id: str
) -> None:
    """Make *values* all that leads from *side* ("" is the source's own) to this person."""
    mine = and_(_said_by(source, person_id), join.c.side == side)
    present = set((await connection.execute(select(join.c.value_hash).where(mine))).scalars())
    wanted = set(values)
    if present - wanted:
        await connection.execute(delete(join).where(mine, join.c.value_hash.in_(present - wanted)))
    rows = [
        {"source": source, "value_hash": value, "person_id": person_id, "side": side}
        for value in sorted(wanted - present)
    ]
    if rows:
        await connection.execute(insert(join), rows)


def _said_by(source: str, person_id: str) -> ColumnElement[bool]:
    # No index for the source, on purpose: without statistics SQLite would look through all that it says of anybody.
    return and_(func.coalesce(join.c.source, "") == source, join.c.person_id == person_id)


def profile_of(row: Mapping[Any, Any]) -> Profile:
    """The profile that a row of the table says."""
    who = Identity(
        provider=row["source"],
        issuer=row["issuer"],
        subject=row["subject"],
        username=row["username"],
        email=row["email"],
        name=row["name"],
        groups=None if row["groups"] is None else tuple(json.loads(row["groups"])),
        claims=json.loads(row["claims"]),
    )
    return Profile(row["source"], row["person_id"], who, bool(row["is_login"]), row["updated"])

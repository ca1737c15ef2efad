"""Keep what SCIM clients say of people, in one transaction with what follows from it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, and_, delete, func, insert, or_, select, union_all, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.core.scim.fault import Fault, bad_value, not_there, taken
from sidecar.core.wanted import folded
from sidecar.directory.database import Database, Work
from sidecar.directory.outbox import Owed, add
from sidecar.directory.profiles import adopt, profile_of, tell, unsay
from sidecar.directory.scim_query import Condition
from sidecar.directory.switching import lift, load_present, switch_off
from sidecar.directory.tables import digest, group, member, profile, scim_email, scim_user, searchable, subgroup
from sidecar.faults import Refused
from sidecar.model import Duty, Identity

_BATCH = 500
# From so far into a list on, a page is found by its ids first.
_FAR = 1000
# Every database takes as many values in one statement.
_MANY = 5000
# A column of MySQL's holds 64 KiB.
_LARGEST_DOCUMENT = 60_000
# And nobody stays because a record is too full for the word that they are to go.
_ROOM_TO_GO = 100

T = TypeVar("T")
Document = dict[str, Any]
# Who somebody is by their id and document, and the values by which they are joined to those who sign in.
Describe = Callable[[str, Document], tuple[Identity, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class ScimUser:
    """Somebody as a client sees them. ``id`` is ours and never changes; ``version`` grows with every change."""

    id: str
    person_id: str
    active: bool
    document: Document
    created: float
    updated: float
    version: int


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a change; ``has_joined`` tells that somebody new is one who had signed in before."""

    user: ScimUser
    has_changed: bool
    was_active: bool
    has_joined: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a list: ``count`` after ``start``, or after the key ``after``; ordered by ``by``, then by id."""

    count: int
    start: int = 0
    after: tuple[float, str] | None = None
    by: Column[Any] | None = None
    descending: bool = False


class _GoneError(Exception):
    """Undoes the joining of somebody who is gone for good by now."""


class ScimUsers:
    """The people of SCIM clients, each a source of its own. Every coroutine raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, database: Database, application: str) -> None:
        """Owe what a change asks for to *application*, as named in the outbox."""
        self._database = database
        self._application = application

    async def user(self, source: str, user_id: str) -> ScimUser | None:
        """Give one by our id."""

        async def work(connection: AsyncConnection) -> ScimUser | None:
            return await _one(connection, source, user_id)

        return await self._database.read(work)

    async def page(self, source: str, condition: Condition, window: Window) -> tuple[ScimUser, ...]:
        """Those for whom *condition* holds, in a stable order."""
        which, order = (_of(source, condition), condition.sql), (scim_user.c.created, scim_user.c.id)
        chosen = windowed(select(scim_user).where(*which), window, *order)
        if window.start >= _FAR:
            # What is skipped is skipped in an index then, without reading it.
            part = windowed(select(scim_user.c.id).where(*which), window, *order).subquery()
            whole = replace(window, start=0, after=None)
            chosen = windowed(select(scim_user).join(part, part.c.id == scim_user.c.id), whole, *order)

        async def work(connection: AsyncConnection) -> tuple[ScimUser, ...]:
            return tuple(_user(row) for row in (await connection.execute(chosen)).mappings())

        return await self._database.read(work)

    async def count(self, source: str, condition: Condition) -> int:
        """How many those are."""
        chosen = select(func.count()).select_from(scim_user).where(_of(source, condition), condition.sql)

        async def work(connection: AsyncConnection) -> int:
            return int((await connection.execute(chosen)).scalar_one())

        return await self._database.read(work)

    async def people_of(self, source: str, user_ids: Iterable[str]) -> Mapping[str, str]:
        """Our ids of people by those of SCIM, as far as they are known."""
        wanted = list(dict.fromkeys(user_ids))

        async def work(connection: AsyncConnection) -> dict[str, str]:
            found: dict[str, str] = {}
            for start in range(0, len(wanted), _BATCH):
                some = scim_user.c.id.in_(wanted[start : start + _BATCH])
                rows = select(scim_user.c.id, scim_user.c.person_id).where(_of_ids(source), some)
                found.update((row[0], row[1]) for row in await connection.execute(rows))
            return found

        return await self._database.read(work)

    async def members_of(self, source: str, group_ids: Iterable[str]) -> Mapping[str, list[tuple[str, str]]]:
        """By group its members in a stable order, each "User" or "Group" with its id; at most a page of groups."""
        wanted = list(group_ids)
        rows = select(member.c.group_id, member.c.person_id).where(member.c.group_id.in_(wanted))
        inside = select(subgroup.c.group_id, subgroup.c.child_id).where(subgroup.c.group_id.in_(wanted))

        async def work(connection: AsyncConnection) -> dict[str, list[tuple[str, str]]]:
            members = (await connection.execute(rows.order_by(member.c.group_id, member.c.person_id))).all()
            # Not a join: without statistics databases would begin with all people of the source.
            known = await _users_of(connection, source, {row[1] for row in members})
            found: dict[str, list[tuple[str, str]]] = {}
            for group_id, person_id in members:
                if person_id in known:
                    found.setdefault(group_id, []).append(("User", known[person_id]))
            for group_id, child_id in await connection.execute(
                inside.order_by(subgroup.c.group_id, subgroup.c.child_id)
            ):
                found.setdefault(group_id, []).append(("Group", child_id))
            return found

        return await self._database.read(work)

    async def numbers_of_members(self, group_ids: Iterable[str]) -> Mapping[str, int]:
        """By group how many members it has; at most a page of groups."""
        wanted = list(group_ids)
        columns = (member.c.group_id, subgroup.c.group_id)
        counts = [select(one, func.count()).where(one.in_(wanted)).group_by(one) for one in columns]
        chosen = union_all(*counts)

        async def work(connection: AsyncConnection) -> dict[str, int]:
            found: dict[str, int] = {}
            for group_id, number in await connection.execute(chosen):
                found[group_id] = found.get(group_id, 0) + number
            return found

        return await self._database.read(work)

    # Changes

    async def create(self, source: str, document: Document, describe: Describe, now: float) -> Written:
        """Make somebody, and the person that they are. Raises Fault, and Refused as ``Profiles.told``."""
        user_id = uuid.uuid4().hex
        active = bool(document.get("active", True))

        async def work(connection: AsyncConnection) -> Written:
            await _refuse_taken(connection, source, user_id, document)
            who, joins = describe(user_id, document)
            told = await tell(connection, self._application, who, joins, now)
            same = and_(scim_user.c.source == source, scim_user.c.person_id == told.person_id)
            if (await connection.execute(select(scim_user.c.id).where(same))).first() is not None:
                raise taken("the value that joins them to their sign-in")
            row = {"id": user_id, "source": source, "person_id": told.person_id, "created": now, "version": 1}
            await connection.execute(insert(scim_user).values(**row, **_columns(document, active, now)))
            await _write_emails(connection, user_id, document)
            known = await load_present(connection, self._application, told.person_id, lock=True)
            if known.tombstone is not None:
                raise _GoneError
            if not active:
                await switch_off(connection, self._application, known.id, (source, now))
            made = await _present(connection, source, user_id)
            return Written(made, has_changed=True, was_active=True, has_joined=not told.is_new)

        try:
            return await self._unique(work)
        except _GoneError:
            # Another client has deleted the person meanwhile: nobody joins them any more.
            return await self._unique(work)

    async def change(
        self, source: str, user_id: str, change: Callable[[ScimUser], Document], describe: Describe, now: float
    ) -> Written:
        """Put what *change* makes of somebody in their place; what changes nothing leaves no trace.

        Whoever is active here stays off while somebody else has them switched off. Raises Fault, and
        Refused(PERSON_DISABLED) for somebody who is gone for good.
        """

        async def work(connection: AsyncConnection) -> Written:
            before = await _present(connection, source, user_id, lock=True)
            document = change(before)
            if document == before.document:
                return Written(before, has_changed=False, was_active=before.active)
            if any(document.get(one) != before.document.get(one) for one in ("userName", "externalId")):
                await _refuse_taken(connection, source, user_id, document)
            active = bool(document.get("active", before.active))
            values = {**_columns(document, active, now), "version": before.version + 1}
            await connection.execute(update(scim_user).where(scim_user.c.id == user_id).values(**values))
            if document.get("emails") != before.document.get("emails"):
                await _write_emails(connection, user_id, document)
            # Who is to be off goes, also when no identity can be made any more of what they are called.
            with suppress(*(() if active else (Refused,))):
                who, joins = describe(user_id, document)
                await tell(connection, self._application, who, joins, now)
            if before.active and not active:
                await switch_off(connection, self._application, before.person_id, (source, now))
            elif active and not before.active:
                await lift(connection, self._application, before.person_id, source, now)
            after = replace(before, document=document, active=active, updated=now, version=before.version + 1)
            return Written(after, has_changed=True, was_active=before.active)

        return await self._unique(work)

    async def delete(
        self, source: str, user_id: str, check: Callable[[ScimUser], None], now: float
    ) -> tuple[ScimUser, str]:
        """Forget somebody, and switch the person off for good, unless another client tells of them, too.

        What was forgotten, and the source to which the person belongs from now on: "" when they are gone.
        """

        async def work(connection: AsyncConnection) -> tuple[ScimUser, str]:
            before = await _present(connection, source, user_id, lock=True)
            check(before)
            await connection.execute(delete(scim_email).where(scim_email.c.user_id == user_id))
            await connection.execute(delete(scim_user).where(scim_user.c.id == user_id))
            # Of two clients that delete the same person at once, one waits here and then is the last.
            known = await load_present(connection, self._application, before.person_id, lock=True)
            heir = await _heir(connection, known.id)
            if heir is None:
                await switch_off(connection, self._application, known.id, (source, now), forever=True)
                await add(connection, self._application, Owed(known.id, Duty.DELETE, now, f"delete:{known.id}"))
            else:
                theirs = member.c.group_id.in_(select(group.c.id).where(group.c.source == source))
                await connection.execute(delete(member).where(member.c.person_id == known.id, theirs))
                if known.source == source:
                    await adopt(connection, known.id, heir, now)
            await unsay(connection, self._application, Identity(source, source, user_id, ""), now)
            return before, "" if heir is None else heir.provider

        return await self._database.write(work)

    async def _unique(self, work: Work[T]) -> T:
        try:
            return await self._database.write(work)
        except IntegrityError:
            # Whoever was faster has it now, and this tells which value it is.
            try:
                return await self._database.write(work)
            except IntegrityError:
                raise taken("userName or externalId") from None


async def _heir(connection: AsyncConnection, person_id: str) -> Identity | None:
    """What the client says that has told of somebody for the longest; None when there is none."""
    same = and_(profile.c.source == scim_user.c.source, profile.c.person_id == scim_user.c.person_id)
    chosen = select(profile).join(scim_user, same).where(scim_user.c.person_id == person_id)
    row = (await connection.execute(chosen.order_by(scim_user.c.created, scim_user.c.id).limit(1))).mappings().first()
    return None if row is None else profile_of(row).identity


async def _users_of(connection: AsyncConnection, source: str, people: Collection[str]) -> Mapping[str, str]:
    """Their SCIM ids by those of people, as far as *source* tells of them."""
    everybody = sorted(people)
    found: dict[str, str] = {}
    users = select(scim_user.c.person_id, scim_user.c.id).where(scim_user.c.source == source)
    for start in range(0, len(everybody), _MANY):
        some = users.where(scim_user.c.person_id.in_(everybody[start : start + _MANY]))
        found.update((row[0], row[1]) for row in await connection.execute(some))
    return found


def _of(source: str, condition: Condition) -> ColumnElement[bool]:
    return _of_ids(source) if condition.finds_ids else scim_user.c.source == source


def _of_ids(source: str) -> ColumnElement[bool]:
    # No index for this, on purpose: without statistics SQLite would begin with all people of the source.
    return func.coalesce(scim_user.c.source, "") == source


def windowed(chosen: Any, window: Window, created: Column[Any], key: Column[Any]) -> Any:
    """*chosen* in the order and the part that *window* says."""
    by = created if window.by is None else window.by
    orders = [by.desc(), key.desc()] if window.descending else [by, key]
    if window.after is not None:
        moment, last = window.after
        chosen = chosen.where(or_(created > moment, and_(created == moment, key > last)))
    return chosen.order_by(*orders).limit(window.count).offset(window.start)


async def _refuse_taken(connection: AsyncConnection, source: str, user_id: str, document: Document) -> None:
    others = and_(scim_user.c.source == source, scim_user.c.id != user_id)
    for attribute, column, value in (
        ("userName", scim_user.c.name_hash, digest(folded(document["userName"]))),
        ("externalId", scim_user.c.external_hash, _external(document)),
    ):
        if value is None:
            continue
        if (await connection.execute(select(scim_user.c.id).where(others, column == value))).first() is not None:
            raise taken(attribute)


async def _one(connection: AsyncConnection, source: str, user_id: str, *, lock: bool = False) -> ScimUser | None:
    chosen = select(scim_user).where(scim_user.c.id == user_id, scim_user.c.source == source)
    row = (await connection.execute(chosen.with_for_update() if lock else chosen)).mappings().first()
    return None if row is None else _user(row)


async def _present(connection: AsyncConnection, source: str, user_id: str, *, lock: bool = False) -> ScimUser:
    found = await _one(connection, source, user_id, lock=lock)
    if found is None:
        raise not_there()
    return found


def _external(document: Document) -> str | None:
    return digest(document["externalId"]) if document.get("externalId") else None


def _columns(document: Document, active: bool, now: float) -> dict[str, Any]:  # noqa: FBT001 - a column
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > _LARGEST_DOCUMENT + (0 if active else _ROOM_TO_GO):
        raise Fault("invalidValue", "the resource is too large", 413)
    if not document["userName"] or len(folded(document["userName"])) > 190:
        raise bad_value("userName is empty or too long")
    return {
        "name_hash": digest(folded(document["userName"])),
        "search_name": searchable(document["userName"]),
        "external_hash": _external(document),
        "active": active,
        "document": text,
        "updated": now,
    }


async def _write_emails(connection: AsyncConnection, user_id: str, document: Document) -> None:
    values = [one.get("value") for one in document.get("emails", ())]
    wanted = {digest(folded(value)) for value in values if value}
    mine = scim_email.c.user_id == user_id
    present = set((await connection.execute(select(scim_email.c.value_hash).where(mine))).scalars())
    if present - wanted:
        await connection.execute(delete(scim_email).where(mine, scim_email.c.value_hash.in_(present - wanted)))
    rows = [{"user_id": user_id, "value_hash": value} for value in sorted(wanted - present)]
    if rows:
        await connection.execute(insert(scim_email), rows)


def _user(row: Mapping[Any, Any]) -> ScimUser:
    return ScimUser(
        row["id"],
        row["person_id"],
        bool(row["active"]),
        json.loads(row["document"]),
        row["created"],
        row["updated"],
        row["version"],
    )

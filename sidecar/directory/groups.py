"""Keep the groups that sources tell of, and who is in them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.core.wanted import folded
from sidecar.directory import nesting
from sidecar.directory.database import Database, Work
from sidecar.directory.outbox import owe_settling
from sidecar.directory.tables import digest, group, member, searchable
from sidecar.faults import Refused
from sidecar.reason import Reason

# From here on all members are read instead of those that change.
_MANY = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group:
    """One group of a source. ``external`` is the source's own id ("" for none); ``version`` grows with every change.

    Where it is one of somebody's groups, ``is_inherited`` tells that they are in it only through a group in it.
    """

    id: str
    source: str
    name: str
    external: str = ""
    created: float = 0.0
    updated: float = 0.0
    version: int = 1
    is_inherited: bool = False


@dataclass(frozen=True, slots=True)
class Members:
    """Who comes into a group or leaves it: ids of people and of groups."""

    people: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()


class Groups:
    """Groups and their members. Every coroutine raises Unavailable(DIRECTORY_DOWN).

    Whoever comes into a group, or leaves one, or whose group is renamed, has their account settled later; a change
    that changes nothing owes nothing and leaves the version as it is.
    """

    def __init__(self, database: Database, application: str) -> None:
        """Owe what a change asks for to *application*, as named in the outbox."""
        self._database = database
        self._application = application

    async def group(self, group_id: str) -> Group | None:
        """Give the group with this id of ours."""

        async def work(connection: AsyncConnection) -> Group | None:
            row = (await connection.execute(select(group).where(group.c.id == group_id))).mappings().first()
            return None if row is None else _group(row)

        return await self._database.read(work)

    async def members(self, group_id: str) -> tuple[str, ...]:
        """Ids of the people in a group, in a stable order."""
        chosen = select(member.c.person_id).where(member.c.group_id == group_id).order_by(member.c.person_id)

        async def work(connection: AsyncConnection) -> tuple[str, ...]:
            return tuple((await connection.execute(chosen)).scalars())

        return await self._database.read(work)

    async def everybody(self, group_ids: Collection[str]) -> tuple[str, ...]:
        """Ids of the people in these groups, and in the groups in them."""

        async def work(connection: AsyncConnection) -> tuple[str, ...]:
            return tuple(sorted(await nesting.people_within(connection, group_ids)))

        return await self._database.read(work)

    async def known(self, source: str, group_ids: Iterable[str]) -> frozenset[str]:
        """Those of *group_ids* that are groups of *source*."""

        async def work(connection: AsyncConnection) -> frozenset[str]:
            found: set[str] = set()
            for some in nesting.portions(group_ids):
                ours = select(group.c.id).where(group.c.id.in_(some), group.c.source == source)
                found.update((await connection.execute(ours)).scalars())
            return frozenset(found)

        return await self._database.read(work)

    async def of_people(self, person_ids: Iterable[str]) -> Mapping[str, tuple[Group, ...]]:
        """The groups of each of these people, by name; those that their groups are in are theirs, too."""

        async def work(connection: AsyncConnection) -> dict[str, tuple[Group, ...]]:
            direct: dict[str, set[str]] = {}
            for some in nesting.portions(person_ids):
                theirs = select(member.c.person_id, member.c.group_id).where(member.c.person_id.in_(some))
                for person_id, group_id in await connection.execute(theirs):
                    direct.setdefault(person_id, set()).add(group_id)
            above = await nesting.parents_of(connection, set().union(*direct.values()))
            whole = {one: nesting.reached(above, groups) for one, groups in direct.items()}
            rows = await _groups(connection, set().union(*whole.values()))
            return {
                one: tuple(replace(row, is_inherited=row.id not in direct[one]) for row in rows if row.id in inside)
                for one, inside in whole.items()
            }

        return await self._database.read(work)

    async def names_of(self, person_id: str) -> tuple[str, ...]:
        """Names of the groups that a person is in."""
        return tuple(one.name for one in (await self.of_people([person_id])).get(person_id, ()))

    async def make(
        self,
        source: str,
        name: str,
        now: float,
        *,
        external: str = "",
        people: Collection[str] = (),
        groups: Collection[str] = (),
    ) -> Group:
        """Make a group of people and groups.

        Raises Refused(CONFLICT) when the source has one of that name, in any case.
        """
        made = Group(uuid.uuid4().hex, source, name, external, now, now)
        row = {"id": made.id, "source": source, "created": now, "updated": now, "version": 1, **_named(name, external)}

        async def work(connection: AsyncConnection) -> Group:
            await connection.execute(insert(group).values(**row))
            come = Members(frozenset(people), frozenset(groups))
            return await self._moved(connection, made, come, Members(), now)

        return await self._unique(work)

    async def page(self, source: str, condition: ColumnElement[bool], window: Any) -> tuple[Group, ...]:
        """Groups of *source* for which *condition* holds; *window* puts a statement into its order and part."""
        chosen = window(select(group).where(group.c.source == source, condition))

        async def work(connection: AsyncConnection) -> tuple[Group, ...]:
            return tuple(_group(row) for row in (await connection.execute(chosen)).mappings())

        return await self._database.read(work)

    async def count(self, source: str, condition: ColumnElement[bool]) -> int:
        """How many those are."""
        chosen = select(func.count()).select_from(group).where(group.c.source == source, condition)

        async def work(connection: AsyncConnection) -> int:
            return int((await connection.execute(chosen)).scalar_one())

        return await self._database.read(work)

    async def rename(self, group_id: str, name: str, now: float, *, external: str | None = None) -> Group:
        """Give a group another name, or *external* id. Raises Refused: NOT_FOUND, CONFLICT."""
        return await self.change(group_id, now, called=(name, external))

    async def change(
        self,
        group_id: str,
        now: float,
        *,
        add: Members | Collection[str] = (),
        remove: Members | Collection[str] = (),
        called: tuple[str, str | None] | None = None,
        version: int | None = None,
    ) -> Group:
        """Let people and groups in and out, and give the group another name and external id (None leaves it as it is).

        Raises Refused: NOT_FOUND, CONFLICT, CHANGED_MEANWHILE unless the group still has this *version*, and
        Fault(invalidValue) when a group would be in itself.
        """
        come, go = (one if isinstance(one, Members) else Members(frozenset(one)) for one in (add, remove))

        async def work(connection: AsyncConnection) -> Group:
            known = await _locked(connection, group_id)
            if version is not None and known.version != version:
                raise Refused(Reason.CHANGED_MEANWHILE, 412, "the group has changed")
            if called is not None:
                known = await self._renamed(connection, known, called, now)
            people = await _present(connection, group_id, come.people | go.people)
            groups = await nesting.children_of(connection, group_id) if come.groups or go.groups else set()
            entering = Members(come.people - people, come.groups - groups)
            leaving = Members(go.people & people, go.groups & groups)
            return await self._moved(connection, known, entering, leaving, now)

        return await self._unique(work)

    async def _renamed(
        self, connection: AsyncConnection, known: Group, called: tuple[str, str | None], now: float
    ) -> Group:
        name, external = called
        wanted = known.external if external is None else external
        if (known.name, known.external) == (name, wanted):
            return known
        values = {**_named(name, wanted), "updated": now, "version": known.version + 1}
        await connection.execute(update(group).where(group.c.id == known.id).values(**values))
        if known.name != name:
            await self._settle_all(connection, known.id, now)
        return await _locked(connection, known.id)

    async def replace(self, group_id: str, people: Collection[str], now: float) -> Group:
        """Make *people* the members. Raises Refused(NOT_FOUND)."""

        async def work(connection: AsyncConnection) -> Group:
            known = await _locked(connection, group_id)
            present, wanted = frozenset(await _members(connection, group_id)), frozenset(people)
            return await self._moved(connection, known, Members(wanted - present), Members(present - wanted), now)

        return await self._database.write(work)

    async def delete(self, group_id: str, now: float, check: Callable[[Group], None] | None = None) -> frozenset[str]:
        """Delete a group; nobody is in it any more. Gives ids of the people who were.

        *check* sees the group as it goes, and may raise. Raises Refused(NOT_FOUND).
        """

        async def work(connection: AsyncConnection) -> frozenset[str]:
            known = await _locked(connection, group_id)
            if check is not None:
                check(known)
            everybody = await self._settle_all(connection, group_id, now)
            await nesting.forget(connection, group_id)
            await connection.execute(delete(member).where(member.c.group_id == group_id))
            await connection.execute(delete(group).where(group.c.id == group_id))
            return frozenset(everybody)

        return await self._database.write(work)

    async def leave_all(self, person_id: str, source: str, now: float) -> None:
        """Take somebody out of all groups of *source*."""
        theirs = select(group.c.id).where(group.c.source == source)

        async def work(connection: AsyncConnection) -> None:
            gone = delete(member).where(member.c.person_id == person_id, member.c.group_id.in_(theirs))
            if (await connection.execute(gone)).rowcount:
                await owe_settling(connection, self._application, [person_id], now)

        await self._database.write(work)

    async def _moved(self, connection: AsyncConnection, known: Group, come: Members, go: Members, now: float) -> Group:
        if come == go == Members():
            return known
        # By the people, not by the group: each of them would be compared with every member.
        inside = func.coalesce(member.c.group_id, "") == known.id
        for some in nesting.portions(go.people):
            await connection.execute(delete(member).where(member.c.person_id.in_(some), inside))
        if come.people:
            rows = [{"group_id": known.id, "person_id": person_id} for person_id in sorted(come.people)]
            await connection.execute(insert(member), rows)
        await nesting.take_out(connection, known.id, go.groups)
        await nesting.put_in(connection, known.id, come.groups)
        moved = come.groups | go.groups
        beneath = await nesting.people_within(connection, moved) if moved else set()
        await owe_settling(connection, self._application, come.people | go.people | beneath, now)
        step = {"updated": now, "version": known.version + 1}
        await connection.execute(update(group).where(group.c.id == known.id).values(**step))
        return replace(known, updated=now, version=known.version + 1)

    async def _settle_all(self, connection: AsyncConnection, group_id: str, now: float) -> Collection[str]:
        everybody = await nesting.people_within(connection, [group_id])
        await owe_settling(connection, self._application, everybody, now)
        return everybody

    async def _unique(self, work: Work[T]) -> T:
        try:
            return await self._database.write(work)
        except IntegrityError:
            raise Refused(Reason.CONFLICT, 409, "a group of that name is there already") from None


async def _locked(connection: AsyncConnection, group_id: str) -> Group:
    row = (await connection.execute(select(group).where(group.c.id == group_id).with_for_update())).mappings().first()
    if row is None:
        raise Refused(Reason.NOT_FOUND, 404, "there is no such group")
    return _group(row)


async def _groups(connection: AsyncConnection, group_ids: Collection[str]) -> list[Group]:
    """These groups, by name."""
    found: list[Group] = []
    for some in nesting.portions(group_ids):
        rows = await connection.execute(select(group).where(group.c.id.in_(some)))
        found += [_group(row) for row in rows.mappings()]
    return sorted(found, key=lambda one: (searchable(one.name), one.id))


async def _present(connection: AsyncConnection, group_id: str, people: Collection[str]) -> set[str]:
    """Those of *people* who are in the group; of many, everybody in it."""
    if len(people) > _MANY:
        return set(await _members(connection, group_id))
    if not people:
        return set()
    here = select(member.c.person_id).where(member.c.group_id == group_id, member.c.person_id.in_(sorted(people)))
    return set((await connection.execute(here)).scalars())


async def _members(connection: AsyncConnection, group_id: str) -> list[str]:
    return list((await connection.execute(select(member.c.person_id).where(member.c.group_id == group_id))).scalars())


def _named(name: str, external: str) -> dict[str, str | None]:
    return {
        "name": name,
        "name_hash": digest(folded(name)),
        "search_name": searchable(name),
        "external": external,
        "external_hash": digest(external) if external else None,
    }


def _group(row: Mapping[Any, Any]) -> Group:
    return Group(row["id"], row["source"], row["name"], row["external"], row["created"], row["updated"], row["version"])

"""Keep the groups that sources tell of, and who is in them."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.core.wanted import folded
from sidecar.directory.database import Database, Work
from sidecar.directory.outbox import owe_settling
from sidecar.directory.tables import digest, group, member, searchable
from sidecar.model import Refused
from sidecar.reason import Reason

_BATCH = 500

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group:
    """One group of a source. ``external`` is the source's own id ("" for none); ``version`` grows with every change."""

    id: str
    source: str
    name: str
    external: str = ""
    created: float = 0.0
    updated: float = 0.0
    version: int = 1


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

    async def of_people(self, person_ids: Iterable[str]) -> Mapping[str, tuple[Group, ...]]:
        """The groups of each of these people, by name."""
        everybody = list(dict.fromkeys(person_ids))

        async def work(connection: AsyncConnection) -> dict[str, tuple[Group, ...]]:
            found: dict[str, list[Group]] = {}
            for start in range(0, len(everybody), _BATCH):
                theirs = select(member.c.person_id, group).join(group, group.c.id == member.c.group_id)
                theirs = theirs.where(member.c.person_id.in_(everybody[start : start + _BATCH]))
                for row in (await connection.execute(theirs.order_by(group.c.search_name, group.c.id))).mappings():
                    found.setdefault(row["person_id"], []).append(_group(row))
            return {person_id: tuple(groups) for person_id, groups in found.items()}

        return await self._database.read(work)

    async def names_of(self, person_id: str) -> tuple[str, ...]:
        """Names of the groups that a person is in."""
        return tuple(one.name for one in (await self.of_people([person_id])).get(person_id, ()))

    async def make(
        self, source: str, name: str, now: float, *, external: str = "", people: Collection[str] = ()
    ) -> Group:
        """Make a group of *people*. Raises Refused(CONFLICT) when the source has one of that name, in any case."""
        made = Group(uuid.uuid4().hex, source, name, external, now, now)
        row = {"id": made.id, "source": source, "created": now, "updated": now, "version": 1, **_named(name, external)}

        async def work(connection: AsyncConnection) -> Group:
            await connection.execute(insert(group).values(**row))
            return await self._moved(connection, made, set(people), set(), now)

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
        add: Collection[str] = (),
        remove: Collection[str] = (),
        called: tuple[str, str | None] | None = None,
        version: int | None = None,
    ) -> Group:
        """Let people in and out, and give the group another name and external id (None leaves that as it is).

        Raises Refused: NOT_FOUND, CONFLICT, and CHANGED_MEANWHILE unless the group still has this *version*.
        """

        async def work(connection: AsyncConnection) -> Group:
            known = await _locked(connection, group_id)
            if version is not None and known.version != version:
                raise Refused(Reason.CHANGED_MEANWHILE, 412, "the group has changed")
            if called is not None:
                known = await self._renamed(connection, known, called, now)
            if not add and not remove:
                return known
            present = set(await _members(connection, group_id))
            return await self._moved(connection, known, set(add) - present, set(remove) & present, now)

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
            present, wanted = set(await _members(connection, group_id)), set(people)
            return await self._moved(connection, known, wanted - present, present - wanted, now)

        return await self._database.write(work)

    async def delete(self, group_id: str, now: float) -> None:
        """Delete a group; nobody is in it any more. Raises Refused(NOT_FOUND)."""

        async def work(connection: AsyncConnection) -> None:
            await _locked(connection, group_id)
            await self._settle_all(connection, group_id, now)
            await connection.execute(delete(member).where(member.c.group_id == group_id))
            await connection.execute(delete(group).where(group.c.id == group_id))

        await self._database.write(work)

    async def leave_all(self, person_id: str, source: str, now: float) -> None:
        """Take somebody out of all groups of *source*."""
        theirs = select(group.c.id).where(group.c.source == source)

        async def work(connection: AsyncConnection) -> None:
            gone = delete(member).where(member.c.person_id == person_id, member.c.group_id.in_(theirs))
            if (await connection.execute(gone)).rowcount:
                await owe_settling(connection, self._application, [person_id], now)

        await self._database.write(work)

    async def _moved(
        self, connection: AsyncConnection, known: Group, come: set[str], go: set[str], now: float
    ) -> Group:
        if not come and not go:
            return known
        leaving = sorted(go)
        for start in range(0, len(leaving), _BATCH):
            some = member.c.person_id.in_(leaving[start : start + _BATCH])
            await connection.execute(delete(member).where(member.c.group_id == known.id, some))
        if come:
            await connection.execute(
                insert(member), [{"group_id": known.id, "person_id": person_id} for person_id in sorted(come)]
            )
        await owe_settling(connection, self._application, come | go, now)
        step = {"updated": now, "version": known.version + 1}
        await connection.execute(update(group).where(group.c.id == known.id).values(**step))
        return await _locked(connection, known.id)

    async def _settle_all(self, connection: AsyncConnection, group_id: str, now: float) -> None:
        await owe_settling(connection, self._application, await _members(connection, group_id), now)

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

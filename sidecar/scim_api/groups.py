"""The groups of a SCIM client, and who is in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import Column

from sidecar.core.scim.fault import bad_value, not_there
from sidecar.core.scim.moves import Moves, moves_of
from sidecar.core.scim.patch import patched
from sidecar.core.scim.projection import Projection, projection_of
from sidecar.core.scim.resource import external_id, read_resource
from sidecar.core.scim.schema import GROUP, GROUPS
from sidecar.directory import Directory
from sidecar.directory.groups import Group, Members
from sidecar.directory.scim import Window, windowed
from sidecar.directory.scim_query import GROUP_FIELDS, GROUP_ORDERS, Condition
from sidecar.directory.tables import group
from sidecar.faults import Unavailable
from sidecar.people import Changes
from sidecar.provision import Provisioner
from sidecar.scim_api.call import Call, Reply, etag, moment
from sidecar.scim_api.client import Client

# In one answer, unless a single group has more; each takes half a kilobyte of memory until it is sent.
MOST_MEMBERS = 50_000


class Groups:
    """``/Groups``. Every coroutine raises Refused and Unavailable."""

    kind = GROUPS
    fields = GROUP_FIELDS
    orders: Mapping[str, Column[Any]] = GROUP_ORDERS

    def __init__(self, directory: Directory, provisioner: Provisioner, changes: Changes) -> None:
        """Keep groups in *directory*; members' accounts follow by *provisioner*'s outbox."""
        self._directory = directory
        self._provisioner = provisioner
        self._changes = changes

    # Reading

    async def rows(self, client: Client, condition: Condition, window: Window) -> Sequence[Group]:
        """See listing.Collection."""
        order = partial(windowed, window=window, created=group.c.created, key=group.c.id)
        return await self._directory.groups.page(client.source, condition.sql, order)

    async def count(self, client: Client, condition: Condition) -> int:
        """See listing.Collection."""
        return await self._directory.groups.count(client.source, condition.sql)

    async def shown(self, client: Client, rows: Sequence[Group], projection: Projection) -> list[dict[str, Any]]:
        """As the client sees them."""
        members = await self._members(client, rows) if projection.shows("members") else {}
        return [projection.of(_resource(client, row, members.get(row.id, ()))) for row in rows]

    async def portion(self, rows: Sequence[Group], projection: Projection) -> int:
        """See listing.Collection."""
        if not projection.shows("members"):
            return len(rows)
        numbers = await self._directory.scim.numbers_of_members([row.id for row in rows])
        room = MOST_MEMBERS
        for place, row in enumerate(rows):
            room -= numbers.get(row.id, 0)
            if room < 0 and place:
                return place
        return len(rows)

    async def _members(self, client: Client, rows: Sequence[Group]) -> Mapping[str, Sequence[tuple[str, str]]]:
        """By group its members: what each is, and its id."""
        return await self._directory.scim.members_of(client.source, [row.id for row in rows])

    async def get(self, call: Call, group_id: str) -> Reply:
        """One of them."""
        known = await self._present(call, group_id)
        if call.knows(known.version):
            return Reply(304, version=known.version)
        return await self._reply(call, 200, known)

    async def _present(self, call: Call, group_id: str) -> Group:
        known = await self._directory.groups.group(group_id)
        if known is None or known.source != call.client.source:
            raise not_there()
        return known

    # Changing

    async def post(self, call: Call) -> Reply:
        """A new one."""
        wanted = read_resource(call.body, GROUPS, tolerant=call.client.tolerant)
        members = await self._named(call, _ids(wanted))
        made = await self._directory.groups.make(
            call.client.source,
            wanted["displayName"],
            call.now,
            external=external_id(wanted),
            people=members.people,
            groups=members.groups,
        )
        await self._follow(members)
        return await self._reply(call, 201, made, "created")

    async def put(self, call: Call, group_id: str) -> Reply:
        """Everything anew."""
        known = await self._present(call, group_id)
        call.refuse_stale(known.version)
        before = await self._document(call.client, known)
        wanted = read_resource(call.body, GROUPS, tolerant=call.client.tolerant)
        return await self._rewrite(call, known, before, wanted)

    async def patch(self, call: Call, group_id: str) -> Reply:
        """Some of it."""
        known = await self._present(call, group_id)
        call.refuse_stale(known.version)
        moves = moves_of(call.body, tolerant=call.client.tolerant)
        if moves is not None:
            # A large group is not read for the sake of one member.
            return await self._move(call, known, moves)
        before = await self._document(call.client, known)
        wanted = patched(before, call.body, GROUPS, tolerant=call.client.tolerant)
        return await self._rewrite(call, known, before, wanted)

    async def _document(self, client: Client, known: Group) -> dict[str, Any]:
        members = (await self._members(client, [known])).get(known.id, [])
        document: dict[str, Any] = {"displayName": known.name}
        if known.external:
            document["externalId"] = known.external
        if members:
            document["members"] = [_member(client, *one) for one in members]
        return document

    async def _rewrite(self, call: Call, known: Group, before: dict[str, Any], wanted: dict[str, Any]) -> Reply:
        present, future = _ids(before), _ids(wanted)
        # Only the difference is written, so that two changes at once do not undo each other.
        moves = Moves(frozenset(future - present), frozenset(present - future))
        return await self._move(call, known, moves, (wanted["displayName"], external_id(wanted)))

    async def _move(
        self, call: Call, known: Group, moves: Moves, called: tuple[str, str | None] | None = None
    ) -> Reply:
        add = await self._named(call, moves.come)
        remove = await self._named(call, moves.go, is_strict=False)
        after = await self._directory.groups.change(
            known.id,
            call.now,
            add=add,
            remove=remove,
            called=called,
            version=known.version if call.if_match else None,
        )
        if after.version != known.version:
            renamed = [known.id] if after.name != known.name else []
            people, groups = add.people | remove.people, add.groups | remove.groups
            await self._follow(Members(people, groups.union(renamed)))
        return await self._reply(call, 200, after, "updated" if after.version != known.version else "unchanged")

    async def delete(self, call: Call, group_id: str) -> Reply:
        """One that goes; nobody is in it any more."""
        known = await self._present(call, group_id)
        members = await self._directory.groups.delete(
            group_id, call.now, lambda present: call.refuse_stale(present.version)
        )
        await self._follow(Members(members))
        return Reply(204, note={"change": "deleted", "resource": "Group", "id": group_id, "name": known.name})

    async def _named(self, call: Call, ids: Collection[str], *, is_strict: bool = True) -> Members:
        """Who these are, whatever type the client takes them for."""
        if not ids:
            return Members()
        source = call.client.source
        people = await self._directory.scim.people_of(source, ids)
        others = set(ids) - set(people)
        groups = await self._directory.groups.known(source, others) if others else frozenset()
        unknown = sorted(others - groups)
        # An id of ours that leads nowhere is of somebody who was deleted: that should not keep a whole group back.
        if unknown and is_strict and not call.client.tolerant:
            raise bad_value(f"there is nobody with the id {unknown[0][:64]}")
        return Members(frozenset(people.values()), groups)

    async def _follow(self, members: Members) -> None:
        if members == Members():
            return
        beneath = await self._directory.groups.everybody(members.groups) if members.groups else ()
        with suppress(Unavailable):
            await self._changes.announce([*members.people, *beneath])
        self._provisioner.outbox.wake()

    async def _reply(self, call: Call, status: int, known: Group, said: str = "") -> Reply:
        projection = projection_of(GROUPS, call.query.get("attributes"), call.query.get("excludedattributes"))
        body = (await self.shown(call.client, [known], projection))[0]
        note = {"change": said, "resource": "Group", "id": known.id, "name": known.name} if said else None
        return Reply(status, body, known.version, f"{call.client.base}/Groups/{known.id}", note=note)


def _ids(document: Mapping[str, Any]) -> set[str]:
    found = {one.get("value") for one in document.get("members") or ()}
    if None in found:
        raise bad_value("a member has no value")
    return found


def _member(client: Client, kind: str, member_id: str) -> dict[str, Any]:
    return {"value": member_id, "$ref": f"{client.base}/{kind}s/{member_id}", "type": kind}


def _resource(client: Client, known: Group, members: Sequence[tuple[str, str]]) -> dict[str, Any]:
    resource: dict[str, Any] = {"schemas": [GROUP], "id": known.id, "displayName": known.name}
    if known.external:
        resource["externalId"] = known.external
    if members:
        resource["members"] = [_member(client, *one) for one in members]
    resource["meta"] = {
        "resourceType": "Group",
        "created": moment(known.created),
        "lastModified": moment(known.updated),
        "location": f"{client.base}/Groups/{known.id}",
        "version": etag(known.version),
    }
    return resource

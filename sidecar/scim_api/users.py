"""The people of a SCIM client: made, changed, switched off and on, and forgotten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Column

from sidecar.core.scim.fault import not_there
from sidecar.core.scim.patch import patched
from sidecar.core.scim.projection import Projection, projection_of
from sidecar.core.scim.resource import read_resource
from sidecar.core.scim.schema import ENTERPRISE, STATE, USER, USERS
from sidecar.directory import Directory
from sidecar.directory.progress import Progress
from sidecar.directory.scim import Document, ScimUser, Window, Written
from sidecar.directory.scim_query import USER_FIELDS, USER_ORDERS, Condition
from sidecar.faults import Unavailable
from sidecar.people import Changes
from sidecar.provision import Provisioner
from sidecar.scim_api.call import Call, Reply, etag, moment
from sidecar.scim_api.client import Client

_NOTHING = Progress()


class Users:
    """``/Users``. Every coroutine raises Refused and Unavailable."""

    kind = USERS
    fields = USER_FIELDS
    orders: Mapping[str, Column[Any]] = USER_ORDERS

    def __init__(
        self,
        directory: Directory,
        provisioner: Provisioner,
        changes: Changes,
        joined: Callable[[Mapping[str, object]], None],
    ) -> None:
        """Keep people in *directory*; *provisioner* ends sessions and sees to their accounts.

        *joined* is told of everybody new who turned out to be somebody who had signed in before.
        """
        self._directory = directory
        self._provisioner = provisioner
        self._changes = changes
        self._tell_joined = joined

    # Reading

    async def rows(self, client: Client, condition: Condition, window: Window) -> Sequence[ScimUser]:
        """See listing.Collection."""
        return await self._directory.scim.page(client.source, condition, window)

    async def count(self, client: Client, condition: Condition) -> int:
        """See listing.Collection."""
        return await self._directory.scim.count(client.source, condition)

    async def shown(self, client: Client, rows: Sequence[ScimUser], projection: Projection) -> list[dict[str, Any]]:
        """As the client sees them."""
        people = [row.person_id for row in rows]
        groups = await self._directory.groups.of_people(people) if projection.shows("groups") else {}
        has_state = any(place.urn == STATE for place in projection.wanted or ())
        progress = await self._directory.progress.of_people(people) if has_state else {}
        shown = []
        for row in rows:
            resource = _resource(client, row)
            theirs = [one for one in groups.get(row.person_id, ()) if one.source == client.source]
            if theirs:
                resource["groups"] = [
                    {
                        "value": one.id,
                        "$ref": f"{client.base}/Groups/{one.id}",
                        "display": one.name,
                        "type": "indirect" if one.is_inherited else "direct",
                    }
                    for one in theirs
                ]
            if has_state:
                resource[STATE] = _state(progress.get(row.person_id, _NOTHING))
                resource["schemas"].append(STATE)
            shown.append(projection.of(resource))
        return shown

    async def portion(self, rows: Sequence[ScimUser], _projection: Projection) -> int:
        """See listing.Collection."""
        return len(rows)

    async def get(self, call: Call, user_id: str) -> Reply:
        """One of them."""
        user = await self._directory.scim.user(call.client.source, user_id)
        if user is None:
            raise not_there()
        if call.knows(user.version):
            return Reply(304, version=user.version)
        return await self._reply(call, 200, user)

    # Changing

    async def post(self, call: Call) -> Reply:
        """Somebody new."""
        document = read_resource(call.body, USERS, tolerant=call.client.tolerant)
        document.setdefault("active", True)
        written = await self._directory.scim.create(call.client.source, document, call.client.describe, call.now)
        if written.has_joined:
            self._note_joined(call, written.user)
        await self._follow(call, written)
        return await self._reply(call, 201, written.user, "created")

    def _note_joined(self, call: Call, user: ScimUser) -> None:
        source, name = call.client.source, user.document["userName"]
        who = {"provider": source, "issuer": source, "subject": user.id, "username": name}
        self._tell_joined({"person": user.person_id, **who, "reference": call.reference})

    async def put(self, call: Call, user_id: str) -> Reply:
        """Everything anew."""
        document = read_resource(call.body, USERS, tolerant=call.client.tolerant)

        def change(before: ScimUser) -> Document:
            call.refuse_stale(before.version)
            # Saying nothing of it switches nobody on again.
            return {**document, "active": document.get("active", before.active)}

        return await self._change(call, user_id, change)

    async def patch(self, call: Call, user_id: str) -> Reply:
        """Some of it."""

        def change(before: ScimUser) -> Document:
            call.refuse_stale(before.version)
            return patched(before.document, call.body, USERS, tolerant=call.client.tolerant)

        return await self._change(call, user_id, change)

    async def _change(self, call: Call, user_id: str, change: Any) -> Reply:
        source = call.client.source
        written = await self._directory.scim.change(source, user_id, change, call.client.describe, call.now)
        await self._follow(call, written)
        said = "unchanged"
        if written.has_changed:
            is_turn = written.was_active is not written.user.active
            said = ("activated" if written.user.active else "deactivated") if is_turn else "updated"
        return await self._reply(call, 200, written.user, said)

    async def delete(self, call: Call, user_id: str) -> Reply:
        """Somebody who goes for good."""

        def check(before: ScimUser) -> None:
            call.refuse_stale(before.version)

        source = call.client.source
        gone, heir = await self._directory.scim.delete(source, user_id, check, call.now)
        with suppress(Unavailable):
            # It is durable by now; what cannot be ended at once, the outbox ends.
            if heir:
                await self._announce(gone.person_id)
            else:
                await self._provisioner.left(gone.person_id, source)
        note = {"change": "deleted", "resource": "User", "id": user_id, "person": gone.person_id}
        return Reply(204, note={**note, "kept_by": heir} if heir else note)

    async def _follow(self, call: Call, written: Written) -> None:
        """Make everybody notice: at once when somebody was switched off."""
        if not written.has_changed:
            return
        user = written.user
        with suppress(Unavailable):
            if written.was_active and not user.active:
                await self._provisioner.left(user.person_id, call.client.source)
            elif user.active and not written.was_active:
                await self._provisioner.returned(user.person_id, call.client.source)
            else:
                await self._announce(user.person_id)

    async def _announce(self, person_id: str) -> None:
        await self._changes.announce([person_id])
        self._provisioner.outbox.wake()

    async def _reply(self, call: Call, status: int, user: ScimUser, said: str = "") -> Reply:
        projection = projection_of(USERS, call.query.get("attributes"), call.query.get("excludedattributes"))
        body = (await self.shown(call.client, [user], projection))[0]
        note = {"change": said, "resource": "User", "id": user.id, "person": user.person_id} if said else None
        return Reply(status, body, user.version, f"{call.client.base}/Users/{user.id}", note=note)


def _resource(client: Client, user: ScimUser) -> dict[str, Any]:
    schemas = [USER, *([ENTERPRISE] if ENTERPRISE in user.document else [])]
    return {
        "schemas": schemas,
        "id": user.id,
        **user.document,
        "meta": {
            "resourceType": "User",
            "created": moment(user.created),
            "lastModified": moment(user.updated),
            "location": f"{client.base}/Users/{user.id}",
            "version": etag(user.version),
        },
    }


def _state(progress: Progress) -> dict[str, Any]:
    state: dict[str, Any] = {"state": progress.state}
    if progress.error:
        state["lastError"] = progress.error
    if progress.at:
        state["at"] = moment(progress.at)
    return state

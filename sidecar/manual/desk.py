"""Do what an operator wants with one person: look, switch off and on, give the account to somebody else, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.core.audit import Event
from sidecar.core.wanted import identity_of
from sidecar.directory import Directory
from sidecar.directory.progress import Progress
from sidecar.faults import Refused
from sidecar.manual.register import MANUAL, Register
from sidecar.model import Account, Person
from sidecar.people import Changes
from sidecar.provision import Provisioner
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper

_PAUSE = 0.1
_NOTHING = Progress()
_UNDER_WAY = frozenset(["pending", "retrying"])

Record = Callable[[Event, Mapping[str, object]], None]


@dataclass(frozen=True, slots=True)
class Shown:
    """Everything about somebody, as JSON values by name."""

    person: Person
    more: Mapping[str, Any]


class Desk:
    """Acts on people of every source. Every coroutine raises Refused and Unavailable.

    What concerns the application is owed to it, and done by the sidecars that run.
    """

    def __init__(  # noqa: PLR0917 - the parts that it joins
        self,
        directory: Directory,
        provisioner: Provisioner,
        changes: Changes,
        keeper: SessionKeeper,
        register: Register,
        record: Record,
    ) -> None:
        """Join the parts; *record* takes audit events."""
        self._directory = directory
        self._provisioner = provisioner
        self._changes = changes
        self._keeper = keeper
        self._register = register
        self._record = record

    async def find(self, called: str) -> Person:
        """The one person with this id, user name or address."""
        return await self._directory.roll.one(called)

    async def others(self, person: Person) -> tuple[str, ...]:
        """Everybody who has somebody switched off whose word no operator can lift."""
        return await self._directory.blockers(person, MANUAL)

    async def show(self, person: Person, now: float) -> Shown:
        """Everything that is known of somebody."""
        told = await self._directory.profiles.of_person(person.id)
        groups = await self._directory.groups.of_people([person.id])
        progress = await self.progress(person.id)
        debts = await self._directory.debts.page(now, person_id=person.id)
        invited = await self._directory.invitations.of_person(person.id)
        more = {
            "sources": [_profile(one.source, one.is_login, one.identity.username, one.updated) for one in told],
            "groups": [
                *({"source": one.source, "name": one.name} for one in groups.get(person.id, ())),
                *({"source": one.source, "name": name} for one in told for name in one.identity.groups or ()),
            ],
            "off_by": list(await self._directory.blockers(person)),
            "state": progress.state,
            "error": progress.error,
            "owed": [{"id": one.id, "duty": one.duty.value, "state": one.state, "error": one.error} for one in debts],
            "sessions": list(await self.sessions(person)),
            "invitations": [
                {"email": one.email, "created": one.created, "expires": one.expires, "used": one.used}
                for one in invited
            ],
        }
        return Shown(person, more)

    # Switching off and on

    async def disable(self, person: Person, now: float) -> tuple[Person, int]:
        """Switch somebody off; (the person, how many sessions that were known here ended)."""
        open_sessions = len(await self.sessions(person))
        return await self._provisioner.disable(person.id, MANUAL, now), open_sessions

    async def enable(self, person: Person, now: float) -> Person:
        """Lift an operator's word; others may have them switched off, too."""
        return await self._provisioner.enable(person.id, MANUAL, now)

    async def delete(self, person: Person, now: float) -> int:
        """Switch somebody off for good and owe the deletion of their account; how many sessions ended."""
        open_sessions = len(await self.sessions(person))
        await self._provisioner.remove(person.id, MANUAL, now)
        for one in await self._directory.profiles.of_person(person.id):
            if one.source == MANUAL:
                await self._register.forget(one.identity.subject, now)
        self._record(Event.PERSON_DELETED, {"person": person.id, "username": person.username})
        return open_sessions

    # Accounts

    async def relink(self, giver: Person, taker: Person, now: float) -> Account:
        """Make the account of *giver* that of *taker*; the sessions of both end, for both are somebody else now."""
        if giver.id == taker.id:
            raise Refused(Reason.CONFLICT, 409, "that is the same person")
        moved = await self._directory.relinker.move(giver.id, taker.id, now)
        fields = {"account": moved.key, "from": giver.id, "to": taker.id, "username": taker.username}
        self._record(Event.ACCOUNT_RELINKED, fields)
        await self._moved([giver, taker])
        return moved

    async def unlink(self, person: Person, now: float) -> Account:
        """Make the account nobody's; it stays in the application as it is."""
        freed = await self._directory.relinker.unlink(person.id, now)
        self._record(Event.ACCOUNT_UNLINKED, {"account": freed.key, "person": person.id, "username": person.username})
        await self._moved([person])
        return freed

    async def _moved(self, people: list[Person]) -> None:
        await self._changes.announce([one.id for one in people])
        for one in people:
            await self.end_sessions(one, is_noted=False)

    async def provision(self, person: Person, now: float) -> None:
        """Owe somebody's account a look, whatever was known of it."""
        await self._directory.relinker.owe_settling(person.id, now)
        await self._changes.announce([person.id])

    async def progress(self, person_id: str) -> Progress:
        """How far somebody's account has come."""
        return (await self._directory.progress.of_people([person_id])).get(person_id, _NOTHING)

    async def settled(self, person_id: str, patience: float) -> Progress:
        """Wait at most *patience* seconds until a running sidecar has done what is owed; what it came to."""
        try:
            async with asyncio.timeout(patience):
                while (progress := await self.progress(person_id)).state in _UNDER_WAY:  # noqa: ASYNC110 - others work
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            return await self.progress(person_id)
        return progress

    # Sessions

    async def sessions(self, person: Person) -> tuple[str, ...]:
        """Ids of somebody's open sessions."""
        found = [one for key in person.identities for one in await self._keeper.list_person(key)]
        return tuple(dict.fromkeys(found))

    async def all_sessions(self) -> tuple[str, ...]:
        """Ids of everybody's open sessions."""
        return await self._keeper.list_all()

    async def is_open(self, session_id: str) -> bool:
        """True while there is a session of that id."""
        return await self._keeper.is_open(session_id)

    async def end_sessions(self, person: Person, *, is_noted: bool = True) -> int:
        """End somebody's sessions everywhere; how many."""
        ended = sum([await self._keeper.end_person(key) for key in person.identities])
        if is_noted:
            fields = {"person": person.id, "username": identity_of(person).username, "ended": ended}
            self._record(Event.SESSIONS_ENDED, fields)
        return ended

    async def end_all_sessions(self) -> int:
        """End everybody's sessions; how many."""
        ended = sum([await self._keeper.end_id(one) for one in await self._keeper.list_all()])
        self._record(Event.SESSIONS_ENDED, {"everybody": True, "ended": ended})
        return ended

    async def end_session(self, session_id: str) -> int:
        """End one session; 0 when there is none of that id."""
        ended = await self._keeper.end_id(session_id)
        if ended:
            self._record(Event.SESSIONS_ENDED, {"session": session_id, "ended": ended})
        return ended


def _profile(source: str, is_login: bool, username: str, updated: float) -> dict[str, Any]:  # noqa: FBT001 - a column
    return {"source": source, "is_login": is_login, "username": username, "updated": updated}

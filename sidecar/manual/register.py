"""Take down people whom an operator names, as a source of people beside others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from sidecar.core.audit import Event
from sidecar.core.roster import Entry
from sidecar.directory import Directory
from sidecar.model import Identity, Person, Profile
from sidecar.people import Changes
from sidecar.provision import Provisioner

# What this source is called in the directory.
MANUAL = "manual"

On = Literal["email", "username", "id"]
Change = Literal["added", "changed", "unchanged"]
Record = Callable[[Event, Mapping[str, object]], None]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became, or would become, of an entry; ``person_id`` is "" for somebody who is not there yet."""

    change: Change
    person_id: str
    username: str
    is_active: bool = True


class Register:
    """People by hand. Every coroutine raises Refused as ``Profiles.told`` and Unavailable."""

    def __init__(
        self, directory: Directory, provisioner: Provisioner, changes: Changes, on: On, record: Record
    ) -> None:
        """Who signs in is found by *on*; *record* takes audit events."""
        self._directory = directory
        self._provisioner = provisioner
        self._changes = changes
        self._on = on
        self._record = record

    async def foresee(self, entry: Entry) -> Taken:
        """Say what ``take`` would do, without doing it."""
        before = await self._directory.profiles.said(_identity(entry, None))
        person = None if before is None else await self._directory.person(before.person_id)
        if before is None or person is None:
            return Taken("added", "", entry.username, entry.active is not False)
        is_active = person.active if entry.active is None else entry.active
        is_same = before.identity == _identity(entry, before) and not await self._is_turned(person, entry)
        return Taken("unchanged" if is_same else "changed", person.id, entry.username, is_active)

    async def take(self, entry: Entry, now: float) -> Taken:
        """Make *entry* true; the account follows by the outbox. What is so already changes nothing."""
        before = await self._directory.profiles.said(_identity(entry, None))
        who = _identity(entry, before)
        told = await self._directory.profiles.told(who, self._joins(entry), now)
        person = await self._directory.person(told.person_id)
        is_active = person is None or person.active
        is_turned = await self._is_turned(person, entry)
        if is_turned and entry.active:
            await self._provisioner.enable(told.person_id, MANUAL, now)
        elif is_turned:
            await self._provisioner.disable(told.person_id, MANUAL, now)
        if told.has_changed:
            event = Event.PERSON_ADDED if before is None else Event.PERSON_CHANGED
            self._record(event, {"person": told.person_id, "username": who.username, "id": entry.id})
            await self._changes.announce([told.person_id])
        change: Change = "added" if before is None else "changed" if told.has_changed or is_turned else "unchanged"
        return Taken(change, told.person_id, entry.username, entry.active if entry.active is not None else is_active)

    async def _is_turned(self, person: Person | None, entry: Entry) -> bool:
        """True when *entry* switches somebody on, or off, who is off by others' word alone at most."""
        if entry.active is None or person is None:
            return entry.active is False
        return not person.active if entry.active else MANUAL not in await self._directory.blockers(person)

    def _joins(self, entry: Entry) -> list[str]:
        value = {"email": entry.email.lower(), "username": entry.username.lower(), "id": entry.id}[self._on]
        return [value] if value else []

    async def forget(self, entry_id: str, now: float) -> None:
        """Say nothing of this person any more: their id is free for somebody else."""
        await self._directory.profiles.forget(_identity(Entry(entry_id, entry_id), None), now)


def _identity(entry: Entry, before: Profile | None) -> Identity:
    """Who that is; groups that *entry* does not speak of stay as they were *before*."""
    groups = entry.groups
    if groups is None:
        groups = () if before is None else before.identity.groups
    return Identity(
        provider=MANUAL,
        issuer=MANUAL,
        subject=entry.id,
        username=entry.username,
        email=entry.email.lower(),
        name=entry.name,
        groups=groups,
        claims=dict(entry.attributes),
    )

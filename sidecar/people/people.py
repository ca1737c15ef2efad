"""Say who somebody is, for a request by the one who signed in and for work that nobody waits for alike."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sidecar.core.accounts import refusal_of
from sidecar.core.people import effective
from sidecar.core.roles import Role, roles_of
from sidecar.core.template import Template, TemplateError
from sidecar.directory import Directory
from sidecar.faults import Refused
from sidecar.model import Identity, Person, Profile
from sidecar.people.changes import Changes

_MOST = 10_000


def _unsaid(_fields: Mapping[str, object]) -> None:
    return


_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """A source that owns people. ``name`` is ``scim:NAME``, ``sync:NAME`` or ``manual``.

    ``joins`` are by login the templates that give, from somebody's claims, the value by which the source knows them;
    a login that is not there joins nobody.
    """

    name: str
    joins: Mapping[str, Template] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    signed_in: Identity
    who: Identity
    person_id: str
    until: float


class People:
    """Puts together what sign-ins and sources say of somebody, and remembers it for a short while."""

    def __init__(
        self,
        directory: Directory,
        changes: Changes,
        sources: Sequence[SourcePlan],
        roles: Sequence[Role],
        telling: frozenset[str],
        *,
        adds: bool = True,
        joined: Callable[[Mapping[str, object]], None] = _unsaid,
    ) -> None:
        """*sources* with the strongest first; *roles* of the configuration; *telling* are the logins that say groups.

        With *adds* the groups of sources are added to those of the sign-in, else they stand in their place. *joined* is
        told of everybody who turned out to be somebody whom a source knows.
        """
        self._directory = directory
        self._changes = changes
        self._sources = tuple(sources)
        self._rank = {source.name: number for number, source in enumerate(sources)}
        self._roles = roles
        self._telling = telling
        self._adds = adds
        self._tell_joined = joined
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._strangers: OrderedDict[str, Identity] = OrderedDict()
        self._generation = 0
        changes.listen(self._forget, self._clear)

    def remembered(self, signed_in: Identity, now: float) -> Identity | None:
        """What ``known`` would say, where that is sure without asking anybody; None otherwise."""
        entry = self._entries.get(signed_in.key)
        if entry is not None and now < entry.until and entry.signed_in == signed_in and self._changes.is_heard:
            return entry.who
        return None

    async def known(self, signed_in: Identity, now: float) -> Identity:
        """Who *signed_in* is. The very same object for the same question, as long as nothing changes.

        Whoever a source knows by what their claims say is joined to that person here. Raises Refused: PERSON_DISABLED
        for people who were switched off, ACCOUNT_AMBIGUOUS and ACCOUNT_BOUND when they cannot be joined; Unavailable.
        """
        remembered = self.remembered(signed_in, now)
        if remembered is not None:
            return remembered
        await self._changes.watch()
        generation = self._generation
        person = await self._person(signed_in, now)
        if person is None:
            self._note_stranger(signed_in)
        who = signed_in if person is None else await self._who(person, signed_in, now)
        if person is not None and generation == self._generation:
            self._remember(_Entry(signed_in, who, person.id, now + _SECONDS))
        return who

    async def of(self, person: Person) -> tuple[Identity, tuple[str, ...]] | None:
        """(identity, roles) of somebody who is not here; None for somebody of whom nothing was ever said.

        Raises Refused(IDENTITY_INCOMPLETE) when a role's condition cannot be evaluated.
        """
        told = await self._directory.profiles.of_person(person.id)
        logins = sorted((one for one in told if one.is_login), key=lambda one: one.updated)
        owners = self._owners(told)
        if not logins and not owners:
            return None
        signed_in = logins[-1].identity if logins else None
        who = self._together(signed_in, owners, await self._directory.groups.names_of(person.id))
        return who, roles_of(who, self._roles)

    async def met(self, key: str, now: float) -> None:
        """Somebody of whom nothing was known has a record now: keep what their sign-in says, so that sources find it.

        Raises as ``known``.
        """
        signed_in = self._strangers.pop(key, None)
        if signed_in is not None:
            await self.known(signed_in, now)

    def _note_stranger(self, signed_in: Identity) -> None:
        self._strangers[signed_in.key] = signed_in
        if len(self._strangers) > _MOST:
            self._strangers.popitem(last=False)

    async def _person(self, signed_in: Identity, now: float) -> Person | None:
        person = await self._directory.person_by_identity(signed_in.key)
        values = self._join_values(signed_in)
        partner: str | None = None
        if person is None and values:
            partner = await self._directory.profiles.joined(signed_in, values)
        elif person is not None and values and person.source not in self._rank and person.active:
            # They were here before the source told of them.
            partner = await self._directory.profiles.merged(person, values, now)
        if partner is not None:
            self._note_joined(signed_in, partner, "" if person is None else person.id)
            person = await self._directory.person(partner)
        refused = refusal_of(person)
        if refused is not None:
            raise Refused(refused, 403, "switched off")
        return person

    def _note_joined(self, signed_in: Identity, partner: str, before: str) -> None:
        self._tell_joined(
            {
                "person": partner,
                "provider": signed_in.provider,
                "issuer": signed_in.issuer,
                "subject": signed_in.subject,
                "username": signed_in.username,
                **({"merged": before} if before else {}),
            }
        )

    async def _who(self, person: Person, signed_in: Identity, now: float) -> Identity:
        told = await self._directory.profiles.of_person(person.id)
        stored = next((one.identity for one in told if one.is_login and one.identity.key == signed_in.key), None)
        if stored != signed_in:
            await self._directory.profiles.signed_in(person, signed_in, self._join_values(signed_in), now)
        owners = self._owners(told)
        # Whoever no source knows stays as the sign-in says: nothing more to ask for.
        return (
            self._together(signed_in, owners, await self._directory.groups.names_of(person.id)) if owners else signed_in
        )

    def _together(self, signed_in: Identity | None, owners: Sequence[Profile], groups: Sequence[str]) -> Identity:
        if signed_in is not None and signed_in.provider not in self._telling:
            # A login that never says groups does not leave them unknown.
            signed_in = replace(signed_in, groups=())
        return effective(signed_in, owners, groups, adds=self._adds)

    def _owners(self, told: Sequence[Profile]) -> list[Profile]:
        owners = [one for one in told if not one.is_login and one.source in self._rank]
        return sorted(owners, key=lambda one: self._rank[one.source])

    def _join_values(self, signed_in: Identity) -> dict[str, str]:
        """By source the value by which it may know this person; a claim that is missing leads nowhere."""
        context = {"claims": dict(signed_in.claims), "user": {"username": signed_in.username, "email": signed_in.email}}
        values: dict[str, str] = {}
        for source in self._sources:
            template = source.joins.get(signed_in.provider)
            if template is None:
                continue
            try:
                value = template.text({**context, "subject": signed_in.subject})
            except TemplateError:
                continue
            if value:
                values[source.name] = value
        return values

    def _remember(self, entry: _Entry) -> None:
        self._entries[entry.signed_in.key] = entry
        self._entries.move_to_end(entry.signed_in.key)
        if len(self._entries) > _MOST:
            self._entries.popitem(last=False)

    def _forget(self, person_id: str) -> None:
        self._generation += 1
        for key in [key for key, entry in self._entries.items() if entry.person_id == person_id]:
            del self._entries[key]

    def _clear(self) -> None:
        self._generation += 1
        self._entries.clear()

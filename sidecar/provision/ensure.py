"""Make sure that a person has the account that they shall have, once, however many requests ask."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from sidecar.config.provision import Provision
from sidecar.core.accounts import refusal_of
from sidecar.core.audit import Event
from sidecar.core.wanted import folded, identity_of, target_of, want
from sidecar.directory import Directory
from sidecar.faults import Refused, Unavailable
from sidecar.hooks.order import Hook
from sidecar.model import Account, Identity, Person
from sidecar.people import Changes
from sidecar.provision.application import Application, Job
from sidecar.provision.journal import Journal, Record
from sidecar.provision.making import Made, Maker
from sidecar.provision.memo import Flights, Memo
from sidecar.provision.outbox import OutboxWorker
from sidecar.provision.preview import ProvisionPlan, preview
from sidecar.provision.rules import fingerprint_of, rules_of, section_digest
from sidecar.reason import Reason
from sidecar.sessions.store import Store
from sidecar.sessions.turn import Turn

_MOST_RESTARTS = 3
_SEEN_EVERY = 3600.0

EndSessions = Callable[[Person], Awaitable[None]]
Who = Callable[[Person], Awaitable[tuple[Identity, tuple[str, ...]] | None]]


async def _no_sessions(person: Person) -> None:  # noqa: ARG001
    return


async def _unheard_of(person: Person) -> None:  # noqa: ARG001
    return None


class Provisioner:
    """Keeps the accounts of one application true. ``outbox`` does the work that may be done later."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that it joins
        self,
        section: Provision,
        hook: Hook,
        directory: Directory,
        store: Store,
        application: str,
        clock: Callable[[], float],
        domains: Mapping[str, tuple[str, ...]],
        record: Record,
        end_sessions: EndSessions = _no_sessions,
        who: Who = _unheard_of,
        changes: Changes | None = None,
    ) -> None:
        """Join the parts.

        *domains* are by login the e-mail domains that it may speak for; *record* takes an audit event's value and its
        fields; *end_sessions* ends every session of a person (without it they end by being refused at each request);
        *who* says who somebody is who is not here, and with which roles (without it nobody is settled but by signing
        in); *changes* tells the others; *clock* gives epoch seconds.
        """
        self._rules = rules_of(section, hook, domains)
        self._digest = section_digest(section)
        self._wait = section.wait.total_seconds()
        self._hook = hook
        self._directory = directory
        self._store = store
        self._turns = f"provision:{hashlib.sha256(application.encode()).hexdigest()[:16]}:"
        self._journal = Journal(record, application)
        self._end_sessions = end_sessions
        self._maker = Maker(self._rules, section.on_error, Application(hook), directory, self._journal)
        self._memo = Memo()
        self._flights = Flights()
        self._who = who
        self._clock = clock
        self._changes = changes or Changes(store)
        self._changes.listen(self._memo.forget, self._memo.clear)
        self.outbox = OutboxWorker(
            section.outbox,
            self._rules,
            Application(hook),
            directory,
            self._journal,
            self._turn,
            clock,
            self._ended,
            self._settle,
        )

    async def ensure(self, identity: Identity, roles: Sequence[str], now: float) -> Account:
        """Give the account of *identity*, made and changed first where that is needed.

        *roles* are the effective roles by name, *now* epoch seconds. Raises Refused (ACCOUNT_…, PERSON_DISABLED) and
        Unavailable (PROVISIONING_DOWN, DIRECTORY_DOWN, STORE_DOWN).
        """
        held = tuple(roles)
        if (remembered := self.at_hand(identity, held, now)) is not None:
            return remembered
        return await self._flights.join(identity, held, partial(self._ensure, identity, held, now))

    def at_hand(self, identity: Identity, roles: Sequence[str], now: float) -> Account | None:
        """What ``ensure`` would give if that is known for sure and nothing is to be done; None says nothing."""
        # Without word from the other replicas nobody would tell us that a person was switched off.
        return self._memo.get(identity, tuple(roles), now) if self._changes.is_heard else None

    async def _ensure(self, identity: Identity, roles: tuple[str, ...], now: float) -> Account:
        await self._changes.watch()
        generation = self._memo.generation
        try:
            made = await self._settled(identity, roles, now)
        except (Refused, Unavailable) as error:
            self._journal.failed(identity, "", "", error)
            raise
        self._memo.put(identity, roles, (made.person_id, made.account), now, generation)
        return made.account

    async def _settled(self, identity: Identity, roles: tuple[str, ...], now: float) -> Made:
        person = await self._present(identity)
        wanted = want(self._rules, identity, roles)
        job = Job(identity, wanted, fingerprint_of(wanted, self._digest), now)
        made = _in_order(person, job)
        if made is not None and person is not None:
            if now - person.last_seen > _SEEN_EVERY:
                await self._directory.seen(person, identity, now)
            return made
        async with self._turn("person", identity.key):
            for _ in range(_MOST_RESTARTS):
                if (made := await self._in_turn(job)) is not None:
                    return made
        raise Unavailable(Reason.PROVISIONING_DOWN, "the person's record keeps changing")

    async def _in_turn(self, job: Job) -> Made | None:
        # Whoever waited for the turn finds the work of the one before.
        person = await self._present(job.identity)
        made = _in_order(person, job)
        if made is not None:
            return made
        known = person or Person("", (job.identity.key,), job.identity.provider)
        async with self._turn("account", folded(target_of(known, job.wanted).key)):
            if await self._present(job.identity) != person:
                # Somebody worked on the same person under another of their identities.
                return None
            return await self._maker.make(job, known)

    async def _present(self, identity: Identity) -> Person | None:
        person = await self._directory.person_by_identity(identity.key)
        refused = refusal_of(person)
        if refused is not None:
            raise Refused(refused, 403, "switched off")
        return person

    def _turn(self, kind: str, name: str) -> Turn:
        key = f"{self._turns}{kind}:{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()}"
        return Turn(self._store, key, self._wait, Reason.PROVISIONING_DOWN)

    # What nobody waits for

    async def _settle(self, person: Person) -> None:
        """Make the account of somebody who is not here as it shall be. Raises Refused and Unavailable as ``ensure``."""
        standing = await self._who(person)
        if standing is None:
            return
        made = await self._settled(*standing, self._clock())
        self._memo.forget(made.person_id)

    async def _ended(self, person: Person) -> None:
        """Make every replica look again, and end the person's sessions."""
        await self._changes.announce([person.id])
        await self._end_sessions(person)

    # Switching people off and on

    async def disable(self, person_id: str, by: str, now: float, *, forever: bool = False) -> Person:
        """Switch a person off on behalf of *by*: durably first, then their sessions, then (later) their accounts.

        Raises Refused(NOT_FOUND). After Unavailable the person is off if the directory answered; the outbox ends the
        sessions then.
        """
        return await self._left(await self._directory.disable(person_id, by, now, forever=forever), by)

    async def remove(self, person_id: str, by: str, now: float) -> Person:
        """Switch a person off for good, and owe the application the deletion of their account.

        Where the application has no ``delete`` steps it is deactivated. Raises Refused(NOT_FOUND).
        """
        return await self._left(await self._directory.remove(person_id, by, now), by)

    async def left(self, person_id: str, by: str) -> None:
        """See to what follows for somebody whom *by* switched off durably just now. Raises Unavailable as ``disable``.

        Whoever was faster and switched them on again has seen to it already.
        """
        person = await self._directory.person(person_id)
        if person is not None and not person.active:
            await self._left(person, by)

    async def _left(self, person: Person, by: str) -> Person:
        self._journal.note(Event.PERSON_DISABLED, identity_of(person), person.id, "", by=by)
        await self._ended(person)
        self.outbox.wake()
        return person

    async def enable(self, person_id: str, by: str, now: float) -> Person:
        """Lift what *by* had said. Unless others have them switched off, too, the person is on again.

        The account that we deactivated is reactivated then, now or at the next sign-in. Raises
        Refused(PERSON_DISABLED) when only others had switched them off.
        """
        return await self._returned(await self._directory.enable(person_id, by, now), by)

    async def returned(self, person_id: str, by: str) -> None:
        """See to what follows for somebody of whom *by* lifted durably just now what it had said."""
        person = await self._directory.person(person_id)
        if person is not None:
            await self._returned(person, by)

    async def _returned(self, person: Person, by: str) -> Person:
        if person.active:
            self._journal.note(Event.PERSON_ENABLED, identity_of(person), person.id, "", by=by)
        else:
            still = list(await self._directory.blockers(person))
            self._journal.note(Event.PERSON_RELEASED, identity_of(person), person.id, "", by=by, still=still)
        await self._changes.announce([person.id])
        self.outbox.wake()
        return person

    # Looking ahead, and ending

    async def plan(self, identity: Identity, roles: Sequence[str], now: float, *, probe: bool = False) -> ProvisionPlan:
        """Say what ``ensure`` would do, without doing it; *probe* runs the lookup for real."""
        wanted = want(self._rules, identity, roles)
        job = Job(identity, wanted, fingerprint_of(wanted, self._digest), now)
        return await preview(self._rules, Application(self._hook), self._directory, job, probe=probe)

    async def close(self) -> None:
        """Wait for what is under way, so that no creation is left half way; whoever made the parts closes them."""
        await self._flights.wait()


def _in_order(person: Person | None, job: Job) -> Made | None:
    """The account of somebody for whom nothing is to be done, None for everybody else."""
    if person is None or person.account is None or person.account.deactivated:
        return None
    return Made(person.id, person.account) if person.fingerprint == job.mark else None

"""Do what follows from an event: to sessions at once and everywhere, to accounts by the ordinary way."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.core.signals import Consequence, Subject
from sidecar.faults import Refused
from sidecar.model import identity_key
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.marks import Mark
from sidecar.sessions.store import Store

if TYPE_CHECKING:
    from sidecar.directory import Directory
    from sidecar.provision import Provisioner

_MARKS = {Consequence.STEP_UP: Mark.WEAK, Consequence.REFRESH: Mark.REFRESH}
_SWITCHING = frozenset([Consequence.DISABLE, Consequence.ENABLE, Consequence.DELETE])


@dataclass(frozen=True, slots=True)
class Cause:
    """Who says it, about whose people, when it happened, and how long that is remembered (seconds)."""

    transmitter: str
    issuer: str
    at: float
    memory: float


@dataclass(frozen=True, slots=True)
class _Found:
    keys: tuple[str, ...] = ()
    person: str = ""


class Effects:
    """Everything may be done twice: whoever dies half way is told again, and does it again."""

    def __init__(
        self, keeper: SessionKeeper, store: Store, directory: Directory | None, provisioner: Provisioner | None
    ) -> None:
        """Without *provisioner* nobody has an account, and events about accounts only end sessions."""
        self._keeper = keeper
        self._store = store
        self._directory = directory
        self._provisioner = provisioner

    async def apply(self, what: Consequence, subject: Subject, cause: Cause, now: float) -> Mapping[str, object]:
        """Do it; what was done, for the audit line. Raises Unavailable, and Refused for somebody who is ambiguous."""
        found = await self._found(subject, cause.issuer)
        said: dict[str, object] = {"person": found.person} if found.person else {}
        if what in _SWITCHING and found.keys:
            # Under each of their names: the next event may call them by another one, an address for instance.
            orders = [_order(name, cause) for name in (found.person, *found.keys) if name]
            if await self._is_outdated(what, orders, cause):
                return {**said, "result": "outdated"}
            said |= await self._switched(what, found, cause, now)
            for order in orders:
                await self._store.put(order, str(cause.at).encode(), cause.memory)
        if what is Consequence.ENABLE:
            return said
        if what in _MARKS:
            return {**said, "marked": await self._mark(found, subject, cause.issuer, _MARKS[what], now)}
        return {**said, "ended": await self._end(found, subject, cause.issuer)}

    # Whom it is about

    async def _found(self, subject: Subject, issuer: str) -> _Found:
        if subject.subject:
            key = identity_key(issuer, subject.subject)
            known = None if self._directory is None else await self._directory.person_by_identity(key)
            # Everything that belongs to the person goes with them, by whichever login it was opened.
            others = () if known is None else known.identities
            return _Found(tuple(dict.fromkeys((key, *others))), known.id if known else "")
        if subject.email and self._directory is not None:
            return await self._by_address(self._directory, subject.email, issuer)
        return _Found()

    async def _by_address(self, directory: Directory, email: str, issuer: str) -> _Found:
        begins = identity_key(issuer, "").removesuffix("0:")
        people = [
            person
            for person in await directory.called(email)
            if person.email.casefold() == email.casefold() and any(key.startswith(begins) for key in person.identities)
        ]
        if len(people) > 1:
            raise Refused(Reason.ACCOUNT_AMBIGUOUS, 400, "several people of that login have this address")
        return _Found(people[0].identities, people[0].id) if people else _Found()

    # Accounts

    async def _switched(self, what: Consequence, found: _Found, cause: Cause, now: float) -> dict[str, object]:
        provisioner, by = self._provisioner, f"signals:{cause.transmitter}"
        if provisioner is None or not found.person:
            return {}
        if what is Consequence.ENABLE:
            try:
                person = await provisioner.enable(found.person, by, now)
            except Refused as refused:
                # Somebody else had switched them off, or they are gone for good: that holds.
                return {"result": refused.reason.value, "detail": refused.detail}
            if not person.active:
                return {"result": Reason.PERSON_DISABLED.value, "detail": f"switched off by {person.disabled_by}"}
        elif what is Consequence.DELETE:
            await provisioner.remove(found.person, by, now)
        else:
            await provisioner.disable(found.person, by, now)
        return {"switched": what.value}

    async def _is_outdated(self, what: Consequence, orders: Sequence[str], cause: Cause) -> bool:
        """Events may come late and out of order: an older one undoes no newer one; of two at once "off" holds."""
        held = [await self._store.get(order) for order in orders]
        last = max((float(one) for one in held if one is not None), default=-math.inf)
        return cause.at < last or (cause.at == last and what is Consequence.ENABLE)

    # Sessions

    async def _end(self, found: _Found, subject: Subject, issuer: str) -> int:
        if subject.session:
            return await self._keeper.end_provider_session(issuer, subject.session, subject.subject)
        return sum([await self._keeper.end_person(key) for key in found.keys])

    async def _mark(self, found: _Found, subject: Subject, issuer: str, mark: Mark, now: float) -> int:
        if subject.session:
            return await self._keeper.mark_provider_session(issuer, subject.session, subject.subject, mark, now)
        return sum([await self._keeper.mark_person(key, mark, now) for key in found.keys])


def _order(key: str, cause: Cause) -> str:
    name = f"{len(cause.transmitter)}:{cause.transmitter}{key}"
    return f"signal-order:{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()}"

"""Who somebody is that signed in with an emergency account: what the configuration says at this moment."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.config.break_glass import BreakGlass, BreakGlassAccount
from sidecar.faults import Refused
from sidecar.model import Account, Identity
from sidecar.reason import Reason

PROVIDER = "break-glass"
Remembered = Callable[[Identity, float], Identity | None]
Known = Callable[[Identity, float], Awaitable[Identity]]
Ensure = Callable[[Identity, Sequence[str], float], Awaitable[Account | None]]
AtHand = Callable[[Identity, Sequence[str], float], tuple[Account | None] | None]


def identity_of(name: str, account: BreakGlassAccount, origin: str) -> Identity:
    """Who the emergency account *name* is at *origin*.

    A mark of the password stands in it: sessions do not outlive the password that they were opened with.
    """
    mark = hashlib.sha256(f"{account.hash.reveal()}\n{account.totp.reveal() if account.totp else ''}".encode())
    return Identity(
        provider=PROVIDER,
        issuer=f"{origin}#{PROVIDER}",
        subject=name,
        username=account.username or name,
        email=account.email,
        name=account.name,
        groups=account.groups,
        claims={"configured": mark.hexdigest()[:16]},
    )


@dataclass(slots=True, kw_only=True)
class Emergency:
    """Stands before the four functions that tell the gate about people; everybody else is passed on.

    Emergency accounts need neither directory nor hooks, unless the section says ``provision``.
    """

    section: BreakGlass | None
    origin: str
    remembered_else: Remembered
    known_else: Known
    ensure_else: Ensure
    at_hand_else: AtHand
    end_person: Callable[[str], Awaitable[int]]
    _identities: Mapping[str, Identity] = field(init=False)

    def __post_init__(self) -> None:
        """Work out who there is."""
        accounts = self.section.accounts if self.section is not None else {}
        self._identities = {name: identity_of(name, one, self.origin) for name, one in accounts.items()}

    def identity(self, name: str) -> Identity:
        """Who the account *name* is."""
        return self._identities[name]

    def _as_configured(self, signed_in: Identity) -> Identity | None:
        """The same identity while the configuration still says so; None when it was removed or changed."""
        configured = self._identities.get(signed_in.subject)
        return configured if configured == signed_in else None

    def remembered(self, signed_in: Identity, now: float) -> Identity | None:
        """See gate.Remembered."""
        return (
            self._as_configured(signed_in) if signed_in.provider == PROVIDER else self.remembered_else(signed_in, now)
        )

    async def known(self, signed_in: Identity, now: float) -> Identity:
        """See gate.Known. Raises Refused(SESSION_EXPIRED), and ends the sessions, for whoever is there no more."""
        if signed_in.provider != PROVIDER:
            return await self.known_else(signed_in, now)
        configured = self._as_configured(signed_in)
        if configured is None:
            await self.end_person(signed_in.key)
            raise Refused(Reason.SESSION_EXPIRED, 401, "the emergency account was removed or changed")
        return configured

    def _account(self, identity: Identity) -> tuple[Account | None] | None:
        if identity.provider != PROVIDER or (self.section is not None and self.section.provision):
            return None
        found = self.section.accounts.get(identity.subject) if self.section is not None else None
        return (Account(found.account),) if found is not None and found.account else (None,)

    async def ensure(self, identity: Identity, roles: Sequence[str], now: float) -> Account | None:
        """See gate.Ensure."""
        own = self._account(identity)
        return await self.ensure_else(identity, roles, now) if own is None else own[0]

    def at_hand(self, identity: Identity, roles: Sequence[str], now: float) -> tuple[Account | None] | None:
        """See gate.AtHand."""
        return self._account(identity) or self.at_hand_else(identity, roles, now)

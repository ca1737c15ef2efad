"""Know one SCIM client: its tokens, where it may come from, and who its people are."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from typing import Any

from sidecar.config.scim import ScimClient, ScimToken
from sidecar.core.addresses import Network, is_trusted
from sidecar.core.claims import IdentityPlan, identity_from
from sidecar.core.credentials import bearer_hash
from sidecar.core.scim.claims import claims_of
from sidecar.core.scim.fault import bad_value
from sidecar.core.template import Compiler
from sidecar.faults import Refused
from sidecar.model import Identity, Visit
from sidecar.reason import Reason


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a client: its hash, when it ends (epoch seconds), and whether it may change anything."""

    hash: bytes
    expires: float = math.inf
    may_write: bool = True


@dataclass(frozen=True, slots=True)
class Client:
    """One client as it was configured. ``source`` is what the directory calls it, ``base`` its address."""

    name: str
    source: str
    base: str
    tokens: tuple[Token, ...]
    networks: tuple[Network, ...]
    tolerant: bool
    on: str
    rate: int
    plan: IdentityPlan

    def is_at_home(self, visit: Visit) -> bool:
        """True when the client may come from there."""
        return not self.networks or bool(visit.client and is_trusted(visit.client, self.networks))

    def shown_by(self, visit: Visit) -> Token | None:
        """The token of the client's that the request shows; it takes as long for every wrong one."""
        presented = bearer_hash(visit.authorization)
        return next((one for one in self.tokens if hmac.compare_digest(presented, one.hash)), None)

    def describe(self, user_id: str, document: Mapping[str, Any]) -> tuple[Identity, Sequence[str]]:
        """Who somebody is, and the values that join them to those who sign in. Raises Fault(invalidValue)."""
        claims = claims_of(document)
        try:
            who = identity_from(self.source, self.source, {**claims, "sub": user_id}, self.plan)
        except Refused as refused:
            raise bad_value(f"no identity can be made of it: {refused.detail}") from None
        value = document.get(self.on) or ""
        # User names are the same in any case of their letters.
        joins = [value.lower() if self.on == "userName" else value] if value else []
        return replace(who, claims=claims), joins


def client_of(name: str, section: ScimClient, base: str) -> Client:
    """The client that *section* describes, below the address *base*."""
    compiled = Compiler().compile
    own = section.identity
    plan = IdentityPlan(
        username=own.username or compiled("{{ claims.userName }}"),
        email=own.email or compiled("{{ claims.email }}"),
        name=own.name or compiled("{{ claims.displayName }}"),
        groups=own.groups,
        claims=None,
        # Whoever may make people may say what their address is, unless that was limited.
        trust_email=not section.domains,
        email_domains=frozenset(domain.lower() for domain in section.domains),
    )
    return Client(
        name=name,
        source=f"scim:{name}",
        base=f"{base}/{name}/v2",
        tokens=tuple(_token(one) for one in section.token),
        networks=section.networks,
        tolerant=section.profile != "strict",
        on=section.on,
        rate=section.rate,
        plan=plan,
    )


def _token(section: ScimToken) -> Token:
    """The day is the last one: the token ends when the next one begins."""
    after = None if section.expires is None else datetime.combine(section.expires, time.max, UTC)
    return Token(
        hashlib.sha256(section.value.reveal().encode()).digest(),
        math.inf if after is None else after.timestamp(),
        section.scope == "write",
    )


def not_admitted(status: int, detail: str) -> Refused:
    """The refusal of somebody who is not the client."""
    return Refused(Reason.SCIM_CLIENT, status, detail)

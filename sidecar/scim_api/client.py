"""Know one SCIM client: its tokens, where it may come from, and who its people are."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sidecar.config.scim import ScimClient
from sidecar.core.addresses import Network, is_trusted
from sidecar.core.claims import IdentityPlan, identity_from
from sidecar.core.scim.claims import claims_of
from sidecar.core.scim.fault import bad_value
from sidecar.core.template import Compiler
from sidecar.model import Identity, Reason, Refused, Visit

_BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class Client:
    """One client as it was configured. ``source`` is what the directory calls it, ``base`` its address."""

    name: str
    source: str
    base: str
    tokens: tuple[bytes, ...]
    networks: tuple[Network, ...]
    tolerant: bool
    on: str
    rate: int
    plan: IdentityPlan

    def is_at_home(self, visit: Visit) -> bool:
        """True when the client may come from there."""
        return not self.networks or bool(visit.client and is_trusted(visit.client, self.networks))

    def is_shown_by(self, visit: Visit) -> bool:
        """True when the request shows a token of the client's; it takes as long for every wrong one."""
        shown = visit.authorization
        if shown[: len(_BEARER)].lower() != _BEARER:
            return False
        presented = hashlib.sha256(shown[len(_BEARER) :].strip().encode(errors="surrogateescape")).digest()
        return any(hmac.compare_digest(presented, token) for token in self.tokens)

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
        tokens=tuple(hashlib.sha256(token.reveal().encode()).digest() for token in section.token),
        networks=section.networks,
        tolerant=section.profile != "strict",
        on=section.on,
        rate=section.rate,
        plan=plan,
    )


def not_admitted(status: int, detail: str) -> Refused:
    """The refusal of somebody who is not the client."""
    return Refused(Reason.SCIM_CLIENT, status, detail)

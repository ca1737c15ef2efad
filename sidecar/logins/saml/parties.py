"""What the two sides of a SAML sign-in know of each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Binding = Literal["redirect", "post"]


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """One IDPSSODescriptor (SAML 2.0 Metadata, section 2.4.3), as far as it is believed.

    ``sso`` and ``slo`` map a binding to the address that takes messages; ``slo_answers`` the same for answers where
    they go elsewhere (ResponseLocation). ``certificates`` are PEM texts of the only keys whose signatures count.
    ``valid_until`` is epoch seconds, None when it is not limited; ``title`` is a DisplayName, "" when there is none.
    """

    entity_id: str
    sso: Mapping[Binding, str]
    certificates: tuple[str, ...]
    slo: Mapping[Binding, str] = field(default_factory=dict)
    slo_answers: Mapping[Binding, str] = field(default_factory=dict)
    wants_signed_requests: bool = False
    valid_until: float | None = None
    title: str = ""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """PEM texts of a certificate and its private key."""

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServiceProvider:
    """Our side of one login: what our metadata says (SAML 2.0 Metadata, section 2.4.4).

    ``keys`` newest first: the first signs, all decrypt and all are published.
    """

    entity_id: str
    acs_url: str
    slo_url: str
    metadata_url: str
    keys: tuple[KeyPair, ...] = ()


class ProviderMetadata(Protocol):
    """Where the present description of the identity provider comes from; refreshed behind the scenes."""

    async def current(self, now: float) -> IdentityProvider:
        """Give the description in force; Unavailable(PROVIDER_DOWN) when there is none that is still valid."""

    async def renewed(self, now: float) -> IdentityProvider | None:
        """Look once more, because no known key made a signature; None when it is too soon or the keys are the same."""

    async def keep_fresh(self) -> None:
        """Refresh for ever; run in the background. A bad new copy never replaces a good old one."""

    async def probe(self) -> str:
        """Fetch anew and describe it in a line; raises Unavailable."""

    async def close(self) -> None:
        """Let go of connections."""

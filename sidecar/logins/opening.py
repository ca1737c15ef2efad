"""Make the configured logins, and what recognises their bearer tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.config.login import OidcLogin
from sidecar.config.saml import SamlLogin
from sidecar.core.claims import IdentityPlan
from sidecar.logins.bearer import BearerAuthenticator, accepted_tokens
from sidecar.logins.introspection import IntrospectingAuthenticator
from sidecar.logins.login import Login
from sidecar.logins.oidc import OpenIdLogin
from sidecar.logins.saml.parties import KeyPair, ProviderMetadata, ServiceProvider

if TYPE_CHECKING:
    from sidecar.logins.saml.login import SamlSignIn

Clock = Callable[[], float]


def callback_address(public_url: str, prefix: str, name: str) -> str:
    """Return the redirect URI of the login *name*: one for each, so that answers cannot be mixed up (RFC 9700, 4.4)."""
    return f"{public_url.rstrip('/')}/{prefix.strip('/')}/callback/{name}"


def saml_address(public_url: str, prefix: str, name: str, page: str) -> str:
    """Address of a *page* that only the SAML login *name* has: ``metadata`` or ``logout``."""
    return f"{public_url.rstrip('/')}/{prefix.strip('/')}/saml/{name}/{page}"


def open_logins(
    sections: Mapping[str, OidcLogin | SamlLogin],
    public_url: str,
    prefix: str,
    plans: Mapping[str, IdentityPlan],
    clock: Clock = time.time,
) -> dict[str, Login]:
    """Make one login for each section, with its plan; nothing goes over the network yet.

    Raises ValueError that begins with the YAML path ``logins.NAME.…`` of what cannot be used. Each must be closed.
    """
    opened: dict[str, Login] = {}
    for name, section in sections.items():
        try:
            if isinstance(section, OidcLogin):
                address = callback_address(public_url, prefix, name)
                opened[name] = OpenIdLogin(name, section, address, plans[name], clock)
            else:
                # XML and its signatures are ten megabytes: for those who have such a login.
                from sidecar.logins.saml.login import SamlSignIn  # noqa: PLC0415 - see above

                service = service_provider(name, section, public_url, prefix)
                metadata = provider_metadata(name, section, clock)
                opened[name] = SamlSignIn(name, section, service, metadata, plans[name], clock=clock)
        except ValueError as error:
            message = f"logins.{name}.{error}"
            raise ValueError(message) from None
    return opened


def saml_logins_of(logins: Mapping[str, Login], sections: Mapping[str, OidcLogin | SamlLogin]) -> dict[str, SamlSignIn]:
    """Those of *logins* that speak SAML."""
    if not any(isinstance(section, SamlLogin) for section in sections.values()):
        return {}
    from sidecar.logins.saml.login import SamlSignIn  # noqa: PLC0415 - as above

    return {name: login for name, login in logins.items() if isinstance(login, SamlSignIn)}


def provider_metadata(name: str, section: SamlLogin, clock: Clock) -> ProviderMetadata:
    """Source of what is known about the identity provider of *section*. Raises ValueError."""
    from sidecar.logins.saml.metadata import ProviderDescription  # noqa: PLC0415 - as above
    from sidecar.logins.saml.metadata_document import Seal  # noqa: PLC0415 - as above
    from sidecar.logins.saml.metadata_place import place_of  # noqa: PLC0415 - as above

    certificate = section.metadata_certificate
    seal = Seal(
        certificate="" if certificate is None else _text(certificate, "metadata_certificate"),
        fingerprint=section.metadata_fingerprint or "",
        weak=frozenset(section.weak),
    )
    return ProviderDescription(name, section, place_of(name, section), seal, clock)


def service_provider(name: str, section: SamlLogin, public_url: str, prefix: str) -> ServiceProvider:
    """Our side of the SAML login *name*. Raises ValueError when a certificate cannot be read."""
    address = saml_address(public_url, prefix, name, "metadata")
    return ServiceProvider(
        entity_id=section.entity_id or address,
        acs_url=callback_address(public_url, prefix, name),
        slo_url=saml_address(public_url, prefix, name, "logout"),
        metadata_url=address,
        keys=tuple(
            KeyPair(_text(pair.certificate, f"keys[{number}].certificate"), pair.key.reveal())
            for number, pair in enumerate(section.keys)
        ),
    )


def _text(path: Path, key: str) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{key}: {path} cannot be read as PEM: {error}"
        raise ValueError(message) from None


def open_bearer(
    logins: Mapping[str, Login], sections: Mapping[str, OidcLogin | SamlLogin], own_issuer: str
) -> BearerAuthenticator | None:
    """Accept the bearer tokens of those *logins* whose section says so, with their keys; None when no section does.

    *own_issuer* is the ``iss`` of our own assertions, which are never accepted back.
    """
    accepted = []
    for name, section in sections.items():
        login = logins[name]
        if isinstance(section, OidcLogin) and isinstance(login, OpenIdLogin) and section.bearer is not None:
            accepted.append(accepted_tokens(name, section, section.bearer, login.provider.keys, login.plan))
    return BearerAuthenticator(accepted, own_issuer) if accepted else None


def open_introspection(
    logins: Mapping[str, Login], sections: Mapping[str, OidcLogin | SamlLogin]
) -> IntrospectingAuthenticator | None:
    """Ask the one of *logins* about opaque tokens whose section says so; None when none does."""
    for name, section in sections.items():
        login = logins[name]
        if not isinstance(section, OidcLogin) or not isinstance(login, OpenIdLogin) or section.bearer is None:
            continue
        if section.bearer.introspection is not None:
            accepted = accepted_tokens(name, section, section.bearer, login.provider.keys, login.plan)
            return IntrospectingAuthenticator(section.bearer.introspection, accepted, login.provider)
    return None

"""Make the configured logins, and what recognises their bearer tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sidecar.config.login import OidcLogin
from sidecar.core.claims import IdentityPlan
from sidecar.logins.bearer import BearerAuthenticator, accepted_tokens
from sidecar.logins.oidc import OpenIdLogin


def callback_address(public_url: str, prefix: str, name: str) -> str:
    """Return the redirect URI of the login *name*: one for each, so that answers cannot be mixed up (RFC 9700, 4.4)."""
    return f"{public_url.rstrip('/')}/{prefix.strip('/')}/callback/{name}"


def open_logins(
    sections: Mapping[str, OidcLogin],
    public_url: str,
    prefix: str,
    plans: Mapping[str, IdentityPlan],
    clock: Callable[[], float] = time.time,
) -> dict[str, OpenIdLogin]:
    """Make one login for each section, with its plan; nothing goes over the network yet.

    Raises ValueError that begins with the YAML path ``logins.NAME.…`` of what cannot be used. Each must be closed.
    """
    opened: dict[str, OpenIdLogin] = {}
    for name, section in sections.items():
        address = callback_address(public_url, prefix, name)
        try:
            opened[name] = OpenIdLogin(name, section, address, plans[name], clock)
        except ValueError as error:
            message = f"logins.{name}.{error}"
            raise ValueError(message) from None
    return opened


def open_bearer(
    logins: Mapping[str, OpenIdLogin], sections: Mapping[str, OidcLogin], own_issuer: str
) -> BearerAuthenticator | None:
    """Accept the bearer tokens of those *logins* whose section says so, with their keys; None when no section does.

    *own_issuer* is the ``iss`` of our own assertions, which are never accepted back.
    """
    accepted = [
        accepted_tokens(name, section, section.bearer, logins[name].provider.keys, logins[name].plan)
        for name, section in sections.items()
        if section.bearer is not None
    ]
    return BearerAuthenticator(accepted, own_issuer) if accepted else None

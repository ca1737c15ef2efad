"""Put a person's claims together from ID token, userinfo and earlier tokens without mixing what belongs together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.core.claims import IdentityPlan
from sidecar.core.template import Template

_EMAIL, _VERIFIED = "email", "email_verified"
# Only ever meaningful in the token that carries them.
_OF_ONE_TOKEN = frozenset(
    {"iss", "aud", "azp", "exp", "iat", "nbf", "jti", "nonce", "at_hash", "c_hash", "auth_time", "acr", "amr", "sid"}
)


def merged(weaker: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    """Join two sources; where both speak the *stronger* is right.

    ``email_verified`` stays with the address that it was said of: one source's true must not vouch for the
    address of another.
    """
    claims = {**weaker, **stronger}
    said = [source for source in (stronger, weaker) if _EMAIL in source]
    claims.pop(_VERIFIED, None)
    for source in said:
        if _VERIFIED in source and source[_EMAIL] == said[0][_EMAIL]:
            claims[_VERIFIED] = source[_VERIFIED]
            break
    return claims


def lacks_claims(claims: Mapping[str, Any], plan: IdentityPlan) -> bool:
    """Whether something that the configuration reads is missing in *claims*, or nobody can tell."""
    needed = set(plan.claims or ())
    for template in _templates(plan):
        if template.claims is None:
            return True
        needed |= template.claims
    if plan.email is not None and not plan.trust_email:
        needed |= {_EMAIL, _VERIFIED}
    return not needed <= claims.keys()


def remembered(claims: Mapping[str, Any], plan: IdentityPlan, *, with_groups: bool) -> dict[str, Any]:
    """Keep of an earlier ID token what still says who somebody is, with or without what groups are read from."""
    if not with_groups and plan.groups is not None and plan.groups.claims is None:
        return {}
    left_out = _OF_ONE_TOKEN
    if not with_groups and plan.groups is not None and plan.groups.claims is not None:
        left_out |= plan.groups.claims | {"_claim_names", "_claim_sources"}
    return {name: value for name, value in claims.items() if name not in left_out}


def _templates(plan: IdentityPlan) -> tuple[Template, ...]:
    lines = (plan.username, plan.email, plan.name, plan.groups)
    return tuple(template for template in lines if template is not None)

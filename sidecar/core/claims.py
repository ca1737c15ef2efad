"""Make an identity out of verified claims."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.core.template import MissingValueError, Template, TemplateError
from sidecar.faults import Refused
from sidecar.model import Identity
from sidecar.reason import Reason

_LONGEST_TEXT = 1024
MOST_GROUPS = 5000
# What is written around a value by accident.
_BLANKS = " \t\r\n"
_LINK = "http://schemas.microsoft.com/claims/groups.link"


@dataclass(frozen=True, slots=True)
class IdentityPlan:
    """The templates of one login and which claims the rest of the configuration reads.

    ``claims`` None keeps all of them. ``trust_email`` believes an address without ``email_verified``; so are those in
    ``email_domains`` (lower case), which the provider is known to look after.
    """

    username: Template
    email: Template | None
    name: Template | None
    groups: Template | None
    claims: frozenset[str] | None
    trust_email: bool = False
    email_domains: frozenset[str] = frozenset()


def identity_from(provider: str, issuer: str, claims: Mapping[str, Any], plan: IdentityPlan) -> Identity:
    """Build the identity that *claims* (verified, JSON values) describe.

    Raises ``Refused(IDENTITY_INCOMPLETE)`` when subject or user name are missing, empty or not text.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or len(subject) > _LONGEST_TEXT or _has_unseen(subject):
        raise Refused(Reason.IDENTITY_INCOMPLETE, 403, "no usable subject")
    context = {"claims": dict(claims)}
    username = _line(plan.username, context)
    if not username:
        raise Refused(Reason.IDENTITY_INCOMPLETE, 403, f"{plan.username.source} gave no user name")
    if username != username.strip():
        # Without it, it would be the name of somebody else; and it is not seen.
        detail = f"{plan.username.source} gave a user name with white space at an end that is no blank"
        raise Refused(Reason.IDENTITY_INCOMPLETE, 403, detail)
    kept = claims if plan.claims is None else {name: claims[name] for name in plan.claims if name in claims}
    return Identity(
        provider=provider,
        issuer=issuer,
        subject=subject,
        username=username,
        email=_email(_line(plan.email, context), claims, plan),
        name=_line(plan.name, context),
        groups=groups_of(plan.groups, claims),
        claims=dict(kept),
    )


def _line(template: Template | None, context: Mapping[str, Any]) -> str:
    if template is None:
        return ""
    try:
        text = template.text(context)
    except MissingValueError:
        return ""
    except TemplateError as error:
        raise Refused(Reason.IDENTITY_INCOMPLETE, 403, str(error)) from None
    # One canonical form, made once and used everywhere: two spellings of a name must not be two people.
    text = unicodedata.normalize("NFC", text).strip(_BLANKS)
    if len(text) > _LONGEST_TEXT or _has_unseen(text):
        raise Refused(Reason.IDENTITY_INCOMPLETE, 403, f"{template.source} gave control characters or too much text")
    return text


def _has_unseen(text: str) -> bool:
    # What is printable has none of these, and nearly every text is.
    return not text.isprintable() and any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in text)


def _email(text: str, claims: Mapping[str, Any], plan: IdentityPlan) -> str:
    """Keep the address only when it is verified and plainly one mailbox; "" otherwise."""
    local, _, domain = text.partition("@")
    if not (plan.trust_email or _is_vouched_for(text, claims) or domain.lower() in plan.email_domains):
        return ""
    plain = text.isascii() and local and domain and "@" not in domain
    if not plain or any(letter in text for letter in '"<>(),;:\\[] \t') or domain.startswith("."):
        return ""
    return f"{local}@{domain.lower()}"


def is_overflowing(claims: Mapping[str, Any], names: frozenset[str] | None) -> bool:
    """True when the provider only refers to one of *names* (None: to anything), or says that there is more."""
    references = claims.get("_claim_names")
    if isinstance(references, Mapping) and (names is None or set(references) & names):
        return True
    # What Entra sends in place of a reference where the answer is short, and in SAML.
    return claims.get("hasgroups") in (True, "true") or _LINK in claims


def _is_vouched_for(address: str, claims: Mapping[str, Any]) -> bool:
    """OpenID Connect Core 1.0, section 5.1: ``email_verified`` speaks of ``email``, and of no other claim."""
    verified = claims.get("email")
    is_same = isinstance(verified, str) and verified.strip().lower() == address.lower()
    return is_same and claims.get("email_verified") is True


def groups_of(template: Template | None, claims: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Read the groups; None when the provider did not say: claim missing, or only a reference to it.

    An overflowing provider sends ``_claim_names`` in place of the groups (OpenID Connect Core 1.0, section 5.6.2).
    """
    if template is None:
        return None
    if is_overflowing(claims, template.claims):
        return None
    try:
        value = template.value({"claims": dict(claims)})
    except MissingValueError:
        return None
    except TemplateError as error:
        raise Refused(Reason.IDENTITY_INCOMPLETE, 403, str(error)) from None
    if value is None:
        return None
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(group, str) for group in values):
        raise Refused(Reason.IDENTITY_INCOMPLETE, 403, f"{template.source} did not give a list of texts")
    if len(values) > MOST_GROUPS:
        raise Refused(Reason.IDENTITY_INCOMPLETE, 403, f"more than {MOST_GROUPS} groups")
    return tuple(dict.fromkeys(group for group in values if group))

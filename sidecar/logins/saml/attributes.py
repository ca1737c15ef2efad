"""Turn an assertion's NameID and attributes into claims, as the templates of the configuration read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lxml import etree

from sidecar.faults import Refused
from sidecar.logins.saml.document import text_of
from sidecar.logins.saml.encryption import opened
from sidecar.logins.saml.grammar import tag
from sidecar.logins.saml.naming import NameId
from sidecar.logins.saml.parties import KeyPair
from sidecar.logins.saml.screen import screen
from sidecar.reason import Reason

_NAME_ID, _ENCRYPTED_ID = tag("a:NameID"), tag("a:EncryptedID")
_NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
_GROUPS = "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups"
# What Entra ID sends in place of more than 150 groups: an address where they could be asked for.
_OVERAGE = ("http://schemas.microsoft.com/claims/groups.link", f"{_GROUPS}.link")
# Ours to say; an attribute of the same name must not.
OWN_CLAIMS = frozenset(["sub", "name_id", "name_id_format", "acr", "email_verified", "_claim_names"])


def name_id_of(assertion: etree._Element, keys: Sequence[KeyPair], weak: frozenset[str]) -> NameId | None:
    """What the subject is called, None when it has no name. Raises Refused.

    *assertion* is signed, so it was the provider who encrypted the name: AES-CBC is no danger here.
    """
    subject = assertion.find(tag("a:Subject"))
    if subject is None:
        return None
    return name_in(subject, keys, weak)


def name_in(parent: etree._Element, keys: Sequence[KeyPair], weak: frozenset[str]) -> NameId | None:
    """The NameID in *parent*, which is signed, opened where it is encrypted."""
    plain, hidden = parent.find(_NAME_ID), parent.find(_ENCRYPTED_ID)
    if plain is not None and hidden is not None:
        raise Refused(Reason.TOKEN_CLAIM, 403, "SAML: two names of the subject")
    if hidden is not None:
        try:
            plain = opened(hidden, keys)
            screen(plain, _NAME_ID, weak)
        except Refused as refused:
            raise Refused(Reason.TOKEN_INVALID, 403, f"SAML: the encrypted NameID: {refused.detail}") from None
    if plain is None:
        return None
    value = text_of(plain)
    if not value:
        raise Refused(Reason.TOKEN_CLAIM, 403, "SAML: an empty NameID")
    qualifiers = [str(plain.get(name, "")) for name in ("Format", "NameQualifier", "SPNameQualifier")]
    return NameId(value, *qualifiers)


def claims_of(assertion: etree._Element, mapped: Mapping[str, str]) -> dict[str, Any]:
    """Attributes as claims: by the names of *mapped* (claim → Name or FriendlyName), by Name and by FriendlyName.

    One value is a text, several are a list, none an empty list. A Name is stronger than a FriendlyName, which anybody
    may give twice: then it names nothing.
    """
    named, friendly = _named(assertion)
    found: dict[str, Any] = {**friendly, **named}
    claims = {name: value for name, value in found.items() if name not in OWN_CLAIMS}
    for claim, attribute in mapped.items():
        # Missing is missing: an attribute that happens to be called as the claim is must not stand in for it.
        claims.pop(claim, None)
        if attribute in found:
            claims[claim] = found[attribute]
    if any(name in named for name in _OVERAGE):
        wanting = [claim for claim, attribute in mapped.items() if attribute == _GROUPS]
        claims["_claim_names"] = dict.fromkeys(["groups", _GROUPS, *wanting], "groups.link")
    return claims


def _named(assertion: etree._Element) -> tuple[dict[str, Any], dict[str, Any]]:
    """(by Name, by FriendlyName); the same Name again adds its values."""
    by_name: dict[str, list[str]] = {}
    owners: dict[str, set[str]] = {}
    for attribute in assertion.iter(tag("a:Attribute")):
        name, friendly = str(attribute.get("Name", "")), str(attribute.get("FriendlyName", ""))
        by_name.setdefault(name, []).extend(_values(attribute))
        if friendly:
            owners.setdefault(friendly, set()).add(name)
    named = {name: _shape(values) for name, values in by_name.items() if name}
    friends = {friend: named.get(min(names)) for friend, names in owners.items() if len(names) == 1}
    return named, {friend: value for friend, value in friends.items() if value is not None}


def _values(attribute: etree._Element) -> list[str]:
    return [
        text_of(value) for value in attribute.findall(tag("a:AttributeValue")) if value.get(_NIL) not in ("true", "1")
    ]


def _shape(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values

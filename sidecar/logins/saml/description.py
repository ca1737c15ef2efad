"""Find one identity provider in metadata, and describe it as far as it can be used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import load_pem_x509_certificate
from lxml import etree

from sidecar.faults import Refused
from sidecar.logins.addresses import is_safe_address
from sidecar.logins.saml.document import text_of
from sidecar.logins.saml.instants import read_instant
from sidecar.logins.saml.metadata_document import bad, certificate_octets, pem_of
from sidecar.logins.saml.names import BINDINGS, MDUI, PROTOCOL, XML, ds, md
from sidecar.logins.saml.parties import Binding, IdentityProvider

_DURATION = re.compile(
    r"P(?:(\d{1,6})Y)?(?:(\d{1,6})M)?(?:(\d{1,6})D)?(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9})(?:\.\d+)?S)?)?",
    re.ASCII,
)
_SECONDS = (365 * 86400, 30 * 86400, 86400, 3600, 60, 1)
_MOST_CERTIFICATES = 20
# Below this anybody may sign in the provider's name; up to 2048 bits `check` warns.
_RSA_BITS = range(1024, 8193)
_LONGEST_TITLE = 100


@dataclass(frozen=True, slots=True)
class Description:
    """A provider as its metadata tells it; ``cache`` is how long the copy may be kept (seconds), None for no limit."""

    provider: IdentityProvider
    cache: float | None = None


def describe(root: etree._Element, entity_id: str | None, now: float) -> Description:
    """Describe the provider *entity_id*, or the only one, of the metadata *root*.

    Raises Unavailable(PROVIDER_DOWN) that says what is wrong; also when what describes it is no longer valid at *now*.
    """
    role = _chosen(root, entity_id)
    lineage = [role, *role.iterancestors()]
    valid_until = _smallest(_instant(element) for element in lineage)
    if valid_until is not None and valid_until <= now:
        raise bad("expired (validUntil)")
    sso = _addresses(role, "SingleSignOnService", "Location")
    if not sso:
        raise bad("no SingleSignOnService by redirect or POST")
    provider = IdentityProvider(
        entity_id=str(lineage[1].get("entityID")),
        sso=sso,
        certificates=_certificates(role),
        slo=_addresses(role, "SingleLogoutService", "Location"),
        slo_answers=_addresses(role, "SingleLogoutService", "ResponseLocation"),
        wants_signed_requests=role.get("WantAuthnRequestsSigned") in ("true", "1"),
        valid_until=valid_until,
        title=_title(role, lineage[1]),
    )
    return Description(provider, _smallest(_duration(element) for element in lineage))


def _chosen(root: etree._Element, entity_id: str | None) -> etree._Element:
    roles = [
        role
        for role in root.iter(md("IDPSSODescriptor"))
        if PROTOCOL in role.get("protocolSupportEnumeration", "").split() and _is_in_place(role, root)
    ]
    found = [role for role in roles if entity_id is None or _entity(role) == entity_id]
    if not found:
        raise bad(f"no identity provider {entity_id}" if entity_id else "no identity provider that speaks SAML 2.0")
    if len(found) > 1:
        raise bad(f"{len(found)} identity providers: name one (idp)" if entity_id is None else f"{entity_id} twice")
    if not 0 < len(_entity(found[0])) <= 1024:
        raise bad("an entityID that is empty or too long")
    return found[0]


def _is_in_place(role: etree._Element, root: etree._Element) -> bool:
    """Directly in an EntityDescriptor, below nothing but groups: not inside an extension."""
    entity, *groups = role.iterancestors()
    is_entity = entity.tag == md("EntityDescriptor")
    return (
        is_entity and all(group.tag == md("EntitiesDescriptor") for group in groups) and [entity, *groups][-1] is root
    )


def _entity(role: etree._Element) -> str:
    parent = role.getparent()
    return "" if parent is None else str(parent.get("entityID", ""))


def _addresses(role: etree._Element, kind: str, attribute: str) -> Mapping[Binding, str]:
    """Binding → the first address of that binding. Raises Unavailable for one that no browser may be sent to."""
    found: dict[Binding, str] = {}
    for element in role.iterfind(md(kind)):
        binding, address = BINDINGS.get(element.get("Binding", "")), element.get(attribute)
        if binding is None or address is None or binding in found:
            continue
        if not is_safe_address(address) or len(address) > 2048:
            raise bad(f"{kind}: {address[:200]!a} is no https address")
        found[binding] = address
    return found


def _certificates(role: etree._Element) -> tuple[str, ...]:
    """Certificates for signatures. They only carry keys: their dates and issuers say nothing (Metadata, 2.4.1.1)."""
    found: dict[str, None] = {}
    for descriptor in role.iterfind(md("KeyDescriptor")):
        if descriptor.get("use", "signing") != "signing":
            continue
        for element in descriptor.iterfind(f"{ds('KeyInfo')}/{ds('X509Data')}/{ds('X509Certificate')}"):
            pem = pem_of(certificate_octets(element))
            if _is_usable(pem):
                found[pem] = None
    if not 0 < len(found) <= _MOST_CERTIFICATES:
        raise bad(f"{len(found)} usable signing certificates")
    return tuple(found)


def _is_usable(pem: str) -> bool:
    try:
        key = load_pem_x509_certificate(pem.encode()).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    return isinstance(key, EllipticCurvePublicKey) or (isinstance(key, RSAPublicKey) and key.key_size in _RSA_BITS)


def _title(role: etree._Element, entity: etree._Element) -> str:
    names = list(role.iter(f"{{{MDUI}}}DisplayName")) or list(entity.iter(md("OrganizationDisplayName")))
    names.sort(key=lambda name: name.get(f"{{{XML}}}lang", "") != "en")
    return "".join(letter for letter in text_of(names[0]) if letter.isprintable())[:_LONGEST_TITLE] if names else ""


def _instant(element: etree._Element) -> float | None:
    text = element.get("validUntil")
    if text is None:
        return None
    try:
        return read_instant(text, "validUntil")
    except Refused:
        # Without an offset some write UTC (the schema leaves that open).
        try:
            return read_instant(f"{text}Z", "validUntil")
        except Refused:
            raise bad("validUntil is no time") from None


def _duration(element: etree._Element) -> float | None:
    """Seconds of an xs:duration, None when there is none that can be read."""
    match = _DURATION.fullmatch(element.get("cacheDuration", ""))
    if match is None or not any(match.groups()):
        return None
    return float(sum(int(number or 0) * unit for number, unit in zip(match.groups(), _SECONDS, strict=True)))


def _smallest(values: Iterator[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)

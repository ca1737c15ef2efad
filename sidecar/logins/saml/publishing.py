"""Write our own metadata, from which a provider learns where and how to answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lxml import etree

from sidecar.config.saml import SamlLogin
from sidecar.logins.saml.instants import write_instant
from sidecar.logins.saml.names import (
    BINDING_URIS,
    DSIG,
    METADATA,
    NAME_ID_FORMATS,
    PROTOCOL,
    ds,
    md,
)
from sidecar.logins.saml.parties import KeyPair, ServiceProvider
from sidecar.logins.saml.signing import new_id, sign_document

_CACHE = "PT4H"


@dataclass(frozen=True, slots=True)
class Publication:
    """What our metadata says besides who and where we are.

    ``valid_until`` in epoch seconds, None for a file that somebody keeps; ``name_id`` is a short name of a format.
    """

    signs_requests: bool
    wants_signed_assertions: bool
    name_id: str | None = None
    is_signed: bool = False
    valid_until: float | None = None


def published(service: ServiceProvider, section: SamlLogin, valid_until: float | None) -> bytes:
    """Our metadata as *section* wants it, valid until then; None: for ever, for a file that somebody keeps."""
    said = Publication(
        signs_requests=bool(service.keys) and section.sign_requests is not False,
        wants_signed_assertions=section.signed != "response",
        name_id=section.name_id,
        is_signed=section.sign_metadata,
        valid_until=valid_until,
    )
    return own_metadata(service, said)


def own_metadata(service: ServiceProvider, said: Publication) -> bytes:
    """Our EntityDescriptor (SAML 2.0 Metadata, section 2.3.2) in UTF-8."""
    root = etree.Element(md("EntityDescriptor"), nsmap={"md": METADATA, "ds": DSIG})
    root.set("entityID", service.entity_id)
    root.set("ID", new_id())
    if said.valid_until is not None:
        root.set("validUntil", write_instant(said.valid_until))
        root.set("cacheDuration", _CACHE)
    _describe(root, service, said)
    if said.is_signed and service.keys:
        sign_document(root, service.keys[0], 0)
    return bytes(etree.tostring(root, xml_declaration=True, encoding="UTF-8"))


def _describe(root: Any, service: ServiceProvider, said: Publication) -> None:
    descriptor = etree.SubElement(root, md("SPSSODescriptor"), protocolSupportEnumeration=PROTOCOL)
    descriptor.set("AuthnRequestsSigned", _bool(said.signs_requests))
    descriptor.set("WantAssertionsSigned", _bool(said.wants_signed_assertions))
    for pair in service.keys:
        for use in ("signing", "encryption"):
            _key(descriptor, pair, use)
    if service.keys:
        # Without a key nothing of ours could be believed there.
        for uri in BINDING_URIS.values():
            etree.SubElement(descriptor, md("SingleLogoutService"), Binding=uri, Location=service.slo_url)
    if said.name_id is not None:
        etree.SubElement(descriptor, md("NameIDFormat")).text = NAME_ID_FORMATS[said.name_id]
    consumer = etree.SubElement(descriptor, md("AssertionConsumerService"), Binding=BINDING_URIS["post"])
    consumer.set("Location", service.acs_url)
    consumer.set("index", "0")
    consumer.set("isDefault", "true")


def _key(descriptor: Any, pair: KeyPair, use: str) -> None:
    key = etree.SubElement(descriptor, md("KeyDescriptor"), use=use)
    info = etree.SubElement(key, ds("KeyInfo"))
    data = etree.SubElement(info, ds("X509Data"))
    lines = pair.certificate.partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END")[0]
    etree.SubElement(data, ds("X509Certificate")).text = "".join(lines.split())


def _bool(value: bool) -> str:  # noqa: FBT001 - it is what is written
    return "true" if value else "false"

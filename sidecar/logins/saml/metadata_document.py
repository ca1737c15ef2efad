"""Read a provider's metadata as a tree, as strictly as answers and with more room, and believe its signature."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from lxml import etree

from sidecar.faults import Refused, Unavailable
from sidecar.logins.saml.document import text_of
from sidecar.logins.saml.names import ds, md
from sidecar.logins.saml.screen import screen_signature
from sidecar.logins.saml.signatures import signature_of, signed_part
from sidecar.reason import Reason

# A federation lists thousands of members; one parsed element costs a few hundred bytes, one attribute half of that.
LARGEST = 10 * 1024 * 1024
_MOST_TAGS = 400_000
_MOST_ATTRIBUTES = 600_000
_ROOTS = frozenset([md("EntityDescriptor"), md("EntitiesDescriptor")])


@dataclass(frozen=True, slots=True)
class Seal:
    """Whose signature the metadata must carry: a certificate (PEM), or the SHA-256 of one in lower-case hexadecimal.

    Both "" believe it unsigned, as it came over https or from a file; ``weak`` as in the configuration.
    """

    certificate: str = ""
    fingerprint: str = ""
    weak: frozenset[str] = frozenset()

    @property
    def is_wanted(self) -> bool:
        """True when only signed metadata counts."""
        return bool(self.certificate or self.fingerprint)


def read_metadata(raw: bytes, seal: Seal) -> etree._Element:
    """Root of metadata, made of signed bytes alone where a signature is wanted. Raises Unavailable(PROVIDER_DOWN)."""
    root = parse_metadata(raw)
    if not seal.is_wanted:
        return root
    try:
        return _signed(root, seal)
    except Refused as refused:
        raise bad(refused.detail.removeprefix("SAML: ")) from None


def parse_metadata(raw: bytes) -> etree._Element:
    """Root of unsigned metadata: UTF-8, no document type, bounded in bytes and nodes; comments are left out."""
    if len(raw) > LARGEST:
        raise bad(f"more than {LARGEST} bytes")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        raise bad("not UTF-8") from None
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise bad("a document type")
    if raw.count(b"<") > _MOST_TAGS or raw.count(b"=") > _MOST_ATTRIBUTES:
        raise bad("too many elements or attributes")
    try:
        root = etree.fromstring(raw, _parser())
    except (etree.XMLSyntaxError, ValueError):
        raise bad("not well-formed XML") from None
    if root.getroottree().docinfo.doctype or root.tag not in _ROOTS:
        raise bad("no EntityDescriptor and no EntitiesDescriptor")
    return root


def bad(what: str) -> Unavailable:
    """Error that says what is wrong with the metadata."""
    return Unavailable(Reason.PROVIDER_DOWN, f"metadata: {what}")


def _parser() -> etree.XMLParser:
    return etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        attribute_defaults=False,
        huge_tree=False,
        recover=False,
        # Aggregates are full of them. Without them the parser joins the text on both sides, as canonical XML does.
        remove_comments=True,
        remove_pis=True,
        collect_ids=False,
    )


def _signed(root: etree._Element, seal: Seal) -> etree._Element:
    signature = signature_of(root)
    if signature is None:
        raise bad("not signed, and metadata_certificate or metadata_fingerprint wants it signed")
    screen_signature(signature, seal.weak)
    own_id = root.get("ID")
    if sum(_has_id(element, own_id) for element in root.iter(etree.Element)) != 1:
        raise bad("its ID is there twice")
    certificate = seal.certificate or _pinned(signature, seal.fingerprint)
    return signed_part(root, [certificate], parse_metadata)


def _has_id(element: etree._Element, value: str | None) -> bool:
    return any(name.rpartition("}")[2].lower() == "id" and held == value for name, held in element.attrib.items())


def _pinned(signature: etree._Element, fingerprint: str) -> str:
    """PEM text of the certificate with *fingerprint* that the signature brings along."""
    wanted = fingerprint.replace(":", "").lower()
    for element in signature.iterfind(f"{ds('KeyInfo')}/{ds('X509Data')}/{ds('X509Certificate')}"):
        der = certificate_octets(element)
        if der and hmac.compare_digest(hashlib.sha256(der).hexdigest(), wanted):
            return pem_of(der)
    raise bad("signed with another certificate than metadata_fingerprint")


def certificate_octets(element: etree._Element) -> bytes:
    """DER octets in an X509Certificate, b"" when it holds none."""
    try:
        return base64.b64decode("".join(text_of(element).split()), validate=True)
    except (binascii.Error, ValueError):
        return b""


def pem_of(der: bytes) -> str:
    """PEM text of a certificate, "" when *der* is none."""
    try:
        return load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()
    except ValueError:
        return ""

"""Verify enveloped signatures, and hand on nothing but the very bytes that were signed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence

import xmlsec
from lxml import etree

from sidecar.faults import Refused
from sidecar.logins.saml.document import parse, text_of
from sidecar.logins.saml.grammar import tag
from sidecar.logins.saml.vocabulary import DIGESTS, WEAK_DIGESTS
from sidecar.reason import Reason

# Its readers of files and of the network: the screen lets no reference through that would call them, and here they go.
xmlsec.cleanup_callbacks()

# Digests count as transforms here. Which of them a message may use is the screen's to say.
_TRANSFORMS = (
    xmlsec.Transform.ENVELOPED,
    xmlsec.Transform.EXCL_C14N,
    xmlsec.Transform.SHA1,
    xmlsec.Transform.SHA256,
    xmlsec.Transform.SHA384,
    xmlsec.Transform.SHA512,
)
_SIGNATURE = tag("d:Signature")


def signature_of(element: etree._Element) -> etree._Element | None:
    """Signature that stands directly in *element*, None when it has none."""
    return element.find(_SIGNATURE)


def signed_part(
    element: etree._Element, certificates: Sequence[str], read: Callable[[bytes], etree._Element] = parse
) -> etree._Element:
    """What the signature of *element* covers, as a new tree that was made of nothing else.

    *element* must have passed the screen, as part of the document that it came in, and have a signature. Only the keys
    in *certificates* (PEM) count; *read* parses. Raises Refused(TOKEN_INVALID).
    """
    signature = signature_of(element)
    if signature is None:
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: no signature")
    if not any(_is_signed_with(signature, certificate) for certificate in certificates):
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: the signature fits no key in the metadata")
    return read(_digested(element, read))


def _is_signed_with(signature: etree._Element, certificate: str) -> bool:
    try:
        context = xmlsec.SignatureContext()
        context.key = xmlsec.Key.from_memory(certificate, xmlsec.KeyFormat.CERT_PEM, None)
        for transform in _TRANSFORMS:
            context.enable_reference_transform(transform)
        # With a key set KeyInfo is not read; and nothing that it could hold is a key either.
        context.set_enabled_key_data([xmlsec.KeyData.X509])
        xmlsec.tree.add_ids(signature.getroottree().getroot(), ["ID"])
        context.verify(signature)
    except xmlsec.Error:
        return False
    return True


def _digested(element: etree._Element, read: Callable[[bytes], etree._Element]) -> bytes:
    """Octets whose digest the reference holds, made by ourselves and compared.

    Whatever the verifier looked at: only what has this digest is read.
    """
    alone = read(etree.tostring(element, encoding="utf-8", with_tail=False))
    signature = alone.find(_SIGNATURE)
    reference = alone.find(f"{_SIGNATURE}/{tag('d:SignedInfo')}/{tag('d:Reference')}")
    if signature is None or reference is None:
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: no signature")
    listed = reference.find(f"{tag('d:Transforms')}/{tag('d:Transform')}/{tag('c:InclusiveNamespaces')}")
    prefixes = [] if listed is None else listed.get("PrefixList", "").split()
    method, expected = reference.find(tag("d:DigestMethod")), reference.find(tag("d:DigestValue"))
    if method is None or expected is None:
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: no digest")
    algorithm = {**DIGESTS, **WEAK_DIGESTS}[str(method.get("Algorithm"))]
    wanted = _octets(text_of(expected))
    _cut_out(signature)
    plain: bytes = etree.tostring(
        alone, method="c14n", exclusive=True, with_comments=False, inclusive_ns_prefixes=prefixes
    )
    if not plain or not hmac.compare_digest(hashlib.new(algorithm, plain).digest(), wanted):
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: the digest does not fit")
    return plain


def _cut_out(signature: etree._Element) -> None:
    """Take an element away and leave the text behind it, which is signed too."""
    parent, before, tail = signature.getparent(), signature.getprevious(), signature.tail
    if parent is None:
        return
    parent.remove(signature)
    if before is not None:
        before.tail = (before.tail or "") + (tail or "")
    else:
        parent.text = (parent.text or "") + (tail or "")


def _octets(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: no digest") from None

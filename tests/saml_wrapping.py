"""The nine ways of wrapping a signed element, each for the Response and for the Assertion; and who falls for them.

In each the genuine element is still there with a signature that verifies, and a forged one stands where a careless
reader looks. XSW1 to XSW8 follow Somorovsky et al., "On Breaking SAML" (2012); XSW9 gives both the same id.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import xmlsec
from lxml import etree

from sidecar.logins.saml.grammar import tag
from tests.saml_forger import NS, forged, pair

_SIGNATURE = tag("d:Signature")


def _evil(genuine: Any) -> Any:
    """A forged twin of *genuine*, which is a Response or an Assertion, without any signature."""
    if genuine.tag == tag("a:Assertion"):
        return forged(genuine)
    evil = copy.deepcopy(genuine)
    evil.set("ID", "_evil-response")
    for signature in list(evil.iter(_SIGNATURE)):
        signature.getparent().remove(signature)
    assertion = evil.find("saml:Assertion", NS)
    evil.replace(assertion, forged(assertion))
    return evil


def _put_in_place(genuine: Any, evil: Any) -> Any:
    """Let *evil* stand where *genuine* stood; the root of the whole."""
    parent = genuine.getparent()
    if parent is None:
        return evil
    parent.replace(genuine, evil)
    return parent


def _loose(root: Any, tag_name: str) -> tuple[Any, Any, Any]:
    """(genuine, its signature, evil)."""
    genuine = root if root.tag == tag_name else root.find("saml:Assertion", NS)
    return genuine, genuine.find(_SIGNATURE), _evil(genuine)


def inside_the_signature(genuine: Any, signature: Any, evil: Any) -> Any:
    root = _put_in_place(genuine, evil)
    outer = copy.deepcopy(signature)
    evil.insert(1, outer)
    outer.append(genuine)
    return root


def before_the_signature(genuine: Any, signature: Any, evil: Any) -> Any:
    root = _put_in_place(genuine, evil)
    bare = copy.deepcopy(genuine)
    bare.remove(bare.find(_SIGNATURE))
    evil.insert(1, bare)
    evil.insert(2, signature)
    return root


def beside_it(genuine: Any, signature: Any, evil: Any) -> Any:
    root = _put_in_place(genuine, evil)
    (evil if root is evil else root).append(genuine)
    return root


def as_its_child(genuine: Any, signature: Any, evil: Any) -> Any:
    root = _put_in_place(genuine, evil)
    evil.insert(0, genuine)
    return root


def with_the_signature_moved(genuine: Any, signature: Any, evil: Any) -> Any:
    root = _put_in_place(genuine, evil)
    genuine.remove(signature)
    evil.insert(1, signature)
    root.append(genuine)
    return root


def with_the_original_in_the_moved_signature(genuine: Any, signature: Any, evil: Any) -> Any:
    root = _put_in_place(genuine, evil)
    genuine.remove(signature)
    evil.insert(1, signature)
    signature.append(genuine)
    return root


def in_extensions(genuine: Any, signature: Any, evil: Any) -> Any:
    root = _put_in_place(genuine, evil)
    extensions = etree.Element(tag("p:Extensions"))
    root.insert(1, extensions)
    extensions.append(genuine)
    return root


def in_an_object(genuine: Any, signature: Any, evil: Any) -> Any:
    root = _put_in_place(genuine, evil)
    genuine.remove(signature)
    evil.insert(1, signature)
    etree.SubElement(signature, tag("d:Object")).append(genuine)
    return root


def with_the_same_id(genuine: Any, signature: Any, evil: Any) -> Any:
    evil.set("ID", genuine.get("ID"))
    root = _put_in_place(genuine, evil)
    detail = etree.SubElement(root.find("samlp:Status", NS), tag("p:StatusDetail"))
    detail.append(genuine)
    return root


VARIANTS: Mapping[str, Callable[[Any, Any, Any], Any]] = {
    "xsw1": inside_the_signature,
    "xsw2": before_the_signature,
    "xsw3": beside_it,
    "xsw4": as_its_child,
    "xsw5": with_the_signature_moved,
    "xsw6": with_the_original_in_the_moved_signature,
    "xsw7": in_extensions,
    "xsw8": in_an_object,
    "xsw9": with_the_same_id,
}
KINDS = {"response": tag("p:Response"), "assertion": tag("a:Assertion")}


def wrapped(root: Any, kind: str, variant: str) -> bytes:
    """Octets of the signed answer *root* after wrapping its *kind* in the way of *variant*."""
    return bytes(etree.tostring(VARIANTS[variant](*_loose(root, KINDS[kind])), encoding="utf-8"))


# The enveloped transform of xmlsec cuts out the signature with the original that was put into it; others do not.
NOT_FOR_XMLSEC = frozenset({"xsw6", "xsw8"})


def careless(raw: bytes) -> str:
    """Who signs in at a product that verifies some signature and then reads the first assertion; "" for nobody."""
    root = etree.fromstring(raw)
    for number, signature in enumerate(root.iter(_SIGNATURE)):
        reference = signature.find("ds:SignedInfo/ds:Reference", NS)
        uri = "" if reference is None else reference.get("URI", "")
        named = [place for place, element in enumerate(root.iter()) if element.get("ID") == uri[1:]]
        if any(_verifies(raw, number, place) for place in named):
            found = root.find("saml:Assertion/saml:Subject/saml:NameID", NS)
            return "" if found is None else str(found.text)
    return ""


def _verifies(raw: bytes, number: int, place: int) -> bool:
    """Whether signature *number* verifies when its id is taken for that of element *place*."""
    root = etree.fromstring(raw)
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_memory(pair().certificate, xmlsec.KeyFormat.CERT_PEM, None)
    context.register_id(list(root.iter())[place], "ID")
    try:
        context.verify(list(root.iter(_SIGNATURE))[number])
    except xmlsec.Error:
        return False
    return True

"""Judge the shape of a message before any library that acts on it sees it.

An unsigned message may ask XML signature libraries to open files, to run XSLT and to compute for a long time, and
every wrapping attack needs an element in an unusual place. So the whole tree must fit a small grammar, ids must be
unique, and a signature must be the plain one: of its own parent, by one reference, with algorithms out of a list.
"""

from __future__ import annotations

import re
from collections import Counter

from lxml import etree

from sidecar.faults import Refused
from sidecar.logins.saml.document import everything
from sidecar.logins.saml.grammar import CHILDREN, ENCRYPTED, FOREIGN, KEY_INFO, ONCE, OUR_NAMESPACES, tag
from sidecar.logins.saml.names import ENVELOPED, EXCLUSIVE_C14N, XML
from sidecar.logins.saml.vocabulary import (
    CBC,
    DIGESTS,
    GCM,
    OAEP,
    OAEP_DIGESTS,
    OAEP_MASKS,
    RSA1_5,
    SIGNATURES,
    WEAK_DIGESTS,
    WEAK_SIGNATURES,
)
from sidecar.reason import Reason

# xsd:ID without letters beyond ASCII.
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}")
_PREFIX_LIST = re.compile(r"[A-Za-z0-9_.# -]{0,256}")
_ID_NAMES = frozenset(["id", "assertionid", "requestid", "responseid"])
_XML_ATTRIBUTES = frozenset([f"{{{XML}}}lang", f"{{{XML}}}space"])
_SIGNATURE, _KEY_INFO = tag("d:Signature"), tag("d:KeyInfo")
_SIGNED = frozenset(map(tag, ("p:Response", "a:Assertion", "p:LogoutRequest", "p:LogoutResponse")))


def screen(root: etree._Element, expected: str, weak: frozenset[str] = frozenset()) -> None:
    """Refuse every tree that is not a plain *expected* (a tag) message; *weak* as in the configuration.

    Raises Refused: LOGIN_ANSWER_INVALID for a shape that is not allowed, TOKEN_ALGORITHM for an algorithm that is not.
    """
    if root.tag != expected:
        raise _misshapen("another kind of message", root)
    _check_ids(root)
    _check_children(root)
    for signature in root.iter(_SIGNATURE):
        _check_signature(signature, weak)
    for encrypted in root.iter(tag("x:EncryptedData")):
        _check_encryption(encrypted, weak)


def _check_ids(root: etree._Element) -> None:
    seen: set[str] = set()
    for element in everything(root):
        for key, value in element.attrib.items():
            name = etree.QName(key)
            if name.namespace == XML and key not in _XML_ATTRIBUTES:
                raise _misshapen("xml:base, xml:id or the like", element)
            if name.localname.lower() in _ID_NAMES:
                if value in seen:
                    raise _misshapen("an id that is there twice", element)
                seen.add(str(value))


def _check_children(element: etree._Element) -> None:
    known = _children_of(element)
    for child in element:
        if child.tag in known:
            _check_children(child)
        elif element.tag in FOREIGN and not any(_is_ours(inner) for inner in everything(child)):
            continue
        else:
            raise _misshapen("an element that does not belong there", child)
    # Encrypted or not, there is one of it.
    plainly = Counter(ENCRYPTED.get(str(child.tag), str(child.tag)) for child in element)
    for child, number in plainly.items():
        if number > 1 and child in ONCE:
            raise _misshapen(f"{number} of {etree.QName(child).localname}", element)


def _children_of(element: etree._Element) -> frozenset[str]:
    if element.tag == _KEY_INFO:
        parent = element.getparent()
        return KEY_INFO.get(str(parent.tag), frozenset()) if parent is not None else frozenset()
    return CHILDREN.get(str(element.tag), frozenset())


def _is_ours(element: etree._Element) -> bool:
    return etree.QName(element).namespace in OUR_NAMESPACES


def _check_signature(signature: etree._Element, weak: frozenset[str]) -> None:
    parent = signature.getparent()
    if parent is None or parent.tag not in _SIGNED:
        raise _misshapen("a signature that signs something else", signature)
    _check_plainness(signature, parent, weak)


def screen_signature(signature: etree._Element, weak: frozenset[str] = frozenset()) -> None:
    """Refuse a signature that is not the plain one of its parent, which may be any element (metadata)."""
    parent = signature.getparent()
    if parent is None:
        raise _misshapen("a signature of nothing", signature)
    _check_children(signature)
    _check_plainness(signature, parent, weak)


def _check_plainness(signature: etree._Element, parent: etree._Element, weak: frozenset[str]) -> None:
    info = _only(signature, "d:SignedInfo")
    reference = _only(info, "d:Reference")
    _only(signature, "d:SignatureValue")
    own_id = parent.get("ID", "")
    if not _ID.fullmatch(own_id) or reference.get("URI") != f"#{own_id}":
        raise _misshapen("a signature over something else than its parent", signature)
    _check_algorithm(_only(info, "d:CanonicalizationMethod"), frozenset([EXCLUSIVE_C14N]))
    is_old = "sha1" in weak
    _check_algorithm(_only(info, "d:SignatureMethod"), SIGNATURES | (WEAK_SIGNATURES if is_old else frozenset()))
    _check_algorithm(_only(reference, "d:DigestMethod"), frozenset([*DIGESTS, *(WEAK_DIGESTS if is_old else ())]))
    _only(reference, "d:DigestValue")
    transforms = list(_only(reference, "d:Transforms"))
    # The order and number are fixed too: cutting the signature out, then making the text.
    if [transform.get("Algorithm") for transform in transforms] != [ENVELOPED, EXCLUSIVE_C14N]:
        raise Refused(Reason.TOKEN_ALGORITHM, 400, "SAML: transforms other than enveloped and exclusive c14n")
    if len(transforms[0]):
        raise _misshapen("a transform with parameters", transforms[0])
    for listed in info.iter(tag("c:InclusiveNamespaces")):
        if not _PREFIX_LIST.fullmatch(listed.get("PrefixList", "")):
            raise _misshapen("a strange list of prefixes", listed)


def _check_encryption(data: etree._Element, weak: frozenset[str]) -> None:
    holder = data.getparent()
    if holder is None or holder.tag not in (tag("a:EncryptedAssertion"), tag("a:EncryptedID")):
        raise _misshapen("something encrypted in an unusual place", data)
    _check_algorithm(_only(data, "x:EncryptionMethod"), GCM | CBC)
    _only(_only(data, "x:CipherData"), "x:CipherValue")
    keys = list(holder.iter(tag("x:EncryptedKey")))
    if len(keys) != 1:
        raise _misshapen(f"{len(keys)} encrypted keys", data)
    _only(_only(keys[0], "x:CipherData"), "x:CipherValue")
    method = _only(keys[0], "x:EncryptionMethod")
    _check_algorithm(method, OAEP | (RSA1_5 if "rsa1_5" in weak else frozenset()))
    for child in method:
        _check_algorithm(child, OAEP_DIGESTS | OAEP_MASKS)
    for pointer in data.iter(tag("d:RetrievalMethod")):
        # A pointer to the key that stands beside it; it is replaced by that key before anything follows it.
        if pointer.get("URI") != f"#{keys[0].get('Id')}" or keys[0].getparent() is not holder:
            raise _misshapen("a key that is elsewhere", pointer)


def _only(parent: etree._Element, name: str) -> etree._Element:
    found = parent.findall(tag(name))
    if len(found) != 1:
        raise _misshapen(f"{len(found)} of {name.partition(':')[2]}", parent)
    return found[0]


def _check_algorithm(element: etree._Element, known: frozenset[str]) -> None:
    if element.get("Algorithm") not in known:
        name = etree.QName(element).localname
        shown = str(element.get("Algorithm"))[:100]
        raise Refused(Reason.TOKEN_ALGORITHM, 400, f"SAML: {name} {shown!r} is not accepted")


def _misshapen(what: str, element: etree._Element) -> Refused:
    name = etree.QName(element).localname[:60]
    return Refused(Reason.LOGIN_ANSWER_INVALID, 400, f"SAML: {what} ({name})")

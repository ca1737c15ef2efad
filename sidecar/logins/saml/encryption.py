"""Open what was encrypted for us (XML Encryption 1.1), as text that our own parser reads.

The library would parse the plain text itself, with whatever is in it: so it only gets to give bytes. Everybody has our
public key, so the plain text is a stranger's word until a signature is found in it.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any

import xmlsec
from lxml import etree

from sidecar.faults import Refused
from sidecar.logins.saml.document import parse
from sidecar.logins.saml.grammar import tag
from sidecar.logins.saml.parties import KeyPair
from sidecar.logins.saml.vocabulary import CBC
from sidecar.reason import Reason

_DATA, _KEY, _KEY_INFO = tag("x:EncryptedData"), tag("x:EncryptedKey"), tag("d:KeyInfo")


def uses_cbc(holder: etree._Element) -> bool:
    """True when the content of *holder* (EncryptedAssertion, EncryptedID) has no authentication of its own."""
    method = holder.find(f"{_DATA}/{tag('x:EncryptionMethod')}")
    return method is None or method.get("Algorithm") in CBC


def opened(holder: etree._Element, keys: Sequence[KeyPair]) -> etree._Element:
    """Element inside *holder* as a tree of its own. Raises Refused(TOKEN_INVALID), in one way whatever was wrong."""
    for pair in keys:
        plain = _decrypted(holder, pair)
        if plain is not None:
            return _in_context(plain, holder)
    raise Refused(Reason.TOKEN_INVALID, 403, "SAML: no key of ours opens it")


def _decrypted(holder: etree._Element, pair: KeyPair) -> bytes | None:
    data, key = copy.deepcopy(holder.find(_DATA)), copy.deepcopy(next(holder.iter(_KEY), None))
    if data is None or key is None:
        return None
    # One way to the key, and nothing that could lead elsewhere; the type would make the library parse.
    data.attrib.pop("Type", None)
    for part, below in ((data, key), (key, None)):
        for hint in part.findall(_KEY_INFO):
            part.remove(hint)
        if below is not None:
            info = etree.Element(_KEY_INFO)
            info.append(below)
            part.insert(1, info)
    try:
        plain = xmlsec.EncryptionContext(_manager(pair)).decrypt(data)
    except xmlsec.Error:
        return None
    return plain if isinstance(plain, bytes) else None


class _Kept(threading.local):
    def __init__(self) -> None:
        self.managers: dict[KeyPair, Any] = {}


_kept = _Kept()


def _manager(pair: KeyPair) -> Any:
    """What holds the key, one for each thread: making it reads all the authorities of the system, which takes 30 ms."""
    if pair not in _kept.managers:
        made = xmlsec.KeysManager()
        made.add_key(xmlsec.Key.from_memory(pair.key, xmlsec.KeyFormat.PEM, None))
        _kept.managers[pair] = made
    return _kept.managers[pair]


def _in_context(plain: bytes, holder: etree._Element) -> etree._Element:
    """Parse *plain* with the prefixes that are known where it stood."""
    around = etree.tostring(etree.Element("context", nsmap=holder.nsmap), encoding="utf-8")
    root = parse(around.removesuffix(b"/>") + b">" + plain.strip() + b"</context>")
    if len(root) != 1 or (root.text or "").strip() or (root[0].tail or "").strip():
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: not one element inside")
    return parse(etree.tostring(root[0], encoding="utf-8", with_tail=False))

"""Write AuthnRequests, and send messages by redirect or by a form (SAML 2.0 Bindings, sections 3.4 and 3.5)."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from lxml import etree

from sidecar.logins.saml.grammar import tag
from sidecar.logins.saml.instants import write_instant
from sidecar.logins.saml.names import ASSERTION, PROTOCOL, RSA_SHA256
from sidecar.logins.saml.parties import KeyPair
from sidecar.logins.saml.signing import sign_document, sign_octets
from sidecar.logins.saml.vocabulary import HTTP_POST

_NAMES = {"samlp": PROTOCOL, "saml": ASSERTION}


@dataclass(frozen=True, slots=True)
class Wish:
    """What an AuthnRequest asks for (Core, section 3.4.1); empty values ask for nothing."""

    force: bool = False
    passive: bool = False
    name_id_format: str = ""
    classes: tuple[str, ...] = ()


def message(kind: str, message_id: str, now: float, issuer: str, destination: str) -> etree._Element:
    """Beginning of every message of ours: element *kind* of the protocol with its Issuer."""
    root = etree.Element(
        tag(f"p:{kind}"),
        {"ID": message_id, "Version": "2.0", "IssueInstant": write_instant(now), "Destination": destination},
        nsmap=_NAMES,
    )
    etree.SubElement(root, tag("a:Issuer")).text = issuer
    return root


def ask_for(root: etree._Element, acs_url: str, wish: Wish) -> None:
    """Complete the AuthnRequest *root*: answer to *acs_url* by POST, as *wish* says."""
    root.set("AssertionConsumerServiceURL", acs_url)
    root.set("ProtocolBinding", HTTP_POST)
    if wish.force:
        root.set("ForceAuthn", "true")
    if wish.passive:
        root.set("IsPassive", "true")
    policy = etree.SubElement(root, tag("p:NameIDPolicy"), {"AllowCreate": "true"})
    if wish.name_id_format:
        policy.set("Format", wish.name_id_format)
    if wish.classes:
        context = etree.SubElement(root, tag("p:RequestedAuthnContext"), {"Comparison": "exact"})
        for name in wish.classes:
            etree.SubElement(context, tag("a:AuthnContextClassRef")).text = name


def redirected(root: etree._Element, parameter: str, relay_state: str, url: str, pair: KeyPair | None) -> str:
    """Address that takes the message *root* as *parameter*; signed with *pair* unless that is None."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(etree.tostring(root, encoding="utf-8")) + packer.flush()
    query = {parameter: base64.b64encode(packed).decode()}
    if relay_state:
        query["RelayState"] = relay_state
    text = urlencode(query if pair is None else {**query, "SigAlg": RSA_SHA256})
    if pair is not None:
        # Bindings, section 3.4.4.1: over the very text of these parameters, in this order.
        text = f"{text}&{urlencode({'Signature': sign_octets(text.encode(), pair)})}"
    return f"{url}{'&' if '?' in url else '?'}{text}"


def posted(root: etree._Element, parameter: str, relay_state: str, pair: KeyPair | None) -> Mapping[str, str]:
    """Fields of a form that carries the message *root* as *parameter*; signed with *pair* unless that is None."""
    if pair is not None:
        # Behind the Issuer, as the schema wants it.
        sign_document(root, pair, 1)
    fields = {parameter: base64.b64encode(etree.tostring(root, encoding="utf-8")).decode()}
    return {**fields, "RelayState": relay_state} if relay_state else fields

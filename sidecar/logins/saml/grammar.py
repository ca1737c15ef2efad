"""Which element may stand inside which: as much of SAML as sign-in and sign-out need, and nothing else.

SAML 2.0 Core allows more (advice, other statements, foreign conditions); what is not understood is refused rather than
passed over, because signature wrapping lives in the places that nobody looks at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from sidecar.logins.saml.names import ASSERTION, DSIG, EXCLUSIVE_C14N, PROTOCOL, XENC
from sidecar.logins.saml.vocabulary import XENC11

_PREFIXES: Final = {"a": ASSERTION, "p": PROTOCOL, "d": DSIG, "x": XENC, "x11": XENC11, "c": EXCLUSIVE_C14N}
OUR_NAMESPACES: Final = frozenset(_PREFIXES.values())


def tag(short: str) -> str:
    """Tag as lxml writes it: ``a:Issuer`` → ``{urn:…:assertion}Issuer``."""
    prefix, _, name = short.partition(":")
    return f"{{{_PREFIXES[prefix]}}}{name}"


def _rules(rows: Mapping[str, str]) -> dict[str, frozenset[str]]:
    return {tag(element): frozenset(map(tag, children.split())) for element, children in rows.items()}


CHILDREN: Final[Mapping[str, frozenset[str]]] = _rules(
    {
        "p:Response": "a:Issuer d:Signature p:Extensions p:Status a:Assertion a:EncryptedAssertion",
        "p:LogoutRequest": "a:Issuer d:Signature p:Extensions a:NameID a:EncryptedID p:SessionIndex",
        "p:LogoutResponse": "a:Issuer d:Signature p:Extensions p:Status",
        "p:Status": "p:StatusCode p:StatusMessage p:StatusDetail",
        "p:StatusCode": "p:StatusCode",
        "a:EncryptedAssertion": "x:EncryptedData x:EncryptedKey",
        "a:EncryptedID": "x:EncryptedData x:EncryptedKey",
        "a:Assertion": "a:Issuer d:Signature a:Subject a:Conditions a:AuthnStatement a:AttributeStatement",
        "a:Subject": "a:NameID a:EncryptedID a:SubjectConfirmation",
        "a:SubjectConfirmation": "a:SubjectConfirmationData",
        "a:Conditions": "a:AudienceRestriction a:OneTimeUse a:ProxyRestriction",
        "a:AudienceRestriction": "a:Audience",
        "a:ProxyRestriction": "a:Audience",
        "a:AuthnStatement": "a:SubjectLocality a:AuthnContext",
        "a:AuthnContext": "a:AuthnContextClassRef a:AuthnContextDeclRef a:AuthenticatingAuthority",
        "a:AttributeStatement": "a:Attribute",
        "a:Attribute": "a:AttributeValue",
        "a:AttributeValue": "a:NameID",
        "d:Signature": "d:SignedInfo d:SignatureValue d:KeyInfo",
        "d:SignedInfo": "d:CanonicalizationMethod d:SignatureMethod d:Reference",
        "d:CanonicalizationMethod": "c:InclusiveNamespaces",
        "d:Reference": "d:Transforms d:DigestMethod d:DigestValue",
        "d:Transforms": "d:Transform",
        "d:Transform": "c:InclusiveNamespaces",
        "d:X509Data": "d:X509Certificate d:X509SubjectName d:X509IssuerSerial d:X509SKI",
        "d:X509IssuerSerial": "d:X509IssuerName d:X509SerialNumber",
        "d:KeyValue": "d:RSAKeyValue",
        "d:RSAKeyValue": "d:Modulus d:Exponent",
        "x:EncryptedData": "x:EncryptionMethod d:KeyInfo x:CipherData",
        "x:EncryptedKey": "x:EncryptionMethod d:KeyInfo x:CipherData x:CarriedKeyName x:ReferenceList",
        "x:EncryptionMethod": "d:DigestMethod x11:MGF",
        "x:CipherData": "x:CipherValue",
        "x:ReferenceList": "x:DataReference",
    }
)
# KeyInfo holds something else in each place; that of a signature is never believed, and small.
KEY_INFO: Final[Mapping[str, frozenset[str]]] = _rules(
    {
        "d:Signature": "d:X509Data d:KeyName d:KeyValue",
        "x:EncryptedData": "d:X509Data d:KeyName x:EncryptedKey d:RetrievalMethod",
        "x:EncryptedKey": "d:X509Data d:KeyName d:KeyValue",
    }
)
# Anything of others may stand in these, as long as nothing of SAML, signatures or encryption is inside it.
FOREIGN: Final = frozenset(map(tag, ("p:Extensions", "p:StatusDetail", "a:AttributeValue")))
# What may stand in place of what.
ENCRYPTED: Final = {tag("a:EncryptedAssertion"): tag("a:Assertion"), tag("a:EncryptedID"): tag("a:NameID")}
# How often an element may stand in its parent, where that is not "any number".
ONCE: Final[Iterable[str]] = tuple(
    map(
        tag,
        (
            "a:Issuer", "d:Signature", "p:Extensions", "p:Status", "a:Assertion", "a:Subject",
            "a:Conditions", "a:AuthnStatement", "a:NameID", "a:SubjectConfirmationData",
            "a:AuthnContext", "a:AuthnContextClassRef", "p:StatusCode", "p:StatusMessage", "d:SignedInfo",
            "d:SignatureValue", "d:KeyInfo", "d:CanonicalizationMethod", "d:SignatureMethod", "d:Reference",
            "d:Transforms", "d:DigestMethod", "d:DigestValue", "c:InclusiveNamespaces", "x:EncryptedData",
            "x:EncryptedKey", "x:EncryptionMethod", "x:CipherData", "x:CipherValue", "d:RetrievalMethod", "x11:MGF",
        ),
    )
)  # fmt: skip

"""The names that SAML 2.0, XML Signature and XML Encryption give to things."""

from __future__ import annotations

from sidecar.logins.saml.parties import Binding

ASSERTION = "urn:oasis:names:tc:SAML:2.0:assertion"
PROTOCOL = "urn:oasis:names:tc:SAML:2.0:protocol"
METADATA = "urn:oasis:names:tc:SAML:2.0:metadata"
MDUI = "urn:oasis:names:tc:SAML:metadata:ui"
DSIG = "http://www.w3.org/2000/09/xmldsig#"
DSIG_MORE = "http://www.w3.org/2001/04/xmldsig-more#"
XENC = "http://www.w3.org/2001/04/xmlenc#"
XML = "http://www.w3.org/XML/1998/namespace"
EXCLUSIVE_C14N = "http://www.w3.org/2001/10/xml-exc-c14n#"
ENVELOPED = f"{DSIG}enveloped-signature"
RSA_SHA256 = f"{DSIG_MORE}rsa-sha256"
SHA256 = f"{XENC}sha256"
BINDINGS: dict[str, Binding] = {
    "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect": "redirect",
    "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST": "post",
}
BINDING_URIS: dict[Binding, str] = {short: uri for uri, short in BINDINGS.items()}
NAME_ID_FORMATS = {
    "persistent": "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
    "transient": "urn:oasis:names:tc:SAML:2.0:nameid-format:transient",
    "email": "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress",
    "unspecified": "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified",
}
# Those that name somebody: the others say of themselves that they do not, or may be anything.
_NAMING = frozenset(["persistent", "email"])
ENTITY_FORMAT = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
PARTIAL_LOGOUT = "urn:oasis:names:tc:SAML:2.0:status:PartialLogout"


def held_to(name_id: str | None) -> str:
    """Format that a NameID must have where *name_id* (short) is asked for; "" when it may have any."""
    return NAME_ID_FORMATS[name_id] if name_id in _NAMING else ""


def md(name: str) -> str:
    """Qualified name of a metadata element."""
    return f"{{{METADATA}}}{name}"


def saml(name: str) -> str:
    """Qualified name of an assertion element."""
    return f"{{{ASSERTION}}}{name}"


def samlp(name: str) -> str:
    """Qualified name of a protocol element."""
    return f"{{{PROTOCOL}}}{name}"


def ds(name: str) -> str:
    """Qualified name of a signature element."""
    return f"{{{DSIG}}}{name}"

"""Take messages about signing out from where a browser brought them, and believe none that is not signed."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.x509 import load_pem_x509_certificate
from lxml import etree

from sidecar.faults import Refused
from sidecar.logins.login import Brought
from sidecar.logins.saml.document import decode, inflate, parse
from sidecar.logins.saml.names import DSIG, DSIG_MORE, RSA_SHA256
from sidecar.logins.saml.parties import Binding
from sidecar.logins.saml.screen import screen
from sidecar.logins.saml.signatures import signature_of, signed_part
from sidecar.reason import Reason

_OURS = frozenset(["SAMLRequest", "SAMLResponse", "RelayState", "SigAlg", "Signature", "SAMLEncoding"])
_DEFLATE = "urn:oasis:names:tc:SAML:2.0:bindings:URL-Encoding:DEFLATE"
_LONGEST_SIGNATURE = 2048
_HASHES: Mapping[str, HashAlgorithm] = {
    RSA_SHA256: SHA256(),
    f"{DSIG_MORE}rsa-sha384": SHA384(),
    f"{DSIG_MORE}rsa-sha512": SHA512(),
    f"{DSIG_MORE}ecdsa-sha256": SHA256(),
    f"{DSIG_MORE}ecdsa-sha384": SHA384(),
    f"{DSIG_MORE}ecdsa-sha512": SHA512(),
}
_WEAK_HASHES: Mapping[str, HashAlgorithm] = {f"{DSIG}rsa-sha1": SHA1()}  # noqa: S303 - only where the operator names it


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message as it travels: ``text`` is its base64, ``raw`` the query's parameters as they were written."""

    parameter: str
    text: str
    relay_state: str
    binding: Binding
    raw: Mapping[str, str] = field(default_factory=dict)


def unpack(brought: Brought) -> Parcel:
    """Find the one message in a query or a form. Raises Refused(LOGIN_ANSWER_INVALID)."""
    if brought.query:
        raw = _raw_parameters(brought.query)
        fields: Mapping[str, str] = {name: _decoded(value) for name, value in raw.items()}
    else:
        raw, fields = {}, brought.form
    names = [name for name in ("SAMLRequest", "SAMLResponse") if name in fields]
    if len(names) != 1 or fields.get("SAMLEncoding", _DEFLATE) != _DEFLATE:
        raise Refused(Reason.LOGIN_ANSWER_INVALID, 400, "SAML: not one message")
    binding: Binding = "redirect" if brought.query else "post"
    return Parcel(names[0], fields[names[0]], fields.get("RelayState", ""), binding, raw)


def _raw_parameters(query: str) -> dict[str, str]:
    """Our parameters exactly as they were written: their signature is over these octets (Bindings, 3.4.4.1)."""
    found: dict[str, str] = {}
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if unquote_plus(name) not in _OURS:
            continue
        if name not in _OURS or name in found:
            raise Refused(Reason.LOGIN_ANSWER_INVALID, 400, "SAML: a parameter that is there twice, or in disguise")
        found[name] = value
    return found


def _decoded(value: str) -> str:
    try:
        return unquote_plus(value, errors="strict")
    except UnicodeDecodeError:
        raise Refused(Reason.LOGIN_ANSWER_INVALID, 400, "SAML: a parameter that is not UTF-8") from None


def opened_message(
    parcel: Parcel, expected: str, certificates: Sequence[str], limit: int, weak: frozenset[str]
) -> etree._Element:
    """Tree of the *expected* (tag) message, made of signed octets alone; costs time. Raises Refused.

    Only the keys in *certificates* (PEM) count. A message by redirect is signed in the query and nowhere else.
    """
    octets = decode(parcel.text, limit)
    if parcel.binding == "post":
        root = parse(octets)
        screen(root, expected, weak)
        return signed_part(root, certificates)
    _check_query(parcel, certificates, weak)
    root = parse(inflate(octets, limit))
    screen(root, expected, weak)
    if signature_of(root) is not None:
        raise Refused(Reason.LOGIN_ANSWER_INVALID, 400, "SAML: a signature inside a message by redirect")
    return root


def _check_query(parcel: Parcel, certificates: Sequence[str], weak: frozenset[str]) -> None:
    raw = parcel.raw
    if "Signature" not in raw or "SigAlg" not in raw:
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: no signature")
    algorithm = _decoded(raw["SigAlg"])
    digest = {**_HASHES, **(_WEAK_HASHES if "sha1" in weak else {})}.get(algorithm)
    if digest is None:
        raise Refused(Reason.TOKEN_ALGORITHM, 400, f"SAML: SigAlg {algorithm[:100]!r} is not accepted")
    signature = _signature(_decoded(raw["Signature"]))
    signed = "&".join(f"{name}={raw[name]}" for name in (parcel.parameter, "RelayState", "SigAlg") if name in raw)
    octets = signed.encode("ascii", "replace")
    if not any(_is_signed_with(one, algorithm, digest, signature, octets) for one in certificates):
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: the signature fits no key in the metadata")


def _signature(text: str) -> bytes:
    try:
        return b64decode("".join(text[:_LONGEST_SIGNATURE].split()), validate=True)
    except (binascii.Error, ValueError):
        raise Refused(Reason.TOKEN_INVALID, 403, "SAML: a signature that is no base64") from None


def _is_signed_with(certificate: str, algorithm: str, digest: HashAlgorithm, signature: bytes, octets: bytes) -> bool:
    key = load_pem_x509_certificate(certificate.encode()).public_key()
    is_ecdsa = "#ecdsa-" in algorithm
    try:
        if isinstance(key, RSAPublicKey) and not is_ecdsa:
            key.verify(signature, octets, PKCS1v15(), digest)
        elif isinstance(key, EllipticCurvePublicKey) and is_ecdsa:
            half = len(signature) // 2
            # XML Signature writes the two numbers one behind the other (RFC 4050, section 3.3).
            numbers = (int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
            key.verify(encode_dss_signature(*numbers), octets, ECDSA(digest))
        else:
            return False
    except InvalidSignature:
        return False
    return True

"""Sign what we say: documents, and the query of a redirect."""

from __future__ import annotations

import secrets
from base64 import b64encode
from functools import lru_cache
from typing import Any

import xmlsec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from sidecar.logins.saml.parties import KeyPair

_LEAST_BITS = 2048


def new_id() -> str:
    """Fresh identifier of a message: 160 bits (SAML 2.0 Core, section 1.3.4), and no digit at its beginning."""
    return f"_{secrets.token_hex(20)}"


def check_pair(pair: KeyPair) -> None:
    """Raise ValueError that says what is wrong, unless the key is RSA, long enough, and the certificate's own."""
    try:
        certificate = load_pem_x509_certificate(pair.certificate.encode())
    except ValueError:
        raise ValueError("certificate: no PEM certificate") from None
    key = _private_key(pair.key)
    if key.key_size < _LEAST_BITS:
        message = f"key: {key.key_size} bits, and {_LEAST_BITS} is the least"
        raise ValueError(message)
    if certificate.public_key() != key.public_key():
        raise ValueError("key: does not belong to the certificate")


def sign_document(root: Any, pair: KeyPair, position: int) -> None:
    """Sign *root* by its ID, RSA-SHA256; the Signature becomes its child number *position*."""
    template = xmlsec.template.create(root, xmlsec.Transform.EXCL_C14N, xmlsec.Transform.RSA_SHA256, ns="ds")
    root.insert(position, template)
    reference = xmlsec.template.add_reference(template, xmlsec.Transform.SHA256, uri=f"#{root.get('ID')}")
    xmlsec.template.add_transform(reference, xmlsec.Transform.ENVELOPED)
    xmlsec.template.add_transform(reference, xmlsec.Transform.EXCL_C14N)
    xmlsec.template.add_x509_data(xmlsec.template.ensure_key_info(template))
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_memory(pair.key, xmlsec.KeyFormat.PEM)
    context.key.load_cert_from_memory(pair.certificate, xmlsec.KeyFormat.CERT_PEM)
    context.register_id(root, "ID")
    context.sign(template)


def sign_octets(octets: bytes, pair: KeyPair) -> str:
    """Signature (RSA-SHA256) in base64 for a query (SAML 2.0 Bindings, section 3.4.4.1)."""
    return b64encode(_private_key(pair.key).sign(octets, PKCS1v15(), SHA256())).decode()


# To read one takes longer than to sign with it: whether it is a good one is examined.
@lru_cache(maxsize=16)
def _private_key(pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("key: no PEM private key without a password") from None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("key: not RSA")  # noqa: TRY004 - the operator's mistake, not the caller's
    return key

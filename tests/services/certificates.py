"""Certificates made on the fly: an authority with a server's certificate, and self-signed ones for SAML."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files: the authority to trust, the server's certificate, and its private key."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(directory: Path, *, host: str = "localhost", days: int = 30) -> Certificates:
    """Write an authority and a server certificate for `host`, localhost and 127.0.0.1 into `directory`.

    Negative `days` make a server certificate that has expired.
    """
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = _name("Test authority")
    authority = _certificate(authority_name, authority_key, authority_name, authority_key, days=30, is_authority=True)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(_name(host), key, authority_name, authority_key, days=days, host=host)
    paths = Certificates(directory / "authority.pem", directory / "server.pem", directory / "server.key")
    paths.authority.write_bytes(authority.public_bytes(Encoding.PEM))
    paths.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    paths.key.touch(mode=0o600)
    paths.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """Paths of PEM files of an RSA key and of the certificate that it signs itself, as SAML parties use them."""

    certificate: Path
    key: Path


def make_self_signed(directory: Path, name: str, *, days: int = 30) -> SelfSigned:
    """Write `name.pem` and `name.key` into `directory`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=days))
    )
    paths = SelfSigned(directory / f"{name}.pem", directory / f"{name}.key")
    paths.certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    paths.key.touch(mode=0o600)
    paths.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    days: int,
    is_authority: bool = False,
    host: str = "localhost",
) -> x509.Certificate:
    until = datetime.now(UTC) + timedelta(days=days)
    names = [x509.DNSName(name) for name in dict.fromkeys((host, "localhost"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(datetime.now(UTC), until) - timedelta(days=1))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if is_authority:
        builder = builder.add_extension(_may_sign_certificates(), critical=True)
    else:
        addresses = x509.IPAddress(ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([*names, addresses]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _may_sign_certificates() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )

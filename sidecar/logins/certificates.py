"""Recognise callers by the TLS client certificate that a trusted proxy passes on, after judging it once more."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store, VerificationError

from sidecar.config.callers import CERTIFICATE_ISSUER, CERTIFICATES, CertificateCaller, Certificates
from sidecar.core.claims import IdentityPlan, identity_from
from sidecar.core.template import Template, TemplateError
from sidecar.faults import Refused
from sidecar.model import Session, Visit
from sidecar.reason import Reason

_MOST = 4096
_REMEMBERED_FOR = 300.0


class CertificateAuthenticator:
    """Believes a certificate of the pinned authorities that is valid now, and was issued for clients."""

    via = "certificate"
    knows = False

    def __init__(self, section: Certificates, plan: IdentityPlan) -> None:
        """Read identities by *plan*. Raises ValueError when the authorities cannot be read."""
        self._callers = section.callers
        self._subject = section.subject
        self._plan = plan
        self._roots = _authorities(section.ca)
        self._known: OrderedDict[bytes, tuple[float, Session]] = OrderedDict()

    def at_hand(self, visit: Visit, now: float) -> Session | None:  # noqa: ARG002 - nothing is remembered
        """Say nothing."""
        return None

    async def identify(self, visit: Visit, now: float) -> Session | None:
        """Who has the certificate; None without one that a trusted proxy passed on.

        Raises Refused: CERTIFICATE with 401 for one that is not accepted, IDENTITY_INCOMPLETE with 403.
        """
        if not visit.certificate:
            return None
        digest = hashlib.sha256(visit.certificate).digest()
        until, session = self._known.get(digest, (0.0, None))
        if session is not None and now < until:
            return session
        self._known.pop(digest, None)
        session = self._judged(visit.certificate, digest.hex(), now)
        self._known[digest] = min(session.expires, now + _REMEMBERED_FOR), session
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return session

    def _judged(self, der: bytes, fingerprint: str, now: float) -> Session:
        try:
            certificate = x509.load_der_x509_certificate(der)
            self._verify(certificate, now)
            claims = claims_of(certificate, fingerprint)
        except (ValueError, UnsupportedAlgorithm, VerificationError, x509.DuplicateExtension) as error:
            # What the library says may quote the certificate, which is the caller's word.
            raise Refused(Reason.CERTIFICATE, 401, f"not valid here: {type(error).__name__}") from None
        claims |= self._caller(claims)
        return Session(
            id=f"certificate-{fingerprint[:32]}",
            identity=identity_from(CERTIFICATES, CERTIFICATE_ISSUER, claims, self._plan),
            created=certificate.not_valid_before_utc.timestamp(),
            expires=certificate.not_valid_after_utc.timestamp(),
            seen=now,
            # Nobody signed in: it never meets what a rule requires of a sign-in.
            auth_time=0.0,
        )

    def _verify(self, certificate: x509.Certificate, now: float) -> None:
        builder = PolicyBuilder().store(self._roots).time(datetime.fromtimestamp(now, UTC))
        builder = builder.extension_policies(ca_policy=_AUTHORITY, ee_policy=_CALLER)
        builder.build_client_verifier().verify(certificate, [])

    def _caller(self, claims: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of the caller beside what stands in the certificate, ``sub`` above all."""
        for name, caller in self._callers.items():
            if _fits(caller, claims):
                return {**caller.claims, "sub": name}
        if self._callers:
            raise Refused(Reason.CERTIFICATE, 401, "nobody in certificates.callers has it")
        return {"sub": self._subject_of(self._subject, claims)}

    @staticmethod
    def _subject_of(template: Template | None, claims: Mapping[str, Any]) -> str:
        if template is None:
            return str(claims["fingerprint"])
        try:
            return template.text({"claims": dict(claims)})
        except TemplateError as error:
            raise Refused(Reason.IDENTITY_INCOMPLETE, 403, str(error)) from None


def claims_of(certificate: x509.Certificate, fingerprint: str) -> dict[str, Any]:
    """What stands in a certificate, by the names that templates use; raises ValueError for what cannot be read."""
    subject = certificate.subject
    names = _names(certificate)
    return {
        "fingerprint": fingerprint,
        "serial": f"{certificate.serial_number:x}",
        "cn": _first(subject, NameOID.COMMON_NAME),
        "organization": _first(subject, NameOID.ORGANIZATION_NAME),
        "unit": _first(subject, NameOID.ORGANIZATIONAL_UNIT_NAME),
        **names,
        # The first of each, as most have one.
        "uri": next(iter(names["uris"]), ""),
        "email": next(iter(names["emails"]), ""),
    }


def _first(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    """The value of an attribute that is there once; of several nobody could say which counts."""
    values = [str(one.value) for one in name.get_attributes_for_oid(oid)]
    return values[0] if len(values) == 1 else ""


def _names(certificate: x509.Certificate) -> dict[str, list[str]]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return {"dns": [], "addresses": [], "uris": [], "emails": []}
    return {
        "dns": names.get_values_for_type(x509.DNSName),
        "addresses": [str(one) for one in names.get_values_for_type(x509.IPAddress)],
        "uris": names.get_values_for_type(x509.UniformResourceIdentifier),
        "emails": names.get_values_for_type(x509.RFC822Name),
    }


def _fits(caller: CertificateCaller, claims: Mapping[str, Any]) -> bool:
    named = {*claims["dns"], *claims["addresses"], *claims["uris"]}
    return (
        (not caller.cn or claims["cn"] in caller.cn)
        and (not caller.san or not named.isdisjoint(caller.san))
        and (not caller.fingerprint or claims["fingerprint"] in caller.fingerprint)
    )


def _is_authority(_: Policy, __: x509.Certificate, found: x509.BasicConstraints) -> None:
    if not found.ca:
        raise ValueError("no authority")


def _may_sign(_: Policy, __: x509.Certificate, found: x509.KeyUsage | None) -> None:
    if found is not None and not found.key_cert_sign:
        raise ValueError("may not sign")


def _is_for_clients(_: Policy, __: x509.Certificate, found: x509.ExtendedKeyUsage | None) -> None:
    usages = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if found is not None and usages.isdisjoint(found):
        raise ValueError("not for clients")


# The rules of the public web ask for more than a company's own authority usually writes.
_AUTHORITY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)
)
_CALLER = ExtensionPolicy.permit_all().may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _is_for_clients)


def _authorities(file: Path) -> Store:
    try:
        return Store(x509.load_pem_x509_certificates(file.read_bytes()))
    except (OSError, ValueError) as error:
        message = f"certificates.ca: {file} cannot be read as PEM: {type(error).__name__}"
        raise ValueError(message) from None

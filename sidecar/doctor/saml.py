"""Look at SAML providers: their metadata, their certificates, and ours."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography.x509 import load_pem_x509_certificate

from sidecar.config.saml import SamlLogin
from sidecar.doctor.finding import Finding, Probe
from sidecar.doctor.looking import UnseenError
from sidecar.doctor.patient import Patient
from sidecar.doctor.providers import document_of
from sidecar.faults import Unavailable
from sidecar.logins.opening import provider_metadata

_SOON = 30.0
_DAY = 86400.0


def probes(patient: Patient) -> list[Probe]:
    """Theirs and ours, for each login."""
    logins = patient.config.saml_logins
    theirs = [_metadata(patient, name, section) for name, section in logins.items()]
    return [*theirs, *(_ours(patient, name, section) for name, section in logins.items() if section.keys)]


async def _metadata(patient: Patient, name: str, section: SamlLogin) -> Probe:
    part, place = f"logins.{name}", ("logins", name, "metadata")
    now = patient.clock()
    if "://" in section.metadata:
        try:
            await document_of(patient, name)
        except UnseenError as error:
            yield patient.skipped("saml-metadata", f"the metadata cannot be had: {error}", part)
            return
    metadata = provider_metadata(name, section, patient.clock)
    try:
        provider = await metadata.current(now)
    except Unavailable as fault:
        yield patient.failure("saml-metadata", fault.detail.removeprefix(f"{name}: "), place, part=part)
        return
    finally:
        await metadata.close()
    left = None if provider.valid_until is None else (provider.valid_until - now) / _DAY
    if left is not None and left < 1:
        seen = f"{provider.entity_id}: valid for {left * 24:.0f} more hours (validUntil)"
        yield patient.warning("saml-metadata", seen, place, part=part)
    else:
        until = "" if left is None else f", valid for {left:.0f} days"
        yield patient.ok("saml-metadata", f"{provider.entity_id}{until}", part)
    for number, pem in enumerate(provider.certificates, 1):
        yield _judged(patient, "saml-certificates", pem, f"signing certificate {number}", (part, place))


async def _ours(patient: Patient, name: str, section: SamlLogin) -> Probe:
    for number, pair in enumerate(section.keys):
        place = ("logins", name, "keys", number, "certificate")
        pem = pair.certificate.read_text("ascii")
        yield _judged(patient, "saml-keys", pem, f"our certificate {number + 1}", (f"logins.{name}", place))


def _judged(patient: Patient, name: str, pem: str, what: str, where: tuple[str, tuple[str | int, ...]]) -> Finding:
    part, place = where
    ends = load_pem_x509_certificate(pem.encode()).not_valid_after_utc
    days = (ends - datetime.fromtimestamp(patient.clock(), UTC)).total_seconds() / _DAY
    if days < _SOON:
        # An ended one still verifies: signatures count by key, not by date. It says that a change is due.
        return patient.warning(name, f"{what} {'ended' if days < 0 else 'ends'} {ends:%Y-%m-%d}", place, part=part)
    return patient.ok(name, f"{what} ends {ends:%Y-%m-%d}", part)

"""Judge the session cookie against the address that browsers use."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.lints.addresses import is_address, is_loopback
from sidecar.doctor.finding import Finding, Probe
from sidecar.doctor.patient import Patient


def probes(patient: Patient) -> list[Probe]:
    """No network is needed."""
    return [_all(patient)]


async def _all(patient: Patient) -> Probe:
    found = list(_remarks(patient))
    for finding in found:
        yield finding
    if not found:
        yield patient.ok("cookie", f"{patient.site.session_cookie}, {_attributes(patient)}")


def _attributes(patient: Patient) -> str:
    secure = "Secure, " if patient.site.scheme == "https" else "without Secure on this machine, "
    return f"{secure}HttpOnly, SameSite={patient.site.style.same_site}"


def _remarks(patient: Patient) -> Iterator[Finding]:
    cookie, site = patient.config.sessions.cookie, patient.site
    if cookie.domain is not None:
        seen = f"Domain={cookie.domain}: every host below it gets the session cookie, and __Host- is not possible"
        yield patient.warning("cookie", seen, ("sessions", "cookie", "domain"))
    if cookie.same_site == "none":
        seen = "SameSite=None: other sites' pages send the session cookie along"
        yield patient.warning("cookie", seen, ("sessions", "cookie", "same_site"))
    if cookie.same_site == "strict":
        seen = "SameSite=Strict: who follows a link from elsewhere arrives signed out, and signs in again"
        yield patient.warning("cookie", seen, ("sessions", "cookie", "same_site"))
    if is_address(site.host) and not is_loopback(site.host):
        seen = f"{site.host} is an address: certificates for it are rare, and every service on it shares its cookies"
        yield patient.warning("cookie", seen, ("server", "public_url"))
    elif "." not in site.host and not is_loopback(site.host):
        seen = f"{site.host} is a bare name: it means another machine in another network"
        yield patient.warning("cookie", seen, ("server", "public_url"))

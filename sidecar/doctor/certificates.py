"""Look at the certificates of public_url, the providers and the application, as a stranger sees them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from sidecar.config.document import Location
from sidecar.doctor.finding import Probe
from sidecar.doctor.looking import Certificate, UnreachableError, UnseenError, certificate_of
from sidecar.doctor.patient import Patient
from sidecar.doctor.providers import address_of

SOON = 14.0
_OLD = frozenset(["SSLv3", "TLSv1", "TLSv1.1"])


def probes(patient: Patient) -> list[Probe]:
    """One for each address with https."""
    config, site = patient.config, patient.site
    found: list[Probe] = []
    if site.scheme == "https":
        found.append(_look(patient, "tls-public-url", site.origin, ("server", "public_url")))
    for name, section in config.logins.items():
        address = address_of(patient, name)
        if address.startswith("https:"):
            found.append(_look(patient, "tls-provider", address, ("logins", name), f"logins.{name}", section.ca))
    for number, address in enumerate(config.app.upstream):
        if address.startswith("https:"):
            part, place = f"app.upstream[{number}]", ("app", "upstream", number)
            tls = config.app.tls
            found.append(_look(patient, "tls-upstream", address, place, part, tls.ca, tls.server_name))
    return found


async def _look(  # noqa: PLR0917 - what a certificate is judged by
    patient: Patient,
    name: str,
    address: str,
    place: Location,
    part: str = "",
    ca: Path | None = None,
    server_name: str | None = None,
) -> Probe:
    parts = urlsplit(address)
    host = parts.hostname or ""
    try:
        seen = await certificate_of(host, parts.port or 443, ca, server_name)
    except UnreachableError as error:
        yield patient.skipped(name, f"nobody answers at {parts.netloc}: {error}", part)
        return
    except UnseenError as error:
        yield patient.failure(name, f"no TLS at {parts.netloc}: {error}", place, part=part)
        return
    said = _described(seen, server_name or host)
    days = seen.days(patient.clock())
    if seen.problem:
        yield patient.failure(name, f"the certificate is not accepted here: {seen.problem} ({said})", place, part=part)
    elif seen.protocol in _OLD:
        yield patient.warning(name, f"only {seen.protocol} is spoken ({said})", place, part=part)
    elif days < SOON:
        yield patient.warning(name, f"it ends in {days:.0f} days ({said})", place, part=part)
    else:
        yield patient.ok(name, f"{said}, {seen.protocol}", part)


def _described(seen: Certificate, wanted: str) -> str:
    if seen.ends is None:
        return f"asked for {wanted}"
    names = ", ".join(seen.names[:4]) or "no names"
    return f"for {names}; by {seen.issuer or 'nobody'}; until {seen.ends:%Y-%m-%d}"

"""Judge the list of trusted proxies against where the sidecar listens and what people type."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from sidecar.config.lints.addresses import far_reach, is_address, is_loopback
from sidecar.core.addresses import is_trusted
from sidecar.doctor.finding import Finding, Probe
from sidecar.doctor.machine import reachable_addresses
from sidecar.doctor.names import resolved
from sidecar.doctor.patient import Patient

_PLACE = ("server", "trusted_proxies")
_WIDE = {4: 16, 6: 48}


def probes(patient: Patient) -> list[Probe]:
    """One look at the list."""
    return [_list(patient)]


async def _list(patient: Patient) -> Probe:
    found = [*_too_wide(patient), *_missing(patient), *await _in_front(patient)]
    for finding in found:
        yield finding
    if not found:
        trusted = ", ".join(map(str, patient.config.server.trusted_proxies)) or "nobody"
        yield patient.ok("trusted-proxies", f"X-Forwarded-For is believed from {trusted}")


def _too_wide(patient: Patient) -> Iterator[Finding]:
    for number, network in enumerate(patient.config.server.trusted_proxies):
        reach = far_reach(network) or ("large network" if network.prefixlen < _WIDE[network.version] else "")
        if reach:
            yield patient.warning("trusted-proxies", f"{network} is a {reach}", (*_PLACE, number))


def _missing(patient: Patient) -> Iterator[Finding]:
    server = patient.config.server
    is_fronted = patient.site.scheme == "https" and server.tls is None
    if not is_fronted:
        return
    if not server.trusted_proxies:
        seen = "public_url is https and the sidecar serves no TLS, so a proxy stands in front; but none is listed"
        yield patient.warning("trusted-proxies", seen, _PLACE)
    elif (host := _listens_at(server.listen)) and is_loopback(host) and not _is_loopback_trusted(patient):
        seen = f"only this machine reaches {server.listen}, and its own address is not listed"
        yield patient.failure(
            "trusted-proxies", seen, _PLACE, change="Add 127.0.0.1 (or ::1), from which the proxy connects."
        )


def _listens_at(listen: str) -> str:
    return "" if listen.startswith("unix:") else listen.rpartition(":")[0].strip("[]")


def _is_loopback_trusted(patient: Patient) -> bool:
    return any(is_trusted(one, patient.config.server.trusted_proxies) for one in ("127.0.0.1", "::1"))


async def _in_front(patient: Patient) -> list[Finding]:
    """A proxy of a private network that public_url leads to connects from that network, too."""
    server, host = patient.config.server, patient.site.host
    if server.tls is not None or not server.trusted_proxies or is_loopback(host):
        return []
    try:
        addresses = {host} if is_address(host) else (await resolved(host))[0]
    except OSError:
        return []
    here = set(reachable_addresses())
    strange = [
        one
        for one in sorted(addresses - here)
        if ip_address(one).is_private
        and not ip_address(one).is_loopback
        and not is_trusted(one, server.trusted_proxies)
    ]
    seen = f"{host} leads to {', '.join(strange)}, which is not listed"
    return [patient.warning("trusted-proxies", seen, _PLACE)] if strange else []

"""Resolve every name that matters, and see how long that takes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from sidecar.config.document import Location
from sidecar.config.lints.addresses import is_address, is_loopback
from sidecar.doctor.finding import Probe
from sidecar.doctor.machine import local_addresses
from sidecar.doctor.patient import Patient
from sidecar.doctor.providers import address_of

_SLOW = 1.0


def probes(patient: Patient) -> list[Probe]:
    """One for public_url, one for each other name."""
    return [_public(patient), *(_name(patient, part, *named) for part, named in _names(patient).items())]


def _names(patient: Patient) -> Mapping[str, tuple[str, Location]]:
    config = patient.config
    found: dict[str, tuple[str, Location]] = {}
    for name in config.logins:
        if "://" in address_of(patient, name):
            key = "issuer" if name in config.oidc_logins else "metadata"
            found[f"logins.{name}"] = (_host(address_of(patient, name)), ("logins", name, key))
    for number, address in enumerate(config.app.upstream):
        if not address.startswith("unix:"):
            found[f"app.upstream[{number}]"] = (_host(address), ("app", "upstream", number))
    if config.sessions.redis is not None and not config.sessions.redis.reveal().startswith("unix:"):
        found["sessions.redis"] = (_host(config.sessions.redis.reveal()), ("sessions", "redis"))
    return {part: named for part, named in found.items() if named[0] and not is_address(named[0])}


def _host(address: str) -> str:
    return urlsplit(address).hostname or ""


async def resolved(host: str) -> tuple[frozenset[str], float]:
    """Addresses of *host*, and the seconds that it took; raises OSError."""
    began = time.monotonic()
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return frozenset(str(one[4][0]).partition("%")[0] for one in found), time.monotonic() - began


async def _name(patient: Patient, part: str, host: str, place: Location) -> Probe:
    try:
        addresses, seconds = await resolved(host)
    except OSError as error:
        yield patient.failure("dns", f"{host} does not resolve: {error.strerror}", place, part=part)
        return
    said = f"{host} is {_some(addresses)}"
    if seconds > _SLOW:
        yield patient.warning("dns", f"{said}, which took {seconds:.1f} s to find out", part=part)
    else:
        yield patient.ok("dns", said, part)


async def _public(patient: Patient) -> Probe:
    host, place = patient.site.host, ("server", "public_url")
    if is_address(host) or is_loopback(host):
        yield patient.ok("dns-public-url", f"{host} needs no resolver")
        return
    try:
        addresses, seconds = await resolved(host)
    except OSError as error:
        yield patient.failure("dns-public-url", f"{host} does not resolve here: {error.strerror}", place)
        return
    if seconds > _SLOW:
        yield patient.warning("dns-public-url", f"{host} took {seconds:.1f} s to resolve", place)
    is_here = bool(addresses & local_addresses())
    remark = "this machine" if is_here else "not this machine: that should be the proxy in front"
    yield patient.ok("dns-public-url", f"{host} is {_some(addresses)}, {remark}")


def _some(addresses: frozenset[str]) -> str:
    return ", ".join(sorted(addresses)[:4])

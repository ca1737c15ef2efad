"""Try to reach the application around the sidecar."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from urllib.parse import urlsplit

from sidecar.config.lints.addresses import is_address, is_loopback
from sidecar.doctor.finding import Finding, Probe
from sidecar.doctor.looking import UnreachableError, UnseenError, fetch
from sidecar.doctor.machine import local_addresses, reachable_addresses
from sidecar.doctor.names import resolved
from sidecar.doctor.patient import Patient

_FIRST_BAD = 400
_MOST = 16


def probes(patient: Patient) -> list[Probe]:
    """One for each server of the application, and what cannot be seen."""
    servers = enumerate(patient.config.app.upstream)
    return [*(_around(patient, number, address) for number, address in servers), _trust(patient)]


async def _around(patient: Patient, number: int, address: str) -> Probe:
    part = f"app.upstream[{number}]"
    if address.startswith("unix:"):
        yield _socket(patient, Path(address.removeprefix("unix:")), part)
        return
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not await _answers(address):
        yield patient.skipped(
            "bypass", "the application does not answer the sidecar either; start it and look again", part
        )
        return
    ways = await _ways(patient, parts.hostname or "")
    answers = await asyncio.gather(*(_answer(parts.scheme, host, port) for host in ways))
    open_ones = [(host, status) for host, status in zip(ways, answers, strict=True) if status]
    served = [host for host, status in open_ones if status < _FIRST_BAD]
    if served:
        seen = f"the application itself answers at {_list(served, port)}"
        yield patient.failure("bypass", seen, ("app", "upstream"), part=part)
    elif open_ones:
        hosts = [host for host, _ in open_ones]
        seen = f"something answers at {_list(hosts, port)}, though it refuses (status {open_ones[0][1]})"
        yield patient.warning("bypass", seen, ("app", "upstream"), part=part)
    elif not ways:
        yield patient.skipped("bypass", "this machine has no other address to try", part)
    else:
        yield patient.ok("bypass", f"nothing answers at {_list(ways, port)}", part)


async def _ways(patient: Patient, host: str) -> list[str]:
    """Where others could reach the application, if it is on this machine; and public_url's host in any case."""
    public = patient.site.host
    ways = [] if is_loopback(public) or public == host else [public]
    try:
        theirs = {host} if is_address(host) else (await resolved(host))[0]
    except OSError:
        return ways
    if is_loopback(host) or theirs & local_addresses():
        ways += reachable_addresses()[:_MOST]
    return ways


async def _answers(address: str) -> bool:
    try:
        await fetch(address.rstrip("/") + "/", verify=False)
    except UnreachableError:
        return False
    except UnseenError:
        return True
    return True


async def _answer(scheme: str, host: str, port: int) -> int:
    """Status of an answer without a line that says that it is ours, 0 for none."""
    shown = f"[{host}]" if ":" in host else host
    try:
        seen = await fetch(f"{scheme}://{shown}:{port}/", verify=False)
    except UnseenError:
        return 0
    # Of our own listener on the same port of another address, a refusal or a redirect comes by that name.
    return 0 if seen.headers.get("Server", "") == "sidecar" else seen.status


def _socket(patient: Patient, path: Path, part: str) -> Finding:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return patient.skipped("bypass", f"{path}: {error.strerror}", part)
    if mode & stat.S_IWOTH:
        seen = f"everybody on this machine may connect to {path} ({stat.filemode(mode)})"
        return patient.warning(
            "bypass", seen, ("app", "upstream"), part=part, change="Take write permission from others."
        )
    return patient.ok("bypass", f"{path} is for its owner and group ({stat.filemode(mode)})", part)


async def _trust(patient: Patient) -> Probe:
    config = patient.config
    if config.assertion is not None or any(line.secret is not None for line in config.headers.values()):
        yield patient.ok(
            "upstream-trust", "each request carries something that only the sidecar has; the application must check it"
        )
    else:
        yield patient.skipped(
            "upstream-trust", "whether the application believes headers from anybody else cannot be seen"
        )


def _list(hosts: list[str], port: int) -> str:
    return ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts[:6])

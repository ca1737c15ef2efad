"""Look at the machine: its addresses, file descriptors against expected connections, workers against cores."""

from __future__ import annotations

import os
import re
import resource
import socket
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from sidecar.doctor.finding import Probe
from sidecar.doctor.patient import Patient
from sidecar.sessions.redis import MOST_AT_ONCE

_HERE = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")
# For listeners, databases, logs, and what a library opens.
_BESIDES = 128


def probes(patient: Patient) -> list[Probe]:
    """Limits of this process, which the service may have otherwise."""
    return [_descriptors(patient), _workers(patient)]


async def _descriptors(patient: Patient) -> Probe:
    app = patient.config.app
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Each request under way holds two: one to the client and one to the application.
    needed = 2 * app.max_connections + MOST_AT_ONCE + _BESIDES
    seen = f"{limit} for each process, as seen from this shell"
    if limit not in (resource.RLIM_INFINITY, -1) and limit < needed:
        place = ("app", "max_connections")
        more = f"{seen}; {app.max_connections} requests at once need some {needed}, idle connections not counted"
        yield patient.warning("descriptors", more, place)
    else:
        yield patient.ok("descriptors", f"{seen}; {needed} are needed, and one more for each idle connection")


async def _workers(patient: Patient) -> Probe:
    workers, cores = patient.config.server.workers, len(os.sched_getaffinity(0))
    seen = f"{workers} worker{'s' * (workers > 1)} on {cores} core{'s' * (cores > 1)}"
    if workers > cores:
        yield patient.warning("workers", seen, ("server", "workers"))
    else:
        yield patient.ok("workers", seen)


def local_addresses() -> frozenset[str]:
    """Addresses of this machine, those of the loopback too."""
    found = {"127.0.0.1", "::1"}
    try:
        found |= set(_HERE.findall(Path("/proc/net/fib_trie").read_text("ascii")))
        for line in Path("/proc/net/if_inet6").read_text("ascii").splitlines():
            found.add(str(IPv6Address(int(line.split()[0], 16))))
    except OSError:
        # Not Linux: what our own name stands for.
        found |= {str(one[4][0]) for one in socket.getaddrinfo(socket.gethostname(), None)}
    return frozenset(found)


def reachable_addresses() -> list[str]:
    """Addresses of this machine that other machines may reach."""
    judged = [ip_address(address.partition("%")[0]) for address in local_addresses()]
    return sorted(str(address) for address in judged if not address.is_loopback and not address.is_link_local)

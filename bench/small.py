"""Small requests of somebody signed in: CPU, throughput, latency and memory of every peer, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.load import HEADERS, ORDINARY, Load, Shape, wrk
from bench.peers import BARE, SIDECAR, Peer, Surroundings
from bench.report import Report, Table

_CONNECTIONS = 32
_PAGE = "/some/page"
# As load balancers and tracing name each request.
_OWN = Shape(own="X-Request-Id")
_FORM = Shape("POST", size=200)
# How much of a peer's CPU the sidecar may need.
_TARGETS = {
    BARE: 3.5,
    "oauth2-proxy, Redis": 0.7,
    "mod_auth_openidc, shared memory": 1.0,
    "mod_auth_openidc, Redis": 0.25,
}


@dataclass(slots=True)
class Runs:
    """What one peer did in all its turns."""

    peer: Peer
    shape: Shape = ORDINARY
    connections: int = _CONNECTIONS
    label: str = ""
    page: str = _PAGE
    headers: Mapping[str, str] = field(default_factory=lambda: HEADERS)
    loads: list[Load] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    stores: list[float] = field(default_factory=list)
    memory: float = 0.0

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return self.label or self.peer.name

    def median(self, of: Callable[[Load], float]) -> float:
        """Middle of one number."""
        return statistics.median(map(of, self.loads))

    def forget(self) -> None:
        """Begin anew: it has warmed up."""
        for seen in (self.loads, self.costs, self.stores):
            seen.clear()

    @property
    def cost(self) -> float:
        """Microseconds of CPU for one request."""
        return statistics.median(self.costs)

    @property
    def store(self) -> float:
        """Microseconds of Redis's CPU for one request."""
        return statistics.median(self.stores)


def turn(here: Surroundings, runs: Runs, seconds: float) -> None:
    """Ask for some seconds, and add what it cost. Raises RuntimeError when an answer was not 200."""
    processes, url = runs.peer.processes, runs.peer.place.url + runs.page
    before, store = processes.seconds(), here.redis_processes.seconds()
    load = wrk(url, runs.peer.cookie, seconds, runs.connections, shape=runs.shape, headers=runs.headers)
    if load.bad or not load.requests:
        message = f"{runs.name}: {load.requests} answers; wrong: {load.bad or 'all'}"
        raise RuntimeError(message)
    # What is written in the background belongs to the requests, too.
    time.sleep(0.2)
    runs.loads.append(load)
    runs.costs.append((processes.seconds() - before) / load.requests * 1e6)
    runs.stores.append((here.redis_processes.seconds() - store) / load.requests * 1e6)
    runs.memory = processes.memory()


def measure(here: Surroundings, report: Report) -> None:
    """Compare every peer that is there."""
    rounds, seconds = (2, 1) if report.is_quick else (5, 3)
    peers = here.peers()
    reads = [Runs(peer) for peer in peers]
    reads += [
        Runs(peer, _OWN, label=f"{peer.name}, a line of its own in each request")
        for peer in peers
        if peer.name == SIDECAR
    ]
    writes = [Runs(peer, _FORM) for peer in peers]
    for runs in reads:
        wrk(runs.peer.place.url + _PAGE, runs.peer.cookie, 1, _CONNECTIONS)
    for every in (reads, writes):
        for _ in range(rounds):
            for runs in every:
                turn(here, runs, seconds)
    here.end(peers)
    about = (
        f"1 KB by GET over {_CONNECTIONS} kept connections, two workers or all cores each, medians of {rounds} "
        f"turns of {seconds:g} s, peers in turns. CPU is user and system time of all processes of the proxy; "
        "load and application run on the same cores, so throughput is what is left of them. Every peer but the bare "
        "one has a session of a real sign-in and writes a line for each request."
    )
    report.tables.append(table("Small requests", about, reads))
    about = f"As above, but by POST, with a body of about {_FORM.size} bytes."
    report.tables.append(table("Small requests with a body", about, writes))
    _judge(reads, report)


def ratio(one: Runs, other: Runs) -> float:
    """How much more CPU *one* needs: the middle of the ratios of neighbouring turns, as the machine is not still."""
    return statistics.median(a / b for a, b in zip(one.costs, other.costs, strict=True))


def table(title: str, about: str, every: Sequence[Runs]) -> Table:
    """What they cost, the sidecar beside each of the others."""
    ours = next(runs for runs in every if runs.name == SIDECAR)
    rows = [
        (
            runs.name,
            f"{runs.cost:.0f}",
            f"{ratio(ours, runs):.2f}",
            f"{runs.store:.1f}",
            f"{runs.median(lambda load: load.rate):.0f}",
            f"{runs.median(lambda load: load.p50):.2f}",
            f"{runs.median(lambda load: load.p99):.2f}",
            f"{runs.memory:.0f}",
        )
        for runs in sorted(every, key=lambda runs: runs.cost)
    ]
    columns = ("peer", "CPU µs/request", "sidecar/peer", "Redis µs", "requests/s", "p50 ms", "p99 ms", "memory MB")
    return Table(title, about, columns, rows)


def _judge(every: Sequence[Runs], report: Report) -> None:
    by = {runs.name: runs for runs in every}
    ours = by[SIDECAR]
    for name, most in _TARGETS.items():
        if name in by:
            report.judge(f"CPU per request at most {most}x {name}", ratio(ours, by[name]), most, "x")
    other = by.get("oauth2-proxy, Redis")
    if other is not None:
        faster = ours.median(lambda load: load.rate) / other.median(lambda load: load.rate)
        report.judge_least("throughput above oauth2-proxy's", faster, 1.0, "x")
        slower = ours.median(lambda load: load.p99) / other.median(lambda load: load.p99)
        report.judge("p99 below oauth2-proxy's", slower, 1.0, "x")

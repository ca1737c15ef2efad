"""What kinds of requests cost: the same sidecar, asked in one way after another, in turns."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass, field

from bench.load import ORDINARY, Load, Shape, wrk
from bench.peers import SIDECAR, Peer, Surroundings
from bench.report import Report, Table
from bench.sign_in import sign_in

_PAGE = "/some/page"
_CONNECTIONS = 32
# More than the connections to the application that a worker has.
_CROWD = 1000
_HABITS = 8


@dataclass(slots=True)
class _Runs:
    """One kind of request, and what it did."""

    name: str
    shape: Shape
    connections: int = _CONNECTIONS
    loads: list[Load] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)


def measure(here: Surroundings, report: Report) -> None:
    """Ask in each way, and compare with the plainest one."""
    rounds, seconds, people = (2, 1, 20) if report.is_quick else (5, 2, 500)
    (peer,) = here.peers((SIDECAR,))
    cookies = tuple(asyncio.run(_sessions(peer, people)))
    every = [
        _Runs("GET with the same lines each time", ORDINARY),
        _Runs("POST of about 200 bytes", Shape("POST", size=200)),
        _Runs("PUT of about 20 KB", Shape("PUT", size=20_000)),
        _Runs("GET with a CF-Ray of its own", Shape(own="CF-Ray")),
        _Runs("GET with a line of a name that nobody knows", Shape(own="X-Nobody-Knows")),
        _Runs(f"GET of {people} sessions with {_HABITS} sets of lines each", Shape(cookies=cookies, habits=_HABITS)),
        _Runs(f"GET over {_CROWD} connections at once", ORDINARY, _CROWD),
    ]
    for runs in every:
        _turn(peer, runs, 1)
    for runs in every:
        runs.loads.clear()
        runs.costs.clear()
    for _ in range(rounds):
        for runs in every:
            _turn(peer, runs, seconds)
    here.end([peer])
    plain = every[0]
    rows = [
        (
            runs.name,
            f"{statistics.median(runs.costs):.0f}",
            f"{statistics.median(a / b for a, b in zip(runs.costs, plain.costs, strict=True)):.1f}",
            f"{statistics.median(load.rate for load in runs.loads):.0f}",
        )
        for runs in every
    ]
    about = (
        f"The sidecar alone, two workers, {_CONNECTIONS} kept connections where nothing else is said, medians of "
        f"{rounds} turns of {seconds} s, kinds in turns."
    )
    report.tables.append(Table("Kinds of requests", about, ("kind", "CPU µs/request", "x plain", "requests/s"), rows))


async def _sessions(peer: Peer, people: int) -> list[str]:
    """Cookies of so many sessions."""
    return [await sign_in(f"{peer.place.url}/") for _ in range(people)]


def _turn(peer: Peer, runs: _Runs, seconds: float) -> None:
    before = peer.processes.seconds()
    load = wrk(peer.place.url + _PAGE, peer.cookie, seconds, runs.connections, shape=runs.shape)
    if load.bad or not load.requests:
        message = f"{runs.name}: {load.bad} of {load.requests} answers were not 200"
        raise RuntimeError(message)
    time.sleep(0.2)
    runs.loads.append(load)
    runs.costs.append((peer.processes.seconds() - before) / load.requests * 1e6)

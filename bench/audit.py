"""What an audit line for each decision costs: the same sidecar with and without them, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.load import Load, wrk
from bench.peers import SIDECAR, Peer, Surroundings
from bench.report import Report, Table

_CONNECTIONS = 32
_PAGE = "/some/page"
# As many connections and milliseconds of pause as make 10,000 requests/s, or somewhat less.
_PACED_CONNECTIONS, _PAUSE = 105, 10


@dataclass(slots=True)
class _Runs:
    """What one of the two did: at full load, and at 10,000 requests/s; with the CPU of each request in microseconds."""

    name: str
    peer: Peer
    full: list[tuple[Load, float]] = field(default_factory=list)
    paced: list[tuple[Load, float]] = field(default_factory=list)


def measure(here: Surroundings, report: Report) -> None:
    """Ask as fast as both answer, and at a steady pace; the line is chained and written to a file."""
    # Many short turns at the steady pace: the machine's own drift is wider than what is looked for.
    rounds, paced = (2, 4) if report.is_quick else (8, 40)
    (loud,) = here.peers((SIDECAR,))
    silent = here.without_decisions()
    silent.cookie = silent.sign_in()
    both = _Runs("with", loud), _Runs("without", silent)
    for runs in both:
        _turn(runs.peer, 1)
    for number in range(paced):
        # Neither is always the first: machines grow slower while they are busy, and quicker when they rest.
        for runs in both if number % 2 else reversed(both):
            runs.paced.append(_turn(runs.peer, 1, pause=_PAUSE))
            if number < rounds:
                runs.full.append(_turn(runs.peer, 2))
    here.end([loud, silent])
    cost = _middle([a[1] / b[1] for a, b in zip(both[0].full, both[1].full, strict=True)])
    slower = _middle([a[0].p50 / b[0].p50 for a, b in zip(both[0].paced, both[1].paced, strict=True)])
    report.tables.append(_table(both, cost, slower))
    report.judge("10,000 audit lines/s slow the median request by at most 5 %", (slower - 1) * 100, 5, " %")


def _turn(peer: Peer, seconds: float, pause: int = 0) -> tuple[Load, float]:
    before = peer.processes.seconds()
    connections = _PACED_CONNECTIONS if pause else _CONNECTIONS
    load = wrk(peer.place.url + _PAGE, peer.cookie, seconds, connections, pause=pause)
    if load.bad or not load.requests:
        message = f"{load.requests} answers; wrong: {load.bad or 'all'}"
        raise RuntimeError(message)
    # What is written in the background belongs to the requests, too.
    time.sleep(0.5)
    return load, (peer.processes.seconds() - before) / load.requests * 1e6


def _middle(numbers: Sequence[float]) -> float:
    return statistics.median(numbers)


def _table(both: Sequence[_Runs], cost: float, slower: float) -> Table:
    rows = [
        (
            runs.name,
            f"{_middle([load.rate for load, _ in runs.full]):.0f}",
            f"{_middle([cpu for _, cpu in runs.full]):.1f}",
            f"{_middle([load.rate for load, _ in runs.paced]):.0f}",
            f"{_middle([cpu for _, cpu in runs.paced]):.1f}",
            f"{_middle([load.p50 for load, _ in runs.paced]):.3f}",
            f"{_middle([load.p99 for load, _ in runs.paced]):.2f}",
        )
        for runs in both
    ]
    about = (
        f"The small requests of somebody signed in, with and without an audit line for each: over {_CONNECTIONS} "
        f"connections as fast as they are answered ({len(both[0].full)} turns of 2 s), and at a steady pace "
        f"({len(both[0].paced)} turns of 1 s). CPU is that of all processes; at full load it is {cost:.3f} times as "
        f"much with lines. At the steady pace the median of the latency is {slower:.3f} times as long."
    )
    columns = ("lines", "requests/s", "CPU µs/request", "at pace/s", "CPU µs/request", "p50 ms", "p99 ms")
    return Table("Audit lines", about, columns, rows)

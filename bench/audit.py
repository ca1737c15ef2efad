"""What an audit line for each decision costs: the same sidecar with and without them, in turns."""

from __future__ import annotations

import statistics
import time

from bench.load import wrk
from bench.peers import SIDECAR, Peer, Surroundings
from bench.report import Report, Table

_CONNECTIONS = 32
_PAGE = "/some/page"


def measure(here: Surroundings, report: Report) -> None:
    """Ask as fast as both answer; the line is chained and written to a file."""
    rounds, seconds = (4, 1) if report.is_quick else (10, 2)
    (loud,) = here.peers((SIDECAR,))
    silent = here.without_decisions()
    silent.cookie = silent.sign_in()
    peers = [loud, silent]
    for peer in peers:
        _turn(peer, 1)
    turns = [(_turn(loud, seconds), _turn(silent, seconds)) for _ in range(rounds)]
    here.end(peers)
    ratio = statistics.median(a[0] / b[0] for a, b in turns)
    rows = [
        (name, f"{statistics.median(cost for cost, _ in of):.1f}", f"{statistics.median(rate for _, rate in of):.0f}")
        for name, of in (("with", [a for a, _ in turns]), ("without", [b for _, b in turns]))
    ]
    about = (
        f"The small requests of somebody signed in, {_CONNECTIONS} connections, {rounds} turns of {seconds} s, with "
        f"and without an audit line for each. CPU is that of all processes; with lines it is {ratio:.3f} times as much."
    )
    report.tables.append(Table("Audit lines", about, ("lines", "CPU µs/request", "requests/s"), rows))
    report.judge("audit lines cost at most 5 % of the request path", (ratio - 1) * 100, 5, " %")


def _turn(peer: Peer, seconds: float) -> tuple[float, float]:
    before = peer.processes.seconds()
    load = wrk(peer.place.url + _PAGE, peer.cookie, seconds, _CONNECTIONS)
    if load.bad or not load.requests:
        message = f"{load.bad} of {load.requests} answers were not 200"
        raise RuntimeError(message)
    # What is written in the background belongs to the requests, too.
    time.sleep(0.2)
    return (peer.processes.seconds() - before) / load.requests * 1e6, load.rate

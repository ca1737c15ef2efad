"""What a request waits longer for because of the sidecar, at half of the load that it could take."""

from __future__ import annotations

import statistics

from bench.load import Load, wrk
from bench.peers import BARE, KEPT, SIDECAR, Surroundings
from bench.report import Report, Table

_CONNECTIONS = 16
_PAGE = "/some/page"


def measure(here: Surroundings, report: Report) -> None:
    """Compare the application itself with the way through each peer, all at the same paced load."""
    rounds, seconds = (1, 1) if report.is_quick else (5, 3)
    peers = [*here.peers((BARE, SIDECAR, "oauth2-proxy, Redis")), here.kept_to_cores()]
    ours = next(peer for peer in peers if peer.name == SIDECAR)
    ways = [("the application itself", f"http://127.0.0.1:{here.application}", "")]
    ways += [(peer.name, peer.place.url, peer.cookie) for peer in peers]
    for _, url, cookie in ways:
        wrk(url + _PAGE, cookie, 1, _CONNECTIONS)
    most = wrk(ours.place.url + _PAGE, ours.cookie, max(2, seconds), _CONNECTIONS).rate
    # wrk waits whole milliseconds: as many connections as make half of the most with a wait of some.
    pause = 10
    connections = max(2, round(most / 2 * pause / 1000))
    loads: dict[str, list[Load]] = {name: [] for name, _, _ in ways}
    for _ in range(rounds):
        for name, url, cookie in ways:
            loads[name].append(wrk(url + _PAGE, cookie, seconds, connections, pause=pause))
    here.end(peers)
    middle = {
        name: (statistics.median(load.p50 for load in runs), statistics.median(load.p99 for load in runs))
        for name, runs in loads.items()
    }
    direct = middle["the application itself"]
    rows = [
        (
            name,
            f"{statistics.median(load.rate for load in loads[name]):.0f}",
            f"{p50:.2f}",
            f"{p99:.2f}",
            f"{p50 - direct[0]:+.2f}",
            f"{p99 - direct[1]:+.2f}",
        )
        for name, (p50, p99) in middle.items()
    ]
    about = (
        f"{connections} connections, each with a pause of {pause} ms on average between two requests: about half of "
        f"the {most:.0f} requests/s that the sidecar reached just before. Medians of {rounds} turns of {seconds} s."
    )
    columns = ("way", "requests/s", "p50 ms", "p99 ms", "added p50", "added p99")
    report.tables.append(Table("Latency at half load", about, columns, rows))
    for name, which in ((SIDECAR, ""), (KEPT, ", each worker kept to one core")):
        p50, p99 = (ours - theirs for ours, theirs in zip(middle[name], direct, strict=True))
        report.judge(f"added p50 at half load{which}, at most 0.3 ms", p50, 0.3, " ms")
        report.judge(f"added p99 at half load{which}, at most 2 ms", p99, 2.0, " ms")

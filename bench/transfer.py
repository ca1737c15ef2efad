"""Large downloads and uploads: throughput beside nginx, and whether memory stays flat."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from bench.load import download, upload
from bench.peers import BARE, LARGE, SIDECAR, Peer, Surroundings
from bench.report import Report, Table

_MB = 1 << 20


def measure(here: Surroundings, report: Report) -> None:
    """Fetch and send much, through the bare nginx and through the sidecar in turns."""
    rounds = 2 if report.is_quick else 5
    rows: list[tuple[str, ...]] = []
    for what, to_taker in (("download", False), ("upload", True)):
        peers = here.peers((BARE, SIDECAR), to_taker=to_taker, workers=1)
        rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
        costs: dict[str, list[float]] = {peer.name: [] for peer in peers}
        before = {peer.name: peer.processes.memory() for peer in peers}
        for _ in range(rounds):
            for peer in peers:
                spent = peer.processes.seconds()
                size, seconds = _way(what, peer)()
                rates[peer.name].append(size / seconds / _MB)
                costs[peer.name].append((peer.processes.seconds() - spent) * 1000 / (size / (1 << 30)))
        grown = {peer.name: peer.processes.memory() - before[peer.name] for peer in peers}
        here.end(peers)
        share = statistics.median(ours / bare for ours, bare in zip(rates[SIDECAR], rates[BARE], strict=True))
        for name, ours in rates.items():
            rate, cost = statistics.median(ours), statistics.median(costs[name])
            rows.append((f"{what}, {name}", f"{rate:.0f}", f"{cost:.0f}", f"{grown[name]:+.1f}"))
        report.judge_least(f"{what} of {LARGE // _MB} MB at least 0.7x nginx's throughput", share, 0.7, "x")
        report.judge(
            f"memory grown by {rounds} times {LARGE // _MB} MB of {what} at most 10 MB", grown[SIDECAR], 10, " MB"
        )
    about = f"{LARGE // _MB} MB over one connection, medians of {rounds} turns, one worker each."
    columns = ("what", "MB/s", "CPU ms/GB", "memory grown MB")
    report.tables.append(Table("Large transfers", about, columns, rows))


def _way(what: str, peer: Peer) -> Callable[[], tuple[int, float]]:
    port, cookie = peer.place.port, peer.cookie
    if what == "download":
        return lambda: download(port, "/large", cookie)
    return lambda: upload(port, "/take", cookie, LARGE)

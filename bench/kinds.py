"""What kinds of requests cost: the same sidecar, asked in one way after another, in turns."""

from __future__ import annotations

import asyncio

from bench.load import ORDINARY, Shape
from bench.peers import SIDECAR, Peer, Surroundings
from bench.report import Report, Table
from bench.sign_in import sign_in
from bench.small import Runs, ratio, turn

# More than the connections to the application that a worker has.
_CROWD = 1000
_HABITS = 8


def measure(here: Surroundings, report: Report) -> None:
    """Ask in each way, and compare with the plainest one."""
    rounds, seconds, people = (2, 1, 20) if report.is_quick else (5, 2, 500)
    (peer,) = here.peers((SIDECAR,))
    cookies = tuple(asyncio.run(_sessions(peer, people)))
    kinds: list[tuple[str, Shape]] = [
        ("GET with the same lines each time", ORDINARY),
        ("POST of about 200 bytes", Shape("POST", size=200)),
        ("PUT of about 20 KB", Shape("PUT", size=20_000)),
        ("GET with a CF-Ray of its own", Shape(own="CF-Ray")),
        ("GET with a line of a name that nobody knows", Shape(own="X-Nobody-Knows")),
        (f"GET of {people} sessions with {_HABITS} sets of lines each", Shape(cookies=cookies, habits=_HABITS)),
    ]
    every = [Runs(peer, shape, label=name) for name, shape in kinds]
    every.append(Runs(peer, connections=_CROWD, label=f"GET over {_CROWD} connections at once"))
    for runs in every:
        turn(here, runs, 1)
    for runs in every:
        runs.forget()
    for _ in range(rounds):
        for runs in every:
            turn(here, runs, seconds)
    here.end([peer])
    plain = every[0]
    rows = [
        (runs.name, f"{runs.cost:.0f}", f"{ratio(runs, plain):.1f}", f"{runs.median(lambda load: load.rate):.0f}")
        for runs in every
    ]
    about = (
        f"The sidecar alone, two workers, {plain.connections} kept connections where nothing else is said, medians of "
        f"{rounds} turns of {seconds} s, kinds in turns."
    )
    report.tables.append(Table("Kinds of requests", about, ("kind", "CPU µs/request", "x plain", "requests/s"), rows))


async def _sessions(peer: Peer, people: int) -> list[str]:
    """Cookies of so many sessions."""
    return [await sign_in(f"{peer.place.url}/") for _ in range(people)]

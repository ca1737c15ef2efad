"""Questions of a front proxy: may this request pass? The sidecar's forward-auth beside oauth2-proxy's, in turns."""

from __future__ import annotations

from bench.load import HEADERS, Shape, wrk
from bench.peers import Surroundings
from bench.report import Report
from bench.small import Runs, table, turn

_OTHER = "oauth2-proxy, Redis"
# As nginx asks: about another page each time, at one and the same address.
_QUESTION = Shape(own="X-Original-URI", before="/some/page?of=")


def measure(here: Surroundings, report: Report) -> None:
    """Ask about pages of somebody who has signed in."""
    rounds, seconds = (2, 1) if report.is_quick else (5, 3)
    ours = here.for_front_proxies()
    ours.cookie = ours.sign_in()
    every = [Runs(ours, _QUESTION, page="/-/auth", headers=_told(ours.place.port))]
    every += [
        Runs(peer, _QUESTION, page="/oauth2/auth", headers=_told(peer.place.port)) for peer in here.peers((_OTHER,))
    ]
    for runs in every:
        wrk(
            runs.peer.place.url + runs.page,
            runs.peer.cookie,
            1,
            runs.connections,
            shape=_QUESTION,
            headers=runs.headers,
        )
    for _ in range(rounds):
        for runs in every:
            turn(here, runs, seconds)
    here.end([runs.peer for runs in every])
    about = (
        f"As nginx asks about each request (auth_request), over {every[0].connections} kept connections: medians of "
        f"{rounds} turns of {seconds} s, peers in turns. Nothing is carried to an application."
    )
    report.tables.append(table("Questions of a front proxy", about, every))


def _told(port: int) -> dict[str, str]:
    return {
        **HEADERS,
        "X-Original-Method": "GET",
        "X-Forwarded-Host": f"127.0.0.1:{port}",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-For": "192.0.2.7",
    }

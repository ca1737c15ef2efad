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
    asked = ((ours, "/-/auth"), *((peer, "/oauth2/auth") for peer in here.peers((_OTHER,))))
    kept = [Runs(peer, _QUESTION, page=page, headers=_told(peer.place.port)) for peer, page in asked]
    # As nginx asks when nobody has told it to keep connections.
    own = [Runs(runs.peer, _QUESTION, page=runs.page, headers={**runs.headers, "Connection": "close"}) for runs in kept]
    for every in (kept, own):
        for runs in every:
            url = runs.peer.place.url + runs.page
            wrk(url, runs.peer.cookie, 1, runs.connections, shape=_QUESTION, headers=runs.headers)
        for _ in range(rounds):
            for runs in every:
                turn(here, runs, seconds)
    here.end([runs.peer for runs in kept])
    about = (
        f"As nginx asks about each request (auth_request), over {kept[0].connections} kept connections: medians of "
        f"{rounds} turns of {seconds} s, peers in turns. Nothing is carried to an application."
    )
    report.tables.append(table("Questions of a front proxy", about, kept))
    about = "As above, but each over a connection of its own, as nginx asks when it has not been told to keep them."
    report.tables.append(table("Questions over connections of their own", about, own))


def _told(port: int) -> dict[str, str]:
    return {
        **HEADERS,
        "X-Original-Method": "GET",
        "X-Forwarded-Host": f"127.0.0.1:{port}",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-For": "192.0.2.7",
    }

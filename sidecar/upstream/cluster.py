"""All servers of the application: which one gets the next request."""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING

from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.upstream.server import Server
from sidecar.upstream.target import targets_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sidecar.config.service import App
    from sidecar.upstream.server import Tell


class Cluster:
    """The one with the fewest requests under way serves next, or the one that a session is drawn to."""

    def __init__(self, section: App, tell: Tell) -> None:
        """Read where the servers are; raises ValueError that names the key of what cannot be used."""
        self.servers = tuple(Server(target, section, tell) for target in targets_of(section))
        for address, server in zip(section.upstream, self.servers, strict=True):
            server.is_draining = address in section.draining
        self._is_sticky = section.sticky
        self._turn = 0

    @property
    def is_at_hand(self) -> bool:
        """Whether any server has a connection that waits for a request."""
        return any(server.pool.is_at_hand for server in self.servers)

    @property
    def is_full(self) -> bool:
        """Whether every connection to every server that there may be is busy."""
        return all(server.pool.is_full for server in self.servers)

    def enter(self, affinity: str, tried: Collection[Server] = ()) -> Server:
        """Choose a server and count it as busy; say ``leave`` to it. Raises Unavailable(UPSTREAM_DOWN, 503)."""
        now = time.monotonic()
        server = self.choose(affinity, tried, now=now)
        if server is None:
            raise Unavailable(Reason.UPSTREAM_DOWN, "no server is available", 503)
        self.begin(server, now)
        return server

    def begin(self, server: Server, now: float) -> None:
        """Note that a request goes to *server*: the next one is another's turn. *now* is by the monotonic clock."""
        self._turn += 1
        server.enter(now)

    def choose(self, affinity: str, tried: Collection[Server] = (), *, now: float) -> Server | None:
        """Choose a server, or None when there is none; ``begin`` once a request goes there.

        *now* is by the monotonic clock.
        """
        if len(self.servers) == 1:
            only = self.servers[0]
            return only if only not in tried and only.may_serve(now) else None
        return self._choose(affinity, [one for one in self.servers if one.may_serve(now) and one not in tried])

    def has_another(self, tried: Collection[Server]) -> bool:
        """Whether a server that was not tried may serve."""
        now = time.monotonic()
        return any(one not in tried and one.may_serve(now) for one in self.servers)

    def _choose(self, affinity: str, able: list[Server]) -> Server | None:
        if len(able) <= 1:
            return able[0] if able else None
        if self._is_sticky and affinity:
            # Rendezvous hashing: all workers and replicas agree without a word, and only the sessions of a server that
            # is gone move.
            return max(able, key=lambda one: _draw(affinity, one.name))
        start = self._turn % len(able)
        return min(able[start:] + able[:start], key=lambda one: one.load)

    def says(self) -> str:
        """How many servers may serve, for operators."""
        now = time.monotonic()
        out = [one.name for one in self.servers if not one.may_serve(now)]
        said = f"{len(self.servers) - len(out)} of {len(self.servers)} servers available"
        return f"{said}; out: {', '.join(out)}" if out else said


def complaints_about(servers: Collection[Server]) -> Mapping[str, str]:
    """What an operator should look at: servers that get no requests, though nobody took them out."""
    now = time.monotonic()
    out = [one.name for one in servers if not (one.is_draining or one.may_serve(now))]
    return {"application": f"gets nothing, because it does not answer: {', '.join(out)}"} if out else {}


def _draw(affinity: str, name: str) -> bytes:
    return blake2b(f"{affinity}\0{name}".encode(), digest_size=8).digest()

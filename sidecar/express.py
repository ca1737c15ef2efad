"""Send an ordinary request on its way at once: somebody who is known asks for a page, and nothing is to be waited for.

Nearly every request is one. It is judged by the same rooms as any other; what differs is that there is no task, and
that header lines which were written before are not written again. Whatever is not ordinary is left to the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeVar

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11

from sidecar.arrival import Arrival
from sidecar.core.headers import Line
from sidecar.gate import Gate
from sidecar.limits import Limits
from sidecar.model import Refused, Visit
from sidecar.upstream import Departure, Outgoing, written

_MOST_KEPT = 4096
_LONGEST_KEPT = 2048
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Sent(NamedTuple):
    """A request that is on its way, and the visit that it is."""

    visit: Visit
    departure: Departure


class Express:
    """Remembers what header lines look like once they are written; nothing else."""

    def __init__(self, arrival: Arrival, is_ours: Callable[[str], bool], gate: Gate, limits: Limits) -> None:
        """Judge by *arrival*, *limits* and *gate*; paths that *is_ours* says are the portal's."""
        self._arrival = arrival
        self._is_ours = is_ours
        self._gate = gate
        self._limits = limits
        self._alter = gate.answering(())
        self._incoming: dict[tuple[bytes, bytes], Outgoing] = {}
        self._about: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self._identity: dict[tuple[Line, ...], Outgoing] = {}

    def depart(self, request: web.BaseRequest, now: float, on_word: Callable[[], None]) -> Sent | None:
        """Send *request* to the application; None, and nothing has happened, when it takes the gate to do so."""
        if not _is_ordinary(request):
            return None
        try:
            target = self._arrival.target(request)
            visit = self._arrival.visit(request, target)
            if target.authority or self._is_ours(visit.path):
                return None
            self._arrival.refuse_strange_hosts(visit, request)
            admission = self._gate.admit(visit, now)
            if admission is None or not self._limits.is_free(visit, now):
                return None
            outgoing = self._outgoing(request, visit, target.raw, admission.lines)
        except Refused:
            # The gate refuses it, too, and says so.
            return None
        if outgoing is None:
            return None
        caller, gate = admission.caller, self._gate
        ended = gate.endings.of(caller.session) if caller is not None else None
        affinity = caller.session.id if caller is not None else ""
        departure = gate.upstream.depart(
            request, outgoing, alter=self._alter, ended=ended, on_word=on_word, affinity=affinity
        )
        if departure is None:
            return None
        self._limits.request(visit, now)
        gate.say_again(admission, visit)
        return Sent(visit, departure)

    def _outgoing(
        self, request: web.BaseRequest, visit: Visit, target: str, identity: tuple[Line, ...]
    ) -> Outgoing | None:
        """The head for the application; None when its lines depend on one another."""
        host, forwarding = self._lines_about(visit.client, visit.host)
        blocks = [b"GET ", target.encode(), b" HTTP/1.1\r\n", host]
        for pair in request.raw_headers:
            kept = self._incoming.get(pair) or self._lines_of(pair)
            if kept is None:
                return None
            blocks.append(kept.data)
        person = self._identity.get(identity) or _keep(self._identity, identity, written(identity))
        if person.binds:
            return None
        blocks += (forwarding, person.data, b"\r\n")
        return Outgoing(b"".join(blocks), binds=False)

    def _lines_about(self, client: str, host: str) -> tuple[bytes, bytes]:
        known = self._about.get((client, host))
        if known is None:
            line, forwarding = self._gate.lines_about(client, host)
            known = _keep(self._about, (client, host), (written((line,)).data, written(forwarding).data))
        return known

    def _lines_of(self, pair: tuple[bytes, bytes]) -> Outgoing | None:
        """What becomes of one line that came in; None when that depends on the others."""
        plan = self._gate.plan.incoming
        if not plan.stands_alone(*pair):
            return None
        lines = written(plan.incoming((pair,)))
        if lines.binds:
            return None
        return _keep(self._incoming, pair, lines) if len(pair[1]) <= _LONGEST_KEPT else lines


def _is_ordinary(request: web.BaseRequest) -> bool:
    headers = request.headers
    return (
        request.method == hdrs.METH_GET
        and request.version == HttpVersion11
        and request.keep_alive
        and request.content.is_eof()
        and hdrs.UPGRADE not in headers
        and hdrs.EXPECT not in headers
        and hdrs.AUTHORIZATION not in headers
        and hdrs.CONTENT_LENGTH not in headers
        and hdrs.TRANSFER_ENCODING not in headers
    )


def _keep(memo: dict[K, V], key: K, lines: V) -> V:
    if len(memo) >= _MOST_KEPT:
        memo.clear()
    memo[key] = lines
    return lines

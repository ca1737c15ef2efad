"""Answer a front proxy's question at once: somebody who is known may pass, and nothing is to be waited for.

Nearly every question is one. It is judged by the same rooms as any other; what differs is that there is no task, and
that header lines which were read before are not read again, nor is an answer written again. Whatever is not ordinary,
each refusal among it, is left to ``ForwardAuth``.
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate

from aiohttp import web

from sidecar.arrival import Arrival, Seen, Whence
from sidecar.core.cookies import weight_of
from sidecar.core.headers import Line
from sidecar.core.paths import read_simple_start, read_simple_target
from sidecar.core.regulars import VARYING, Differing, Recurring, differing, lines_of, without_varying
from sidecar.express import Written, key_of, knows_when_it_ends, version_of
from sidecar.forward_auth import ForwardAuth, is_handshake
from sidecar.limits import Limits
from sidecar.model import Visit
from sidecar.trips import Told
from sidecar.upstream import written

_LONGEST_HEAD = 4096
# Bytes of heads and answers, and about what else belongs to each: some thousands of them.
_MOST_KEPT = 8 * 1024 * 1024
_SIZE_OF_ASKER = 1024
_FRAMING = b"Content-Length: 0\r\n"
_LAST = b"Connection: close\r\n"


class Asker(Written):
    """Somebody about whom the same header lines asked before: how they were read, and as ``text`` what was answered."""

    __slots__ = ("_gaps", "_length_at", "given_back", "is_last", "path_at", "visit")

    def __init__(
        self, visit: Visit, given_back: Sequence[Line], others: Differing, uri: bytes, *, is_last: bool
    ) -> None:
        """Remember a *visit*, and the lines that are *given_back*; *is_last* when nothing follows over the connection.

        Of the *others*, whose values differ each time, the one called *uri* has the path asked for.
        """
        super().__init__()
        self.visit = visit
        self.given_back = given_back
        self.is_last = is_last
        self.path_at = others.names.index(uri) if uri in others.names else -1
        self._length_at = others.length_at
        self._gaps = len(others.names)

    def fits(self, values: Sequence[bytes]) -> bool:
        """True when *values* are as many as there were, and tell of no body."""
        return len(values) == self._gaps and (self._length_at < 0 or values[self._length_at] == b"0")


class Questions:
    """Remembers what the header lines of questions mean, and how the answers look; nothing else."""

    def __init__(self, desk: ForwardAuth, arrival: Arrival, limits: Limits) -> None:
        """Do by *arrival* and *limits* what *desk* would do."""
        self._desk = desk
        self._arrival = arrival
        self._limits = limits
        self._page = desk.page.encode()
        self._uri = desk.dialect.uri.lower().encode()
        self._names = VARYING | {self._uri} if self._uri else VARYING
        self._lines = lines_of(self._names)
        self._askers: Recurring[tuple[bytes, Whence], Asker] = Recurring(_MOST_KEPT)
        self._second = -1
        self._date = b""

    def first(self, request: web.BaseRequest, seen: Seen | None, now: float) -> Told | None:
        """Answer *request*, which came as *seen*; None when it is no question, or takes ``ForwardAuth``.

        So with Refused: it refuses it, too, and says so. What came is known by its bytes from now on.
        """
        if seen is None or not _is_ordinary(request):
            return None
        target = self._arrival.target(request)
        if not self._desk.owns(target) or self._desk.wants_whole(target):
            return None
        visit, _ = self._desk.told(request, self._arrival.visit(request, now, target), target)
        self._desk.refuse_misleading(request)
        others = differing(request.raw_headers, self._names)
        asker = Asker(visit, self._desk.given_back(request), others, self._uri, is_last=not request.keep_alive)
        if not asker.fits(others.values) or (self._uri and asker.path_at < 0):
            return None
        answer = self._answer(asker, visit, now)
        if answer is not None and len(seen.head) <= _LONGEST_HEAD:
            head, found = without_varying(seen.head, self._lines)
            if found == others.values:
                key = key_of(request.method.encode(), version_of(request), head)
                size = weight_of(visit.cookies) + weight_of(asker.given_back) + asker.make_room() + _SIZE_OF_ASKER
                # What stands in it stands in the visit, too.
                size += 2 * len(key)
                self._askers.keep((key, seen.origin), asker, size)
        return answer

    def again(self, data: bytes, origin: Whence, now: float) -> Told | None:
        """Answer *data*, a whole request whose header lines were remembered from the same *origin*.

        None, and nothing has happened, when they were not, or when what it asks for takes a second look.
        """
        start = read_simple_start(data)
        if start is None:
            return None
        method, target, path, version, size = start
        is_about_path = not self._uri
        # Without a path behind it, it is no question where the path belongs there.
        if not (target.startswith(self._page + b"/") if is_about_path else target == self._page):
            return None
        # With all that came behind it, which is nothing in those that are known.
        head, values = without_varying(data[size - 2 :], self._lines)
        asker = self._askers.get((key_of(method, version, head), origin))
        if asker is None or not asker.fits(values):
            return None
        asked = path[len(self._page) :] if is_about_path else read_simple_target(values[asker.path_at])
        if asked is None or self._desk.site.owns(asked):
            return None
        visit = self._arrival.again(asker.visit, asked, now)
        answer = None if visit is None else self._answer(asker, visit, now)
        asker.trim()
        return answer

    def _answer(self, asker: Asker, visit: Visit, now: float) -> Told | None:
        """Let *visit* pass, if that takes no waiting. Raises Refused."""
        gate = self._desk.gate
        admission = gate.admit(visit, now)
        if admission is None or not self._limits.is_free(visit, now):
            return None
        if not asker.is_current(admission):
            lines = written(self._desk.told_back(asker.given_back, admission.lines))
            asker.text = b"HTTP/1.1 200 OK\r\n%b%b%b" % (lines.data, _FRAMING, _LAST if asker.is_last else b"")
            asker.admission = admission
        words = gate.words(admission, visit)
        self._limits.request(visit, now)
        gate.audit.fill(words, now, visit.path, visit.reference)
        return Told(asker.text + self._dated(now), not asker.is_last)

    def _dated(self, now: float) -> bytes:
        """The last line (RFC 9110, section 6.6.1), and the end of the head."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._date = b"Date: %b\r\n\r\n" % formatdate(second, usegmt=True).encode()
        return self._date


def _is_ordinary(request: web.BaseRequest) -> bool:
    return knows_when_it_ends(request) and not is_handshake(request)

"""Send an ordinary request on its way at once: somebody who is known asks for it, and nothing is to be waited for.

Nearly every request is one, with a short body or none. It is judged by the same rooms as any other; what differs is
that there is no task, and that header lines which were read and written before are not read and written again. Whatever
is not ordinary is left to the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TypeVar

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11

from sidecar.admission import Admission
from sidecar.arrival import Arrival, Seen, Whence
from sidecar.core.cookies import weight_of
from sidecar.core.headers import Line
from sidecar.core.paths import SIMPLE_METHODS, read_simple_start
from sidecar.core.regulars import Recurring, differing, is_length, varies, without_varying
from sidecar.core.variance import Variance
from sidecar.gate import Gate
from sidecar.limits import Limits
from sidecar.model import Visit
from sidecar.upstream import Client, Departure, Ending, Outgoing, Whole, written

_MOST_KEPT = 4096
_LONGEST_KEPT = 2048
_LONGEST_HEAD = 4096
# Bytes of heads, and about what else belongs to each: some thousands of them.
_MOST_OF_REGULARS = 8 * 1024 * 1024
_SIZE_OF_REGULAR = 1024
# Of what is written about the person, as part of that; nearly all of it is shorter.
ROOM = 1024
# Bytes of a body that are held twice for a moment; longer ones are streamed.
_LONGEST_BODY = 64 * 1024
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Sent = tuple[Visit, Departure]


class Written:
    """What was written because of an ``admission``, the last one: it is written anew when that says something else."""

    __slots__ = ("admission", "room", "text")

    def __init__(self) -> None:
        """Begin with nothing written."""
        self.admission: Admission | None = None
        self.text = b""
        self.room = ROOM

    def is_current(self, admission: Admission) -> bool:
        """True when what is written is what *admission* asks for."""
        last = self.admission
        return last is not None and last.lines is admission.lines and last.caller is admission.caller

    def make_room(self) -> int:
        """Let what is written stay, however long it is; the bytes that this takes."""
        self.room = max(ROOM, len(self.text))
        return self.room

    def trim(self) -> None:
        """Forget what is written when it takes more than there is room for: it is written anew each time."""
        if len(self.text) > self.room:
            self.admission, self.text = None, b""


class Regular(Written):
    """Somebody whose header lines came before, byte for byte: how they were read, and what was sent because of them.

    ``text`` is what follows the first line, but for values that differ each time, and for the end.
    """

    __slots__ = ("ended", "is_last", "length_at", "lines", "method", "visit")

    def __init__(self, visit: Visit, lines: Sequence[bytes], length_at: int, *, is_last: bool) -> None:
        """Remember a *visit*, and its *lines* for the application but for those about the person.

        *is_last* when nothing follows over the same connection. Between two of the *lines* there is room for a value
        that differs each time. The length of the body is the one at *length_at* among those values that came; -1 when
        none is told, and there is no body.
        """
        super().__init__()
        self.visit = visit
        self.method = visit.method.encode()
        self.lines = lines
        self.length_at = length_at
        self.is_last = is_last
        self.ended: Callable[[], Ending] | None = None

    @property
    def gaps(self) -> int:
        """How many values it takes to write it."""
        return len(self.lines) - 1

    def fits(self, values: list[bytes], body: bytes) -> bool:
        """True when *values* are as many as there were, and say of *body* what it is; its length is taken out then."""
        if len(values) != self.gaps + (self.length_at >= 0):
            return False
        return not body if self.length_at < 0 else values.pop(self.length_at) == b"%d" % len(body)

    def written(self, target: bytes, values: Sequence[bytes], body: bytes) -> bytes:
        """Write the whole request."""
        start = b"%b %b HTTP/1.1\r\n" % (self.method, target)
        end = b"\r\n" if self.length_at < 0 else b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        if not values:
            return b"%b%b%b" % (start, self.text, end)
        pieces = [start]
        for line, value in zip(self.lines, values, strict=False):
            pieces += (line, value)
        return b"".join((*pieces, self.text, end))


class Express:
    """Remembers what header lines mean, and how they look once they are written; nothing else."""

    def __init__(
        self, arrival: Arrival, is_ours: Callable[[str], bool], gate: Gate, limits: Limits, *, max_body: int | None
    ) -> None:
        """Judge by *arrival*, *limits* and *gate*; paths that *is_ours* says are the portal's.

        What has more than *max_body* bytes is for others to refuse.
        """
        self._arrival = arrival
        self._is_ours = is_ours
        self._gate = gate
        self._limits = limits
        self._alter = gate.answering(())
        self._longest_body = _LONGEST_BODY if max_body is None else min(_LONGEST_BODY, max_body)
        self._variance = Variance(lambda name: gate.plan.incoming.passes(name) and not arrival.reads(name))
        self._regulars: Recurring[tuple[bytes, Whence], Regular] = Recurring(_MOST_OF_REGULARS)
        self._incoming: dict[tuple[bytes, bytes], Outgoing] = {}
        self._about: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self._identity: dict[tuple[Line, ...], Outgoing] = {}

    def depart(self, client: Client, request: web.BaseRequest, seen: Seen | None, now: float) -> Sent | None:
        """Send *request* to the application; None, and nothing has happened, when it takes the gate to do so.

        So with Refused: the gate refuses it, too, and says so.

        *seen* is how it came, if it came alone: its header lines are known by that from now on, and its body is there.
        """
        body = seen.body if seen is not None else b""
        if not self._gate.upstream.is_at_hand or not _is_ordinary(request) or len(body) > self._longest_body:
            return None
        target = self._arrival.target(request)
        visit = self._arrival.visit(request, now, target)
        if target.authority or self._is_ours(visit.path):
            return None
        self._arrival.refuse_strange_hosts(visit, request)
        lines = self._lines(request, visit)
        if lines is None:
            return None
        others = differing(request.raw_headers, self._variance.names)
        regular = Regular(visit, lines, others.length_at, is_last=not request.keep_alive)
        values = [*others.values]
        if not regular.fits(values, body):
            return None
        sent = self._sent(client, regular, visit, target.raw.encode(), values, body, now)
        if sent is not None and seen is not None and len(seen.head) <= _LONGEST_HEAD:
            head, found = without_varying(seen.head, self._variance.lines)
            if found == others.values:
                key = key_of(regular.method, version_of(request), head)
                size = len(key) + weight_of(visit.cookies) + regular.make_room() + _SIZE_OF_REGULAR - ROOM
                self._regulars.keep((key, seen.origin), regular, size)
        if sent is not None:
            self._variance.note(request.raw_headers)
        return sent

    def again(self, client: Client, data: bytes, origin: Whence, now: float) -> Sent | None:
        """As ``depart`` for *data*, a whole request whose header lines were remembered from the same *origin*.

        None, and nothing has happened, when they were not, or when its target takes a second look.
        """
        start = read_simple_start(data) if self._gate.upstream.is_at_hand else None
        if start is None:
            return None
        method, target, path, version, size = start
        # Lines without an end are nobody's.
        end = data.find(b"\r\n\r\n", size - 2) + 4
        if len(data) - end > self._longest_body:
            return None
        head, values = without_varying(data[size - 2 : end], self._variance.lines)
        regular = self._regulars.get((key_of(method, version, head), origin))
        body = data[end:]
        if regular is None or not regular.fits(values, body) or self._is_ours(path):
            return None
        visit = self._arrival.again(regular.visit, path, now)
        if visit is None:
            return None
        sent = self._sent(client, regular, visit, target, values, body, now)
        regular.trim()
        return sent

    @property
    def is_full(self) -> bool:
        """True while the application has no room for another request."""
        return self._gate.upstream.is_full

    def may_wait(self, data: bytes) -> bool:
        """Whether *data* begins an ordinary request for the application."""
        start = read_simple_start(data)
        return start is not None and not self._is_ours(start[2])

    def _sent(  # noqa: PLR0917 - the parts of one request
        self,
        client: Client,
        regular: Regular,
        visit: Visit,
        target: bytes,
        values: Sequence[bytes],
        body: bytes,
        now: float,
    ) -> Sent | None:
        """Let *visit* in and send it, if neither takes any waiting. Raises Refused."""
        gate = self._gate
        admission = gate.admit(visit, now)
        if admission is None or not self._limits.is_free(visit, now):
            return None
        if not regular.is_current(admission) and not self._write(regular, admission):
            return None
        caller, words = admission.caller, gate.words(admission, visit)
        departure = gate.upstream.depart(
            client,
            Whole(visit.method, regular.written(target, values, body), is_last=regular.is_last),
            alter=self._alter,
            ended=regular.ended,
            affinity=caller.session.id if caller is not None else "",
        )
        if departure is None:
            return None
        # Nothing fails from here on: the gate would send it once more.
        try:
            self._limits.request(visit, now)
            gate.audit.fill(words, now, visit.path, visit.reference)
        except BaseException:
            # Else its connection would be lost to everybody, for good.
            departure.abandon()
            raise
        return visit, departure

    def _write(self, regular: Regular, admission: Admission) -> bool:
        """Write what follows the first line; False when its credentials would sign in the whole connection."""
        identity, caller = admission.lines, admission.caller
        person = self._identity.get(identity) or _keep(self._identity, identity, written(identity))
        if person.binds:
            return False
        _, forwarding = self._lines_about(regular.visit)
        regular.text = b"%b%b%b" % (regular.lines[-1], forwarding, person.data)
        regular.ended = None
        if caller is not None:
            regular.ended = partial(self._gate.endings.of_late, caller.session, is_kept=bool(caller.token))
        regular.admission = admission
        return True

    def _lines(self, request: web.BaseRequest, visit: Visit) -> list[bytes] | None:
        """What becomes of the lines that came; None when they depend on one another.

        They are parted where a value differs each time.
        """
        block, _ = self._lines_about(visit)
        blocks: list[bytes] = []
        for pair in request.raw_headers:
            name, value = pair
            if is_length(name):
                continue
            kept = self._incoming.get(pair) or self._lines_of(pair)
            if kept is None:
                return None
            if not varies(name, value, self._variance.names):
                block += kept.data
            elif kept.data == b"%b: %b\r\n" % pair:
                blocks.append(block + name + b": ")
                block = b"\r\n"
            else:
                return None
        return [*blocks, block]

    def _lines_about(self, visit: Visit) -> tuple[bytes, bytes]:
        """Host line for the application, and what it is told about where *visit* comes from."""
        key = visit.client, visit.host
        known = self._about.get(key)
        if known is None:
            line, forwarding = self._gate.lines_about(*key)
            known = _keep(self._about, key, (written((line,)).data, written(forwarding).data))
        return known

    def _lines_of(self, pair: tuple[bytes, bytes]) -> Outgoing | None:
        """What becomes of one line that came in; None when that depends on the others."""
        plan = self._gate.plan.incoming
        if not plan.stands_alone(*pair):
            return None
        lines = written(plan.incoming((pair,)))
        if lines.binds:
            # They sign in the connection to the application, which is nobody else's then.
            return None
        return _keep(self._incoming, pair, lines) if len(pair[0]) + len(pair[1]) <= _LONGEST_KEPT else lines


def _is_ordinary(request: web.BaseRequest) -> bool:
    headers = request.headers
    return (
        request.method in SIMPLE_METHODS
        and knows_when_it_ends(request)
        and hdrs.UPGRADE not in headers
        and hdrs.EXPECT not in headers
        and hdrs.TRANSFER_ENCODING not in headers
        and not (request.method == hdrs.METH_GET and hdrs.CONTENT_LENGTH in headers)
    )


def knows_when_it_ends(request: web.BaseRequest) -> bool:
    """False for somebody who speaks HTTP/1.0 and wants to stay, who has to be told that they may."""
    return request.version == HttpVersion11 or not request.keep_alive


def version_of(request: web.BaseRequest) -> bytes:
    """As ``read_simple_start`` gives it."""
    return b"1" if request.version == HttpVersion11 else b"0"


def key_of(method: bytes, version: bytes, head: bytes) -> bytes:
    """What the lines of *head* are known by, which begins with a line break: they mean more than one thing."""
    return head if method == b"GET" and version == b"1" else method + version + head


def _keep(memo: dict[K, V], key: K, lines: V, most: int = _MOST_KEPT) -> V:
    if len(memo) >= most:
        memo.clear()
    memo[key] = lines
    return lines

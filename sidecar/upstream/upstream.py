"""The application as the gate sees it: carry one request or one WebSocket to it and stream the answer back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import hdrs

from sidecar.model import Reason, Refused, Unavailable
from sidecar.upstream.exchange import Alter, Arrived, Exchange, Patience, Stale
from sidecar.upstream.head import Framing, Head, Outgoing, compose, framing_of
from sidecar.upstream.pool import Pool
from sidecar.upstream.response import ClientGone
from sidecar.upstream.target import target_of
from sidecar.upstream.tunnel import check_handshake

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from sidecar.config.service import App
    from sidecar.upstream.connection import Connection
    from sidecar.upstream.ending import Ending
    from sidecar.upstream.response import RelayedResponse

_SLOWEST_TICK = 1.0
_TICKS_PER_TIMEOUT = 10
_NO_BODY = Framing()


class Upstream:
    """Carries requests to one application over kept connections; belongs to one event loop."""

    def __init__(self, section: App, *, max_body: int | None = None) -> None:
        """Read where the application is; *max_body* bounds request bodies in bytes.

        Connects to nothing yet. Raises ValueError that names the key of an address or a file that cannot be used.
        """
        self._target = target_of(section)
        self._times = Patience(section.answer_timeout.total_seconds(), section.idle_timeout.total_seconds())
        self._pool = Pool(self._target, bound=section.max_connections, patience=section.connect_timeout.total_seconds())
        self._max_body = max_body
        self._live: set[Exchange] = set()
        self._is_draining = False
        self._emptied: asyncio.Event | None = None
        self._tick: asyncio.TimerHandle | None = None
        shortest = min(self._times.answer, self._times.idle)
        self._pace = min(_SLOWEST_TICK, shortest / _TICKS_PER_TIMEOUT)

    @property
    def authority(self) -> str:
        """What a Host header says when the application shall see its own address (``app.host: upstream``)."""
        return self._target.authority

    @property
    def live(self) -> int:
        """How many requests and WebSockets are under way, for metrics."""
        return len(self._live)

    async def carry(
        self,
        request: web.BaseRequest,
        head: Head,
        *,
        alter: Alter | None = None,
        ended: Ending | None = None,
        body: bytes | None = None,
    ) -> RelayedResponse:
        """Send *head* with the request's body (or *body*, when that has been kept), and stream the answer back.

        *alter* gets the answer's end-to-end header lines and returns those that the client gets. *ended* cuts long
        streams short when the session ends. Raises, while nothing has reached the client: Unavailable (UPSTREAM_DOWN
        502, UPSTREAM_SLOW 504, UPSTREAM_ANSWER 502, STOPPING 503) and Refused (HEADERS_INVALID 400, TARGET_INVALID
        400, BODY_TOO_LARGE 413, SESSION_EXPIRED 401). After that, or when the client has gone, the response returned
        ``is_broken``.
        """
        framing = framing_of(request, self._max_body) if body is None else Framing(length=len(body))
        head = _without_expect(request, head)
        if body is None and request.content.is_eof():
            body = self._at_hand(request)
        exchange = Exchange(
            request,
            head.method,
            compose(head, framing),
            framing,
            body,
            times=self._times,
            limit=self._max_body,
            alter=alter,
            ending=ended,
            keep_alive=not self._is_draining,
            is_upgrade=False,
            excuse=self._pool.excuse,
        )
        return await self.resume(exchange, await self._pool.take(is_repeatable=exchange.is_repeatable))

    def depart(
        self,
        request: web.BaseRequest,
        outgoing: Outgoing,
        *,
        alter: Alter | None,
        ended: Ending | None,
        on_word: Callable[[], None],
    ) -> Departure | None:
        """Send a GET without a body over an idle connection, None (and nothing happened) when that cannot be done.

        *on_word* is called, never from within, when the departure should ``arrive``.
        """
        if self._is_draining or request.protocol.writing_paused:
            return None
        connection = self._pool.take_idle()
        if connection is None:
            return None
        exchange = Exchange(
            request,
            hdrs.METH_GET,
            outgoing,
            _NO_BODY,
            b"",
            times=self._times,
            limit=self._max_body,
            alter=alter,
            ending=ended,
            keep_alive=True,
            is_upgrade=False,
            excuse=self._pool.excuse,
        )
        try:
            exchange.depart(connection, on_word)
        except Unavailable:
            self._pool.give_back(connection, may_be_shared=False)
            return None
        self._enter(exchange)
        return Departure(self, exchange, connection)

    def _at_hand(self, request: web.BaseRequest) -> bytes:
        body = request.content.read_nowait()
        if self._max_body is not None and len(body) > self._max_body:
            raise Refused(Reason.BODY_TOO_LARGE, 413, f"more than {self._max_body} bytes")
        return body

    async def tunnel(
        self,
        request: web.BaseRequest,
        head: Head,
        *,
        alter: Alter | None = None,
        ended: Ending | None = None,
    ) -> RelayedResponse:
        """Open a WebSocket for a request that ``wants_websocket`` and carry it until either side or the session ends.

        An answer other than 101 is passed on as it is. Raises what ``carry`` raises, until the 101 has been passed on.
        WebSockets do not count against ``max_connections``.
        """
        check_handshake(request)
        if self._is_draining:
            raise Unavailable(Reason.STOPPING)
        exchange = Exchange(
            request,
            head.method,
            compose(head, Framing(), upgrade=True),
            Framing(),
            b"",
            times=self._times,
            limit=0,
            alter=alter,
            ending=ended,
            keep_alive=False,
            is_upgrade=True,
            excuse=self._pool.excuse,
        )
        return await self._run(exchange, await self._pool.connect())

    async def _run(self, exchange: Exchange, connection: Connection) -> RelayedResponse:
        self._enter(exchange)
        try:
            return await exchange.over(connection)
        finally:
            self.leave(exchange, connection)

    async def resume(self, exchange: Exchange, connection: Connection) -> RelayedResponse:
        """Carry on with a departure that did not arrive at once; see ``carry``."""
        try:
            return await self._run(exchange, connection)
        except Stale:
            return await self._run(exchange, await self._pool.take(fresh=True))

    def _enter(self, exchange: Exchange) -> None:
        self._live.add(exchange)
        if self._tick is None:
            self._schedule()

    def leave(self, exchange: Exchange, connection: Connection) -> None:
        """Note that *exchange* is over, and keep its connection if that is fit for another one."""
        self._live.discard(exchange)
        self._pool.give_back(connection, may_be_shared=exchange.may_be_shared)
        if self._emptied is not None and not self._live:
            self._emptied.set()

    def _schedule(self) -> None:
        self._tick = asyncio.get_running_loop().call_later(self._pace, self._look_round)

    def _look_round(self) -> None:
        """Find what is silent for too long: one timer for all is cheaper than one for each."""
        now = asyncio.get_running_loop().time()
        for exchange in tuple(self._live):
            exchange.check(now)
        self._make_way(now)
        self._pool.expire(now)
        self._tick = None
        if self._live or self._pool.idle:
            self._schedule()

    def _make_way(self, now: float) -> None:
        """Let the slowest clients give their places to whoever waits for one.

        Else a few hundred that send or read a byte now and then would keep everybody out.
        """
        waiting = self._pool.waiting
        if not waiting:
            return
        paces = [(pace, exchange) for exchange in self._live if (pace := exchange.clients_pace(now)) is not None]
        for _, exchange in sorted(paces, key=lambda one: one[0])[:waiting]:
            exchange.give_way()

    async def probe(self) -> str:
        """Connect once and send nothing; a sentence for operators. Raises Unavailable."""
        connection = await self._pool.connect()
        tls = connection.transport and connection.transport.get_extra_info("ssl_object")
        connection.close()
        return f"{self._target} accepts connections" + (f" ({tls.version()})" if tls else "")

    def drain(self) -> None:
        """Begin to stop: WebSockets are closed (1001), and answers tell clients to connect anew."""
        self._is_draining = True
        for exchange in tuple(self._live):
            exchange.leave()

    async def close(self, grace: float = 0.0) -> None:
        """Drain, give what is under way *grace* seconds to finish, then end it; nothing is carried afterwards."""
        self.drain()
        self._emptied = asyncio.Event()
        if self._live and grace > 0:
            try:
                async with asyncio.timeout(grace):
                    await self._emptied.wait()
            except TimeoutError:
                pass
        self._pool.close()
        for exchange in tuple(self._live):
            exchange.give_up(Unavailable(Reason.STOPPING))
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None


class Departure:
    """A request that is on its way without a task; whoever sent it calls one of the three."""

    __slots__ = ("_connection", "_exchange", "_upstream")

    def __init__(self, upstream: Upstream, exchange: Exchange, connection: Connection) -> None:
        """Belong to *upstream*; *exchange* has departed over *connection*."""
        self._upstream = upstream
        self._exchange = exchange
        self._connection = connection

    def arrive(self) -> Arrived | None:
        """Give the whole answer to the client; None when it takes more, which is up to ``carry_on`` then."""
        arrived = self._exchange.arrive(self._connection)
        if arrived is not None:
            self._upstream.leave(self._exchange, self._connection)
        return arrived

    async def carry_on(self, request: web.BaseRequest) -> RelayedResponse:
        """Do for *request*, which is the same one, what ``Upstream.carry`` does once it has sent a request."""
        self._exchange.resume(request)
        return await self._upstream.resume(self._exchange, self._connection)

    def abandon(self) -> None:
        """Forget about it: the client has gone."""
        self._connection.tell(None)
        self._exchange.give_up(ClientGone())
        self._upstream.leave(self._exchange, self._connection)


def _without_expect(request: web.BaseRequest, head: Head) -> Head:
    # The expectation is met here, so that the application need not understand it (RFC 9110, section 10.1.1).
    if hdrs.EXPECT not in request.headers:
        return head
    kept = tuple(line for line in head.headers if line[0].lower() != "expect")
    return Head(head.method, head.target, kept)

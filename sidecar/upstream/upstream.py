"""The application as the gate sees it: carry one request or one WebSocket to it and stream the answer back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sidecar.faults import Refused, Unavailable
from sidecar.reason import Reason
from sidecar.upstream.asking import ask
from sidecar.upstream.circuit import Budget
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.departure import Client, Departure, Whole
from sidecar.upstream.exchange import IDEMPOTENT, Alter, Exchange, Patience, Stale, UntouchedError
from sidecar.upstream.head import Framing, Head, Line, Outgoing, compose, framing_of, with_host, without_expect
from sidecar.upstream.health import check, look_after
from sidecar.upstream.pool import NoConnectionError
from sidecar.upstream.server import Happening, Server, Tell
from sidecar.upstream.tunnel import check_handshake

if TYPE_CHECKING:
    from aiohttp import web

    from sidecar.config.service import App
    from sidecar.upstream.connection import Connection
    from sidecar.upstream.ending import Ending
    from sidecar.upstream.response import RelayedResponse

_SLOWEST_TICK = 1.0
_TICKS_PER_TIMEOUT = 10
_NO_BODY = Framing()


class Upstream:
    """Carries requests to the application's servers over kept connections; belongs to one event loop."""

    def __init__(self, section: App, *, max_body: int | None = None, tell: Tell | None = None) -> None:
        """Read where the servers are; *max_body* bounds request bodies in bytes, *tell* hears what happens to servers.

        Connects to nothing yet. Raises ValueError that names the key of an address or a file that cannot be used.
        """
        self._tell = tell or _tell_nobody
        self._cluster = Cluster(section, self._tell)
        self._health = section.health
        self._budget = Budget(section.repeats)
        # With several servers each has an address of its own.
        self._names_server = section.host == "upstream" and len(self.servers) > 1
        self._times = Patience(section.answer_timeout.total_seconds(), section.idle_timeout.total_seconds())
        self._max_body = max_body
        self._largest_message = section.websocket_message
        self._live: dict[Exchange | Departure, Server] = {}
        self._is_draining = False
        self._emptied: asyncio.Event | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._pace = min(_SLOWEST_TICK, min(self._times.answer, self._times.idle) / _TICKS_PER_TIMEOUT)

    @property
    def authority(self) -> str:
        """What a Host header says when the application shall see its own address (``app.host: upstream``)."""
        return self.servers[0].target.authority

    @property
    def answer_patience(self) -> float:
        """Seconds that an answer may take to begin."""
        return self._times.answer

    @property
    def servers(self) -> tuple[Server, ...]:
        """The application's servers in the order of the configuration."""
        return self._cluster.servers

    @property
    def is_at_hand(self) -> bool:
        """Whether some connection waits for a request: while all are busy it is not worth trying to ``depart``."""
        return self._cluster.is_at_hand

    @property
    def is_full(self) -> bool:
        """Whether there may be no more connections than those that are busy."""
        return self._cluster.is_full

    def says(self) -> str:
        """How many servers may serve, for operators."""
        return self._cluster.says()

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
        affinity: str = "",
    ) -> RelayedResponse:
        """Send *head* with the request's body (or *body*, when that has been kept), and stream the answer back.

        *alter* gets the answer's end-to-end header lines and returns those that the client gets. *ended* cuts long
        streams short when the session ends. *affinity* is what ``app.sticky`` keeps together. Raises, while nothing has
        reached the client: Unavailable (UPSTREAM_DOWN 502 or 503, UPSTREAM_SLOW 504, UPSTREAM_ANSWER 502, STOPPING 503)
        and Refused (HEADERS_INVALID 400, TARGET_INVALID 400, BODY_TOO_LARGE 413, SESSION_EXPIRED 401). After that, or
        when the client has gone, the response returned ``is_broken``.
        """
        framing = framing_of(request, self._max_body) if body is None else Framing(length=len(body))
        head = without_expect(request, head)
        if body is None and request.content.is_eof():
            body = self._at_hand(request)

        async def one(server: Server) -> RelayedResponse:
            exchange = Exchange(
                request,
                head.method,
                compose(self._addressed(head, server), framing),
                framing,
                body,
                times=self._times,
                limit=self._max_body,
                alter=alter,
                ending=ended,
                keep_alive=not self._is_draining,
                is_upgrade=False,
                excuse=server.pool.excuse,
            )
            return await self._once(exchange, server, await server.pool.take(is_repeatable=exchange.is_repeatable))

        self._budget.note()
        return await self._at_one_of_them(one, affinity)

    async def ask(self, head: Head) -> list[Line]:
        """Ask a server that may serve; the answer's header lines. As ``asking.ask``."""
        server = self._cluster.choose("", now=time.monotonic())
        if server is None:
            raise Unavailable(Reason.UPSTREAM_DOWN, "no server may serve")
        return (await ask(server, self._addressed(head, server))).lines

    def depart(
        self, client: Client, whole: Whole, *, alter: Alter, ended: Callable[[], Ending] | None, affinity: str = ""
    ) -> Departure | None:
        """Send *whole* over an idle connection, None (and nothing happened) when that cannot be done.

        Its credentials do not sign in the connection, its body is short enough. The client hears when it should
        ``arrive``; *ended* is asked only when that takes more than a moment.
        """
        if self._is_draining or self._names_server or client.writing_paused:
            return None
        now = time.monotonic()
        server = self._cluster.choose(affinity, now=now)
        is_repeatable = whole.method in IDEMPOTENT
        connection = server.pool.take_idle(is_repeatable=is_repeatable) if server is not None else None
        if server is None or connection is None:
            return None
        try:
            departure = Departure(self, client, whole, server, connection, alter, ended, affinity)
        except Unavailable:
            server.pool.give_back(connection, may_be_shared=False)
            return None
        self._cluster.begin(server, now)
        self._budget.note()
        self._enter(departure, server)
        return departure

    def exchange_of(
        self, departure: Departure, server: Server, request: web.BaseRequest, *, has_departed: bool
    ) -> Exchange:
        """Make what carries the request of *departure* in a task, or to another server."""
        return Exchange(
            request,
            departure.whole.method,
            Outgoing(departure.whole.data, binds=False),
            _NO_BODY,
            b"",
            times=self._times,
            limit=self._max_body,
            alter=departure.alter,
            ending=departure.ended() if departure.ended is not None else None,
            keep_alive=True,
            is_upgrade=False,
            excuse=server.pool.excuse,
            has_departed=has_departed,
        )

    async def resume(self, departure: Departure, request: web.BaseRequest) -> RelayedResponse:
        """Carry on, for the same *request*, with a departure that did not arrive at once; see ``carry``."""
        self._live.pop(departure, None)

        async def one(server: Server) -> RelayedResponse:
            if not departure.is_resumed:
                departure.is_resumed = True
                return await self._once(departure.exchange(request), server, departure.connection)
            exchange = self.exchange_of(departure, server, request, has_departed=False)
            return await self._once(exchange, server, await server.pool.take(is_repeatable=True))

        return await self._at_one_of_them(one, departure.affinity, departure.server)

    async def _once(self, exchange: Exchange, server: Server, connection: Connection) -> RelayedResponse:
        """Carry *exchange* over *connection*, and once more over a new one when the kept one had been closed."""
        try:
            try:
                return await self._run(exchange, server, connection)
            except Stale as stale:
                if not self._may_repeat(server):
                    raise stale.cause from stale
                connection = await server.pool.take(fresh=True)
                return await self._run(exchange, server, connection)
        except Unavailable as fault:
            is_lost = fault.reason is Reason.UPSTREAM_DOWN and not isinstance(fault, NoConnectionError)
            if is_lost and not connection.has_received and exchange.is_repeatable:
                raise UntouchedError(fault) from fault
            raise

    async def _at_one_of_them(
        self, one: Callable[[Server], Awaitable[RelayedResponse]], affinity: str, entered: Server | None = None
    ) -> RelayedResponse:
        """Run *one* at a server, and at another when that is safe: nothing was sent, or what may be sent twice.

        *entered* is the server that it is under way to already.
        """
        tried: list[Server] = []
        while True:
            server = entered or self._cluster.enter(affinity, tried)
            entered = None
            tried.append(server)
            try:
                answer = await one(server)
            except NoConnectionError as unmade:
                server.fail(unmade)
                if not self._cluster.has_another(tried):
                    raise
            except UntouchedError as untouched:
                server.fail(untouched.fault)
                if not (self._cluster.has_another(tried) and self._may_repeat(server)):
                    raise untouched.fault from None
            except Unavailable as fault:
                if fault.reason is not Reason.STOPPING:
                    server.fail(fault)
                raise
            else:
                server.succeed()
                return answer
            finally:
                server.leave()

    def _may_repeat(self, server: Server) -> bool:
        if not self._budget.spend():
            return False
        self._tell(Happening.REPEAT, server.name)
        return True

    def _addressed(self, head: Head, server: Server) -> Head:
        return with_host(head, server.target.authority) if self._names_server else head

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
        affinity: str = "",
    ) -> RelayedResponse:
        """Open a WebSocket for a request that ``wants_websocket`` and carry it until either side or the session ends.

        An answer other than 101 is passed on as it is. Raises what ``carry`` raises, until the 101 has been passed on.
        A WebSocket counts against ``max_connections`` until it is open: anybody can call a request a handshake.
        """
        check_handshake(request)
        if self._is_draining:
            raise Unavailable(Reason.STOPPING)

        async def one(server: Server) -> RelayedResponse:
            exchange = Exchange(
                request,
                head.method,
                compose(self._addressed(head, server), Framing(), upgrade=True),
                Framing(),
                b"",
                times=self._times,
                limit=self._largest_message,
                alter=alter,
                ending=ended,
                keep_alive=False,
                is_upgrade=True,
                excuse=server.pool.excuse,
            )
            return await self._run(exchange, server, await server.pool.take(fresh=True))

        return await self._at_one_of_them(one, affinity)

    async def _run(self, exchange: Exchange, server: Server, connection: Connection) -> RelayedResponse:
        self._enter(exchange, server)
        try:
            return await exchange.over(connection)
        finally:
            self.leave(exchange, server, connection, may_be_shared=exchange.may_be_shared)

    def _enter(self, journey: Exchange | Departure, server: Server) -> None:
        self._live[journey] = server
        if self._tick is None:
            self._schedule()

    def leave(
        self, journey: Exchange | Departure, server: Server, connection: Connection, *, may_be_shared: bool
    ) -> None:
        """Note that *journey* is over, and keep its connection if that is fit for another one."""
        self._live.pop(journey, None)
        server.pool.give_back(connection, may_be_shared=may_be_shared)
        if self._emptied is not None and not self._live:
            self._emptied.set()

    def _exchanges(self) -> list[Exchange]:
        return [journey for journey in self._live if isinstance(journey, Exchange)]

    def _schedule(self) -> None:
        self._tick = asyncio.get_running_loop().call_later(self._pace, self._look_round)

    def _look_round(self) -> None:
        """Find what is silent for too long: one timer for all is cheaper than one for each."""
        now = time.monotonic()
        for journey in tuple(self._live):
            journey.check(now)
        for server in self.servers:
            self._make_way(server, now)
            server.pool.expire(now)
        self._tick = None
        if self._live or any(server.pool.idle for server in self.servers):
            self._schedule()

    def _make_way(self, server: Server, now: float) -> None:
        """Let the slowest clients of *server* give their places to whoever waits for one.

        Else a few hundred that send or read a byte now and then would keep everybody out.
        """
        waiting = server.pool.waiting
        if not waiting:
            return
        there = [exchange for exchange in self._exchanges() if self._live[exchange] is server]
        paces = [(pace, exchange) for exchange in there if (pace := exchange.clients_pace(now)) is not None]
        for _, exchange in sorted(paces, key=lambda one: one[0])[:waiting]:
            exchange.give_way()

    async def probe(self, number: int = 0) -> str:
        """Connect to the server of that *number*, check its health if told how; a sentence. Raises Unavailable."""
        server = self.servers[number]
        connection = await server.pool.connect()
        tls = connection.transport and connection.transport.get_extra_info("ssl_object")
        connection.close()
        said = f"{server.name} accepts connections" + (f" ({tls.version()})" if tls else "")
        if self._health is None:
            return said
        if fault := await check(server, self._health):
            raise Unavailable(Reason.UPSTREAM_DOWN, f"{said}, but {self._health.path}: {fault}")
        return f"{said} and is well"

    async def look_after_servers(self) -> None:
        """Check the servers' health for ever, where the configuration asks for it."""
        for server in self.servers:
            self._tell(Happening.UP if server.is_up else Happening.DOWN, server.name)
        if self._health is not None:
            await asyncio.gather(*(look_after(server, self._health) for server in self.servers))
        await asyncio.Event().wait()

    def drain(self) -> None:
        """Begin to stop: WebSockets are closed (1001), and answers tell clients to connect anew."""
        self._is_draining = True
        for exchange in self._exchanges():
            exchange.leave()

    async def close(self, grace: float = 0.0) -> None:
        """Drain, give what is under way *grace* seconds to finish, then end it; nothing is carried afterwards."""
        self.drain()
        self._emptied = asyncio.Event()
        if self._live and grace > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._emptied.wait()
        for server in self.servers:
            server.pool.close()
        for journey in tuple(self._live):
            journey.give_up(Unavailable(Reason.STOPPING))
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None


def _tell_nobody(happening: Happening, server: str) -> None:
    """Stand in where nobody listens."""

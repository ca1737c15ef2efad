"""Speak HTTP with one client, and offer each request that comes alone to whoever answers it without a task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
from aiohttp import web
from aiohttp.http import RawRequestMessage, StreamWriter
from aiohttp.web_protocol import RequestHandler

from sidecar.config.service import Server
from sidecar.core.proxy_protocol import Announced

_log = structlog.get_logger("serving")
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Depart = Callable[[web.BaseRequest, Callable[[], None]], "Trip | None"]
_MOST_HEADERS = 200
# Bytes of further requests that are held while one is on its way.
_MOST_HELD = 64 * 1024


class Trip(Protocol):
    """A request that is on its way without a task; exactly one of the three ends it."""

    def arrive(self) -> bool | None:
        """Give the client the answer; None when ``carry_on`` has to. True when the connection may go on."""

    async def carry_on(self, request: web.BaseRequest) -> web.StreamResponse:
        """Do the rest in a task."""

    def abandon(self) -> None:
        """Forget about it: the client has gone."""


class _Connection(RequestHandler):
    """One client's connection. What is no HTTP is refused without repeating it, be it to the client or in the log.

    A request that comes alone is first offered to ``depart``. While that one is on its way, aiohttp's own task goes on
    waiting for the next; what the client sends meanwhile is held. A trip that takes more than a moment is handed to
    the task like a request that has just come.
    """

    __slots__ = (
        "_depart",
        "_head_bytes",
        "_head_timeout",
        "_head_timer",
        "_held",
        "_message",
        "_server",
        "_trip",
        "announced",
    )

    def __init__(
        self, server: HttpServer, *, loop: asyncio.AbstractEventLoop, head_timeout: float, **options: Any
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self._head_timeout = head_timeout
        self._head_timer: asyncio.TimerHandle | None = None
        self.announced: Announced | None = None
        self._server = server
        self._depart = server.depart
        self._head_bytes = 0
        self._held = b""
        self._message: Any = None
        self._trip: Trip | None = None

    @property
    def peername(self) -> Any:
        """Who is at the other end: whoever a load balancer announced, else the peer itself."""
        return self.announced or super().peername

    def data_received(self, data: bytes) -> None:
        """Read on, but not for ever: the parser bounds each line and their number, not what they come to."""
        if self._message is not None:
            self._hold(data)
            return
        requests, waiter = self._request_count, self._waiter
        # Nobody is woken by what comes while it is not known who takes it.
        self._waiter = None
        super().data_received(data)
        self._waiter = waiter
        self._make_last()
        if waiter is None or self._request_count != requests:
            self._head_bytes = 0
            self._stop_waiting()
            if waiter is not None:
                self._pass_on(waiter)
            return
        self._head_bytes += len(data)
        if self._head_bytes > 2 * self.max_field_size:
            self.force_close()
        elif self._head_timer is None:
            # A whole head in one piece, as nearly always, needs no timer.
            self._head_timer = self._loop.call_later(self._head_timeout, self.force_close)

    def _make_last(self) -> None:
        """Nothing is served after a chunked request: aiohttp's parser makes its trailers lines of the next head.

        Whoever shares a connection of a front proxy with others could plant cookies into their requests.
        """
        for number, (message, payload) in enumerate(self._messages):
            if isinstance(message, RawRequestMessage) and message.chunked and not message.should_close:
                self._messages[number] = message._replace(should_close=True), payload

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _pass_on(self, waiter: asyncio.Future[None]) -> None:
        if len(self._messages) == 1 and self._depart is not None and not self._upgraded and self._departs():
            return
        if not waiter.done():
            waiter.set_result(None)

    # A request that departs at once

    def _departs(self) -> bool:
        message, payload = self._messages[0]
        if self._depart is None or not isinstance(message, RawRequestMessage):
            return False
        task: Any = self._task_handler
        request = web.BaseRequest(message, payload, self, StreamWriter(self, self._loop), task, self._loop)
        trip = self._depart(request, self._on_word)
        if trip is None:
            return False
        self._trip = trip
        self._server.trips += 1
        self._message = self._messages.popleft()
        # For ``shutdown``, which waits for requests that are in progress.
        self._request_in_progress = True
        return True

    def _on_word(self) -> None:
        stays = self._trip.arrive() if self._trip is not None else None
        if stays is None:
            self._hand_over()
        else:
            self.take_trip()
            self._arrived(stays=stays)

    def take_trip(self) -> Trip | None:
        """The trip that is under way here, which is somebody else's from now on."""
        trip, self._trip = self._trip, None
        if trip is not None:
            self._server.trip_is_over()
        return trip

    def _arrived(self, *, stays: bool) -> None:
        self._message = None
        self._server.requests_count += 1
        if self._parser is not None:
            self._parser.message_consumed()
        self._request_in_progress = False
        if self._handler_waiter is not None:
            self._handler_waiter.set_result(None)
        self._keepalive = stays
        if not stays or self._close or self._force_close:
            self.force_close()
            return
        self._next_keepalive_close_time = close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(close_time, self._process_keepalive)
        self._release()

    def _hand_over(self) -> None:
        """Let aiohttp's task have the request, as if it had come now; ``trip`` tells it where to go on."""
        waiter = self._waiter
        self._messages.append(self._message)
        self._message = None
        if waiter is None or waiter.done():
            # It has been told to end.
            self.force_close()
        else:
            waiter.set_result(None)
            self._release()

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > _MOST_HELD and self.transport is not None:
            self.transport.pause_reading()

    def _release(self) -> None:
        if not self._held:
            return
        held, self._held = self._held, b""
        if len(held) > _MOST_HELD and self.transport is not None:
            self.transport.resume_reading()
        self.data_received(held)

    def _process_keepalive(self) -> None:
        """Close a connection that is idle; one whose request is on its way is not."""
        if self._message is None:
            super()._process_keepalive()
        else:
            self._keepalive_handle = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget about the request that is on its way: there is nobody to answer."""
        self._stop_waiting()
        self._abandon()
        super().connection_lost(exc)

    def _abandon(self) -> None:
        self._message = None
        trip = self.take_trip()
        if trip is not None:
            trip.abandon()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer in aiohttp's place, whose answer and log line quote what was sent: cookies, tokens, codes."""
        if status != web.HTTPBadRequest.status_code:
            return super().handle_error(request, status, exc, message)
        if request.writer.output_size > 0:
            raise ConnectionError
        _log.info("malformed request", error=type(exc).__name__, client=request.remote or "")
        answer = web.Response(status=status, text="This is not a request that can be read.\n")
        answer.headers.update({"Server": "sidecar", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
        answer.force_close()
        return answer


class HttpServer(web.Server):
    """Makes a ``_Connection`` for each client, and counts the trips that are under way."""

    depart: Depart | None = None
    on_quiet: Callable[[], None] | None = None
    trips = 0

    def trip_is_over(self) -> None:
        """One less."""
        self.trips -= 1
        if not self.trips and self.on_quiet is not None:
            self.on_quiet()

    def __call__(self) -> RequestHandler:
        """One for each client."""
        return _Connection(self, loop=self._loop, **self._kwargs)

    def speak(self, announced: Announced | None) -> RequestHandler:
        """Speak HTTP with somebody whom a load balancer announced."""
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.announced = announced
        return connection


def server_of(
    section: Server, handler: Handler, depart: Depart | None = None, on_quiet: Callable[[], None] | None = None
) -> HttpServer:
    """Speak HTTP for *handler*, within the bounds of *section*; what *depart* takes does not reach *handler*."""
    server = HttpServer(
        handler,
        auto_decompress=False,
        access_log=None,
        keepalive_timeout=section.client_idle.total_seconds(),
        max_line_size=section.max_header,
        max_field_size=section.max_header,
        max_headers=_MOST_HEADERS,
        lingering_time=5.0,
        head_timeout=section.head_timeout.total_seconds(),
    )
    server.depart, server.on_quiet = depart, on_quiet
    return server


def trip_of(request: web.BaseRequest) -> Trip | None:
    """The trip that *request* is on already, None when nobody has done anything for it; it can be had once."""
    protocol = request.protocol
    return protocol.take_trip() if isinstance(protocol, _Connection) else None

"""Speak HTTP with one client, and offer each request that comes alone to whoever answers it without a task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http import RawRequestMessage, StreamWriter
from aiohttp.web_protocol import RequestHandler

from sidecar.arrival import Seen, Whence, whence
from sidecar.config.service import Server
from sidecar.core.proxy_protocol import Announced
from sidecar.parsed import is_at_end, make_last, parts_of
from sidecar.queueing import Queue
from sidecar.trips import Departures, Told, Trip

_log = structlog.get_logger("serving")
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_MOST_HEADERS = 200
# Bytes of further requests that are held while one is on its way.
_MOST_HELD = 64 * 1024


class _Connection(RequestHandler):
    """One client's connection. What is no HTTP is refused without repeating it, be it to the client or in the log.

    A request that comes alone is first offered to the departures: as the bytes that came when the parser is surely
    between two requests, and as what the parser made of them otherwise. While it is on its way, aiohttp's own task goes
    on waiting for the next; what the client sends meanwhile is held. A trip that takes more than a moment is handed to
    the task like a request that has just come. While the application has no room for another request, one that may wait
    is held, too, and read only when its turn has come.
    """

    __slots__ = (
        "_data",
        "_departures",
        "_has_waited",
        "_head_bytes",
        "_head_timeout",
        "_head_timer",
        "_held",
        "_is_away",
        "_is_between",
        "_is_new",
        "_message",
        "_origin",
        "_request",
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
        self._departures = server.departures
        self._head_bytes = 0
        self._held = b""
        self._message: Any = None
        self._request: web.BaseRequest | None = None
        self._data = b""  # a whole request that the parser has not seen
        self._is_away = False
        self._is_between = True  # a connection begins between two requests
        self._is_new = True
        self._has_waited = False
        self._origin: Whence = "", False
        self._trip: Trip | None = None

    @property
    def peername(self) -> Any:
        """Who is at the other end: whoever a load balancer announced, else the peer itself."""
        peer = self.announced or super().peername
        # A Unix socket's other end may have a name, which is of its own choice: ``10.0.0.5`` is no address then.
        return peer if isinstance(peer, tuple) else ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note where it comes from, as ``whence`` would say of each of its requests."""
        super().connection_made(transport)
        self._origin = whence(self.peername, is_tls=self.ssl_context is not None)

    def data_received(self, data: bytes) -> None:
        """Read on, but not for ever: the parser bounds each line and their number, not what they come to."""
        if self._is_away:
            self._hold(data)
        elif self._waiter is None and self._is_new:
            # aiohttp's task, begun with the connection, has not had its turn yet; it has before what is begun now.
            self._is_away = True
            self._hold(data)
            self._loop.call_soon(self._begin)
        elif not self._is_between or not self._departs_again(data):
            self._read(data)

    def _begin(self) -> None:
        self._is_away = self._is_new = False
        if self.transport is not None:
            self._release()

    def _read(self, data: bytes) -> None:
        requests, waiter = self._request_count, self._waiter
        awaiting = waiter if waiter is not None and not waiter.done() else None  # else its task has a request already
        # What aiohttp asks for from now on, whose task may be at work, is not to be held.
        was_between, self._is_between, self._is_new = self._is_between, False, False
        # Nobody is woken by what comes while it is not known who takes it.
        self._waiter = None
        try:
            super().data_received(data)
        except Exception as error:  # noqa: BLE001 - its parser trips over some targets: nobody can read them
            peer = self.peername
            client = peer[0] if isinstance(peer, tuple) else ""
            _log.info("malformed request", error=type(error).__name__, client=client)
            self._waiter = waiter
            self.force_close()
            return
        self._waiter = waiter
        make_last(self._messages, data)
        if not data and self._request_count == requests:
            # aiohttp asks so, whenever a body is read, whether more is held: nothing came, and nothing has changed.
            self._is_between = was_between
            return
        if awaiting is None or self._request_count != requests:
            self._head_bytes = 0
            self._stop_waiting()
            is_alone = self._request_count == requests + 1
            # Also while the task is at work, or has not begun: so it is with the first request of a connection.
            parts = parts_of(self._messages, data) if is_alone and was_between else None
            self._is_between = parts is not None
            if awaiting is not None:
                self._is_between = self._is_between or (is_alone and is_at_end(self._messages, data))
                self._pass_on(awaiting, parts)
            return
        self._head_bytes += len(data)
        if self._head_bytes > 2 * self.max_field_size:
            self.force_close()
        elif self._head_timer is None:
            # A whole head in one piece, as nearly always, needs no timer.
            self._head_timer = self._loop.call_later(self._head_timeout, self.force_close)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Answer; what came behind a handshake that was declined is parsed only then."""
        answered = await super().finish_response(request, resp, start_time)
        make_last(self._messages, b"")
        return answered

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _pass_on(self, waiter: asyncio.Future[None], parts: tuple[bytes, bytes] | None) -> None:
        if len(self._messages) == 1 and not self._upgraded and self._departs(parts):
            return
        if not waiter.done():
            waiter.set_result(None)

    # A request that departs at once

    def _departs(self, parts: tuple[bytes, bytes] | None) -> bool:
        if self._departures is None or not isinstance(self._messages[0][0], RawRequestMessage):
            return False
        request = self._made(self._messages[0])
        seen = None if parts is None else Seen(parts[0], self._origin, parts[1])
        trip = self._departures.depart(self, request, seen)
        if trip is None:
            return False
        self._request = request
        self._message = self._messages.popleft()
        self._leave(trip)
        return True

    def _departs_again(self, data: bytes) -> bool:
        waiter = self._waiter
        # Whoever shuts down says so first, and then waits.
        is_idle = waiter is not None and not waiter.done() and not self._force_close
        if not is_idle or self._departures is None or not self._is_short(data):
            return False
        if len(self._server.queue) and self._queues(data):
            return True
        trip = self._departures.again(self, data, self._origin)
        if trip is None:
            return self._departures.is_full and self._queues(data)
        self._data = data
        self._leave(trip)
        return True

    def _queues(self, data: bytes) -> bool:
        """Wait with *data*, which begins a request, if that may be."""
        departures = self._departures
        if self._has_waited or departures is None or not departures.may_wait(data):
            return False
        self._hold(data)
        self._is_away = self._has_waited = True
        self._server.queue.enter(self)
        return True

    def go_on(self) -> None:
        """Read what has waited: there may be room, or it has waited long enough."""
        self._is_away = False
        self._release()
        self._has_waited = False

    def _is_short(self, data: bytes) -> bool:
        """Whether no line of a head is so long that the parser would refuse it, perhaps."""
        most = self.max_line_size
        return len(data) <= most or data.find(b"\r\n\r\n", 0, most) > 0

    def _leave(self, trip: Trip | Told) -> None:
        if isinstance(trip, Told):
            if self.transport is not None:
                self.transport.write(trip.data)
            self._arrived(stays=trip.stays)
            return
        self._trip = trip
        self._is_away = True
        self._server.trips += 1

    def _made(self, message: Any) -> web.BaseRequest:
        task: Any = self._task_handler
        head, payload = message
        return web.BaseRequest(head, payload, self, StreamWriter(self, self._loop), task, self._loop)

    def request(self) -> web.BaseRequest:
        """Give the request that is on its way; only now is it parsed if that was spared until here."""
        if self._request is None:
            self._parse()
            self._request = self._made(self._message)
        return self._request

    def _parse(self) -> None:
        parser: Any = self._parser
        data, self._data = self._data, b""
        messages, _, _ = parser.feed_data(data)
        (self._message,) = messages
        self._request_count += 1

    def on_word(self) -> None:
        """Hear that there is an answer, or that none can come."""
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
        if self._message is not None and self._parser is not None:
            self._parser.message_consumed()
        self._come_back()
        self._keepalive = stays
        if not stays or self._close or self._force_close:
            self.force_close()
            return
        self._next_keepalive_close_time = close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(close_time, self._process_keepalive)
        self._release()

    def _come_back(self) -> None:
        self._message = self._request = None
        self._data = b""
        self._is_away = False

    def _hand_over(self) -> None:
        """Let aiohttp's task have the request, as if it had come now; ``trip`` tells it where to go on."""
        waiter = self._waiter
        if self._message is None:
            self._parse()
        self._messages.append(self._message)
        self._come_back()
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
        if not self._is_away:
            super()._process_keepalive()
        else:
            self._keepalive_handle = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget about the request that is on its way: there is nobody to answer."""
        self._stop_waiting()
        self._server.queue.leave(self)
        self._abandon()
        super().connection_lost(exc)

    def _abandon(self) -> None:
        self._come_back()
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
    """Makes a ``_Connection`` for each client, counts the trips under way, and has the ``queue`` for more of them."""

    departures: Departures | None = None
    on_quiet: Callable[[], None] | None = None
    trips = 0
    queue: Queue

    def trip_is_over(self) -> None:
        """One less."""
        self.trips -= 1
        if len(self.queue):
            self.queue.call()
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
    section: Server, handler: Handler, departures: Departures | None = None, on_quiet: Callable[[], None] | None = None
) -> HttpServer:
    """Speak HTTP for *handler*, within the bounds of *section*; what *departures* take does not reach *handler*."""
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
    server.departures, server.on_quiet = departures, on_quiet
    server.queue = Queue(asyncio.get_running_loop(), lambda: departures is not None and departures.is_full)
    return server


def trip_of(request: web.BaseRequest) -> Trip | None:
    """The trip that *request* is on already, None when nobody has done anything for it; it can be had once."""
    protocol = request.protocol
    return protocol.take_trip() if isinstance(protocol, _Connection) else None

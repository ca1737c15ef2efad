"""Open the sidecar's listeners, and close them without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from sidecar.config.service import Server, ServerTls
from sidecar.core.proxy_protocol import Announced
from sidecar.doorway import Doorway

_log = structlog.get_logger("listening")
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
# Clients that keep connections alive send their next request on them before they notice that we are leaving.
_PATIENCE_WITH_IDLE = 2.0
_MOST_HEADERS = 200
_BACKLOG = 1024
_UNTIL_ACCEPTED = 0.05
# For writing answers that are ready, and for ending what was cut off.
_LAST_WORDS = 1.0
# Linux: asm-generic/socket.h and filter.h; load the byte of flags, keep SYN and ACK, compare, drop or take all.
_SO_ATTACH_FILTER = 26
_DROP_SYN = ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


def parse_listen(text: str) -> tuple[str, int] | str:
    """Parse ``host:port`` or ``[v6]:port``; for ``unix:/path`` the path alone. Raises ValueError."""
    if text.startswith("unix:"):
        return text.removeprefix("unix:")
    host, _, port = text.rpartition(":")
    if not port.isdecimal():
        message = f"{text!r} is not host:port"
        raise ValueError(message)
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what an empty host means


def tls_context(section: ServerTls) -> ssl.SSLContext:
    """TLS for our own listener: 1.2 or newer."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(section.certificate, section.key)
    return context


class _Connection(RequestHandler):
    """One client's connection. What is no HTTP is refused without repeating it, be it to the client or in the log."""

    __slots__ = ("_head_bytes", "_head_timeout", "_head_timer", "announced")

    def __init__(self, *arguments: Any, head_timeout: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_bytes = 0
        self._head_timeout = head_timeout
        self._head_timer: asyncio.TimerHandle | None = None
        self.announced: Announced | None = None

    @property
    def peername(self) -> Any:
        """Who is at the other end: whoever a load balancer announced, else the peer itself."""
        return self.announced or super().peername

    def data_received(self, data: bytes) -> None:
        """Read on, but not for ever: the parser bounds each line and their number, not what they come to."""
        requests, is_idle = self._request_count, self._waiter is not None
        super().data_received(data)
        if not is_idle or self._request_count != requests:
            self._head_bytes = 0
            self._stop_waiting()
            return
        self._head_bytes += len(data)
        if self._head_bytes > 2 * self.max_field_size:
            self.force_close()
        elif self._head_timer is None:
            # A whole head in one piece, as nearly always, needs no timer.
            self._head_timer = self._loop.call_later(self._head_timeout, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the timer, too."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

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


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    def speak(self, announced: Announced | None) -> RequestHandler:
        """Speak HTTP with somebody whom a load balancer announced."""
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.announced = announced
        return connection


def server_of(section: Server, handler: Handler) -> _Server:
    """Speak HTTP for *handler*, within the bounds of *section*."""
    return _Server(
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


class Listener:
    """The public listener and, where configured, the one for metrics and probes."""

    def __init__(self, section: Server, handler: Handler, metrics: Handler) -> None:
        """Serve *handler* on ``listen`` and *metrics* on ``metrics``."""
        self._section = section
        self._handler = handler
        self._metrics = metrics
        self._busy = 0
        self._is_draining = False
        self._quiet = asyncio.Event()
        self._hurried = asyncio.Event()
        self._sockets: list[socket.socket] = []
        self._doors: list[asyncio.Server | Doorway] = []
        self._side_doors: list[asyncio.Server | Doorway] = []
        self._servers: list[web.Server] = []
        self.addresses: Sequence[str] = ()

    async def start(self) -> None:
        """Bind. Raises OSError that names the setting of an address that is taken, or of a file that does not load."""
        section = self._section
        try:
            tls = tls_context(section.tls) if section.tls is not None else None
        except OSError as error:
            message = f"server.tls: {error.strerror or error}"
            raise OSError(message) from error
        sockets = await bound("server.listen", section.listen, share=section.workers > 1)
        self._doors += await self._serve(self._counted, sockets, tls, announced=section.proxy_protocol)
        if section.metrics is not None and section.workers == 1:
            self._side_doors += await self._serve(self._metrics, await bound("server.metrics", section.metrics), None)
        self.addresses = [_written(one.getsockname()) for one in sockets]
        self._sockets = sockets

    async def _serve(
        self,
        handler: Handler,
        sockets: Sequence[socket.socket],
        tls: ssl.SSLContext | None,
        *,
        announced: bool = False,
    ) -> list[asyncio.Server | Doorway]:
        server = server_of(self._section, handler)
        self._servers.append(server)
        patience = self._section.head_timeout.total_seconds()
        if announced:
            trusted = self._section.trusted_proxies
            doors = [Doorway(one, server.speak, trusted=trusted, tls=tls, tls_patience=patience) for one in sockets]
            for door in doors:
                door.open(_BACKLOG)
            return [*doors]
        loop = asyncio.get_running_loop()
        wait = patience if tls is not None else None
        return [
            await loop.create_unix_server(server, sock=one, ssl=tls, backlog=_BACKLOG, ssl_handshake_timeout=wait)
            if one.family == socket.AF_UNIX
            else await loop.create_server(server, sock=one, ssl=tls, backlog=_BACKLOG, ssl_handshake_timeout=wait)
            for one in sockets
        ]

    async def _counted(self, request: web.BaseRequest) -> web.StreamResponse:
        self._busy += 1
        try:
            answer = await self._handler(request)
        finally:
            self._busy -= 1
            if not self._busy:
                self._quiet.set()
        if self._is_draining and not answer.prepared:
            # Said aloud, so that the client does not send its next request into a connection that we close.
            answer.force_close()
        return answer

    async def leave(self, seconds: float) -> None:
        """Serve on for *seconds*, while ``/-/ready`` already tells load balancers to go elsewhere."""
        await self._pause(seconds)

    def hurry(self) -> None:
        """End ``leave`` and ``drain`` now, and cut what is under way."""
        self._hurried.set()
        self._quiet.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()

    async def drain(self, seconds: float, cut: Callable[[], Awaitable[None]]) -> None:
        """Accept no new connection, let requests finish for at most *seconds*, then *cut* what is left, and close.

        A connection that is open stays good for one more request, as long as others are waited for.
        """
        self._is_draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._close_doors()
                if self._servers and self._servers[0].connections:
                    await self._pause(_PATIENCE_WITH_IDLE)
                while self._busy and not self._hurried.is_set():
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            _log.warning("requests are cut off, server.drain is over", requests=self._busy)
        await cut()
        for door in self._side_doors:
            door.close()
        # Only now: it makes connections deaf, also those that a request's body still comes through.
        await asyncio.gather(*(server.shutdown(_LAST_WORDS) for server in self._servers))

    async def _close_doors(self) -> None:
        """Close what listens. Whoever the kernel has connected is accepted before: closing would cut them off."""
        for one in self._sockets:
            turn_newcomers_away(one)
        await asyncio.sleep(_UNTIL_ACCEPTED)
        for door in self._doors:
            door.close()


async def bound(setting: str, listen: str, *, share: bool = False) -> list[socket.socket]:
    """Bind the addresses that *listen* means; raises OSError that names *setting*."""
    where = parse_listen(listen)
    if isinstance(where, str):
        return [_bound_path(setting, where)]
    host, port = where
    sockets: list[socket.socket] = []
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
    except OSError as error:
        for one in sockets:
            one.close()
        raise _cannot_listen(setting, listen, error) from None
    return sockets


def _bound_path(setting: str, path: str) -> socket.socket:
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left_over(path):
            Path(path).unlink()
        one.bind(path)
    except OSError as error:
        one.close()
        raise _cannot_listen(setting, f"unix:{path}", error) from None
    return one


def _is_left_over(path: str) -> bool:
    """Whether there is a socket that nobody listens on: of a process that could not tidy up."""
    if not Path(path).is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _cannot_listen(setting: str, listen: str, error: OSError) -> OSError:
    return OSError(f"{setting}: cannot listen on {listen}: {error.strerror}")


def turn_newcomers_away(listening: socket.socket) -> None:
    """Let the kernel drop attempts to connect, which are repeated and then find somebody else, or are refused.

    A connection that waits to be accepted is reset when the listening socket closes; this makes that none comes after
    the last one was accepted. It is a filter of four steps on the flags of TCP (RFC 9293, 3.1): SYN without ACK is
    dropped. Where the system has no such filters nothing happens, and the moment is very short.
    """
    if listening.family == socket.AF_UNIX:
        return
    code = b"".join(struct.pack("=HBBI", *step) for step in _DROP_SYN)
    steps = ctypes.create_string_buffer(code, len(code))
    with contextlib.suppress(OSError):
        program = struct.pack("@HP", len(_DROP_SYN), ctypes.addressof(steps))
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _written(address: object) -> str:
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{host}:{address[1]}"
    return f"unix:{address}"

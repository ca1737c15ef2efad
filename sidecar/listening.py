"""Open the sidecar's listeners, and close them without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import struct
from array import array
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import structlog
from aiohttp import web

from sidecar.arrival import Seen, Whence
from sidecar.config.service import Server, ServerTls
from sidecar.doorway import Doorway
from sidecar.serving import Handler, HttpServer, server_of, trip_of
from sidecar.trips import Departures, Told, Trip
from sidecar.upstream import Client

_log = structlog.get_logger("listening")
# Clients that keep connections alive send their next request on them before they notice that we are leaving.
_PATIENCE_WITH_IDLE = 2.0
# An event loop of libuv lets in one connection for each listening handle in each of its turns. With one handle alone
# those that came together, when a load balancer comes back for one, waited for seconds while others kept it busy.
_HANDLES = 16
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


class SwitchedTls:
    """TLS whose certificate can be another from one handshake to the next."""

    def __init__(self, section: ServerTls) -> None:
        """Begin with the certificate of *section*. Raises OSError."""
        self.context = self.current = tls_context(section)
        self.context.sni_callback = self._switch

    def _switch(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # Called with every handshake, also of clients that name no host.
        if self.current is not self.context:
            connection.context = self.current


class Door(Departures, Protocol):
    """Where requests go: at once, or in a task."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""


class Listener:
    """The public listener and, where configured, the one for metrics and probes."""

    def __init__(self, section: Server, door: Door, metrics: Handler) -> None:
        """Serve *door* on ``listen`` and *metrics* on ``metrics``."""
        self._section = section
        self._door = door
        self._metrics = metrics
        self._busy = 0
        self._is_draining = False
        self._quiet = asyncio.Event()
        self._hurried = asyncio.Event()
        self._sockets: list[socket.socket] = []
        self._doors: list[asyncio.Server | Doorway] = []
        self._side_doors: list[asyncio.Server | Doorway] = []
        self._servers: list[HttpServer] = []
        self._tls: SwitchedTls | None = None
        self.addresses: Sequence[str] = ()

    async def start(self) -> None:
        """Bind. Raises OSError that names the setting of an address that is taken, or of a file that does not load."""
        section = self._section
        self._tls = switched("server.tls", section.tls)
        tls = self._tls.context if self._tls is not None else None
        sockets = await bound("server.listen", section.listen, share=section.workers > 1)
        self._doors += await self._serve(self._counted, sockets, tls, self, announced=section.proxy_protocol)
        if section.metrics is not None and section.workers == 1:
            self._side_doors += await self._serve(self._measured, await bound("server.metrics", section.metrics), None)
        self.addresses = [_written(one.getsockname()) for one in sockets]
        self._sockets = sockets

    async def _measured(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._metrics(request)

    @staticmethod
    def tls_of(section: Server) -> ssl.SSLContext | None:
        """The certificate of *section*, for ``serve``. Raises OSError that names the setting."""
        tls = switched("server.tls", section.tls)
        return None if tls is None else tls.context

    def serve(self, section: Server, door: Door, metrics: Handler, tls: ssl.SSLContext | None) -> None:
        """From now on every request goes to *door*; what is under way goes on as it began.

        The addresses, and whether there is TLS at all, are as they were.
        """
        self._section, self._door, self._metrics = section, door, metrics
        if self._tls is not None and tls is not None:
            self._tls.current = tls
        for one in self._doors:
            if isinstance(one, Doorway):
                one.trusted = section.trusted_proxies

    async def _serve(
        self,
        handler: Handler,
        sockets: Sequence[socket.socket],
        tls: ssl.SSLContext | None,
        departures: Departures | None = None,
        *,
        announced: bool = False,
    ) -> list[asyncio.Server | Doorway]:
        server = server_of(self._section, handler, departures, self._note_quiet)
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
            for address in sockets
            for one in (address, *(address.dup() for _ in range(_HANDLES - 1)))
        ]

    def depart(self, client: Client, request: web.BaseRequest, seen: Seen | None) -> Trip | Told | None:
        """Let the door send it on its way at once, while nobody is leaving."""
        # The last answers say aloud that the connection closes, which is up to the task.
        return None if self._is_draining else self._door.depart(client, request, seen)

    def again(self, client: Client, data: bytes, origin: Whence) -> Trip | Told | None:
        """As ``depart`` for one whose header lines came before."""
        return None if self._is_draining else self._door.again(client, data, origin)

    @property
    def is_full(self) -> bool:
        """True while there is no room for another request."""
        return not self._is_draining and self._door.is_full

    def may_wait(self, data: bytes) -> bool:
        """Whether *data* begins a request that could wait until there is room."""
        return self._door.may_wait(data)

    async def _counted(self, request: web.BaseRequest) -> web.StreamResponse:
        self._busy += 1
        try:
            trip = trip_of(request)
            answer = await (trip.carry_on(request) if trip is not None else self._door.handle(request))
        finally:
            self._busy -= 1
            self._note_quiet()
        if self._is_draining and not answer.prepared:
            # Said aloud, so that the client does not send its next request into a connection that we close.
            answer.force_close()
        return answer

    @property
    def _is_busy(self) -> bool:
        return self._busy > 0 or any(server.trips for server in self._servers)

    def _note_quiet(self) -> None:
        if self._is_draining and not self._is_busy:
            self._quiet.set()

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
                while self._is_busy and not self._hurried.is_set():
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


def switched(setting: str, section: ServerTls | None) -> SwitchedTls | None:
    """TLS as *section* says; raises OSError that names *setting*."""
    try:
        return None if section is None else SwitchedTls(section)
    except OSError as error:
        message = f"{setting}: {error.strerror or error}"
        raise OSError(message) from error


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
    # Not to be compiled by mypyc, which forgets a value after its last mention: the kernel reads it after that.
    steps = array("B", code)
    with contextlib.suppress(OSError):
        program = struct.pack("@HP", len(_DROP_SYN), steps.buffer_info()[0])
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _written(address: object) -> str:
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{host}:{address[1]}"
    return f"unix:{address}"

"""Open the sidecar's listeners, and close them without losing a request."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from sidecar.config.service import Server, ServerTls

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
# Clients that keep connections alive send their next request on them before they notice that we are leaving.
_PATIENCE_WITH_IDLE = 2.0
_MOST_HEADERS = 200


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


class Listener:
    """The public listener and, where configured, the one for metrics and probes."""

    def __init__(self, section: Server, handler: Handler, metrics: Handler) -> None:
        """Serve *handler* on ``listen`` and *metrics* on ``metrics``."""
        self._section = section
        self._drain = section.drain.total_seconds()
        self._is_draining = False
        self._handler = handler
        self._public = self._runner(self._last_requests_close)
        self._metrics = self._runner(metrics)
        self.addresses: Sequence[str] = ()

    def _runner(self, handler: Handler) -> web.ServerRunner:
        server = web.Server(
            handler,
            auto_decompress=False,
            access_log=None,
            keepalive_timeout=self._section.client_idle.total_seconds(),
            max_line_size=self._section.max_header,
            max_field_size=self._section.max_header,
            max_headers=_MOST_HEADERS,
            lingering_time=5.0,
        )
        return web.ServerRunner(server, shutdown_timeout=self._drain)

    async def start(self) -> None:
        """Bind. Raises OSError when an address is taken, ssl.SSLError when a certificate does not load."""
        tls = tls_context(self._section.tls) if self._section.tls is not None else None
        await self._public.setup()
        await self._site(self._public, self._section.listen, tls, share=self._section.workers > 1)
        if self._section.metrics is not None and self._section.workers == 1:
            await self._metrics.setup()
            await self._site(self._metrics, self._section.metrics, None, share=False)
        self.addresses = [_written(address) for address in self._public.addresses]

    async def _site(self, runner: web.ServerRunner, listen: str, tls: ssl.SSLContext | None, *, share: bool) -> None:
        where = parse_listen(listen)
        if isinstance(where, str):
            await web.UnixSite(runner, where, ssl_context=tls).start()
            return
        await web.TCPSite(runner, where[0], where[1], ssl_context=tls, backlog=1024, reuse_port=share or None).start()

    async def _last_requests_close(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._is_draining and request.protocol is not None:
            request.protocol.close()
        return await self._handler(request)

    async def drain(self) -> None:
        """Accept nothing new, let requests finish (at most ``drain``), close."""
        self._is_draining = True
        for site in list(self._public.sites):
            await site.stop()
        server = self._public.server
        if server is not None and server.connections:
            await asyncio.sleep(min(_PATIENCE_WITH_IDLE, self._drain))
        await self._public.cleanup()
        await self._metrics.cleanup()


def _written(address: object) -> str:
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{host}:{address[1]}"
    return f"unix:{address}"

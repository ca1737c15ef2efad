"""Open the console's own listener."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from aiohttp import web

from sidecar.config.console import Console
from sidecar.config.service import Server
from sidecar.listening import SwitchedTls, bound, switched
from sidecar.serving import Handler, server_of

_LAST_WORDS = 1.0


class ConsoleListener:
    """Serves one handler on ``console.listen``, within the bounds that ``server`` has for heads and idle clients."""

    def __init__(self, section: Console, server: Server, handler: Handler) -> None:
        """Serve *handler*; nothing is opened yet."""
        self._section = section
        self._share = server.workers > 1
        self.handler = handler
        self._server = server_of(server, self._handle)
        self._tls: SwitchedTls | None = None
        self._doors: list[asyncio.Server] = []

    async def start(self) -> None:
        """Bind. Raises OSError that names the setting."""
        self._tls = switched("console.tls", self._section.tls)
        tls = self._tls.context if self._tls is not None else None
        sockets: Sequence[socket.socket] = await bound("console.listen", self._section.listen, share=self._share)
        loop = asyncio.get_running_loop()
        for one in sockets:
            is_path = one.family == socket.AF_UNIX
            opened = loop.create_unix_server if is_path else loop.create_server
            self._doors.append(await opened(self._server, sock=one, ssl=tls))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self.handler(request)

    def can_serve(self, section: Console) -> bool:
        """True when it listens already where *section* wants a listener."""
        return section.listen == self._section.listen and (section.tls is None) == (self._section.tls is None)

    def prepare(self, section: Console, handler: Handler) -> Callable[[], None]:
        """Read the certificate of *section*; what is given makes it and *handler* be used. Raises OSError."""
        tls = switched("console.tls", section.tls)

        def take_over() -> None:
            self._section, self.handler = section, handler
            if self._tls is not None and tls is not None:
                self._tls.current = tls.context

        return take_over

    async def close(self) -> None:
        """Stop listening, and end what is open."""
        for door in self._doors:
            door.close()
        self._doors.clear()
        await self._server.shutdown(_LAST_WORDS)

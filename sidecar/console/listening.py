"""Open the console's own listener."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from sidecar.config.console import Console
from sidecar.config.service import Server
from sidecar.listening import bound, tls_context
from sidecar.serving import Handler, server_of

_LAST_WORDS = 1.0


class ConsoleListener:
    """Serves one handler on ``console.listen``, within the bounds that ``server`` has for heads and idle clients."""

    def __init__(self, section: Console, server: Server, handler: Handler) -> None:
        """Serve *handler*; nothing is opened yet."""
        self._section = section
        self._share = server.workers > 1
        self._server = server_of(server, handler)
        self._doors: list[asyncio.Server] = []

    async def start(self) -> None:
        """Bind. Raises OSError that names the setting."""
        try:
            tls = tls_context(self._section.tls) if self._section.tls is not None else None
        except OSError as error:
            message = f"console.tls: {error.strerror or error}"
            raise OSError(message) from error
        sockets: Sequence[socket.socket] = await bound("console.listen", self._section.listen, share=self._share)
        loop = asyncio.get_running_loop()
        for one in sockets:
            is_path = one.family == socket.AF_UNIX
            opened = loop.create_unix_server if is_path else loop.create_server
            self._doors.append(await opened(self._server, sock=one, ssl=tls))

    async def close(self) -> None:
        """Stop listening, and end what is open."""
        for door in self._doors:
            door.close()
        self._doors.clear()
        await self._server.shutdown(_LAST_WORDS)

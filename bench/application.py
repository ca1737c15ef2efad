"""An application that takes whole uploads and holds WebSockets: ``python -m bench.application PORT``."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import sys
from typing import cast

import uvloop

_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"\r\nsec-websocket-key: *([^\r]+)", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\ntaken"
_ROOM = 1 << 20
# One for all: nobody looks at what was sent.
_room = bytearray(_ROOM)


class Taker(asyncio.BufferedProtocol):
    """One connection: reads a head, then as many bytes as it announces, or keeps silent as a WebSocket."""

    def __init__(self) -> None:
        """Wait for a head."""
        self._transport: asyncio.Transport
        self._left = 0
        self._head = b""
        self._is_socket = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's signature
        """Give room for what comes."""
        return _room

    def buffer_updated(self, nbytes: int) -> None:
        """Count, and answer when all is there."""
        if self._is_socket:
            return
        if self._left:
            self._take(nbytes)
            return
        self._head += _room[:nbytes]
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if end:
            self._head = b""
            self._begin(head, len(rest))

    def _begin(self, head: bytes, already: int) -> None:
        key, length = _KEY.search(head), _LENGTH.search(head)
        if key is not None:
            self._is_socket = True
            accept = base64.b64encode(hashlib.sha1(key[1].strip() + _SALT, usedforsecurity=False).digest())
            lines = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            self._transport.write(b"HTTP/1.1 101 Switching Protocols\r\n" + lines + accept + b"\r\n\r\n")
            return
        self._left = int(length[1]) if length else 0
        self._take(already)

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left <= 0:
            self._left = 0
            self._transport.write(_ANSWER)


async def main(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(Taker, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))

"""The answer as the client gets it: what the application sent, and nothing that a framework would add."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

_CLIENT_CLOSED = 499
_NO_LINGER = struct.pack("ii", 1, 0)


class ClientGone(Exception):  # noqa: N818 - it is no error, it is what happened
    """The client went away; there is nobody to tell."""


class RelayedResponse(web.StreamResponse):
    """A response whose head and body are written by this room, byte for byte.

    aiohttp's own way adds Server, Date and Content-Type and cannot write bytes beyond UTF-8. ``is_broken`` is True when
    the client did not get all of it: its connection is aborted, and aiohttp ends the connection's task quietly.
    """

    def __init__(self, request: web.BaseRequest, status: int, reason: str, *, keep_alive: bool) -> None:
        """Prepare to answer *request*."""
        super().__init__(status=status, reason=reason)
        self._request = request
        self._stays = keep_alive
        self._sent = 0
        self._is_chunked = False
        self.is_begun = False
        self.is_finished = False
        self.is_broken = False

    def begin(self, head: bytes, body: bytes, *, chunked: bool, is_all: bool) -> None:
        """Write the head with what there is of the body in one go; *is_all* when that is the whole body."""
        self.is_begun = True
        self._is_chunked = chunked
        if chunked:
            body = _chunk(body) + b"0\r\n\r\n" if is_all else _chunk(body)
        self.is_finished = is_all
        self._put(head + body)

    def add(self, data: bytes) -> None:
        """Write a part of the body at once; raises ClientGone."""
        self._put(_chunk(data) if self._is_chunked else data)

    def finish(self) -> None:
        """Say that the body is complete."""
        self.is_finished = True
        if self._is_chunked:
            self._put(b"0\r\n\r\n")

    async def drain(self) -> None:
        """Wait until the client has taken what was written; raises ClientGone."""
        if self._request.protocol.writing_paused:
            try:
                await self._request.writer.drain()
            except ConnectionError as error:
                raise ClientGone from error

    def break_off(self) -> None:
        """End the client's connection so that nobody can take what came for the whole."""
        self.is_broken = True
        self._stays = False
        transport = self._request.transport
        if transport is not None:
            reset(transport)

    def _put(self, data: bytes) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ClientGone
        self._sent += len(data)
        # aiohttp's error handling looks here whether a page of its own may still be sent.
        self._request.writer.output_size += len(data)
        transport.write(data)

    def __repr__(self) -> str:
        """Show what became of it; aiohttp's own needs what is not set here."""
        state = "broken" if self.is_broken else "whole" if self.is_finished else "under way"
        return f"<{type(self).__name__} {self.status} {state}>"

    # What aiohttp's server asks of a response

    @property
    def prepared(self) -> bool:
        """True once the head is written."""
        return self.is_begun

    @property
    def keep_alive(self) -> bool:
        """Whether the client's connection serves another request."""
        return self._stays

    @property
    def body_length(self) -> int:
        """Bytes written, head included; for the access log."""
        return self._sent

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002 - aiohttp's
        """Nothing is left to do."""
        self._raise_if_broken()
        return None

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002 - aiohttp's signature
        """Nothing is left to do."""
        self._raise_if_broken()

    def _raise_if_broken(self) -> None:
        if self.is_broken:
            raise ConnectionResetError


def reset(transport: asyncio.Transport) -> None:
    """End a connection so that its other side sees an error.

    ``abort`` alone closes the socket, which may still be a proper end to the other side, and with it the proper end of
    a body that lasts as long as the connection. Without lingering the kernel sends RST.
    """
    peer = transport.get_extra_info("socket")
    if peer is not None and not transport.is_closing() and peer.family != socket.AF_UNIX:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


def gone(request: web.BaseRequest) -> RelayedResponse:
    """Stand for the answer that nobody waits for any more (status 499, in logs only)."""
    response = RelayedResponse(request, _CLIENT_CLOSED, "Client Closed Request", keep_alive=False)
    response.break_off()
    return response


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""

"""Stream one request's body to the application, as it comes from the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.http import HttpVersion11
from aiohttp.web_protocol import RequestPayloadError

from sidecar.faults import Refused, Unavailable
from sidecar.reason import Reason
from sidecar.upstream.response import ClientGone

if TYPE_CHECKING:
    from aiohttp import web

    from sidecar.upstream.connection import Connection
    from sidecar.upstream.head import Framing, Outgoing

LAST_CHUNK = b"0\r\n\r\n"


class Upload:
    """``moved`` bytes have come so far; ``awaits_client`` while the next ones are the client's turn."""

    __slots__ = ("_framing", "_limit", "_outgoing", "_request", "awaits_client", "moved")

    def __init__(self, request: web.BaseRequest, outgoing: Outgoing, framing: Framing, limit: int | None) -> None:
        """Send *outgoing*, then the body of *request* in its *framing*, at most *limit* bytes."""
        self._request = request
        self._outgoing = outgoing
        self._framing = framing
        self._limit = limit
        self.moved = 0
        self.awaits_client = False

    async def over(self, connection: Connection) -> None:
        """Send all of it; what goes wrong is told to *connection*, whose ``is_sent`` is True at the good end."""
        try:
            await self._stream(connection)
        except Unavailable:
            # The application stopped reading. Its answer, if it gave one, is what counts; else the loss is noticed.
            return
        except Refused as refused:
            connection.fail(refused)
        except Exception as error:  # noqa: BLE001 - aiohttp hands on whatever the client's socket or parser raised
            is_malformed = isinstance(error, RequestPayloadError) and self._request.transport is not None
            connection.fail(Refused(Reason.HEADERS_INVALID, 400, "request body") if is_malformed else ClientGone())

    async def _stream(self, connection: Connection) -> None:
        content = self._request.content
        is_chunked = self._framing.is_chunked
        self._encourage()
        data = content.read_nowait()
        before = self._outgoing.data
        while True:
            self.moved += len(data)
            if self._limit is not None and self.moved > self._limit:
                raise Refused(Reason.BODY_TOO_LARGE, 413, f"more than {self._limit} bytes")
            connection.send(before + (chunk(data) if is_chunked else data))
            before = b""
            await connection.drain()
            if content.at_eof():
                break
            self.awaits_client = True
            data = await content.readany()
            self.awaits_client = False
        if is_chunked:
            connection.send(LAST_CHUNK)
        connection.is_sent = True

    def _encourage(self) -> None:
        """Answer ``Expect: 100-continue``, which aiohttp's low-level server leaves to its handler.

        It comes when a connection to the application is there, so an application that is down costs no upload.
        """
        request = self._request
        is_expected = request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"
        if is_expected and request.version >= HttpVersion11 and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def chunk(data: bytes) -> bytes:
    """*data* as one chunk (RFC 9112, section 7.1), nothing for none."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""

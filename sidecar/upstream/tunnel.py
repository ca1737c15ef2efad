"""One WebSocket: the handshake to the application, then bytes both ways until either side or the session ends."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.http import HttpVersion11

from sidecar.faults import Refused, Unavailable
from sidecar.reason import Reason
from sidecar.upstream.answer import Answer, bad_answer, head_bytes
from sidecar.upstream.frames import FrameTrack, close_frame
from sidecar.upstream.response import ClientGone, RelayedResponse

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.http import RawResponseMessage

    from sidecar.upstream.connection import Connection
    from sidecar.upstream.ending import Ending
    from sidecar.upstream.exchange import Alter

# RFC 6455: section 1.3 and 7.4.1
_ACCEPT_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_GOING_AWAY = 1001
_POLICY = 1008
_TOO_BIG = 1009
# How long the client may take to answer a Close frame before its connection is dropped.
_FAREWELL = 0.5


def wants_websocket(request: web.BaseRequest) -> bool:
    """True for a WebSocket handshake (RFC 6455, section 4.1); every other Upgrade (h2c, tcp) is to be ignored.

    A request with a body is none: what follows an upgrade must not be read as two different things.
    """
    headers = request.headers
    if hdrs.UPGRADE not in headers:
        return False
    upgrades = headers.getall(hdrs.UPGRADE)
    tokens = {part.strip().lower() for line in headers.getall(hdrs.CONNECTION, ()) for part in line.split(",")}
    return (
        request.method == hdrs.METH_GET
        and request.version >= HttpVersion11
        and [value.lower() for value in upgrades] == ["websocket"]
        and "upgrade" in tokens
        and hdrs.TRANSFER_ENCODING not in headers
        and headers.get(hdrs.CONTENT_LENGTH, "0") == "0"
    )


class Tunnel:
    """Carries one WebSocket; also stands as the parser that aiohttp's server feeds with what the client sends."""

    def __init__(
        self,
        request: web.BaseRequest,
        connection: Connection,
        *,
        idle: float,
        limit: int | None,
        alter: Alter | None,
        ending: Ending | None,
    ) -> None:
        """Join *request*'s client and *connection*; *idle* is the longest silence in seconds.

        *limit* is the largest message in bytes.
        """
        self._request = request
        self._connection = connection
        self._idle = idle
        self._alter = alter
        self._ending = ending
        self._frames = FrameTrack(limit)
        # Only a limit makes it worth following what the client sends.
        self._client_frames = None if limit is None else FrameTrack(limit)
        self._farewell: tuple[int, str] | None = None
        self._is_open = False
        self._is_held = False
        self._client_left = asyncio.get_running_loop().create_future()

    async def run(self, answer: Answer) -> RelayedResponse:
        """Pass the 101 on and carry bytes until the end; raises nothing once it has begun."""
        response = RelayedResponse(self._request, answer.status, answer.reason, keep_alive=False)
        lines = answer.lines if self._alter is None else self._alter(answer.lines)
        head = head_bytes(answer, lines, "Connection: Upgrade\r\nUpgrade: websocket\r\n")
        try:
            response.begin(head, b"", chunked=False, is_all=True)
            self._open()
            await self._pump(response)
        except (ClientGone, Unavailable):
            await self._say_farewell(response)
        except asyncio.CancelledError:
            # Whoever is cut off is told so, as when this process stops.
            self.leave()
            await self._say_farewell(response)
            raise
        finally:
            self._is_open = False
            if self._ending is not None:
                self._ending.unwatch(self._on_end)
        return response

    def _open(self) -> None:
        self._is_open = True
        self._connection.watch_writable(self._release_client)
        # Hands over what the client sent before the 101, too; RequestHandler only calls the two methods below.
        self._request.protocol.set_parser(self)  # type: ignore[arg-type]
        if self._ending is not None:
            self._ending.watch(self._on_end)

    async def _pump(self, response: RelayedResponse) -> None:
        payload = self._connection.payload
        assert payload is not None  # noqa: S101 - made when the 101 was parsed
        while data := await payload.readany():
            was_at_boundary = self._frames.is_at_boundary
            self._frames.feed(data)
            if self._frames.is_too_large:
                self._frames = FrameTrack() if was_at_boundary else self._frames
                self.end(_TOO_BIG, "message too large")
                continue
            response.add(data)
            await response.drain()

    # The client's direction

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Pass on what the client sent; (False, b"") asks aiohttp for more."""
        if self._is_open and self._client_frames is not None:
            self._client_frames.feed(data)
            if self._client_frames.is_too_large:
                self.end(_TOO_BIG, "message too large")
                return False, b""
        if self._is_open:
            try:
                self._connection.send(data)
            except Unavailable as error:
                self._connection.fail(error)
            if self._connection.writing_paused:
                self._hold_client()
        return False, b""

    def feed_eof(self) -> None:
        """Note that the client has left; aiohttp says so when its connection is lost."""
        if not self._client_left.done():
            self._client_left.set_result(None)
        if self._is_open:
            self._connection.fail(ClientGone())

    def _hold_client(self) -> None:
        if not self._is_held and self._request.transport is not None:
            self._is_held = True
            self._request.transport.pause_reading()

    def _release_client(self) -> None:
        transport = self._request.transport
        if self._is_held and transport is not None and not transport.is_closing():
            self._is_held = False
            transport.resume_reading()

    # The end

    def check(self, now: float) -> None:
        """End after too long a silence; called about once a second."""
        if now - self._connection.touched > self._idle:
            self.end(_GOING_AWAY, "idle")

    def leave(self) -> None:
        """End because this process stops."""
        self.end(_GOING_AWAY, "going away")

    def _on_end(self) -> None:
        self.end(_POLICY, "session ended")

    def end(self, code: int, reason: str) -> None:
        """Close both sides; the client is told *code* and *reason* where a frame may stand."""
        if self._farewell is None:
            self._farewell = (code, reason)
            self._connection.fail(ClientGone())
            asyncio.get_running_loop().call_later(_FAREWELL, self._drop_client)

    def _drop_client(self) -> None:
        transport = self._request.transport
        if transport is not None:
            transport.abort()

    async def _say_farewell(self, response: RelayedResponse) -> None:
        """Send a Close frame if one may stand here, and give the client time to answer it (RFC 6455, section 7.1.1).

        Closing at once would make its kernel throw the frame away, if it had sent something meanwhile.
        """
        self._is_open = False
        self._release_client()
        may_speak = self._frames.is_at_boundary and not self._frames.has_closed
        if self._farewell is None or not may_speak or self._client_left.done():
            return
        try:
            response.add(close_frame(*self._farewell))
        except ClientGone:
            return
        await self._client_left


def check_accept(request: web.BaseRequest, message: RawResponseMessage) -> None:
    """Raise Unavailable(UPSTREAM_ANSWER, 502) for a 101 that does not answer this very handshake."""
    key = request.headers[hdrs.SEC_WEBSOCKET_KEY].encode("utf-8", "surrogateescape")
    expected = base64.b64encode(hashlib.sha1(key + _ACCEPT_SALT, usedforsecurity=False).digest()).decode()
    if message.headers.getall(hdrs.SEC_WEBSOCKET_ACCEPT, ()) != [expected]:
        raise bad_answer("Sec-WebSocket-Accept")


def check_handshake(request: web.BaseRequest) -> None:
    """Raise Refused(HEADERS_INVALID, 400) for a handshake without exactly one key."""
    if len(request.headers.getall(hdrs.SEC_WEBSOCKET_KEY, ())) != 1:
        raise Refused(Reason.HEADERS_INVALID, 400, "Sec-WebSocket-Key")

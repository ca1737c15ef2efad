"""One request on its way to the application, and the answer on its way back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.http import HttpProcessingError, HttpVersion11

from sidecar.cancelling import cancelled
from sidecar.faults import Refused, Unavailable
from sidecar.reason import Reason
from sidecar.upstream.answer import Answer, bad_answer, head_bytes, interim_bytes, judge, judge_switch
from sidecar.upstream.head import Framing, Line, Outgoing
from sidecar.upstream.plain import Arrived
from sidecar.upstream.response import ClientGone, RelayedResponse, gone, reset
from sidecar.upstream.tunnel import Tunnel, check_accept
from sidecar.upstream.upload import LAST_CHUNK, Upload, chunk

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.http import RawResponseMessage

    from sidecar.upstream.connection import Connection
    from sidecar.upstream.ending import Ending

Alter = Callable[[list[Line]], list[Line]]

# RFC 9110, section 9.2.2, as far as a browser or a script sends it.
IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))
_SWITCHING = 101
# When a session ends, what is nearly done may finish: the very answer that says "signed out" is such an answer.
_GRACE = 0.5
# A client that has had so many seconds may be asked for its place.
_SETTLED = 5.0


class Stale(Exception):  # noqa: N818 - the domain's word
    """The kept connection had been closed before the application took the request: it may be repeated."""

    @property
    def cause(self) -> Unavailable:
        """What the client is told if it is not repeated."""
        cause = self.__cause__
        return cause if isinstance(cause, Unavailable) else Unavailable(Reason.UPSTREAM_DOWN, "", 502)


@dataclass(frozen=True, slots=True)
class Patience:
    """Longest silences in seconds: until the answer begins, and inside a body."""

    answer: float
    idle: float


class UntouchedError(Exception):
    """The connection was lost before any answer to a request that may be sent twice."""

    def __init__(self, fault: Unavailable) -> None:
        """Remember what the client is told when nobody else answers."""
        super().__init__(str(fault))
        self.fault = fault


class Exchange:
    """Carries one request; ``over`` may be called a second time after Stale."""

    __slots__ = (
        "_alter",
        "_awaits_reader",
        "_began",
        "_body",
        "_connection",
        "_ending",
        "_excuse",
        "_framing",
        "_has_departed",
        "_is_upgrade",
        "_limit",
        "_may_be_shared",
        "_method",
        "_moved",
        "_open_tunnel",
        "_outgoing",
        "_patience",
        "_request",
        "_response",
        "_stays",
        "_timer",
        "_times",
        "_upload",
        "_uploading",
    )

    def __init__(  # noqa: PLR0913 - the parts of one request
        self,
        request: web.BaseRequest,
        method: str,
        outgoing: Outgoing,
        framing: Framing,
        body: bytes | None,
        *,
        times: Patience,
        limit: int | None,
        alter: Alter | None,
        ending: Ending | None,
        keep_alive: bool,
        is_upgrade: bool,
        excuse: Callable[[Connection], None],
        has_departed: bool = False,
    ) -> None:
        """Prepare to send *outgoing*; *body* is the whole body when it is at hand, None when it is to be streamed.

        *has_departed* when it was sent already, over the connection that ``arrive`` or ``over`` is given first.
        """
        self._request = request
        self._method = method
        self._outgoing = outgoing
        self._framing = framing
        self._body = body
        self._times = times
        self._limit = limit
        self._alter = alter
        self._ending = ending
        self._excuse = excuse
        self._is_upgrade = is_upgrade
        self._has_departed = has_departed
        self._open_tunnel: Tunnel | None = None
        self._stays = keep_alive and request.keep_alive
        self._patience = times.answer
        # Whatever the answer says, an application that was asked to switch may have done so.
        self._may_be_shared = not (outgoing.binds or is_upgrade)
        self._awaits_reader = False
        self._began = time.monotonic()
        self._moved = 0
        self._connection: Connection | None = None
        self._response: RelayedResponse | None = None
        self._upload: Upload | None = None
        self._uploading: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_repeatable(self) -> bool:
        """True when sending it twice does what sending it once does, and nothing of its body is lost."""
        return self._body is not None and self._method in IDEMPOTENT

    @property
    def may_be_shared(self) -> bool:
        """False when the connection carried one person's sign-in and is nobody else's."""
        return self._may_be_shared

    def arrive(self, connection: Connection) -> Arrived | None:
        """Give the client the answer if all of it is there and it is an ordinary one; None when ``over`` has to."""
        message = connection.at_hand
        if message is None:
            return None
        try:
            answer = judge(message, self._method)
            response = self._begin(connection, answer)
        except (Unavailable, ClientGone):
            # ``over`` meets the same, and says what has to be said.
            return None
        self._may_be_shared = self._may_be_shared and answer.may_be_shared
        self._connection = None
        return Arrived(answer.status, stays=response.keep_alive)

    def resume(self, request: web.BaseRequest) -> None:
        """Go on for *request*, which is the same one in the hands of aiohttp's server."""
        self._request = request

    async def over(self, connection: Connection) -> RelayedResponse:
        """Carry the request over *connection*.

        Raises Refused or Unavailable while nothing has reached the client, and Stale. Afterwards a failure breaks the
        response off.
        """
        self._connection = connection
        if self._ending is not None:
            self._ending.watch(self._on_end)
        try:
            return await self._carry(connection)
        except (Refused, Unavailable, ClientGone) as error:
            return self._broken(connection, error)
        except HttpProcessingError as error:
            return self._broken(connection, bad_answer(type(error).__name__))
        finally:
            await self._settle()

    async def _carry(self, connection: Connection) -> RelayedResponse:
        if not self._has_departed:
            connection.begin(for_head=self._method == hdrs.METH_HEAD)
            self._send(connection)
        self._has_departed = False
        connection.watch_interim(self._pass_on)
        message = await connection.message()
        self._patience = self._times.idle
        if message.code == _SWITCHING:
            return await self._tunnel(connection, message)
        answer = judge(message, self._method)
        self._may_be_shared = self._may_be_shared and answer.may_be_shared
        await self._relay(connection, answer)
        assert self._response is not None  # noqa: S101 - _relay has made it
        return self._response

    def _broken(self, connection: Connection, error: Exception) -> RelayedResponse:
        is_lost = isinstance(error, Unavailable) and error.reason is Reason.UPSTREAM_DOWN
        is_stale = is_lost and connection.has_served and not connection.has_received
        connection.fail(error)
        if self._response is not None:
            self._response.break_off()
            return self._response
        if isinstance(error, ClientGone):
            return gone(self._request)
        if is_stale and self.is_repeatable:
            raise Stale from error
        raise error

    async def _settle(self) -> None:
        self._connection = None
        if self._ending is not None:
            self._ending.unwatch(self._on_end)
        if self._timer is not None:
            self._timer.cancel()
        response = self._response
        if response is not None and not response.is_finished:
            # Cancelled in the middle: a plain close would end a body that is delimited by the close.
            response.break_off()
        if self._uploading is not None and not self._uploading.done():
            await cancelled([self._uploading])

    async def _tunnel(self, connection: Connection, message: RawResponseMessage) -> RelayedResponse:
        if not self._is_upgrade or not connection.is_upgraded:
            raise bad_answer("101 without having been asked")
        answer = judge_switch(message)
        check_accept(self._request, message)
        tunnel = Tunnel(
            self._request,
            connection,
            idle=self._times.idle,
            limit=self._limit,
            alter=self._alter,
            ending=self._ending,
        )
        if self._ending is not None:
            self._ending.unwatch(self._on_end)
        self._open_tunnel = tunnel
        # It may last for hours, and requests need the place.
        self._excuse(connection)
        self._response = await tunnel.run(answer)
        return self._response

    def leave(self) -> None:
        """End a WebSocket because this process stops; anything else may finish."""
        if self._open_tunnel is not None:
            self._open_tunnel.leave()

    # Upwards

    def _send(self, connection: Connection) -> None:
        if self._body is None:
            self._patience = self._times.idle
            # What has arrived already goes with the head, whatever is still to come.
            self._upload = Upload(self._request, self._outgoing, self._framing, self._limit)
            self._uploading = asyncio.get_running_loop().create_task(self._send_body(self._upload, connection))
            return
        body = self._body
        if self._framing.is_chunked:
            body = chunk(body) + LAST_CHUNK
        connection.send(self._outgoing.data + body)
        connection.is_sent = True

    async def _send_body(self, upload: Upload, connection: Connection) -> None:
        await upload.over(connection)
        if connection.is_sent and self._response is None:
            self._patience = self._times.answer

    # Downwards

    def _pass_on(self, message: RawResponseMessage) -> None:
        """Give the client an interim answer (RFC 9110, section 15.2), which HTTP/1.0 has none of."""
        transport = self._request.transport
        if self._request.version >= HttpVersion11 and transport is not None:
            transport.write(interim_bytes(message))

    async def _relay(self, connection: Connection, answer: Answer) -> None:
        payload = connection.payload
        assert payload is not None  # noqa: S101 - every message comes with one
        response = self._begin(connection, answer)
        if answer.is_event_stream:
            self._excuse(connection)
        await self._drain(response)
        while not response.is_finished:
            data = await payload.readany()
            if not data:
                response.finish()
                return
            response.add(data)
            self._moved += len(data)
            await self._drain(response)
            connection.touched = time.monotonic()

    async def _drain(self, response: RelayedResponse) -> None:
        self._awaits_reader = True
        await response.drain()
        self._awaits_reader = False

    def _begin(self, connection: Connection, answer: Answer) -> RelayedResponse:
        """Write the head, and what there is of the body."""
        payload = connection.payload
        assert payload is not None  # noqa: S101 - every message comes with one
        is_all = not answer.has_body or payload.is_eof()
        is_chunked = answer.has_body and answer.length is None and self._request.version >= HttpVersion11
        head = self._head(connection, answer, is_chunked=is_chunked)
        first = payload.read_nowait() if answer.has_body else b""
        self._response = response = RelayedResponse(self._request, answer.status, answer.reason, keep_alive=self._stays)
        response.begin(head, first, chunked=is_chunked, is_all=is_all)
        return response

    def _head(self, connection: Connection, answer: Answer, *, is_chunked: bool) -> bytes:
        lines = answer.lines if self._alter is None else self._alter(answer.lines)
        ours = ""
        if is_chunked:
            ours = "Transfer-Encoding: chunked\r\n"
        elif answer.length is not None:
            ours = f"Content-Length: {answer.length}\r\n"
        elif answer.has_body:
            self._stays = False
        if not connection.is_sent:
            # An early answer: the client shall see that nobody reads the rest (RFC 9112, section 9.6).
            self._stays = False
        if not self._stays:
            ours += "Connection: close\r\n"
        elif self._request.version < HttpVersion11:
            ours += "Connection: keep-alive\r\n"
        return head_bytes(answer, lines, ours)

    # From outside

    def check(self, now: float) -> None:
        """Give up when the client has gone, or after too long a silence; called about once a second."""
        transport, connection = self._request.transport, self._connection
        if connection is None:
            return
        if self._open_tunnel is not None:
            self._open_tunnel.check(now)
            return
        if transport is None or transport.is_closing():
            self.give_up(ClientGone())
        elif now - connection.touched > self._patience:
            if self._upload is not None and self._upload.awaits_client:
                reset(transport)
                self.give_up(ClientGone())
            else:
                self.give_up(Unavailable(Reason.UPSTREAM_SLOW, f"silent for {self._patience:g} s", 504))

    def clients_pace(self, now: float) -> float | None:
        """Bytes per second of a client that we wait for; None while we do not, and in the first seconds."""
        age, connection = now - self._began, self._connection
        takes_place = connection is not None and connection.holds_slot
        upload = self._upload
        is_waited_for = self._awaits_reader or (upload is not None and upload.awaits_client)
        moved = self._moved + (upload.moved if upload is not None else 0)
        return moved / age if takes_place and is_waited_for and age > _SETTLED else None

    def give_way(self) -> None:
        """End, because the client is slow and others need its place."""
        self.give_up(ClientGone())

    def give_up(self, error: Exception) -> None:
        """Stop in the middle because of *error*."""
        if self._response is not None:
            self._response.break_off()
        if self._connection is not None:
            self._connection.fail(error)

    def _on_end(self) -> None:
        if self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        ended = Refused(Reason.SESSION_EXPIRED, 401, "the session ended")
        self._timer = loop.call_later(_GRACE, self.give_up, ended)

"""A request that was sent on its way to the application without a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from aiohttp import hdrs

from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.upstream.exchange import Alter, Exchange
from sidecar.upstream.plain import Arrived

if TYPE_CHECKING:
    from aiohttp import web

    from sidecar.upstream.connection import Connection
    from sidecar.upstream.ending import Ending
    from sidecar.upstream.response import RelayedResponse
    from sidecar.upstream.server import Server


# Seconds: whoever's session ends meanwhile gets the answer all the same.
_MOMENT = 0.5


class Client(Protocol):
    """Whose request it is."""

    transport: asyncio.Transport | None

    @property
    def writing_paused(self) -> bool:
        """True while they do not take what was written to them."""

    def on_word(self) -> None:
        """Hear that the departure should ``arrive``; never called from within."""

    def request(self) -> web.BaseRequest:
        """Give the request as an object, which is made only when somebody needs it."""


class Whole:
    """A whole request as it goes to the application: its method, and all bytes of it.

    ``is_last`` when its client wants nothing more over its connection (RFC 9112, section 9.6).
    """

    __slots__ = ("data", "is_last", "method")

    def __init__(self, method: str, data: bytes, *, is_last: bool = False) -> None:
        """Of *method*, as *data*."""
        self.method = method
        self.data = data
        self.is_last = is_last


class Carrier(Protocol):
    """Who sent it."""

    @property
    def answer_patience(self) -> float:
        """Seconds that an answer may take to begin."""

    def leave(self, journey: Departure, server: Server, connection: Connection, *, may_be_shared: bool) -> None:
        """Note that it is over."""

    def exchange_of(
        self, departure: Departure, server: Server, request: web.BaseRequest, *, has_departed: bool
    ) -> Exchange:
        """Make what carries the same request in a task, or to another server."""

    async def resume(self, departure: Departure, request: web.BaseRequest) -> RelayedResponse:
        """Do the rest in a task."""


class Departure:
    """Whoever sent it calls one of ``arrive``, ``carry_on`` and ``abandon``.

    ``whole`` is the request. For what takes longer, ``alter`` is what is done to the answer's lines, and ``ended``
    gives the end of the session that it belongs to.
    """

    __slots__ = (
        "_carrier",
        "_exchange",
        "affinity",
        "alter",
        "client",
        "connection",
        "ended",
        "is_resumed",
        "server",
        "whole",
    )

    def __init__(  # noqa: PLR0917 - the parts of one departure
        self,
        carrier: Carrier,
        client: Client,
        whole: Whole,
        server: Server,
        connection: Connection,
        alter: Alter,
        ended: Callable[[], Ending] | None,
        affinity: str,
    ) -> None:
        """Send *whole* for *client* over *connection* to *server*. Raises Unavailable, and nothing has happened."""
        self._carrier = carrier
        self._exchange: Exchange | None = None
        self.client = client
        self.server = server
        self.connection = connection
        self.alter = alter
        self.ended = ended
        self.affinity = affinity
        self.is_resumed = False
        self.whole = whole
        connection.begin(for_head=whole.method == hdrs.METH_HEAD)
        connection.send(whole.data)
        connection.is_sent = True
        connection.tell(client.on_word)

    def arrive(self) -> Arrived | None:
        """Give the whole answer to the client; None when it takes more, which is up to ``carry_on`` then."""
        plain = self.connection.plain
        if plain is None:
            return self._arrive_parsed()
        transport = self.client.transport
        stays = transport is not None and not transport.is_closing()
        if transport is not None and stays:
            transport.write(_last(plain.data) if self.whole.is_last else plain.data)
        self._end(may_be_shared=True)
        return Arrived(plain.status, stays=stays and not self.whole.is_last)

    def _arrive_parsed(self) -> Arrived | None:
        if self.connection.at_hand is None:
            return None
        exchange = self.exchange(self.client.request())
        arrived = exchange.arrive(self.connection)
        if arrived is not None:
            self._end(may_be_shared=exchange.may_be_shared)
        return arrived

    def _end(self, *, may_be_shared: bool) -> None:
        self._carrier.leave(self, self.server, self.connection, may_be_shared=may_be_shared)
        self.server.succeed()
        self.server.leave()

    def exchange(self, request: web.BaseRequest) -> Exchange:
        """What goes on with it from here."""
        if self._exchange is None:
            self._exchange = self._carrier.exchange_of(self, self.server, request, has_departed=True)
        return self._exchange

    async def carry_on(self, request: web.BaseRequest) -> RelayedResponse:
        """Do for *request*, which is the same one, what ``Upstream.carry`` does once it has sent a request."""
        self.exchange(request).resume(request)
        return await self._carrier.resume(self, request)

    def abandon(self) -> None:
        """Forget about it: the client has gone."""
        self._carrier.leave(self, self.server, self.connection, may_be_shared=False)
        self.server.leave()

    # From outside, as with what is carried in a task

    def check(self, now: float) -> None:
        """Give up after too long a silence; called about once a second.

        Whoever waits for more than a moment does so in a task, which hears when the session ends.
        """
        silence, patience = now - self.connection.touched, self._carrier.answer_patience
        if silence > patience:
            self.give_up(Unavailable(Reason.UPSTREAM_SLOW, f"silent for {patience:g} s", 504))
        elif silence > _MOMENT:
            self.connection.hurry()

    def give_up(self, error: Exception) -> None:
        """Stop because of *error*, which ``carry_on`` meets."""
        self.connection.fail(error)


def _last(answer: bytes) -> bytes:
    """*answer* as the last one of a connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return b"%b\r\nConnection: close\r\n\r\n%b" % (head, body)

"""A request that was sent on its way to the application without a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from sidecar.upstream.exchange import Arrived, Exchange
from sidecar.upstream.response import ClientGone

if TYPE_CHECKING:
    from aiohttp import web

    from sidecar.upstream.connection import Connection
    from sidecar.upstream.response import RelayedResponse
    from sidecar.upstream.server import Server


class Carrier(Protocol):
    """Who sent it."""

    def leave(self, exchange: Exchange, server: Server, connection: Connection) -> None:
        """Note that it is over."""

    async def resume(self, departure: Departure, request: web.BaseRequest) -> RelayedResponse:
        """Do the rest in a task."""


class Departure:
    """Whoever sent it calls one of ``arrive``, ``carry_on`` and ``abandon``."""

    __slots__ = ("_carrier", "affinity", "connection", "exchange", "exchange_at", "is_resumed", "server")

    def __init__(  # noqa: PLR0917 - the parts of one departure
        self,
        carrier: Carrier,
        exchange: Exchange,
        server: Server,
        connection: Connection,
        affinity: str,
        exchange_at: Callable[[Server, web.BaseRequest], Exchange],
    ) -> None:
        """Belong to *carrier*; *exchange* has departed over *connection* to *server*.

        *exchange_at* makes the same exchange for another server, should this one be lost.
        """
        self._carrier = carrier
        self.exchange = exchange
        self.server = server
        self.connection = connection
        self.affinity = affinity
        self.exchange_at = exchange_at
        self.is_resumed = False

    def arrive(self) -> Arrived | None:
        """Give the whole answer to the client; None when it takes more, which is up to ``carry_on`` then."""
        arrived = self.exchange.arrive(self.connection)
        if arrived is not None:
            self._carrier.leave(self.exchange, self.server, self.connection)
            self.server.succeed()
            self.server.leave()
        return arrived

    async def carry_on(self, request: web.BaseRequest) -> RelayedResponse:
        """Do for *request*, which is the same one, what ``Upstream.carry`` does once it has sent a request."""
        self.exchange.resume(request)
        return await self._carrier.resume(self, request)

    def abandon(self) -> None:
        """Forget about it: the client has gone."""
        self.connection.tell(None)
        self.exchange.give_up(ClientGone())
        self._carrier.leave(self.exchange, self.server, self.connection)
        self.server.leave()

"""What becomes of a request without a task, as the connection that it came over sees it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from aiohttp import web

from sidecar.arrival import Seen, Whence
from sidecar.upstream import Client


class Trip(Protocol):
    """A request that is on its way without a task; exactly one of the three ends it."""

    def arrive(self) -> bool | None:
        """Give the client the answer; None when ``carry_on`` has to. True when the connection may go on."""

    async def carry_on(self, request: web.BaseRequest) -> web.StreamResponse:
        """Do the rest in a task."""

    def abandon(self) -> None:
        """Forget about it: the client has gone."""


class Told(NamedTuple):
    """What a client is told at once, a whole answer. ``stays`` is False when it says that it is the last one."""

    data: bytes
    stays: bool


class Departures(Protocol):
    """Who sends requests on their way without a task, or answers them at once."""

    def depart(self, client: Client, request: web.BaseRequest, seen: Seen | None) -> Trip | Told | None:
        """Send *request*, or give its answer; None when it takes a task.

        *seen* is how its header lines came if that is sure.
        """

    def again(self, client: Client, data: bytes, origin: Whence) -> Trip | Told | None:
        """As ``depart`` for *data*, one whole request, if its header lines came before from *origin*."""

"""The connections to the application: made, bounded, kept for the next request, and dropped when they age."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from sidecar.config.trust import words_of
from sidecar.core.unaccepted import certificate_fault
from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.upstream.connection import Connection

if TYPE_CHECKING:
    from sidecar.upstream.target import Target

# Shorter than what servers keep (Apache, Node and uvicorn 5 s by default), where one cannot know.
_KEEP_IDLE = 4.0
# A request that cannot be repeated does not bet on a connection that the application may be about to close.
_SURELY_ALIVE = 1.0


class NoConnectionError(Unavailable):
    """No connection could be made, so nothing has been sent: another server may be asked, whatever the request."""


class Pool:
    """At most *bound* connections carry requests; streams that may last for hours are let out of that count."""

    def __init__(self, target: Target, *, bound: int, patience: float) -> None:
        """Connect to *target* when first asked; *patience* is the longest wait in seconds for a connection."""
        self._target = target
        self._bound = bound
        self._free = bound
        self._patience = patience
        self._queue: deque[asyncio.Future[None]] = deque()
        self._idle: dict[Connection, None] = {}
        self._is_closed = False

    @property
    def busy(self) -> int:
        """How many connections carry a request within the bound."""
        return self._bound - self._free

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return sum(not waiter.done() for waiter in self._queue)

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    @property
    def is_at_hand(self) -> bool:
        """Whether ``take_idle`` would find a connection, if none of them has been closed meanwhile."""
        return self._free > 0 and not self._queue and bool(self._idle)

    @property
    def is_full(self) -> bool:
        """Whether as many connections as there may be carry a request."""
        return not self._free

    async def take(self, *, is_repeatable: bool = True, fresh: bool = False) -> Connection:
        """A connection for one request; hand it back with ``give_back``.

        *is_repeatable* False takes only a new one or one used just now; *fresh* takes only a new one. Raises
        Unavailable: UPSTREAM_SLOW (504) when all stay busy, UPSTREAM_DOWN (502) when none can be made.
        """
        if self._free and not self._queue:
            self._free -= 1
        else:
            await self._wait_for_slot()
        try:
            connection = None if fresh else self._reuse(is_repeatable=is_repeatable)
            if connection is None:
                self._make_room()
                connection = await self.connect()
        except BaseException:
            self._free_slot()
            raise
        connection.holds_slot = True
        return connection

    def take_idle(self, *, is_repeatable: bool) -> Connection | None:
        """As ``take`` if a connection is idle; None when there is none."""
        connection = self._reuse(is_repeatable=is_repeatable) if self.is_at_hand else None
        if connection is not None:
            self._free -= 1
            connection.holds_slot = True
        return connection

    async def _wait_for_slot(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            async with asyncio.timeout(self._patience):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self._free_slot()
            else:
                self._queue.remove(waiter)
            if isinstance(error, TimeoutError):
                raise Unavailable(Reason.UPSTREAM_SLOW, "all connections are busy", 504) from None
            raise

    def _free_slot(self) -> None:
        """Hand the slot to whoever waits longest; who gave up waiting stays in the queue until it removes itself."""
        for waiter in self._queue:
            if not waiter.done():
                self._queue.remove(waiter)
                waiter.set_result(None)
                return
        self._free += 1

    def _reuse(self, *, is_repeatable: bool) -> Connection | None:
        while self._idle:
            connection, _ = self._idle.popitem()
            if not connection.is_open:
                continue
            if is_repeatable or time.monotonic() - connection.idle_since < _SURELY_ALIVE:
                return connection
            self._idle[connection] = None
            return None
        return None

    def _make_room(self) -> None:
        while self._idle and len(self._idle) + self.busy > self._bound:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.close()

    async def connect(self) -> Connection:
        """Make a new connection, outside the bound; raises Unavailable(UPSTREAM_DOWN, 502 | UPSTREAM_SLOW, 504)."""
        if self._is_closed:
            raise Unavailable(Reason.STOPPING)
        try:
            async with asyncio.timeout(self._patience):
                return await self._dial()
        except TimeoutError:
            raise NoConnectionError(Reason.UPSTREAM_SLOW, f"{self._target}: no connection in time", 504) from None
        except (OSError, ssl.SSLError, ssl.CertificateError) as error:
            raise NoConnectionError(Reason.UPSTREAM_DOWN, f"{self._target}: {_said(error)}", 502) from error

    async def _dial(self) -> Connection:
        connection: Connection
        loop = asyncio.get_running_loop()
        target = self._target

        def protocol() -> Any:
            return Connection(loop, self._forget)

        if target.path:
            _, connection = await loop.create_unix_connection(protocol, target.path)
        else:
            # Asked each time: files that were renewed serve the next connection.
            tls = None if target.tls is None else target.tls.current()
            _, connection = await loop.create_connection(
                protocol, target.host, target.port, ssl=tls, server_hostname=target.server_name
            )
        return connection

    def _forget(self, connection: Connection) -> None:
        self._idle.pop(connection, None)

    def excuse(self, connection: Connection) -> None:
        """Let *connection* out of the bound: an event stream may last for hours, and requests need the place."""
        if connection.holds_slot:
            connection.holds_slot = False
            self._free_slot()

    def give_back(self, connection: Connection, *, may_be_shared: bool) -> None:
        """End the request on *connection* and keep it for the next one if it is fit for that."""
        is_fit = connection.finish(may_be_shared=may_be_shared and connection.holds_slot and not self._is_closed)
        if is_fit:
            connection.idle_since = time.monotonic()
            self._idle[connection] = None
        self.excuse(connection)

    def expire(self, now: float) -> None:
        """Close what has been idle for too long; *now* is by the monotonic clock."""
        while self._idle:
            oldest = next(iter(self._idle))  # in order of age: the youngest is taken and put back at the end
            if now - oldest.idle_since < _KEEP_IDLE:
                return
            del self._idle[oldest]
            oldest.close()

    def close(self) -> None:
        """Close what is idle; from now on no connection is made or kept."""
        self._is_closed = True
        idle, self._idle = self._idle, {}
        for connection in idle:
            connection.close()


def _said(error: Exception) -> str:
    """Why there is no connection; of TLS, neither the library's line numbers nor its names."""
    if isinstance(error, ssl.SSLError):
        return certificate_fault(error) or f"TLS failed: {words_of(error)}"
    return str(error)

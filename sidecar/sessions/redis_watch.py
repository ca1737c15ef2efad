"""Hear from Redis at once when somebody changes a key: one connection of our own with client-side caching pushes.

Redis: CLIENT TRACKING with BCAST over RESP3 (https://redis.io/docs/latest/develop/reference/client-side-caching/).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from sidecar.cancelling import cancelled
from sidecar.core.unaccepted import certificate_fault

_log = structlog.get_logger("redis")
_PING_EVERY = 1.0
_PATIENCE = 2.5
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_PAUSE_WHEN_REFUSED = 60.0
_GOODBYE = 0.5


@dataclass(frozen=True, slots=True)
class _Listener:
    prefix: str
    changed: Callable[[str], None]
    lost: Callable[[], None]


class _TrackingRefusedError(Exception):
    """An ACL forbids it, or the server cannot: works without, only slower."""


class Watch:
    """Keeps the connection, tells listeners what changed, and says when changes may have been missed."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        """*connect* makes a new, unconnected redis.asyncio connection that speaks RESP3, without time-outs."""
        self._connect = connect
        self._listeners: list[_Listener] = []
        self._task: asyncio.Task[None] | None = None
        self._adding = asyncio.Lock()
        self._settled = asyncio.Event()
        self._pause = _FIRST_PAUSE
        self._is_said = False
        self.is_alive = False

    async def add(self, prefix: str, changed: Callable[[str], None], lost: Callable[[], None]) -> None:
        """Listen to keys below *prefix* too. Returns when the watch stands, or could not be made to within a while."""
        # One at a time: two that begin together must not leave two connections behind.
        async with self._adding:
            self._listeners.append(_Listener(prefix, changed, lost))
            await self._stop()
            self._settled.clear()
            self._task = asyncio.create_task(self._keep_watching())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._settled.wait()

    @property
    def is_deaf(self) -> bool:
        """True while somebody wants to hear of changes, and nothing would be heard."""
        return self._task is not None and not self.is_alive

    async def _stop(self) -> None:
        if self._task is not None:
            await cancelled([self._task])

    async def _keep_watching(self) -> None:
        while True:
            try:
                await self._watch_once()
            except _TrackingRefusedError:
                self._pause = _PAUSE_WHEN_REFUSED
                self._settled.set()
                self._say_once(
                    "Redis refuses CLIENT TRACKING, local cache off. Allow +client|tracking", "ResponseError"
                )
            except Exception as error:  # noqa: BLE001 - whatever ended it, it must come back; till then the cache is off
                why = certificate_fault(error) or type(error).__name__
                self._say_once("no connection for pushes from Redis, local cache off", why)
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _say_once(self, what: str, error: str) -> None:
        if not self._is_said:
            _log.warning(what, error=error)
        self._is_said = True

    def _stand(self) -> None:
        self._pause, self._is_said = _FIRST_PAUSE, False
        # Whatever changed while nobody listened is unknown: begin with nothing remembered.
        self._tell_lost()
        self.is_alive = True
        self._settled.set()

    def _lose(self) -> None:
        if self.is_alive:
            self.is_alive = False
            self._tell_lost()

    def _tell_lost(self) -> None:
        for listener in self._listeners:
            listener.lost()

    async def _watch_once(self) -> None:
        connection = self._connect()
        pinging: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(_PATIENCE):
                await connection.connect()
                await self._begin_tracking(connection)
            self._stand()
            pinging = asyncio.create_task(_ping(connection))
            await self._listen(connection, pinging)
        finally:
            self._lose()
            if pinging is not None:
                await cancelled([pinging])
            await _let_go(connection)

    async def _begin_tracking(self, connection: Any) -> None:
        # redis-py drops invalidations that nobody handles; handed back, they are what read_response returns.
        connection._parser.set_invalidation_push_handler(_hand_back)  # noqa: SLF001 - redis-py's only door to it
        prefixes: Sequence[str] = sorted({listener.prefix for listener in self._listeners})
        words = [word for prefix in _without_overlap(prefixes) for word in ("PREFIX", prefix)]
        await connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *words)
        try:
            await connection.read_response()
        except ResponseError:
            raise _TrackingRefusedError from None

    async def _listen(self, connection: Any, pinging: asyncio.Task[None]) -> None:
        while not pinging.done():
            async with asyncio.timeout(_PATIENCE):
                answer = await connection.read_response(push_request=True, disconnect_on_error=False)
            if isinstance(answer, list) and answer and answer[0] == b"invalidate":
                self._pushed(answer[1])
        raise RedisConnectionError

    def _pushed(self, keys: Sequence[bytes] | None) -> None:
        """Tell who listens to *keys*; None means that everything was flushed."""
        if keys is None:
            self._tell_lost()
            return
        for key in (raw.decode("utf-8", "replace") for raw in keys):
            for listener in self._listeners:
                if key.startswith(listener.prefix):
                    listener.changed(key)

    async def close(self) -> None:
        """Stop watching."""
        await self._stop()


def _without_overlap(prefixes: Sequence[str]) -> list[str]:
    """Redis refuses prefixes of which one begins with another: the shorter one covers both."""
    return [one for one in prefixes if not any(one != other and one.startswith(other) for other in prefixes)]


async def _hand_back(push: list[Any]) -> list[Any]:
    return list(push)


async def _ping(connection: Any) -> None:
    """Ask for a sign of life every second: a frozen server says nothing by itself."""
    # A connection that breaks here breaks for the reader too, who says so.
    with contextlib.suppress(RedisError, OSError, TimeoutError, RuntimeError):
        while True:
            await asyncio.sleep(_PING_EVERY)
            await connection.send_command("PING", check_health=False)


async def _let_go(connection: Any) -> None:
    """Close, and wait for it: TLS says goodbye first, and a server that is frozen answers that half a minute late."""
    writer = connection._writer  # noqa: SLF001 - to cut off what does not end
    with contextlib.suppress(RedisError, OSError, TimeoutError, RuntimeError):
        async with asyncio.timeout(_GOODBYE):
            await connection.disconnect()
    if writer is not None:
        writer.transport.abort()

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
from redis.exceptions import RedisError, ResponseError

_log = structlog.get_logger("redis")
_PING_EVERY = 1.0
_PATIENCE = 2.5
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class _Listener:
    prefix: str
    changed: Callable[[str], None]
    lost: Callable[[], None]


class Watch:
    """Keeps the connection, tells listeners what changed, and says when changes may have been missed."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        """*connect* makes a new, unconnected redis.asyncio connection that speaks RESP3."""
        self._connect = connect
        self._listeners: list[_Listener] = []
        self._task: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._stands = asyncio.Event()
        self._is_impossible = False
        self.is_alive = False

    async def add(self, prefix: str, changed: Callable[[str], None], lost: Callable[[], None]) -> None:
        """Listen to keys below *prefix* too. Returns when the watch stands, or could not be made to within a while."""
        self._listeners.append(_Listener(prefix, changed, lost))
        self._stands.clear()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._task = asyncio.create_task(self._keep_watching())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._stands.wait()

    async def _keep_watching(self) -> None:
        pause = _FIRST_PAUSE
        while not self._is_impossible:
            try:
                await self._watch_once()
            except (RedisError, OSError, TimeoutError) as error:
                if self.is_alive:
                    pause = _FIRST_PAUSE
                    _log.warning("connection for pushes lost, local cache off", error=type(error).__name__)
            finally:
                self._lose()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _lose(self) -> None:
        was_alive, self.is_alive = self.is_alive, False
        if was_alive:
            for listener in self._listeners:
                listener.lost()

    async def _watch_once(self) -> None:
        connection = self._connect()
        pinging: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(_PATIENCE):
                await connection.connect()
                await self._begin_tracking(connection)
            if self._is_impossible:
                return
            connection._parser.set_invalidation_push_handler(self._pushed)  # noqa: SLF001 - redis-py's only door to it
            # Whatever changed while nobody listened is unknown: begin with nothing remembered.
            for listener in self._listeners:
                listener.lost()
            self.is_alive = True
            self._stands.set()
            pinging = asyncio.create_task(_ping(connection))
            while not pinging.done():
                async with asyncio.timeout(_PATIENCE):
                    await connection.read_response(push_request=True, disconnect_on_error=False)
        finally:
            if pinging is not None:
                pinging.cancel()
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await connection.disconnect(nowait=True)

    async def _begin_tracking(self, connection: Any) -> None:
        prefixes: Sequence[str] = sorted({listener.prefix for listener in self._listeners})
        words = [word for prefix in _without_overlap(prefixes) for word in ("PREFIX", prefix)]
        try:
            await connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *words)
            await connection.read_response()
        except ResponseError as error:
            # An ACL that forbids it, or a server that cannot: works without, only slower.
            self._is_impossible = True
            self._stands.set()
            _log.warning(
                "Redis refuses CLIENT TRACKING: every request asks Redis for its session. Allow +client|tracking",
                error=str(error).partition(" ")[0],
            )

    async def _pushed(self, message: Any) -> None:
        """Handle ``[b"invalidate", [keys]]``; no list means that everything was flushed."""
        keys = message[1]
        if keys is None:
            for listener in self._listeners:
                listener.lost()
            return
        for raw in keys:
            key = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
            for listener in self._listeners:
                if key.startswith(listener.prefix):
                    listener.changed(key)

    async def close(self) -> None:
        """Stop watching."""
        self._is_impossible = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


def _without_overlap(prefixes: Sequence[str]) -> list[str]:
    """Redis refuses prefixes of which one begins with another: the shorter one covers both."""
    return [one for one in prefixes if not any(one != other and one.startswith(other) for other in prefixes)]


async def _ping(connection: Any) -> None:
    """Ask for a sign of life every second: a frozen server says nothing by itself."""
    while True:
        await asyncio.sleep(_PING_EVERY)
        await connection.send_command("PING", check_health=False)

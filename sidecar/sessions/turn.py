"""Take turns across replicas: one holder at a time for a name, by a claim in the store."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from types import TracebackType
from weakref import WeakValueDictionary

from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.sessions.store import Store

_LEASE = 30.0
# Whoever comes again waits longer than somebody who died may seem to be at work.
_ONCE_WAIT, _ONCE_LEASE = 10.0, 5.0
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25


class _Line:
    """Those of one process who want the same turn; only the first asks the store.

    A hundred who all asked would get in one per pause; a hundred who found the store down one after the other would
    wait for its time-out a hundred times.
    """

    __slots__ = ("__weakref__", "faults", "head")

    def __init__(self) -> None:
        self.head = asyncio.Lock()
        self.faults = 0


_lines: WeakValueDictionary[tuple[int, str], _Line] = WeakValueDictionary()


class Turn:
    """``async with Turn(…):`` inside, nobody else holds the key.

    A holder that dies loses its turn when the lease ends; one that works longer than the lease keeps it.
    """

    def __init__(self, store: Store, key: str, wait: float, reason: Reason, lease: float = _LEASE) -> None:
        """Wait at most *wait* seconds; after that ``Unavailable(reason)``."""
        self._store = store
        self._key = key
        self._wait = wait
        self._reason = reason
        self._lease = lease
        self._token = secrets.token_bytes(16)
        self._keeping: asyncio.Task[None] | None = None
        self._line = _lines.setdefault((id(store), key), _Line())

    async def __aenter__(self) -> None:
        """Wait for the turn; raises Unavailable."""
        try:
            async with asyncio.timeout(self._wait):
                await self._claim()
        except TimeoutError:
            raise Unavailable(self._reason, "somebody else takes too long with this") from None
        self._keeping = asyncio.create_task(self._keep())

    async def _claim(self) -> None:
        faults = self._line.faults
        await self._line.head.acquire()
        try:
            await self._ask(faults)
        except asyncio.CancelledError:
            # The claim under way may have been heard; nobody must wait for its lease.
            await self._release()
            raise
        except BaseException:
            self._line.head.release()
            raise

    async def _ask(self, faults: int) -> None:
        if self._line.faults != faults:
            raise Unavailable(Reason.STORE_DOWN, "found by the one ahead in the line")
        pause = _FIRST_PAUSE
        try:
            while not await self._store.claim(self._key, self._token, self._lease):
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        except Unavailable:
            self._line.faults += 1
            raise

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            with contextlib.suppress(Unavailable):
                await self._store.exchange(self._key, self._token, self._token, self._lease)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the turn back; a store that is down gives it back by the lease."""
        if self._keeping is not None:
            self._keeping.cancel()
        await self._release()

    async def _release(self) -> None:
        try:
            with contextlib.suppress(Unavailable):
                await self._store.release(self._key, self._token)
        finally:
            self._line.head.release()


@contextlib.asynccontextmanager
async def once(store: Store, key: str, lifetime: float) -> AsyncIterator[bool]:
    """One at a time inside, for *key*; True until somebody got to the end.

    Noted at the end, for *lifetime* seconds: whoever died half way, or lost the store, did nothing that counts, so that
    it is done when it comes again. Raises Unavailable.
    """
    async with Turn(store, f"{key}:turn", _ONCE_WAIT, Reason.BUSY, _ONCE_LEASE):
        is_first = await store.get(key) is None
        yield is_first
        if is_first:
            await store.put(key, b"1", lifetime)

"""Take turns across replicas: one holder at a time for a name, by a claim in the store."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from types import TracebackType

from sidecar.model import Reason, Unavailable
from sidecar.sessions.store import Store

_LEASE = 30.0
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25


class Turn:
    """``async with Turn(store, key, wait):`` — inside, nobody else holds *key*.

    A holder that dies loses its turn after half a minute; one that works longer keeps it.
    """

    def __init__(self, store: Store, key: str, wait: float) -> None:
        """Wait at most *wait* seconds for the turn."""
        self._store = store
        self._key = key
        self._wait = wait
        self._token = secrets.token_bytes(16)
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        """Raise Unavailable(PROVISIONING_DOWN) when it is not our turn in time, STORE_DOWN when the store is down."""
        try:
            async with asyncio.timeout(self._wait):
                await self._claim()
        except TimeoutError:
            raise Unavailable(Reason.PROVISIONING_DOWN, "somebody else takes too long with this account") from None
        self._keeping = asyncio.create_task(self._keep())

    async def _claim(self) -> None:
        pause = _FIRST_PAUSE
        while not await self._store.claim(self._key, self._token, _LEASE):
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_LEASE / 3)
            with suppress(Unavailable):
                if await self._store.get(self._key) == self._token:
                    await self._store.replace(self._key, self._token, _LEASE)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the next one in; when the store is down, the lease does that."""
        if self._keeping is not None:
            self._keeping.cancel()
        with suppress(Unavailable):
            await self._store.release(self._key, self._token)

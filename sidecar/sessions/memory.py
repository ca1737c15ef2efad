"""Keep short-lived bytes in this process: the embedded default, for one worker."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.model import Reason, Unavailable

_MOST_ENTRIES = 1_000_000


@dataclass(slots=True)
class _Entry:
    value: bytes = b""
    expires: float = 0.0
    members: set[str] = field(default_factory=set)
    number: int = 0


class MemoryStore:
    """A Store of one process; bounded, so that nobody can fill the memory with sign-ins that they never finish."""

    def __init__(self, clock: Callable[[], float], most: int = _MOST_ENTRIES) -> None:
        """*clock* gives seconds; at *most* entries new ones are refused as if the store were full."""
        self._clock = clock
        self._most = most
        self._entries: dict[str, _Entry] = {}
        self._queue: list[tuple[float, str]] = []
        self._watchers: list[tuple[str, Callable[[str], None]]] = []

    def _live(self, key: str) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= self._clock():
            del self._entries[key]
            self._changed(key)
            return None
        return entry

    def _set(self, key: str, entry: _Entry) -> None:
        self._sweep()
        if key not in self._entries and len(self._entries) >= self._most:
            raise Unavailable(Reason.STORE_DOWN, "memory store is full")
        self._entries[key] = entry
        heapq.heappush(self._queue, (entry.expires, key))
        self._changed(key)

    def _sweep(self) -> None:
        now = self._clock()
        while self._queue and self._queue[0][0] <= now:
            self._live(heapq.heappop(self._queue)[1])

    def _changed(self, key: str) -> None:
        for prefix, changed in self._watchers:
            if key.startswith(prefix):
                changed(key)

    async def get(self, key: str) -> bytes | None:
        """See Store.get."""
        entry = self._live(key)
        return None if entry is None else entry.value

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """See Store.put."""
        self._set(key, _Entry(value, self._clock() + ttl))

    async def replace(self, key: str, value: bytes, ttl: float) -> bool:
        """See Store.replace."""
        if self._live(key) is None:
            return False
        self._set(key, _Entry(value, self._clock() + ttl))
        return True

    async def take(self, key: str) -> bytes | None:
        """See Store.take."""
        entry = self._live(key)
        if entry is None:
            return None
        await self.delete(key)
        return entry.value

    async def claim(self, key: str, value: bytes, ttl: float) -> bool:
        """See Store.claim."""
        if self._live(key) is not None:
            return False
        self._set(key, _Entry(value, self._clock() + ttl))
        return True

    async def release(self, key: str, value: bytes) -> bool:
        """See Store.release."""
        entry = self._live(key)
        if entry is None or entry.value != value:
            return False
        await self.delete(key)
        return True

    async def delete(self, *keys: str) -> None:
        """See Store.delete."""
        for key in keys:
            if self._entries.pop(key, None) is not None:
                self._changed(key)

    async def add(self, key: str, member: str, ttl: float) -> None:
        """See Store.add."""
        entry = self._live(key) or _Entry()
        entry.members.add(member)
        entry.expires = max(entry.expires, self._clock() + ttl)
        self._set(key, entry)

    async def discard(self, key: str, member: str) -> None:
        """See Store.discard."""
        entry = self._live(key)
        if entry is None:
            return
        entry.members.discard(member)
        if not entry.members:
            await self.delete(key)

    async def members(self, key: str) -> frozenset[str]:
        """See Store.members."""
        entry = self._live(key)
        return frozenset() if entry is None else frozenset(entry.members)

    async def count(self, key: str, ttl: float) -> int:
        """See Store.count."""
        entry = self._live(key)
        if entry is None:
            entry = _Entry(expires=self._clock() + ttl)
            self._set(key, entry)
        entry.number += 1
        return entry.number

    async def watch(self, prefix: str, changed: Callable[[str], None], lost: Callable[[], None]) -> None:  # noqa: ARG002
        """See Store.watch; nothing is ever lost inside one process."""
        self._watchers.append((prefix, changed))

    @property
    def is_watching(self) -> bool:
        """See Store.is_watching."""
        return True

    async def ping(self) -> str:
        """See Store.ping."""
        return f"memory, {len(self._entries)} entries"

    async def close(self) -> None:
        """Nothing to let go of."""

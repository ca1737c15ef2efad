"""Keep short-lived bytes in this process: the embedded default, for one worker."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

_MOST_BYTES = 64 * 1024 * 1024
# What an entry costs besides its key and value, and a member of a set besides its name; roughly.
_OVERHEAD = 300
_FEW = 1024


@dataclass(slots=True)
class _Entry:
    value: bytes = b""
    expires: float = 0.0
    members: dict[str, float] = field(default_factory=dict)
    number: int = 0
    size: int = 0


class MemoryStore:
    """A Store of one process; bounded, so that nobody can fill the memory with sign-ins that they never finish.

    What expires is noticed (and told to who watches) at the next call, whatever that asks for.
    """

    def __init__(self, clock: Callable[[], float], most: int = _MOST_BYTES) -> None:
        """*clock* gives seconds; each kind of key (its text before the first colon) may fill *most* bytes.

        Then the oldest of that kind gives way: sign-ins that a stranger begins push out one another, not sessions.
        """
        self._clock = clock
        self._most = most
        self._entries: dict[str, _Entry] = {}
        self._kinds: dict[str, OrderedDict[str, None]] = {}
        self._filled: dict[str, int] = {}
        self._queue: list[tuple[float, str]] = []
        self._watchers: list[tuple[str, Callable[[str], None]]] = []

    def _live(self, key: str) -> _Entry | None:
        self._sweep()
        return self._entries.get(key)

    def _sweep(self) -> None:
        now = self._clock()
        while self._queue and self._queue[0][0] <= now:
            key = heapq.heappop(self._queue)[1]
            entry = self._entries.get(key)
            if entry is not None and entry.expires <= now:
                self._drop(key)

    def _set(self, key: str, entry: _Entry) -> None:
        self._remove(key)
        entry.size = _OVERHEAD + len(key) + len(entry.value) + sum(_OVERHEAD + len(name) for name in entry.members)
        self._entries[key] = entry
        kind = key.partition(":")[0]
        keys = self._kinds.setdefault(kind, OrderedDict())
        keys[key] = None
        self._filled[kind] = self._filled.get(kind, 0) + entry.size
        heapq.heappush(self._queue, (entry.expires, key))
        # Every write leaves its former time of expiry behind in the queue; many writes must not fill the memory.
        if len(self._queue) > 2 * len(self._entries) + _FEW:
            self._queue = [(one.expires, name) for name, one in self._entries.items()]
            heapq.heapify(self._queue)
        self._changed(key)
        while self._filled[kind] > self._most and len(keys) > 1:
            self._drop(next(iter(keys)))

    def _remove(self, key: str) -> bool:
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        kind = key.partition(":")[0]
        del self._kinds[kind][key]
        self._filled[kind] -= entry.size
        if not self._kinds[kind]:
            del self._kinds[kind], self._filled[kind]
        return True

    def _changed(self, key: str) -> None:
        for prefix, changed in self._watchers:
            if key.startswith(prefix):
                changed(key)

    def _put(self, key: str, value: bytes, ttl: float) -> None:
        self._set(key, _Entry(value, self._clock() + ttl))

    def _drop(self, key: str) -> None:
        if self._remove(key):
            self._changed(key)

    async def get(self, key: str) -> bytes | None:
        """See Store.get."""
        entry = self._live(key)
        return None if entry is None else entry.value

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """See Store.put."""
        self._sweep()
        self._put(key, value, ttl)

    async def replace(self, key: str, value: bytes, ttl: float) -> bool:
        """See Store.replace."""
        if self._live(key) is None:
            return False
        self._put(key, value, ttl)
        return True

    async def exchange(self, key: str, held: bytes, value: bytes, ttl: float) -> bool:
        """See Store.exchange."""
        entry = self._live(key)
        if entry is None or entry.value != held:
            return False
        self._put(key, value, ttl)
        return True

    async def take(self, key: str) -> bytes | None:
        """See Store.take."""
        entry = self._live(key)
        if entry is None:
            return None
        self._drop(key)
        return entry.value

    async def claim(self, key: str, value: bytes, ttl: float) -> bool:
        """See Store.claim."""
        if self._live(key) is not None:
            return False
        self._put(key, value, ttl)
        return True

    async def release(self, key: str, value: bytes) -> bool:
        """See Store.release."""
        entry = self._live(key)
        if entry is None or entry.value != value:
            return False
        self._drop(key)
        return True

    async def delete(self, *keys: str) -> None:
        """See Store.delete."""
        self._sweep()
        for key in keys:
            self._drop(key)

    async def add(self, key: str, member: str, ttl: float) -> None:
        """See Store.add."""
        entry = self._live(key) or _Entry()
        now = self._clock()
        members = {name: expires for name, expires in entry.members.items() if expires > now}
        members[member] = max(members.get(member, 0.0), now + ttl)
        self._set(key, _Entry(expires=max(members.values()), members=members))

    async def discard(self, key: str, member: str) -> None:
        """See Store.discard."""
        entry = self._live(key)
        if entry is None or entry.members.pop(member, None) is None:
            return
        if entry.members:
            self._changed(key)
        else:
            self._drop(key)

    async def members(self, key: str) -> frozenset[str]:
        """See Store.members."""
        entry = self._live(key)
        now = self._clock()
        return frozenset() if entry is None else frozenset(name for name, end in entry.members.items() if end > now)

    async def names(self, prefix: str) -> frozenset[str]:
        """See Store.names."""
        return frozenset(key for key in list(self._entries) if key.startswith(prefix) and self._live(key) is not None)

    async def number(self, prefix: str) -> int:
        """See Store.number."""
        self._sweep()
        kind, _, rest = prefix.partition(":")
        return len(await self.names(prefix)) if rest or ":" not in prefix else len(self._kinds.get(kind, ()))

    async def count(self, key: str, ttl: float, amount: int = 1) -> int:
        """See Store.count."""
        entry = self._live(key)
        if entry is None:
            self._set(key, _Entry(expires=self._clock() + ttl, number=amount))
            return amount
        entry.number += amount
        self._changed(key)
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
        self._sweep()
        return f"memory, {len(self._entries)} entries"

    async def close(self) -> None:
        """Nothing to let go of."""

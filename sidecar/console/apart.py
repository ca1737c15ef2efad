"""Keep the console's sessions and sign-ins apart from those of the application, in the same store."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.sessions.store import Store


class Apart:
    """A store inside another: every key of it begins with *prefix* there."""

    def __init__(self, store: Store, prefix: str) -> None:
        """Keep everything in *store*, which somebody else closes."""
        self._store = store
        self._prefix = prefix

    def _name(self, key: str) -> str:
        return self._prefix + key

    async def get(self, key: str) -> bytes | None:
        """See Store.get."""
        return await self._store.get(self._name(key))

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """See Store.put."""
        await self._store.put(self._name(key), value, ttl)

    async def replace(self, key: str, value: bytes, ttl: float) -> bool:
        """See Store.replace."""
        return await self._store.replace(self._name(key), value, ttl)

    async def exchange(self, key: str, held: bytes, value: bytes, ttl: float) -> bool:
        """See Store.exchange."""
        return await self._store.exchange(self._name(key), held, value, ttl)

    async def take(self, key: str) -> bytes | None:
        """See Store.take."""
        return await self._store.take(self._name(key))

    async def claim(self, key: str, value: bytes, ttl: float) -> bool:
        """See Store.claim."""
        return await self._store.claim(self._name(key), value, ttl)

    async def release(self, key: str, value: bytes) -> bool:
        """See Store.release."""
        return await self._store.release(self._name(key), value)

    async def delete(self, *keys: str) -> None:
        """See Store.delete."""
        await self._store.delete(*map(self._name, keys))

    async def add(self, key: str, member: str, ttl: float) -> None:
        """See Store.add."""
        await self._store.add(self._name(key), member, ttl)

    async def discard(self, key: str, member: str) -> None:
        """See Store.discard."""
        await self._store.discard(self._name(key), member)

    async def members(self, key: str) -> frozenset[str]:
        """See Store.members."""
        return await self._store.members(self._name(key))

    async def names(self, prefix: str) -> frozenset[str]:
        """See Store.names."""
        skip = len(self._prefix)
        return frozenset(key[skip:] for key in await self._store.names(self._name(prefix)))

    async def number(self, prefix: str) -> int:
        """See Store.number."""
        return await self._store.number(self._name(prefix))

    async def count(self, key: str, ttl: float, amount: int = 1) -> int:
        """See Store.count."""
        return await self._store.count(self._name(key), ttl, amount)

    async def watch(self, prefix: str, changed: Callable[[str], None], lost: Callable[[], None]) -> None:
        """See Store.watch."""
        skip = len(self._prefix)
        await self._store.watch(self._name(prefix), lambda key: changed(key[skip:]), lost)

    @property
    def is_watching(self) -> bool:
        """See Store.is_watching."""
        return self._store.is_watching

    async def ping(self) -> str:
        """See Store.ping."""
        return await self._store.ping()

    async def close(self) -> None:
        """Nothing: the store is somebody else's."""

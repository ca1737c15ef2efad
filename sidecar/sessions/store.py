"""The seam between everything short-lived and the place that keeps it: bytes under a key, for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Store(Protocol):
    """Keeps bytes for a limited time. Memory and Redis implement it; tests/test_stores.py is its contract.

    Every method raises ``Unavailable(Reason.STORE_DOWN)`` when the store is down or slow, and never answers
    "nothing here" for that. A ``ttl`` is in seconds, above 0. Keys are text, without the store's own prefix. A key
    is of one kind: bytes (get, put, replace, exchange, take, claim, release), a set or a counter.
    """

    async def get(self, key: str) -> bytes | None:
        """Give what stands under *key*, None when nothing does."""

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Set *key*, whatever stood there."""

    async def replace(self, key: str, value: bytes, ttl: float) -> bool:
        """Set *key* only if it still exists (so that a session ended meanwhile is not revived); True when done."""

    async def exchange(self, key: str, held: bytes, value: bytes, ttl: float) -> bool:
        """Set *key* only while it still holds *held* (so that nobody else's write is undone); True when done."""

    async def take(self, key: str) -> bytes | None:
        """Read and delete in one step: of many callers only one gets it."""

    async def claim(self, key: str, value: bytes, ttl: float) -> bool:
        """Set *key* unless it exists: the first writer wins; True for that one."""

    async def release(self, key: str, value: bytes) -> bool:
        """Delete *key* only while it still holds *value*; True when it did."""

    async def delete(self, *keys: str) -> None:
        """Delete, silently when nothing is there."""

    async def add(self, key: str, member: str, ttl: float) -> None:
        """Put *member* into the set *key* for *ttl* seconds; added again, it stays for the longer of the two."""

    async def discard(self, key: str, member: str) -> None:
        """Take *member* out of the set *key*."""

    async def members(self, key: str) -> frozenset[str]:
        """Give the set *key*, empty when there is none."""

    async def names(self, prefix: str) -> frozenset[str]:
        """Keys that begin with *prefix*: for commands that an operator waits for, never for a request."""

    async def number(self, prefix: str) -> int:
        """How many keys begin with *prefix*: exactly where there are few keys in all, about where there are many.

        What it costs is bounded, so that it may be asked for every minute.
        """

    async def count(self, key: str, ttl: float, amount: int = 1) -> int:
        """Add *amount* to the counter *key* and give it; it starts over *ttl* seconds after its first count."""

    async def watch(self, prefix: str, changed: Callable[[str], None], lost: Callable[[], None]) -> None:
        """Call *changed(key)* for every key below *prefix* that is changed, deleted or expires, in any process.

        *lost()* is called whenever messages may have been missed (connection broken): whoever caches drops all and
        stays off until ``is_watching`` says True again. Returns once the watch stands, or after a short while.
        """

    @property
    def is_watching(self) -> bool:
        """True while changes made by others are sure to be heard of."""

    async def ping(self) -> str:
        """Answer a short description such as "redis 7.0.15"; raises Unavailable."""

    async def close(self) -> None:
        """Let go of connections."""

"""Lend one store to several who come and go: each hears of changes only for as long as it has it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sidecar.sessions.store import Store

_Ears = tuple[Callable[[str], None], Callable[[], None]]


class Lender:
    """Owns a store. It listens there once for each prefix, however often somebody else begins and ends to."""

    def __init__(self, store: Store) -> None:
        """Lend *store*, which ``close`` closes."""
        self.store = store
        self._ears: dict[str, list[_Ears]] = {}

    def lend(self) -> Lent:
        """Lend it to one more."""
        return Lent(self)

    async def listen(self, prefix: str, ears: _Ears) -> None:
        """Tell *ears* of changes below *prefix*. Raises Unavailable."""
        listeners = self._ears.get(prefix)
        if listeners is not None:
            listeners.append(ears)
            return
        self._ears[prefix] = listeners = [ears]
        try:
            await self.store.watch(prefix, partial(_tell_changed, listeners), partial(_tell_lost, listeners))
        except BaseException:
            del self._ears[prefix]
            raise

    def forget(self, prefix: str, ears: _Ears) -> None:
        """Tell *ears* nothing more."""
        if ears in self._ears.get(prefix, ()):
            self._ears[prefix].remove(ears)

    async def close(self) -> None:
        """Close the store itself."""
        await self.store.close()


def _tell_changed(listeners: list[_Ears], key: str) -> None:
    for changed, _ in tuple(listeners):
        changed(key)


def _tell_lost(listeners: list[_Ears]) -> None:
    for _, lost in tuple(listeners):
        lost()


class Lent:
    """A Store like the one that was lent; after ``close`` it hears of nothing more."""

    def __init__(self, lender: Lender) -> None:
        """Borrow from *lender*."""
        store = lender.store
        # The very methods of the store: what every request calls costs nothing more.
        self.get, self.put, self.replace, self.exchange = store.get, store.put, store.replace, store.exchange
        self.take, self.claim, self.release, self.delete = store.take, store.claim, store.release, store.delete
        self.add, self.discard, self.members = store.add, store.discard, store.members
        self.names, self.number, self.count, self.ping = store.names, store.number, store.count, store.ping
        self._lender = lender
        self._ears: list[tuple[str, _Ears]] = []

    async def watch(self, prefix: str, changed: Callable[[str], None], lost: Callable[[], None]) -> None:
        """See Store.watch."""
        ears = changed, lost
        await self._lender.listen(prefix, ears)
        self._ears.append((prefix, ears))

    @property
    def is_watching(self) -> bool:
        """See Store.is_watching."""
        return self._lender.store.is_watching

    async def close(self) -> None:
        """Give it back; the store stays open."""
        for prefix, ears in self._ears:
            self._lender.forget(prefix, ears)
        self._ears.clear()

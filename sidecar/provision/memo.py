"""Remember for a short time who is in order, so that nearly every request is one dictionary lookup."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from sidecar.model import Account, Identity

_MOST = 10_000
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Entry:
    identity: Identity
    roles: tuple[str, ...]
    person_id: str
    account: Account
    until: float


class Memo:
    """The accounts of the people seen last. ``generation`` changes with every loss of knowledge."""

    def __init__(self) -> None:
        """Begin knowing nobody."""
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self.generation = 0

    def get(self, identity: Identity, roles: tuple[str, ...], now: float) -> Account | None:
        """Give the account of *identity* with exactly these claims and *roles*, None when not sure of it."""
        entry = self._entries.get(identity.key)
        if entry is None or now >= entry.until or entry.roles != roles or entry.identity != identity:
            return None
        self._entries.move_to_end(identity.key)
        return entry.account

    def put(
        self, identity: Identity, roles: tuple[str, ...], found: tuple[str, Account], now: float, generation: int
    ) -> None:
        """Keep (person id, account), unless something was forgotten since *generation*: it may have been this."""
        if generation != self.generation:
            return
        self._entries[identity.key] = _Entry(identity, roles, found[0], found[1], now + _SECONDS)
        self._entries.move_to_end(identity.key)
        if len(self._entries) > _MOST:
            self._entries.popitem(last=False)

    def forget(self, person_id: str) -> None:
        """Drop what is known of this person."""
        self.generation += 1
        for key in [key for key, entry in self._entries.items() if entry.person_id == person_id]:
            del self._entries[key]

    def clear(self) -> None:
        """Drop everything."""
        self.generation += 1
        self._entries.clear()


class Flights:
    """Lets those who ask for the same thing at the same time wait for one answer."""

    def __init__(self) -> None:
        """Begin with nothing under way."""
        self._tasks: dict[tuple[str, tuple[str, ...]], tuple[Identity, asyncio.Task[Account]]] = {}

    async def join(
        self, identity: Identity, roles: tuple[str, ...], work: Callable[[], Coroutine[Any, Any, Account]]
    ) -> Account:
        """Run *work*, or wait for the one that runs already for the same identity and *roles*.

        The work goes on when the one who asked goes away: a creation is never left half way.
        """
        key = (identity.key, roles)
        under_way = self._tasks.get(key)
        if under_way is not None and under_way[0] == identity:
            return await asyncio.shield(under_way[1])
        task = asyncio.create_task(work())
        self._tasks[key] = (identity, task)
        task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    def _landed(self, key: tuple[str, tuple[str, ...]], task: asyncio.Task[Account]) -> None:
        if self._tasks.get(key, (None, None))[1] is task:
            del self._tasks[key]
        # Reading the exception keeps asyncio from reporting it when everybody who waited has gone.
        if not task.cancelled():
            task.exception()

    async def wait(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait([task for _, task in self._tasks.values()])

"""Do a thing once for everybody who waits for it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from sidecar.cancelling import cancelled

Thing = TypeVar("Thing")


class Flight(Generic[Thing]):
    """One coroutine at a time; who comes while it runs shares its result or its exception."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, Thing]]) -> None:
        """Run *work* when somebody asks."""
        self._work = work
        self._task: asyncio.Task[Thing] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether the work runs now."""
        return self._task is not None

    def start(self) -> asyncio.Task[Thing]:
        """Start the work unless it runs already; nobody needs to wait for it."""
        if self._task is None:
            self._task = asyncio.create_task(self._work())
            self._task.add_done_callback(self._landed)
        return self._task

    async def join(self) -> Thing:
        """Wait for the work; a waiter that is cancelled leaves it to the others."""
        return await asyncio.shield(self.start())

    async def close(self) -> None:
        """Give the work up."""
        if self._task is not None:
            await cancelled([self._task])

    def _landed(self, task: asyncio.Task[Thing]) -> None:
        self._task = None
        if not task.cancelled():
            # Looked at, so that work nobody waits for does not complain to the event loop.
            task.exception()

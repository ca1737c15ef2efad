"""Let requests wait, unread, while the application has no room for them: waiting in tasks costs several times more."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

# Seconds that a request waits so; after that it waits in a task, as long as ``connect_timeout`` says. With a tenth of a
# second, many at once went on in tasks, which took so much longer that those behind them had to, too, without end.
_MOMENT = 1.0
# Seconds until somebody looks whether there is room, where nobody says so.
_TICK = 0.01


class Waiting(Protocol):
    """Somebody who has a request."""

    def go_on(self) -> None:
        """Try once more; it is not to ``enter`` again with the same request."""


class Queue:
    """Whoever came first goes first; belongs to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, is_full: Callable[[], bool]) -> None:
        """Let go whoever waits when it is not *is_full*."""
        self._loop = loop
        self._is_full = is_full
        # Since when each of them waits.
        self._waiting: OrderedDict[Waiting, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._is_called = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enter(self, one: Waiting) -> None:
        """Have *one* ``go_on`` when there is room, or after a moment."""
        self._waiting[one] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK, self._tick)

    def leave(self, one: Waiting) -> None:
        """Forget about *one*, if it waits."""
        self._waiting.pop(one, None)

    def call(self) -> None:
        """Hear that there may be room."""
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._is_called = False
        latest = self._loop.time() - _MOMENT
        while self._waiting:
            one = next(iter(self._waiting))
            if self._waiting[one] > latest and self._is_full():
                return
            del self._waiting[one]
            one.go_on()

    def _tick(self) -> None:
        self._timer = None
        self._look()
        if self._waiting:
            self._timer = self._loop.call_later(_TICK, self._tick)

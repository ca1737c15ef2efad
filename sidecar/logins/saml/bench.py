"""Do work that costs processor time in a few threads, and take no more of it than can be finished soon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sidecar.faults import Unavailable
from sidecar.reason import Reason

_Done = TypeVar("_Done")
_THREADS = 2
_MOST_WAITING = 32


class Bench:
    """A few threads and a short queue; whoever comes when it is full is told to come back (503)."""

    def __init__(self, most: int = _MOST_WAITING) -> None:
        """Take at most *most* pieces of work at a time, those that run included."""
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="saml")
        self._most = most
        self._taken = 0

    async def work(self, piece: Callable[[], _Done]) -> _Done:
        """Result of *piece*, computed in a thread. Raises Unavailable(BUSY), and whatever *piece* raises."""
        if self._taken >= self._most:
            raise Unavailable(Reason.BUSY, "too many SAML answers at once")
        self._taken += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, piece)
        # Not when the waiting ends, which may be cancelled: the thread works on.
        future.add_done_callback(self._put_down)
        return await asyncio.shield(future)

    def _put_down(self, _: asyncio.Future[_Done]) -> None:
        self._taken -= 1

    def close(self) -> None:
        """Let the threads end after what they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)

"""Cancel tasks, and be sure that they end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_TOLD_AGAIN_AFTER = 5.0


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel *tasks* and wait for all of them; how they ended is nobody's business any more.

    One that goes on is told again: libraries lose a cancellation now and then, as ``asyncio.wait_for`` of Python 3.11
    does for them (https://github.com/python/cpython/issues/86296), and whoever stops would wait for ever.
    """
    all_of_them = list(tasks)
    left = {task for task in all_of_them if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_TOLD_AGAIN_AFTER)
    # Looked at, so that the event loop does not complain of them.
    await asyncio.gather(*all_of_them, return_exceptions=True)

"""Bound what strangers may have kept in the store at the same time, for each worker."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """So many bytes, each of which comes free after a while."""

    def __init__(self, most: int, lifetime: float) -> None:
        """Hold *most* bytes; what is taken comes free after *lifetime* seconds."""
        self._most = most
        self._lifetime = lifetime
        self._taken: deque[tuple[float, int]] = deque()
        self._size = 0

    def take(self, size: int) -> bool:
        """Take *size* bytes; False, and nothing is taken, when there is no room for them now."""
        now = asyncio.get_running_loop().time()
        while self._taken and self._taken[0][0] <= now:
            self._size -= self._taken.popleft()[1]
        if self._size + size > self._most:
            return False
        self._size += size
        self._taken.append((now + self._lifetime, size))
        return True

"""Tie a worker to its parent: it says when it serves, and it ends when the parent is gone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

READY = b"r"


class Leash:
    """The worker's end of a socket pair; for a process without a parent of ours it does nothing."""

    def __init__(self, descriptor: int | None) -> None:
        """Take the end that was inherited as *descriptor*; raises OSError when that is none."""
        self._socket = None if descriptor is None else socket.socket(fileno=descriptor)

    def say_ready(self) -> None:
        """Tell the parent that this worker serves."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(READY)

    def when_torn(self, end: Callable[[], None]) -> None:
        """Call *end* when the parent has died: a worker that nobody replaces or stops must not stay."""
        one = self._socket
        if one is None:
            return
        loop = asyncio.get_running_loop()

        def heard() -> None:
            loop.remove_reader(one)
            end()

        one.settimeout(0)
        loop.add_reader(one, heard)

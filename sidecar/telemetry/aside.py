"""An event loop in a thread of its own, for what must not make the main one wait, nor wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as LateError
from typing import Any, TypeVar

T = TypeVar("T")


class Aside:
    """Runs coroutines elsewhere and waits for them; the thread begins with the first one."""

    def __init__(self, name: str) -> None:
        """Call the thread *name*."""
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def do(self, work: Coroutine[Any, Any, T], patience: float) -> T:
        """What *work* gives; raises what it raises, and OSError after *patience* seconds."""
        future = asyncio.run_coroutine_threadsafe(work, self._begun())
        try:
            return future.result(patience)
        except LateError:
            future.cancel()
            message = f"no answer within {patience:g} s"
            raise OSError(None, message) from None

    def _begun(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # Whatever hangs there must not keep the process from ending.
                threading.Thread(target=_run, args=(self._loop,), name=self._name, daemon=True).start()
            return self._loop

    def end(self) -> None:
        """Let the thread end."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._loop = None


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()

"""Do what operators ask of a sidecar that runs: by signal, by command, by a changed file; and tell systemd."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from sidecar.cancelling import cancelled
from sidecar.cli.control import control
from sidecar.cli.levels import asked_of
from sidecar.cli.outcomes import outcome_fields
from sidecar.cli.watching import Watch, Watched

if TYPE_CHECKING:
    from sidecar.cli.notify import Notifier
    from sidecar.cli.wire import Message
    from sidecar.lasting import Outcome

_log = structlog.get_logger("run")
_TOGGLED_FOR = 600.0
_ALIVE = "alive"


class Operated(Protocol):
    """What is operated: one process, or a parent with its workers."""

    async def reload(self, trigger: str, who: str = "") -> Outcome:
        """See lasting.Reload."""

    async def set_level(self, level: str, logger: str, seconds: float, who: str) -> str:
        """Set a log level everywhere; what is wrong with that, "" when nothing."""

    async def toggle_debug(self, seconds: float) -> None:
        """Log at debug for *seconds*, or no longer."""

    def watched(self) -> Watched:
        """The files that the configuration is made of."""

    async def is_alive(self) -> bool:
        """True while somebody serves."""

    def status(self) -> str:
        """A few words for whoever looks."""


class Operating:
    """Connects one ``Operated`` with everything that it is operated by."""

    def __init__(self, operated: Operated, notifier: Notifier, socket: Path | None) -> None:
        """Commands come in at *socket*."""
        self._operated = operated
        self._notifier = notifier
        self._socket = socket
        self._tasks: set[asyncio.Task[Any]] = set()
        # What is wrong with the newest configuration, and what systemd was told last.
        self._complaint = ""
        self._told = ""

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Listen to signals, commands and files, as long as the block lasts. Raises OSError."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: self._in_background(self.reload("signal")))
        loop.add_signal_handler(signal.SIGUSR2, lambda: self._in_background(self._operated.toggle_debug(_TOGGLED_FOR)))
        async with control(self._socket, self.serve):
            self._in_background(Watch(self._operated.watched, lambda: self.reload("watch")).run())
            if self._notifier.watchdog is not None:
                self._in_background(self._give_signs_of_life(self._notifier.watchdog), _ALIVE)
            self._notifier.ready(self._status())
            try:
                yield
            finally:
                self._notifier.stopping()
                # Signs of life go on until the end; it is the rest that ends now.
                for task in self._tasks:
                    if task.get_name() != _ALIVE:
                        task.cancel()

    async def close(self) -> None:
        """End everything."""
        await cancelled(self._tasks)

    def _in_background(self, work: Coroutine[Any, Any, Any], name: str | None = None) -> None:
        task = asyncio.create_task(_carefully(work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _give_signs_of_life(self, every: float) -> None:
        while True:
            if await self._operated.is_alive():
                self._notifier.alive()
            # Workers come and go between reloads.
            before, now = self._told, self._status()
            if before != now:
                self._notifier.status(now)
            await asyncio.sleep(every)

    async def reload(self, trigger: str, who: str = "") -> Outcome:
        """See lasting.Reload; systemd is told."""
        self._notifier.reloading()
        outcome = await self._operated.reload(trigger, who)
        refused = "; the newest configuration is refused, a former one is in force"
        self._complaint = "" if outcome.is_loaded else refused
        self._notifier.ready(self._status())
        return outcome

    def _status(self) -> str:
        self._told = f"{self._operated.status()}{self._complaint}"
        return self._told

    async def serve(self, message: Message) -> Message:
        """Answer what a command asks."""
        who = str(message.get("who", ""))
        if message.get("do") == "reload":
            return outcome_fields(await self.reload("command", who))
        if message.get("do") == "log-level":
            return {"problem": await self._operated.set_level(*asked_of(message), who)}
        return {"problem": "unknown"}


async def _carefully(work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - what one thing trips over must not end the service
        _log.exception("unexpected fault")

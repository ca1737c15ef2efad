"""One of the application's servers: its connections, its work, and whether it is well."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

import structlog

from sidecar.upstream.circuit import Circuit
from sidecar.upstream.pool import Pool

if TYPE_CHECKING:
    from sidecar.config.service import App
    from sidecar.upstream.target import Target

_log = structlog.get_logger("upstream")


class Happening(Enum):
    """What is told of a server, for metrics."""

    UP = "up"
    DOWN = "down"
    FAULT = "fault"
    REPEAT = "repeat"


Tell = Callable[[Happening, str], None]


class Server:
    """Gets requests while it is neither draining, nor down by its health checks, nor left alone by its circuit."""

    __slots__ = (
        "_bad",
        "_circuit",
        "_downs",
        "_good",
        "_is_checked",
        "_tell",
        "_ups",
        "is_draining",
        "is_up",
        "load",
        "name",
        "pool",
        "target",
    )

    def __init__(self, target: Target, section: App, tell: Tell) -> None:
        """Connect to *target* when first asked; *tell* hears what happens."""
        self.target = target
        self.name = str(target)
        self.pool = Pool(target, bound=section.max_connections, patience=section.connect_timeout.total_seconds())
        self.is_draining = False
        self.is_up = True
        self.load = 0
        self._circuit = Circuit(section.circuit.failures, section.circuit.pause.total_seconds())
        self._ups, self._downs = (section.health.up, section.health.down) if section.health else (1, 1)
        self._good = self._bad = 0
        self._is_checked = False
        self._tell = tell

    def may_serve(self, now: float) -> bool:
        """Whether it may get a new request at *now*, by the monotonic clock."""
        return self.is_up and not self.is_draining and self._circuit.lets_pass(now)

    def enter(self, now: float) -> None:
        """Note that a request goes there."""
        self.load += 1
        self._circuit.enter(now)

    def leave(self) -> None:
        """Note that a request has ended, however it did."""
        self.load -= 1

    def fail(self, error: Exception) -> None:
        """Note that a request failed because of the server."""
        self._tell(Happening.FAULT, self.name)
        if self._circuit.fail(time.monotonic()):
            _log.warning("left alone, because it keeps failing", server=self.name, error=str(error))
            self._tell(Happening.DOWN, self.name)

    def succeed(self) -> None:
        """Note that a request was answered."""
        if self._circuit.succeed():
            _log.info("answers again", server=self.name)
            if self.is_up:
                self._tell(Happening.UP, self.name)

    def checked(self, fault: str) -> None:
        """Note what a health check found, "" when all is well; the very first one decides alone."""
        is_first, self._is_checked = not self._is_checked, True
        self._good, self._bad = (0, self._bad + 1) if fault else (self._good + 1, 0)
        if self.is_up and (self._bad >= self._downs or (is_first and fault)):
            self.is_up = False
            _log.warning("down", server=self.name, because=fault)
            self._tell(Happening.DOWN, self.name)
        elif not self.is_up and self._good >= self._ups:
            self.is_up = True
            self._circuit.succeed()
            _log.info("up again", server=self.name)
            self._tell(Happening.UP, self.name)

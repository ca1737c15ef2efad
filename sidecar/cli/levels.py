"""Change log levels while the process runs, for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from sidecar.telemetry.log import LEVELS, LOGGERS, override

_log = structlog.get_logger("run")
LONGEST = 24 * 3600.0


class Levels:
    """What was set while running, and when it ends."""

    def __init__(self) -> None:
        """Begin with what the configuration says."""
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._set: dict[str, str] = {}

    def set(self, level: str, logger: str, seconds: float) -> str:
        """Set *level* for *logger* ("" for all) for *seconds*, "reset" ends it; what is wrong, "" if nothing."""
        if level not in (*LEVELS, "reset"):
            return f"there is no level {level[:40]!r}; there are {', '.join(LEVELS)}, and reset"
        if logger and logger not in LOGGERS:
            # Never those of libraries: they would log whole requests, queries and their values.
            return f"there is no logger {logger[:40]!r}; there are {', '.join(LOGGERS)}"
        if not 0 < seconds <= LONGEST:
            return "for how long is more than nothing and at most 24h"
        self._end(logger)
        if level != "reset":
            override(logger, level)
            self._set[logger] = level
            self._ends[logger] = asyncio.get_running_loop().call_later(seconds, self._expire, logger)
        return ""

    def _end(self, logger: str) -> None:
        timer = self._ends.pop(logger, None)
        if timer is not None:
            timer.cancel()
        self._set.pop(logger, None)
        override(logger, None)

    def _expire(self, logger: str) -> None:
        self._end(logger)
        _log.warning("the log level is as configured again", logger_name=logger or "all")

    def toggled(self) -> str:
        """The level that a signal asks for: debug, or what is configured."""
        return "reset" if self._set.get("") == "debug" else "debug"


def asked_of(message: Mapping[str, Any]) -> tuple[str, str, float]:
    """(level, logger, seconds) out of *message*."""
    return str(message.get("level", "")), str(message.get("logger", "")), float(message.get("seconds", 0))

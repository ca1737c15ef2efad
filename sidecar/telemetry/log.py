"""Set up the operator's log: structured, on standard error, and never with a secret in it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, Literal

import structlog

from sidecar.core.audit_export import on_one_line

LEVELS = ("debug", "info", "warning", "error")
# Who writes lines here, by the names that a level can be set for.
LOGGERS = (
    "accounts", "app", "application", "audit", "break_glass", "condition", "console", "control", "doorway", "drift",
    "front", "insights", "listening", "metadata", "oidc", "outages", "redis", "reload", "renewing", "run", "scim",
    "serving", "signals", "sync", "upstream", "vault", "webhook", "wire", "workers",
)  # fmt: skip
_NUMBERS = {"exception": logging.ERROR, "warn": logging.WARNING, "msg": logging.INFO, "critical": logging.CRITICAL}
# As syslog has them: from this level on (logging's numbers), the highest first.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
_SECRET_PARTS = ("token", "secret", "password", "cookie", "authorization", "assertion", "code_verifier", "private")


def _without_secrets(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask values under names that usually hold secrets: the last net, not the first."""
    for name in entry:
        if any(part in name.lower() for part in _SECRET_PARTS):
            entry[name] = "***"
    return entry


def _on_one_line(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Let no value speak to the terminal, or begin a line of its own; JSON escapes such signs by itself."""
    for name, value in entry.items():
        if isinstance(value, str):
            entry[name] = on_one_line(value)
    return entry


class _Thresholds:
    """The least level that is written: what is configured, and what was set since by the name of the logger."""

    def __init__(self) -> None:
        self.configured = logging.INFO
        self.overridden: dict[str, int] = {}

    def of(self, logger: str) -> int:
        return self.overridden.get(logger, self.overridden.get("", self.configured))

    def least(self) -> int:
        return min([self.configured, *self.overridden.values()])


_thresholds = _Thresholds()


class _NamedLogger(structlog.WriteLogger):
    """Writes each line in one piece, so that those of several workers stay apart; knows its name."""

    def __init__(self, name: str) -> None:
        super().__init__(file=sys.stderr)
        self.name = name


def _made(*names: Any) -> _NamedLogger:
    return _NamedLogger(str(names[0]) if names else "")


def _without_unwanted(logger: Any, method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _number_of(method) < _thresholds.of(getattr(logger, "name", "")):
        raise structlog.DropEvent
    return entry


def _number_of(method: str) -> int:
    return _NUMBERS.get(method) or logging.getLevelNamesMapping().get(method.upper(), logging.ERROR)


def _with_priority(_logger: Any, method: str, text: str) -> str:
    """*text* as the journal wants it, which takes the priority of each line from its beginning: sd-daemon(3)."""
    number = _number_of(method)
    mark = next(f"<{priority}>" for least, priority in _PRIORITIES if number >= least)
    return mark + text.replace("\n", f"\n{mark}")


def _goes_to_journal() -> bool:
    """Whether it is the journal that reads standard error: systemd.exec(5) on JOURNAL_STREAM."""
    with suppress(OSError, ValueError):
        status = os.fstat(sys.stderr.fileno())
        return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return False


def override(logger: str, level: str | None) -> None:
    """Write lines of *logger* ("" for all) from *level* on, None for what is configured, from now on.

    Libraries' own lines stay at warnings whatever is set: below that they hold whole requests and queries.
    """
    if level is None:
        _thresholds.overridden.pop(logger, None)
    else:
        _thresholds.overridden[logger] = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_thresholds.least()))


def set_up(level: str, style: Literal["auto", "json", "text"]) -> None:
    """Send everything at *level* and above to standard error; "auto" is text on a terminal, JSON elsewhere.

    Systemd's journal is told the priority of each line.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    _thresholds.configured = number
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    in_colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_secrets,
    ]
    # Plain tracebacks: the pretty ones show local variables, and with them tokens and cookies.
    endings: list[Any] = (
        [
            _on_one_line,
            structlog.dev.ConsoleRenderer(colors=in_colour, exception_formatter=structlog.dev.plain_traceback),
        ]
        if as_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    if _goes_to_journal():
        endings.append(_with_priority)
    structlog.configure(
        processors=[_without_unwanted, *shared, *endings],
        wrapper_class=structlog.make_filtering_bound_logger(_thresholds.least()),
        logger_factory=_made,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *endings],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))

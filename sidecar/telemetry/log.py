"""Set up the operator's log: structured, on standard error, and never with a secret in it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

_SECRET_PARTS = ("token", "secret", "password", "cookie", "authorization", "assertion", "code_verifier", "private")


def _without_secrets(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask values under names that usually hold secrets: the last net, not the first."""
    for name in entry:
        if any(part in name.lower() for part in _SECRET_PARTS):
            entry[name] = "***"
    return entry


def set_up(level: str, style: Literal["auto", "json", "text"]) -> None:
    """Send everything at *level* and above to standard error; "auto" is text on a terminal, JSON elsewhere."""
    number = logging.getLevelNamesMapping()[level.upper()]
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
        [structlog.dev.ConsoleRenderer(colors=in_colour, exception_formatter=structlog.dev.plain_traceback)]
        if as_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *endings],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
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

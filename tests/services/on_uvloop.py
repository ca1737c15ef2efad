"""A pytest plugin that runs asynchronous tests on uvloop: ``pytest -p tests.services.on_uvloop``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Name the one event loop that tests run on."""
    return {"uvloop": uvloop.new_event_loop}

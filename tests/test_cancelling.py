"""Whoever stops waits for its tasks, also for one that lost the word to end."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from sidecar import cancelling
from sidecar.cancelling import cancelled


async def deaf(times: int) -> None:
    """Lose the word to end so many times, as ``asyncio.wait_for`` of Python 3.11 does."""
    for _ in range(times):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
    await asyncio.sleep(3600)


async def broken() -> None:
    raise RuntimeError("of this task")


async def tidy(tidied: list[str]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.05)
        tidied.append("up")


async def test_tasks_end_however_often_they_must_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "_TOLD_AGAIN_AFTER", 0.02)
    tasks = [asyncio.create_task(deaf(times)) for times in (0, 1, 3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await cancelled(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_what_is_tidied_up_is_waited_for_and_nothing_is_raised() -> None:
    tidied: list[str] = []
    tasks = [asyncio.create_task(tidy(tidied)), asyncio.create_task(broken())]
    await asyncio.sleep(0)
    await cancelled(tasks)
    await cancelled(tasks)
    await cancelled([])
    assert tidied == ["up"]


async def test_whoever_waits_can_be_told_to_end_as_well() -> None:
    task = asyncio.create_task(deaf(1))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(cancelled([task]))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    await cancelled([task])

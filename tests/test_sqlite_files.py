"""A file of SQLite that cannot be opened leaves nothing behind: no thread that answers a loop which has ended."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import aiosqlite.core
import pytest

from sidecar.config.values import Dsn
from sidecar.directory.database import Database
from sidecar.faults import Unavailable
from sidecar.hooks.databases import open_engine


@pytest.fixture
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's thread comes to its last order late."""
    stop = aiosqlite.core.Connection.stop

    def stop_late(connection: aiosqlite.core.Connection) -> asyncio.Future[object] | None:
        connection._tx.put_nowait((None, partial(time.sleep, 0.2)))
        return stop(connection)

    monkeypatch.setattr(aiosqlite.core.Connection, "stop", stop_late)


async def hook_fails(folder: Path) -> None:
    engine = open_engine(Dsn(f"sqlite:///{folder}/missing.sqlite"), timedelta(seconds=5))
    with pytest.raises(Exception, match="unable to open database file"):
        async with engine.connect():
            pass
    await engine.dispose()


async def directory_fails(folder: Path) -> None:
    database = Database(f"sqlite:///{folder}/no-folder/directory.db", 5)
    with pytest.raises(Unavailable):
        await database.ping()
    await database.close()


@pytest.mark.usefixtures("busy_machine")
@pytest.mark.parametrize("fail", [directory_fails, hook_fails])
def test_a_failed_attempt_leaves_no_thread(
    fail: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda hook: died.append(hook.exc_value))
    before = set(threading.enumerate())
    asyncio.run(fail(tmp_path))
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(5)
    assert (left, died) == (set(), [])

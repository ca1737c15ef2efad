"""Workers that cannot be started, or never get ready, take nothing from those that serve."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bench.soak import CONFIG, Client, Tally
from sidecar.cli import workers
from sidecar.cli.notify import Notifier
from sidecar.config.loader import load
from tests.services.nginx import Nginx
from tests.services.process import free_port, start_on_free_port
from tests.services.redis import RedisServer
from tests.world import until

PATIENCE = 120
SECRET = "a secret that is long enough for a test"

pytestmark = pytest.mark.timeout(400)

# Stands where the interpreter does: while a file named "stuck" is there, what it starts never says a word.
COMMAND = """#!/bin/sh
if [ -e "{folder}/stuck" ]; then exec sleep 1000; fi
exec {python} -m sidecar "$@"
"""


class Running:
    """A parent in this process, its workers in theirs."""

    def __init__(self, folder: Path, port: int, parent: workers.Workers, logs: list[Any]) -> None:
        self.folder = folder
        self.port = port
        self.parent = parent
        self._logs = logs
        self.program = folder / "program"

    def said(self, what: str) -> int:
        """How often the parent said *what*."""
        return sum(str(line["event"]) == what for line in self._logs)

    def serving(self) -> list[int]:
        """Process ids of the workers that serve."""
        return [one.process.pid for one in self.parent._assembly.serving()]

    async def answers(self) -> None:
        """Ask for a page, several times; each must be answered."""
        tally = Tally()
        asking = asyncio.create_task(Client(self.port, tally, 1).run(float("inf")))

        async def some() -> bool:
            return tally.done >= 20 or bool(tally.failed)

        await until(some, within=PATIENCE)
        asking.cancel()
        assert not tally.failed

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until *holds*; fails with what the parent has said."""

        async def does() -> bool:
            return bool(holds())

        try:
            await until(does, within=PATIENCE)
        except TimeoutError:
            pytest.fail(f"the parent said {self._logs}")


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    monkeypatch.setenv("SOAK_SECRET", SECRET)
    redis = start_on_free_port(RedisServer)
    application = start_on_free_port(lambda at: Nginx(at, 'location / { return 200 "page"; }'))
    try:
        async with _parent(tmp_path, redis, application) as parent:
            yield parent
    finally:
        redis.discard()
        application.discard()


@asynccontextmanager
async def _parent(folder: Path, redis: RedisServer, application: Nginx) -> AsyncIterator[Running]:
    port = free_port()
    file, program = folder / "config.yaml", folder / "program"
    one, other = application.url, f"http://localhost:{application.port}"
    file.write_text(CONFIG.format(port=port, workers=2, one=one, other=other, redis=redis.url, folder=folder))
    program.write_text(COMMAND.format(folder=folder, python=sys.executable))
    program.chmod(0o755)
    parent = workers.Workers(load(file, environment=os.environ).config, [str(program), "run", str(file)], Notifier({}))
    with capture_logs() as logs:
        run = asyncio.create_task(parent.run())
        made = Running(folder, port, parent, logs)
        try:
            await made.until(lambda: len(made.serving()) == 2)
            yield made
        finally:
            parent._stop()
            async with asyncio.timeout(PATIENCE):
                assert await run == 0


async def test_a_worker_for_which_there_is_no_process_is_started_when_there_is_one(running: Running) -> None:
    away = running.program.rename(running.folder / "away")
    stays, dies = running.serving()
    os.kill(dies, signal.SIGKILL)
    await running.until(lambda: running.said("a worker cannot be started") >= 2)
    assert running.serving() == [stays]
    await running.answers()
    away.rename(running.program)
    await running.until(lambda: len(running.serving()) == 2)


async def test_a_renewal_for_which_there_is_no_process_leaves_the_old_ones(running: Running) -> None:
    away = running.program.rename(running.folder / "away")
    before = running.serving()
    running.parent._renewal.set()
    await running.until(lambda: running.said("a new worker cannot be started, the old ones stay"))
    assert running.serving() == before
    away.rename(running.program)
    running.parent._renewal.set()
    await running.until(lambda: running.said("the workers are new"))
    assert not set(running.serving()) & set(before)


async def test_a_worker_that_never_gets_ready_is_killed_and_another_one_started(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = running.folder / "stuck"
    stuck.touch()
    monkeypatch.setattr(workers, "_LONGEST_START", 1.0)
    stays, dies = running.serving()
    os.kill(dies, signal.SIGKILL)
    await running.until(lambda: running.said("a worker does not get ready, it is killed") >= 2)
    assert running.serving() == [stays]
    await running.answers()
    monkeypatch.setattr(workers, "_LONGEST_START", float(PATIENCE))
    stuck.unlink()
    await running.until(lambda: len(running.serving()) == 2)
    assert running.parent.status() == "2 of 2 workers serve"

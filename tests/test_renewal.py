"""Workers are renewed one by one under load, and nobody notices; what does not start renews nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.soak import Client, Tally, sidecar
from tests.world import until


@dataclass
class Soaked:
    """A sidecar with two workers as a process of its own."""

    process: asyncio.subprocess.Process
    port: int
    folder: Path

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def workers(self) -> list[str]:
        """Process ids of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return sorted(children.read_text().split())

    async def says(self, text: str, times: int = 1) -> None:
        async def said() -> bool:
            return self.log().count(text) >= times

        try:
            await until(said, within=60)
        except TimeoutError:
            pytest.fail(f"{text!r} is not there {times} times (the process: {self.process.returncode}): {self.log()}")


@pytest.fixture
async def soaked(tmp_path: Path) -> AsyncIterator[Soaked]:
    async with sidecar(tmp_path, 2) as (process, port):
        running = Soaked(process, port, tmp_path)
        await running.says("listening", 2)
        yield running


async def loaded(running: Soaked, tally: Tally, seconds: float) -> None:
    await asyncio.gather(*(Client(running.port, tally, number).run(time.monotonic() + seconds) for number in range(4)))


async def test_workers_are_renewed_under_load_without_one_failed_request(soaked: Soaked) -> None:
    before = soaked.workers()
    tally = Tally()
    load = asyncio.create_task(loaded(soaked, tally, 600))
    soaked.process.send_signal(signal.SIGUSR1)
    await soaked.says("the workers are new")
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)
    assert tally.done > 0
    assert not tally.failed
    assert len(soaked.workers()) == 2
    assert not set(soaked.workers()) & set(before)


async def test_a_configuration_that_does_not_load_renews_nothing(soaked: Soaked) -> None:
    before = soaked.workers()
    file = soaked.folder / "config.yaml"
    good = file.read_text()
    file.write_text(good + "nonsense: 1\n")
    soaked.process.send_signal(signal.SIGUSR1)
    await soaked.says("the old ones stay")
    assert soaked.workers() == before
    tally = Tally()
    await loaded(soaked, tally, 0.2)
    assert not tally.failed
    # And the next time it is mended.
    file.write_text(good)
    soaked.process.send_signal(signal.SIGUSR1)
    await soaked.says("the workers are new")
    assert not set(soaked.workers()) & set(before)


async def test_it_stops_in_the_middle_of_a_renewal(soaked: Soaked) -> None:
    soaked.process.send_signal(signal.SIGUSR1)
    await soaked.says("renewing the workers")
    soaked.process.terminate()
    async with asyncio.timeout(40):
        assert await soaked.process.wait() == 0


async def test_a_worker_that_was_renewed_is_replaced_when_it_dies(soaked: Soaked) -> None:
    soaked.process.send_signal(signal.SIGUSR1)
    await soaked.says("the workers are new")

    os.kill(int(soaked.workers()[0]), signal.SIGKILL)
    await soaked.says("a worker died")
    await soaked.says("listening", 5)
    assert len(soaked.workers()) == 2

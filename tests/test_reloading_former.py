"""Former configurations live on for their streams, but not without bound, and tracing comes and goes with a reload."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from tests.test_reloading import Reloadable, reloadable
from tests.test_tracing import Collector, a_collector, tracing
from tests.world import World, until

MOST = 32
pytestmark = pytest.mark.timeout(300)


async def test_beyond_32_former_configurations_the_oldest_streams_are_closed(world: World) -> None:
    one = await reloadable(world)
    headers = {"Origin": one.running.url}
    async with one.running.browser() as browser, AsyncExitStack() as stack:
        await browser.sign_in("ada")

        async def opened() -> aiohttp.ClientWebSocketResponse:
            return await stack.enter_async_context(browser.http.ws_connect(f"{one.running.url}/ws", headers=headers))

        async def lives(socket: aiohttp.ClientWebSocketResponse) -> bool:
            await socket.send_str("are you there")
            return await socket.receive_str(timeout=5) == "echo are you there"

        sockets = [await opened()]
        for number in range(MOST):
            assert (await one.change({"pages": {"support": f"number {number}"}})).is_loaded
            sockets.append(await opened())
        assert one.reloading.sidecar.former == MOST
        assert all([await lives(socket) for socket in sockets])
        # Three more, as quickly as they can come: three of them are given up, the oldest ones.
        for number in range(3):
            assert (await one.change({"pages": {"support": f"more {number}"}})).is_loaded
        for socket in sockets[:3]:
            message = await socket.receive(timeout=10)
            # What it was told counts, not whether it could still say goodbye: it reads late on a slow machine.
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)

        async def is_bounded() -> bool:
            return one.reloading.sidecar.former <= MOST

        await until(is_bounded, within=20)
        assert all([await lives(socket) for socket in sockets[3:]])
        # Nobody else noticed: whoever comes gets in.
        assert (await browser.page("/page")).status == 200
    assert (await one.change({"pages": {"support": "the last"}})).is_loaded

    async def is_over() -> bool:
        return one.reloading.sidecar.former == 0

    await until(is_over, within=20)


def exporters() -> int:
    """Threads that send spans."""
    return sum("otel" in thread.name.lower() for thread in threading.enumerate())


class Asking:
    """Somebody who asks all the time; each request has to be answered."""

    def __init__(self, one: Reloadable) -> None:
        self.one, self.done = one, 0
        self._is_over = False

    async def run(self) -> None:
        """Until told to stop."""
        async with aiohttp.ClientSession() as http:
            while not self._is_over:
                async with http.get(f"{self.one.running.url}/public/x") as answer:
                    assert answer.status == 200, await answer.text()
                self.done += 1

    async def some(self) -> None:
        """Wait for some more answers."""
        goal = self.done + 20

        async def is_reached() -> bool:
            return self.done >= goal

        await until(is_reached)

    def stop(self) -> None:
        """Enough."""
        self._is_over = True


async def test_tracing_is_turned_on_moved_and_turned_off_without_losing_a_request(
    world: World, one_collector: Collector, other: Collector
) -> None:
    public = {"access": [{"path": "/public/**", "allow": "anyone"}, {"path": "/**", "allow": {"role": "admin"}}]}
    one, collector = await reloadable(world, public), one_collector
    before = exporters()
    asking = Asking(one)
    task = asyncio.create_task(asking.run())

    async def settled(threads: int) -> None:
        async def is_settled() -> bool:
            return one.reloading.sidecar.former == 0 and exporters() == before + threads

        await until(is_settled, within=20)

    async def now(changes: dict[str, Any]) -> None:
        assert not task.done(), task
        assert (await one.change(changes)).is_loaded
        await asking.some()

    try:
        await asking.some()
        assert collector.spans == []
        await now(tracing(collector))
        await settled(1)
        # Something else changes: the same exporter goes on.
        await now({"pages": {"support": "somebody"}})
        await settled(1)
        await now(tracing(other))
        # What waited for the first one was sent to it, not lost.
        await settled(1)
        there = len(collector.spans)
        assert there >= 40
        await now({"tracing": None})
        await settled(0)
        assert len(other.spans) >= 20
        assert len(collector.spans) == there
        for number in range(6):
            await now(tracing(collector if number % 2 else other, 1, service=f"wiki-{number}"))
        await now({"tracing": None})
        await settled(0)
    finally:
        asking.stop()
        await task


@pytest.fixture
async def one_collector() -> AsyncIterator[Collector]:
    """A collector that listens."""
    async with a_collector() as made:
        yield made


@pytest.fixture
async def other() -> AsyncIterator[Collector]:
    """Another one."""
    async with a_collector() as made:
        yield made

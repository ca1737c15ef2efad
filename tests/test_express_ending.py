"""A client's connection that is told to end, or that has more to say than fits, while its request is on its way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.services.upstream import until
from tests.station import LENGTH, Link, Station, station_of, whole
from tests.test_express_serving import SLOWLY, get, only_connection, targets
from tests.world import World


@pytest.fixture
def station(world: World) -> Callable[..., Any]:
    """Make a station; *changes* are those of the configuration."""
    return partial(station_of, world)


async def depart(here: Station, link: Link, said: bytes = b"wait") -> None:
    """Send a request on its way, which *said* will answer."""
    here.says = [said]
    link.writer.write(get(here, "/1"))
    await until(lambda: here.heads)
    assert here.again == [True]


@pytest.mark.parametrize("said", [b"wait", SLOWLY])
async def test_whoever_shuts_down_waits_for_what_is_on_its_way_and_no_longer(station: Any, said: bytes) -> None:
    async with station() as here, here.regular() as link:
        await depart(here, link, said)
        began = time.monotonic()
        stopping = asyncio.create_task(only_connection(here).shutdown(10))
        await asyncio.sleep(0.02)
        # What comes only now is too late.
        link.writer.write(get(here, "/2"))
        await asyncio.sleep(0.02)
        here.waits.set()
        assert (await whole(link.reader)).startswith(b"HTTP/1.1 200 OK")
        assert await link.reader.read() == b""
        await stopping
        assert time.monotonic() - began < 5
        assert targets(here) == [b"/1"]
        await until(lambda: here.is_quiet)


async def test_whoever_shuts_down_does_not_wait_for_ever(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await depart(here, link)
        await only_connection(here).shutdown(0.1)
        assert await link.reader.read() == b""
        await until(lambda: here.is_quiet)


async def test_a_connection_that_is_shut_down_while_idle_takes_nothing_new(station: Any) -> None:
    async with station() as here, here.regular() as link:
        stopping = asyncio.create_task(only_connection(here).shutdown(0.3))
        await asyncio.sleep(0.05)
        link.writer.write(get(here, "/1"))
        assert await link.reader.read() == b""
        await stopping
        assert here.heads == here.again == []


@pytest.mark.parametrize("is_at_once", [True, False])
async def test_a_request_that_nobody_can_take_over_ends_its_connection(station: Any, is_at_once: bool) -> None:
    async with station() as here, here.regular() as link:
        await depart(here, link)
        # Its task is told to end, and a moment later it has.
        only_connection(here).close()
        if not is_at_once:
            await asyncio.sleep(0.02)
        await here.running.sidecar.front.gate.upstream.close()
        async with asyncio.timeout(5):
            assert await link.reader.read() == b""
        await until(lambda: here.is_quiet)


async def test_the_answer_still_comes_on_a_connection_that_shall_close_and_is_the_last(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await depart(here, link)
        only_connection(here).close()
        await asyncio.sleep(0.02)
        here.waits.set()
        assert (await whole(link.reader)).endswith(LENGTH[-2:])
        async with asyncio.timeout(5):
            assert await link.reader.read() == b""


@pytest.mark.parametrize("said", [b"wait", SLOWLY])
async def test_whoever_said_more_than_is_held_is_heard_again_afterwards(station: Any, said: bytes) -> None:
    async with station() as here, here.regular() as link:
        await depart(here, link, said)
        # Few enough for the parser to take all of them at once, so that nobody but us stops and goes on reading.
        link.writer.write(get(here, "/2", f"X-Long: {'x' * 7000}") * 12)
        here.waits.set()
        for _ in range(1 + 12):
            assert b" 200 OK" in (await whole(link.reader))[:20]
        async with asyncio.timeout(5):
            assert b" 200 OK" in (await link.ask(get(here, "/3")))[:20]


async def test_a_connection_stops_listening_while_more_is_held_than_may_be(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await depart(here, link)
        connection = only_connection(here)
        link.writer.write(get(here, "/2", f"X-Long: {'x' * 7000}") * 12)
        await until(lambda: len(connection._held) > 64 * 1024)
        assert connection.transport is not None
        await until(lambda: not connection.transport.is_reading())  # type: ignore[union-attr, attr-defined]
        here.waits.set()
        await whole(link.reader)
        assert connection._held == b""
        await until(connection.transport.is_reading)  # type: ignore[attr-defined]

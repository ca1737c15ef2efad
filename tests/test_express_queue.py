"""While the application has no room, requests wait unread: in order, not for long, and nothing of them is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from sidecar import queueing
from sidecar.queueing import Queue
from tests.services.upstream import until
from tests.station import ASKED, Link, Station, station_of, whole
from tests.world import World


@pytest.fixture
def station(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make a station before an application with room for one request; *changes* are those of the configuration."""
    # Long enough to be seen.
    monkeypatch.setattr(queueing, "_MOMENT", 5.0)
    return partial(station_of, world, {"app": {"max_connections": 1}})


def queue_of(here: Station) -> Queue:
    return here.running.sidecar._listener._servers[0].queue  # type: ignore[union-attr]


def get(here: Station, target: str, *more: str) -> bytes:
    return here.request(f"GET {target} HTTP/1.1", *ASKED[1:], *more)


@asynccontextmanager
async def crowd(here: Station, many: int) -> AsyncIterator[list[Link]]:
    """So many clients whose lines are known; the application takes its time with a request of the first one."""
    async with AsyncExitStack() as stack:
        links = [await stack.enter_async_context(here.regular()) for _ in range(many)]
        here.says.append(b"wait")
        links[0].writer.write(get(here, "/first"))
        await until(lambda: len(here.heads) == 1)
        yield links
        here.waits.set()


async def queued(here: Station, *requests: tuple[Link, bytes]) -> None:
    """Have these wait, in this order."""
    for link, data in requests:
        before = len(queue_of(here))
        link.writer.write(data)
        await until(lambda before=before: len(queue_of(here)) == before + 1)


def targets(here: Station) -> list[bytes]:
    return [head.split()[1] for head in here.heads]


async def test_whoever_came_first_goes_first_and_nobody_takes_a_task(
    station: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What makes room says so.
    monkeypatch.setattr(queueing, "_TICK", 1000.0)
    async with station() as here, crowd(here, 5) as links:
        await queued(here, *((link, get(here, f"/{number}")) for number, link in enumerate(links[1:], 1)))
        assert targets(here) == [b"/first"]
        here.waits.set()
        for link in links:
            assert (await whole(link.reader)).endswith(b"\r\n\r\nok")
        assert targets(here) == [b"/first", b"/1", b"/2", b"/3", b"/4"]
        # The first that waits was tried in vain; after it nobody is while others wait.
        assert here.again == [True, False, True, True, True, True]
        assert here.taken == []
        assert len(here.application.callers) == 1
        assert len(queue_of(here)) == 0
        # And once more.
        here.forget()
        here.waits.clear()
        here.says.append(b"wait")
        links[4].writer.write(get(here, "/first"))
        await until(lambda: len(here.heads) == 1)
        await queued(here, (links[1], get(here, "/1")), (links[0], get(here, "/2")))
        here.waits.set()
        for link in (links[4], links[1], links[0]):
            assert (await whole(link.reader)).endswith(b"\r\n\r\nok")
        assert targets(here) == [b"/first", b"/1", b"/2"]
        assert here.taken == []


async def test_after_a_moment_it_waits_in_a_task(station: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with station() as here, crowd(here, 2) as links:
        monkeypatch.setattr(queueing, "_MOMENT", 0.05)
        links[1].writer.write(get(here, "/second"))
        await until(lambda: here.running.sidecar.front.gate.upstream.servers[0].pool.waiting == 1)
        assert here.taken == [False]
        assert len(queue_of(here)) == 0
        here.waits.set()
        assert b"200 OK" in await whole(links[1].reader)
        assert targets(here) == [b"/first", b"/second"]


async def test_whoever_leaves_meanwhile_is_forgotten(station: Any) -> None:
    async with station() as here, crowd(here, 3) as links:
        await queued(here, (links[1], get(here, "/gone")), (links[2], get(here, "/there")))
        links[1].writer.transport.abort()
        await until(lambda: len(queue_of(here)) == 1)
        here.waits.set()
        assert b"200 OK" in await whole(links[2].reader)
        assert targets(here) == [b"/first", b"/there"]
        await until(lambda: here.is_quiet)


async def test_what_is_not_for_the_application_does_not_wait(station: Any) -> None:
    async with station() as here, crowd(here, 3) as links:
        await queued(here, (links[1], get(here, "/second")))
        answer = await asyncio.wait_for(links[2].ask(get(here, "/-/me")), 3)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"ada" in answer
        assert len(queue_of(here)) == 1


async def test_a_session_that_ends_meanwhile_opens_nothing(station: Any) -> None:
    async with station() as here, crowd(here, 2) as links:
        await queued(here, (links[1], get(here, "/second")))
        await here.running.sidecar.front.gate.keeper.end(here.token)
        here.waits.set()
        assert (await whole(links[1].reader)).split()[1] in (b"302", b"303", b"401")
        assert targets(here) == [b"/first"]


async def test_what_comes_behind_it_comes_after_it(station: Any) -> None:
    async with station() as here, crowd(here, 2) as links:
        data = get(here, "/second")
        await queued(here, (links[1], data[:50]))
        links[1].writer.write(data[50:] + get(here, "/third") + get(here, "/-/me"))
        await asyncio.sleep(0.05)
        here.waits.set()
        answers = [await whole(links[1].reader) for _ in range(3)]
        assert [answer.endswith(b"\r\n\r\nok") for answer in answers] == [True, True, False]
        assert targets(here) == [b"/first", b"/second", b"/third"]


@pytest.mark.parametrize("size", [1000, 60_000, 400_000])
async def test_a_body_waits_with_its_request(station: Any, size: int) -> None:
    async with station() as here, crowd(here, 2) as links:
        body = bytes(number % 251 for number in range(size))
        start = here.request("POST /form HTTP/1.1", *ASKED[1:], f"Content-Length: {size}")
        await queued(here, (links[1], start + body[:500]))
        links[1].writer.write(body[500:])
        await asyncio.sleep(0.1)
        here.waits.set()
        assert b"200 OK" in await whole(links[1].reader)
        assert here.bodies == [b"", body]


async def test_the_last_of_a_connection_may_wait(station: Any) -> None:
    async with station() as here, crowd(here, 1):
        link = Link(*await here.dial())
        await queued(here, (link, here.request("GET /last HTTP/1.0", *ASKED[1:-1])))
        here.waits.set()
        answer = await asyncio.wait_for(link.reader.read(), 10)
        assert answer.endswith(b"\r\n\r\nok")
        assert b"\r\nConnection: close\r\n" in answer
        link.writer.close()


async def test_nobody_waits_so_at_a_sidecar_that_leaves(station: Any) -> None:
    async with station() as here, crowd(here, 3) as links:
        await queued(here, (links[1], get(here, "/second")))
        stopping = asyncio.create_task(here.running.sidecar.stop())
        try:
            await until(lambda: here.running.sidecar._listener._is_draining)  # type: ignore[union-attr]
            links[2].writer.write(get(here, "/third"))
            # It is for the task, which says that the connection ends.
            await until(lambda: len(queue_of(here)) == 0)
            here.waits.set()
            for link in links[1:]:
                assert b"\r\nConnection: close\r\n" in await whole(link.reader)
            assert sorted(targets(here)) == [b"/first", b"/second", b"/third"]
        finally:
            here.waits.set()
            await stopping


async def test_a_crowd_is_served_over_the_connections_that_there_may_be(world: World) -> None:
    async with station_of(world, {"app": {"max_connections": 4}}) as here, AsyncExitStack() as stack:
        links = [await stack.enter_async_context(here.regular()) for _ in range(40)]

        async def ask(number: int, link: Link) -> list[bytes]:
            return [await link.ask(get(here, f"/{number}/{turn}")) for turn in range(5)]

        answers = await asyncio.gather(*(ask(number, link) for number, link in enumerate(links)))
        assert all(answer.endswith(b"\r\n\r\nok") for some in answers for answer in some)
        assert sorted(targets(here)) == sorted(b"/%d/%d" % (number, turn) for number in range(40) for turn in range(5))
        assert len(here.application.callers) <= 4
        assert len(queue_of(here)) == 0
        await until(lambda: here.is_quiet)


class One:
    """Somebody who waits in a queue."""

    def __init__(self, gone: list[str], name: str) -> None:
        self.gone, self.name = gone, name

    def go_on(self) -> None:
        self.gone.append(self.name)


async def test_a_queue_lets_go_while_there_is_room() -> None:
    room = [0]
    gone: list[str] = []

    def is_full() -> bool:
        room[0] -= 1
        return room[0] < 0

    queue = Queue(asyncio.get_running_loop(), is_full)
    every = [One(gone, name) for name in "abcd"]
    for one in every:
        queue.enter(one)
    queue.leave(every[1])
    queue.leave(every[1])
    room[0] = 1
    queue.call()
    queue.call()
    await asyncio.sleep(0)
    assert gone == ["a"]
    # Nobody says that there is room: it is found by looking.
    room[0] = 1
    await until(lambda: gone == ["a", "c"])
    began = time.monotonic()
    # And whoever has waited long enough goes on without any.
    await until(lambda: gone == ["a", "c", "d"])
    assert time.monotonic() - began < 5
    assert len(queue) == 0
    await asyncio.sleep(0.03)
    assert queue._timer is None

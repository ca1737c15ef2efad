"""The shortest way is left when the application's side does not allow it, and counts there like any other way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sidecar.arrival import Arrival
from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.upstream.connection import Connection
from tests.services.upstream import Caller, raw_application, until
from tests.station import ASKED, LENGTH, Link, Station, station_of, whole
from tests.world import World


@pytest.fixture
def station(world: World) -> Callable[..., Any]:
    """Make a station; *changes* are those of the configuration."""
    return partial(station_of, world)


def upstream(here: Station) -> Any:
    return here.running.sidecar.front.gate.upstream


def overheard(notes: list[str], name: str, way: Callable[..., Any]) -> Callable[..., Any]:
    """What does the same as *way*, and notes that it was asked."""

    def noted(*given: Any) -> Any:
        notes.append(name)
        return way(*given)

    return noted


async def asked(here: Station, link: Link, times: int) -> list[bytes]:
    """Answers to so many ordinary requests, each of which went without a task."""
    here.forget()
    answers = [await link.ask(here.request()) for _ in range(times)]
    assert here.again == [True] * times
    return answers


async def test_an_upstream_that_is_being_left_says_so_by_the_task(station: Any) -> None:
    async with station() as here, here.regular() as link:
        upstream(here).drain()
        assert b"\r\nConnection: close\r\n" in await link.ask(here.request())
        assert here.again == [False]


async def test_whoever_is_told_the_servers_own_name_takes_the_task(station: Any) -> None:
    async with station({"app": {"host": "upstream"}}) as here:
        link = Link(*await here.dial())
        for _ in range(3):
            await link.ask(here.request())
        own = here.application.url.removeprefix("http://")
        assert [f"\r\nHost: {own}\r\n".encode() in head for head in here.heads] == [True] * 3
        link.writer.close()


async def test_a_client_that_does_not_read_is_waited_for(station: Any) -> None:
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40_000
    async with station() as here:
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", here.running.port))
        reader, writer = await asyncio.open_connection(sock=peer, limit=4096)
        answered = 0
        while answered < 3 or here.again[-1]:
            # Nobody reads, so that only the application tells when the next may come.
            here.says = [large]
            writer.write(here.request())
            await until(lambda: not here.says)
            answered += 1
            await asyncio.sleep(0.005)
            assert answered < 500
        assert here.again.count(True) > 1
        for _ in range(answered):
            await whole(reader)
        writer.close()


@pytest.mark.uncompiled
async def test_a_connection_that_takes_nothing_is_given_back(station: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    send, failing = Connection.send, [True]

    def sending(connection: Connection, data: bytes) -> None:
        if failing:
            failing.pop()
            raise Unavailable(Reason.UPSTREAM_DOWN, "it broke in this very moment", 502)
        send(connection, data)

    async with station() as here, here.regular() as link:
        monkeypatch.setattr(Connection, "send", sending)
        assert b"200 OK" in await link.ask(here.request())
        assert here.again == [False]
        assert upstream(here).servers[0].pool.busy == 0
        assert upstream(here).servers[0].load == 0


@pytest.mark.uncompiled
async def test_what_waits_for_a_place_is_not_tried_without_a_task(
    station: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with station({"app": {"max_connections": 1}}) as here, here.regular() as link:
        there = upstream(here)
        tried: list[str] = []
        for name in ("again", "target"):
            monkeypatch.setattr(Arrival, name, overheard(tried, name, getattr(Arrival, name)))
        assert there.is_at_hand
        here.says = [b"wait"]
        other = Link(*await here.dial())
        other.writer.write(here.request("GET /waits HTTP/1.1", *ASKED[1:]))
        await until(lambda: here.heads)
        assert not there.is_at_hand
        here.forget()
        tried.clear()
        link.writer.write(here.request())
        await until(lambda: there.servers[0].pool.waiting)
        # In vain at first, and when it had waited for a moment; it was read once, by the task.
        assert (here.again, here.taken, tried) == ([False, False], [False], ["target"])
        here.waits.set()
        for one in (other, link):
            assert (await whole(one.reader)).endswith(b"ok")
        assert there.is_at_hand
        other.writer.close()


async def test_it_counts_as_a_request_under_way(station: Any) -> None:
    async with station() as here, here.regular() as link:
        server = upstream(here).servers[0]
        here.says = [b"wait"]
        link.writer.write(here.request())
        await until(lambda: here.heads)
        assert (here.again, server.load, server.pool.busy) == ([True], 1, 1)
        here.waits.set()
        await whole(link.reader)
        assert (server.load, server.pool.busy) == (0, 0)
        link.writer.write(here.request())
        here.waits.clear()
        here.says = [b"wait"]
        await until(lambda: server.load)
        link.writer.transport.abort()
        await until(lambda: not server.load)
        assert server.pool.busy == 0


async def test_it_counts_for_how_many_may_be_repeated(station: Any) -> None:
    async with station({"app": {"repeats": 100}}) as here, here.regular() as link:
        budget = upstream(here)._budget
        for _ in range(3):
            assert budget.spend()
        left = budget._left
        await asked(here, link, 2)
        assert budget._left == left + 2


async def test_an_answer_tells_that_the_server_is_well(station: Any) -> None:
    async with station({"app": {"circuit": {"failures": 2}, "repeats": 0}}) as here, here.regular() as link:
        for _ in range(3):
            here.says = [b"hang up"]
            assert b" 502 " in (await link.ask(here.request("POST /p HTTP/1.1", *ASKED[1:], "Content-Length: 0")))[:20]
            # A connection is idle again, and somebody is known again.
            here.running.sidecar.front.gate.upstream.servers[0]._circuit._in_a_row = 1
            connection = await upstream(here).servers[0].pool.take(fresh=True)
            connection.begin(for_head=False)
            connection.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            connection.is_sent = True
            assert await connection.message()
            upstream(here).servers[0].pool.give_back(connection, may_be_shared=True)
            await asked(here, link, 1)
            assert upstream(here).servers[0]._circuit._in_a_row == 0


async def test_t61_a_connection_that_an_answer_binds_to_somebody_is_nobody_elses(station: Any) -> None:
    bound = b"HTTP/1.1 401 Sign In\r\nWWW-Authenticate: Negotiate\r\nContent-Length: 2\r\n\r\nno"
    async with station() as here, here.regular() as link:
        here.says = [bound]
        assert (await asked(here, link, 1))[0].endswith(b"no")
        assert upstream(here).servers[0].pool.idle == 0


@pytest.mark.uncompiled
@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_an_answer_without_a_body_takes_no_task(station: Any, status: bytes) -> None:
    async with station() as here, here.regular() as link:
        here.says = [b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n"] * 2
        carried: list[int] = []
        upstream(here).resume = lambda *_: carried.append(1)
        assert (await asked(here, link, 2))[0].startswith(b"HTTP/1.1 " + status + b"\r\nETag: x\r\n")
        assert carried == []


def noting(seen: list[str], name: str) -> Any:
    """An application that adds its *name* to *seen* with each request."""

    async def script(caller: Caller) -> None:
        while await caller.head():
            seen.append(name)
            await caller.say(LENGTH)

    return script


async def test_all_servers_take_part(station: Any) -> None:
    seen: list[str] = []

    async with (
        raw_application(noting(seen, "a")) as a,
        raw_application(noting(seen, "b")) as b,
        station({"app": {"upstream": [a.url, b.url]}}) as here,
        here.regular() as link,
    ):
        for _ in range(4):
            await link.ask(here.request())
        seen.clear()
        await asked(here, link, 6)
        assert seen in (["a", "b"] * 3, ["b", "a"] * 3)


async def test_whoever_is_kept_at_one_server_stays_there_each_way(station: Any) -> None:
    seen: list[str] = []

    async with (
        raw_application(noting(seen, "a")) as a,
        raw_application(noting(seen, "b")) as b,
        station({"app": {"upstream": [a.url, b.url], "sticky": True}}) as here,
        here.regular() as link,
    ):
        seen.clear()
        await asked(here, link, 4)
        here.general()
        await link.ask(here.request())
        assert seen in (["a"] * 5, ["b"] * 5)


async def test_another_server_answers_what_the_first_one_dropped(station: Any) -> None:
    drops: list[int] = []

    async def script(caller: Caller) -> None:
        while await caller.head():
            if drops:
                drops.pop()
                return
            await caller.say(LENGTH)

    async with (
        raw_application(script) as a,
        raw_application(script) as b,
        station({"app": {"upstream": [a.url, b.url]}}) as here,
        here.regular() as link,
    ):
        for number in (1, 2):
            for _ in range(4):
                await link.ask(here.request())
            here.forget()
            # The one that it is sent to, and the same one once more.
            drops += [1] * number
            assert (await link.ask(here.request())).endswith(b"ok")
            assert here.again == [True]
            assert drops == []
            await until(lambda: here.is_quiet)
            assert [server.load for server in upstream(here).servers] == [0, 0]


async def test_a_connection_that_ended_takes_nothing(station: Any) -> None:
    async with station() as here:
        connection = await upstream(here).servers[0].pool.connect()
        connection.begin(for_head=False)
        connection.abort()
        with pytest.raises(Unavailable):
            connection.send(b"GET / HTTP/1.1\r\n\r\n")

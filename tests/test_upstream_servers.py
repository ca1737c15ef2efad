"""Several servers of one application: chosen by load, watched, left alone, drained, and real ones that die and hang."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest

from sidecar.reason import Reason
from sidecar.upstream.circuit import Budget, Circuit
from tests.services.certificates import make_certificates
from tests.services.nginx import Nginx, Nginxes
from tests.services.upstream import Caller, Front, RawApplication, aiohttp_application, front, raw_application, until
from tests.test_upstream_targets import server_tls

HEALTH = {"path": "/health", "every": "50ms", "timeout": "200ms", "up": 2, "down": 2}


def body_of(answer: bytes) -> str:
    return answer.rpartition(b"\r\n\r\n")[2].decode()


async def asked(place: Front, times: int, method: str = "GET") -> Counter[str]:
    """Who answered *times* requests, one after another; statuses other than 200 count as such."""
    found: Counter[str] = Counter()
    for _ in range(times):
        answer = await place.get(method=method)
        found[body_of(answer) if b" 200 " in answer[:20] else answer[9:12].decode()] += 1
    return found


def saying(text: str):  # noqa: ANN201 - a script
    async def script(caller: Caller) -> None:
        while await caller.head():
            await caller.say(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())

    return script


def seen_up(place: Front) -> list[bool]:
    return [server.is_up for server in place.upstream.servers]


def urls(servers: Sequence[Nginx | RawApplication]) -> list[str]:
    return [server.url for server in servers]


# Choosing


async def test_all_servers_take_part() -> None:
    async with raw_application(saying("a")) as a, raw_application(saying("b")) as b, front(urls([a, b])) as place:
        assert await asked(place, 10) == {"a": 5, "b": 5}


async def test_the_server_with_the_fewest_requests_under_way_serves_next() -> None:
    async def slow(caller: Caller) -> None:
        await caller.head()
        await caller.gone()

    async with raw_application(slow) as a, raw_application(saying("b")) as b, front(urls([a, b])) as place:
        waiting: list[asyncio.Task[bytes]] = []
        while not a.callers:
            waiting.append(asyncio.create_task(place.get()))
            await asyncio.sleep(0.02)
        assert await asked(place, 10) == {"b": 10}
        for task in waiting:
            task.cancel()


async def test_a_session_stays_at_its_server_and_sessions_spread() -> None:
    async with raw_application(saying("a")) as a, raw_application(saying("b")) as b:
        async with front(urls([a, b]), sticky=True) as place:
            found: Counter[str] = Counter()
            for number in range(20):
                place.affinity = f"session {number}"
                one = await asked(place, 3)
                assert len(one) == 1
                found += one
            assert set(found) == {"a", "b"}
        async with front(urls([b, a]), sticky=True) as other:
            # Another worker, or a list in another order, draws each session to the same server.
            other.affinity = place.affinity
            assert set(await asked(other, 3)) == set(one)


async def test_a_server_that_drains_gets_nothing_new() -> None:
    async with raw_application(saying("a")) as a, front([a.url, "http://127.0.0.1:1"], draining=[a.url]) as place:
        assert set(await asked(place, 2)) == {"502"}
        assert place.upstream.says() == f"1 of 2 servers available; out: {a.url}"
        assert not a.callers


async def test_tls_unix_sockets_and_plain_ports_may_stand_side_by_side(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with (
        raw_application(saying("plain")) as plain,
        raw_application(saying("unix"), path=str(tmp_path / "socket")),
        raw_application(saying("tls"), ssl=server_tls(certificates)) as tls,
        front(
            [plain.url, f"unix:{tmp_path}/socket", f"https://127.0.0.1:{tls.port}"],
            tls={"ca": str(certificates.authority)},
        ) as place,
    ):
        assert await asked(place, 6) == {"plain": 2, "unix": 2, "tls": 2}


async def test_each_server_may_be_called_by_its_own_name() -> None:
    async def host(caller: Caller) -> None:
        while head := await caller.head():
            name = head.split(b"Host: ")[1].split(b"\r\n")[0]
            await caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name))

    async with raw_application(host) as a, raw_application(host) as b, front(urls([a, b]), host="upstream") as place:
        assert await asked(place, 4) == {f"127.0.0.1:{a.port}": 2, f"127.0.0.1:{b.port}": 2}


# Servers that fail


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_where_no_connection_could_be_made_another_server_is_asked_whatever_the_method(method: str) -> None:
    async with raw_application(saying("a")) as a, front([a.url, "http://127.0.0.1:1"]) as place:
        assert await asked(place, 20, method) == {"a": 20}
        # Left alone after five failures, tried again after each pause.
        assert Counter(told for told, _ in place.told)["fault"] in range(5, 10)
        assert ("down", "http://127.0.0.1:1") in place.told


async def test_a_streamed_upload_reaches_another_server_where_no_connection_could_be_made() -> None:
    async def taking(caller: Caller) -> None:
        await caller.head()
        await caller.reader.readexactly(10)
        await caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")

    async with raw_application(taking) as a, front(["http://127.0.0.1:1", a.url]) as place:
        for _ in range(2):
            reader, writer = await place.dial(b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 10\r\n\r\n12345")
            await asyncio.sleep(0.02)
            writer.write(b"67890")
            assert await reader.readuntil(b"\r\n\r\na")


async def hanging_up(caller: Caller) -> None:
    await caller.head()


async def test_a_request_that_was_lost_is_repeated_elsewhere_only_where_that_is_safe() -> None:
    async with raw_application(saying("a")) as a, raw_application(hanging_up) as bad:
        async with front(urls([a, bad]), circuit={"failures": 1000}) as place:
            assert await asked(place, 8) == {"a": 8}
        async with front(urls([a, bad]), circuit={"failures": 1000}) as place:
            assert await asked(place, 8, "POST") == {"a": 4, "502": 4}


async def test_repeats_are_bounded_by_their_budget() -> None:
    async with raw_application(hanging_up) as one, raw_application(hanging_up) as other:
        async with front(urls([one, other]), circuit={"failures": 1000}) as place:
            await asked(place, 50)
            # Ten in reserve, and twenty percent.
            assert Counter(told for told, _ in place.told)["repeat"] in range(18, 22)
        async with front(urls([one, other]), circuit={"failures": 1000}, repeats=0) as place:
            await asked(place, 5)
            assert ("repeat", one.url) not in place.told


async def test_an_answer_is_an_answer_and_is_not_asked_for_again() -> None:
    async def unwell(caller: Caller) -> None:
        while await caller.head():
            await caller.say(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")

    async with raw_application(unwell) as a, raw_application(unwell) as b, front(urls([a, b])) as place:
        assert await asked(place, 4) == {"503": 4}
        assert len(a.callers) + len(b.callers) <= 4
        assert place.upstream.says() == "2 of 2 servers available"


async def test_when_all_are_down_the_answer_comes_at_once() -> None:
    async with front(["http://127.0.0.1:1", "http://127.0.0.1:2"], circuit={"failures": 2, "pause": "1m"}) as place:
        assert await asked(place, 4) == {"502": 2, "503": 2}
        assert [problem.reason for problem in place.problems] == [Reason.UPSTREAM_DOWN] * 4
        assert place.upstream.says().startswith("0 of 2 servers available")


async def test_a_websocket_goes_to_a_server_that_is_there() -> None:
    async def echo(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        socket = aiohttp.web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async with (
        aiohttp_application(echo) as url,
        front(["http://127.0.0.1:1", url]) as place,
        aiohttp.ClientSession() as http,
    ):
        for _ in range(2):
            async with http.ws_connect(place.url) as socket:
                await socket.send_str("x")
                assert (await socket.receive()).data == "x"


# Real servers that die, hang and recover


async def test_a_server_that_dies_and_comes_back_costs_nobody_a_page(nginxes: Nginxes) -> None:
    servers = nginxes.saying(["a", "b", "c"])
    async with front(urls(servers), health=HEALTH) as place:
        assert set(await asked(place, 9)) == {"a", "b", "c"}
        servers[0].stop()
        assert set(await asked(place, 9)) == {"b", "c"}
        await until(lambda: seen_up(place) == [False, True, True])
        assert place.upstream.says() == f"2 of 3 servers available; out: {servers[0].url}"
        assert set(await asked(place, 9)) == {"b", "c"}
        servers[0].start()
        await until(lambda: all(seen_up(place)))
        assert set(await asked(place, 9)) == {"a", "b", "c"}
    assert [told for told in place.told if told[0] in ("up", "down")][-2:] == [
        ("down", servers[0].url),
        ("up", servers[0].url),
    ]


async def test_a_server_that_hangs_is_found_out_by_its_health(nginxes: Nginxes) -> None:
    servers = nginxes.saying(["a", "b"])
    async with front(urls(servers), health=HEALTH) as place:
        servers[1].pause()
        await until(lambda: seen_up(place) == [True, False])
        assert await asked(place, 6) == {"a": 6}
        servers[1].resume()
        await until(lambda: all(seen_up(place)))
        assert set(await asked(place, 6)) == {"a", "b"}


async def test_a_server_that_hangs_is_left_alone_without_health_checks_too(nginxes: Nginxes) -> None:
    servers = nginxes.saying(["a", "b"])
    circuit = {"failures": 2, "pause": "200ms"}
    async with front(urls(servers), circuit=circuit, answer_timeout=0.1) as place:
        servers[1].pause()
        found = await asked(place, 20)
        assert found["504"] in range(2, 5)
        assert found["a"] == 20 - found["504"]
        servers[1].resume()
        await until(lambda: place.upstream.says() == "2 of 2 servers available")
        assert set(await asked(place, 6)) == {"a", "b"}


async def test_a_server_that_says_it_is_unwell_gets_nothing_new_and_finishes_what_it_has(nginxes: Nginxes) -> None:
    well = nginxes.saying(["a"])[0]
    sick = nginxes('location /health { return 503; } location / { return 200 "b"; }')
    async with front([well.url, sick.url], health=HEALTH) as place:
        await until(lambda: seen_up(place) == [True, False])
        assert await asked(place, 6) == {"a": 6}


async def test_all_servers_may_die_and_come_back_under_load(nginxes: Nginxes) -> None:
    servers = nginxes.saying(["a", "b"])
    async with front(urls(servers), health=HEALTH, circuit={"pause": "50ms"}) as place:
        for server in servers:
            server.stop()
        await until(lambda: not any(seen_up(place)))
        assert set(await asked(place, 5)) == {"503"}
        for server in servers:
            server.start()
        await until(lambda: all(seen_up(place)))
        assert await asked(place, 6) == {"a": 3, "b": 3}


async def test_the_probe_asks_for_the_health_of_each(nginxes: Nginxes) -> None:
    sick = nginxes("location /health { return 503; }")
    async with front([nginxes.saying(["a"])[0].url, sick.url], health=HEALTH) as place:
        assert (await place.upstream.probe(0)).endswith("is well")
        with pytest.raises(Exception, match="answers 503"):
            await place.upstream.probe(1)


# The counts


def test_a_circuit_opens_after_failures_in_a_row_and_lets_one_try_after_each_pause() -> None:
    circuit = Circuit(2, 10)
    assert not circuit.fail(0)
    circuit.succeed()
    assert not circuit.fail(1)
    assert circuit.fail(2)
    assert not circuit.lets_pass(11)
    assert circuit.lets_pass(12)
    circuit.enter(12)
    assert not circuit.lets_pass(12)
    assert circuit.lets_pass(22)
    assert not circuit.fail(22)
    assert circuit.succeed()
    assert circuit.lets_pass(22)


def test_a_budget_refills_by_its_share() -> None:
    budget = Budget(20)
    assert sum(budget.spend() for _ in range(20)) == 10
    for _ in range(5):
        budget.note()
    assert [budget.spend(), budget.spend()] == [True, False]

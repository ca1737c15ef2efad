"""Attacks on what is remembered of requests, and on those that take the short way, on a running sidecar."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sidecar.core import addresses
from sidecar.core.addresses import host_of
from sidecar.core.client_certificates import UNREADABLE, certificate_in
from sidecar.core.cookies import parse_cookies, weight_of
from sidecar.limits import Limits
from tests.services.upstream import until
from tests.station import ASKED, Link, Station, station_of, ways_of, whole
from tests.test_certificates import STRANGER, WAYS, certificates
from tests.test_questions import counter
from tests.world import World

HOST = "Host: localhost:{port}"


@pytest.fixture
def station(world: World) -> Callable[..., Any]:
    """Make a station; *changes* are those of the configuration."""
    return partial(station_of, world)


@asynccontextmanager
async def linked(here: Station) -> AsyncIterator[Link]:
    """A client's connection that stays."""
    link = Link(*await here.dial())
    try:
        yield link
    finally:
        link.writer.close()


def many_cookies(number: int, token: str) -> str:
    """A short line with a great many cookies, which is another for each *number*."""
    return "Cookie: " + "; ".join([*[f"{number:03}{one:02x}=zz" for one in range(190)], f"sidecar={token}"])


# What is remembered


async def test_cookies_of_strangers_are_not_remembered(station: Any) -> None:
    async with station() as here, linked(here) as link:
        gate = here.running.sidecar.front.gate
        known = len(gate._tokens)
        for number in range(5):
            for _ in range(3):
                await link.ask(here.request("GET / HTTP/1.1", HOST, many_cookies(number, f"stranger-{number}")))
        assert len(gate._tokens) == known
        # Of somebody who is known they are, and weigh what they take.
        for _ in range(3):
            await link.ask(here.request("GET / HTTP/1.1", HOST, many_cookies(0, here.token)))
        assert len(gate._tokens) == known + 1
        assert gate._tokens._size > 190 * 150


async def test_a_head_weighs_what_its_cookies_take(station: Any) -> None:
    async with station() as here, linked(here) as link:
        regulars = here.running.sidecar.front.express._regulars
        before, known = regulars._size, len(regulars)
        for _ in range(3):
            await link.ask(here.request("GET /public/x HTTP/1.1", HOST, many_cookies(0, "stranger")))
        assert len(regulars) == known + 1
        assert regulars._size - before > 190 * 150


LONG = {"headers": {"X-App-Long": "{{ user.username }}" + "x" * 8000}}
OPEN = [{"path": "/public/**", "allow": "anyone"}, {"path": "/**", "allow": "signed_in"}]


async def test_what_is_said_about_a_person_weighs_what_it_takes(station: Any) -> None:
    async with station({**LONG, "access": OPEN}) as here, linked(here) as link:
        regulars = here.running.sidecar.front.express._regulars
        for path, is_counted in (("/page", True), ("/public/x", False)):
            lines = (HOST, f"Cookie: sidecar={here.token}", f"X-For: {path}")
            before, known = regulars._size, len(regulars)
            for _ in range(3):
                await link.ask(here.request(f"GET {path} HTTP/1.1", *lines))
            assert len(regulars) == known + 1
            assert (regulars._size - before > 8000) == is_counted
            before = regulars._size
            for _ in range(3):
                here.forget()
                assert b"200 OK" in await link.ask(here.request("GET /page HTTP/1.1", *lines))
                assert here.again == [True]
                assert b"X-App-Long: ada" in here.heads[0]
            # What was not counted is not held.
            assert regulars._size == before
            held = [one for one, _ in regulars._younger.values() if len(one.text) > 8000]
            assert len(held) == 1


async def test_an_answer_to_a_front_proxy_weighs_what_it_takes(world: World) -> None:
    async with counter(world, "traefik", **LONG) as here:
        askers = here.quick._askers
        for target, is_counted in (("/page", True), ("/public/x", False)):
            before = askers._size
            await here.warm(target, "grace", f"X-For: {target}")
            assert (askers._size - before > 8000) == is_counted
            before = askers._size
            for _ in range(3):
                assert b"X-App-Long: grace" in await here.ask("/page", "grace", "GET", f"X-For: {target}")
            assert here.ways == ["again"] * 3
            assert askers._size == before
            held = [one for one, _ in askers._younger.values() if len(one.text) > 8000]
            assert len(held) == 1
            here.ways.clear()


def test_cookies_weigh_more_than_their_letters() -> None:
    ((name, value),) = pairs = parse_cookies(["ab=cd"])
    assert weight_of(pairs) >= pairs[0].__sizeof__() + name.__sizeof__() + value.__sizeof__()
    assert weight_of([("a", "\U0001f600" * 100)]) >= ("\U0001f600" * 100).__sizeof__()


async def test_a_long_name_of_a_line_is_not_remembered(station: Any) -> None:
    async with station() as here, linked(here) as link:
        for number in range(3):
            long = f"X-{number}-{'a' * 20_000}: b"
            assert b"200 OK" in await link.ask(here.request("GET /public/x HTTP/1.1", HOST, long))
        assert max(len(name) for name, _ in here.running.sidecar.front.express._incoming) < 2048


def test_a_host_that_nobody_has_is_not_remembered() -> None:
    before = addresses._host_of.cache_info()
    assert host_of("a" * 30_000) == ""
    assert addresses._host_of.cache_info() == before
    assert host_of("a" * 253 + ":8080") == "a" * 253


def test_a_certificate_full_of_blanks_is_read_in_one_go() -> None:
    text = f"-----BEGIN CERTIFICATE-----{' ' * 32_000}!"
    began = time.thread_time()
    assert certificate_in([text], "nginx") == UNREADABLE
    assert time.thread_time() - began < 0.5


# The same rules as on any other way


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_t75_after_bad_certificates_the_short_way_is_closed_too(
    station: Any, tmp_path: Path, method: str
) -> None:
    start = f"{method} /public/x HTTP/1.1"
    changes = {**certificates(tmp_path), "limits": {"bad_tokens": "2/1h"}}
    async with station(changes) as here:
        pool = here.running.sidecar.front.gate.upstream.servers[0].pool
        bad = "Client-Cert: " + WAYS["rfc9440"](STRANGER.issue())
        for _ in range(2):
            assert b" 401 " in (await here.ask(here.request("GET /api/x HTTP/1.1", HOST, bad)))[:20]
        here.forget()
        for _ in range(3):
            assert b" 429 " in (await here.ask(here.request(start, HOST, bad)))[:20]
        # The application heard nothing, and no place is lost.
        assert (here.taken, here.heads, pool.busy) == ([False] * 3, [], 0)
        assert b" 200 " in (await here.ask(here.request(start, HOST)))[:20]
        assert here.taken[-1]


@pytest.mark.uncompiled
async def test_what_cannot_be_noted_costs_nobody_a_place(station: Any) -> None:
    async with station() as here, linked(here) as link:
        upstream = here.running.sidecar.front.gate.upstream
        failing = [True]

        def request(*_: Any) -> None:
            if failing and failing.pop():
                raise RuntimeError("of whatever kind")

        ways_of(here.running.sidecar).express._limits = _Failing(request)
        assert b" 200 " in (await link.ask(here.request()))[:20]
        async with asyncio.timeout(5):
            await until(lambda: here.is_quiet)
        assert (upstream.servers[0].pool.busy, upstream.servers[0].load) == (0, 0)


class _Failing(Limits):
    """Limits whose counting may fail."""

    def __init__(self, request: Callable[..., None]) -> None:
        self._request = request

    def request(self, *given: Any) -> None:
        self._request(*given)

    def is_free(self, *_: Any) -> bool:
        return True


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("is_short", [True, False])
async def test_t51_whoever_waits_for_an_answer_does_not_get_it_after_the_end_of_the_session(
    station: Any, is_short: bool, method: str
) -> None:
    lines = (f"{method} /some/page HTTP/1.1", *ASKED[1:])
    async with station() as here, here.regular(*lines) as link:
        if not is_short:
            here.general()
        here.says = [b"wait"]
        link.writer.write(here.request(*lines))
        await until(lambda: here.heads)
        await here.running.sidecar.front.gate.keeper.end(here.token)
        try:
            async with asyncio.timeout(10):
                assert (await whole(link.reader)).startswith(b"HTTP/1.1 401")
        finally:
            here.waits.set()
        assert here.again == ([True] if is_short else [])
        await until(lambda: here.is_quiet)


async def test_whoever_waits_for_long_gets_the_answer(station: Any) -> None:
    async with station() as here, here.regular() as link:
        here.says = [b"wait"]
        link.writer.write(here.request())
        await until(lambda: here.heads)
        upstream = here.running.sidecar.front.gate.upstream
        # A task has taken it over.
        await until(upstream._exchanges)
        # What comes meanwhile is answered in its turn.
        link.writer.write(here.request("GET /next HTTP/1.1", *ASKED[1:]))
        await asyncio.sleep(0.1)
        here.waits.set()
        for _ in range(2):
            assert (await whole(link.reader)).endswith(b"\r\n\r\nok")
        assert here.heads[1].startswith(b"GET /next ")
        await until(lambda: here.is_quiet)


# What stands behind a request that wants to upgrade


def upgrade(protocol: str) -> str:
    return f"Connection: Upgrade\r\nUpgrade: {protocol}\r\nOrigin: https://evil.example\r\n"


UPGRADE = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")


@pytest.mark.parametrize("is_whole", [True, False])
async def test_t60_trailers_behind_a_declined_handshake_are_no_lines_of_the_next(world: World, is_whole: bool) -> None:
    running = await world()
    host = f"Host: localhost:{running.port}\r\n"
    key = "".join(f"{line}\r\n" for line in UPGRADE[1:])
    handshake = f"GET /public/ws HTTP/1.1\r\n{host}{upgrade('websocket')}{key}\r\n"
    chunked = f"POST /public/x HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\nX-Planted: 1\r\n\r\n"
    after = f"GET /public/next HTTP/1.1\r\n{host}\r\n"
    sent = [handshake + chunked + after] if is_whole else [handshake + chunked, after]
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    with contextlib.suppress(ConnectionError):
        for one in sent:
            writer.write(one.encode())
            # The second one comes after the answer.
            await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            await reader.read()
    writer.close()
    assert "planted" not in str(running.application.seen).lower()
    assert "/public/next" not in [seen.target for seen in running.application.seen]


async def test_t60_trailers_that_come_while_a_handshake_is_judged_are_no_lines_of_the_next(
    station: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with station() as here, linked(here) as link:
        keeper, asked, goes_on = here.running.sidecar.front.gate.keeper, asyncio.Event(), asyncio.Event()
        find = keeper.find

        async def late(*given: Any) -> Any:
            asked.set()
            await goes_on.wait()
            return await find(*given)

        monkeypatch.setattr(keeper, "find", late)
        lines = (HOST, "Cookie: sidecar={token}", "Connection: Upgrade", "Origin: https://evil.example", *UPGRADE)
        link.writer.write(here.request("GET /ws HTTP/1.1", *lines))
        await asked.wait()
        link.writer.write(here.request("POST /public/x HTTP/1.1", HOST, "Transfer-Encoding: chunked"))
        link.writer.write(b"0\r\nX-Planted: 1\r\n\r\n" + here.request("GET /public/next HTTP/1.1", HOST))
        await asyncio.sleep(0.1)
        goes_on.set()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                assert b" 403 " in (await link.reader.read())[:20]
        assert here.heads[0].startswith(b"POST /public/x ")
        assert b"planted" not in b"".join(here.heads).lower()
        assert b"/public/next" not in b"".join(here.heads)


async def test_t60_what_the_parser_throws_away_is_not_waited_for(world: World) -> None:
    running = await world()
    host = f"Host: localhost:{running.port}\r\n"
    first = f"GET /public/a HTTP/1.1\r\n{host}{upgrade('h2c')}\r\n"
    second = f"GET /public/b HTTP/1.1\r\n{host}\r\n"
    got = await running.raw((first + second).encode())
    # Whoever counts answers would give the next one to somebody else.
    assert got.count(b"HTTP/1.1 200 OK") == 1
    assert b"\r\nConnection: close\r\n" in got
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for one in (first, second):
        # Alone it keeps its connection.
        writer.write(one.encode())
        assert b"Connection: close" not in await whole(reader)
    writer.close()


@pytest.mark.parametrize("target", ["http://][@", "http://][@/public/x"])
async def test_t60_a_target_that_the_parser_trips_over_ends_the_connection(
    world: World, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    running = await world()
    before = len(asyncio.all_tasks())
    for _ in range(5):
        assert await running.raw(f"GET {target} HTTP/1.1\r\nHost: localhost:{running.port}\r\n\r\n".encode()) == b""
    await asyncio.sleep(0.1)
    # Nobody waits for ever, and nothing of our inside is in the log.
    assert len(asyncio.all_tasks()) <= before
    assert "Traceback" not in capsys.readouterr().err

"""A request that is sent on its way without a task is treated as any other: each case runs both ways."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from sidecar.express import _is_ordinary, _keep
from tests.services.upstream import until
from tests.station import ASKED, LENGTH, station_of, whole
from tests.world import World


@pytest.fixture
def station(world: World) -> Callable[..., Any]:
    """Make a station; *changes* are those of the configuration."""
    return partial(station_of, world)


ANSWERS = {
    "plain": LENGTH,
    "lines twice, empty and beyond ASCII": b"HTTP/1.1 201 Made\r\nX-A: 1\r\nx-a: 2\r\nX-E:\r\n"
    b"X-B: \xe4\xff\r\nContent-Length: 1\r\n\r\nx",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "in pieces": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab|pause|cd",
    "head in pieces": b"HTTP/1.1 200 OK\r\nContent-|pause|Length: 2\r\n\r\nab",
    "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
    "cookies": b"HTTP/1.1 200 OK\r\nSet-Cookie: sidecar=stolen\r\nSet-Cookie: theirs=1\r\nContent-Length: 1\r\n\r\nx",
    "hop by hop": b"HTTP/1.1 200 OK\r\nConnection: x-secret\r\nX-Secret: 1\r\nKeep-Alive: 9\r\n"
    b"Content-Length: 1\r\n\r\nx",
    "until the end": b"HTTP/1.1 200 OK\r\n\r\nabc|pause|",
    "events": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 3\r\n\r\nabc",
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "old": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok|pause|",
    "an error": b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "length and coding": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no HTTP": b"SSH-2.0-x\r\n\r\n",
    "a switch": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "control characters": b"HTTP/1.1 200 OK\r\nX-A: a\x01b\r\nContent-Length: 2\r\n\r\nok",
    "hangs up": b"hang up",
}


def without_reference(answer: bytes) -> bytes:
    """*answer* but for what names this very request, and the second in which a page of ours was made."""
    return re.sub(rb"[0-9a-f]{16}|\r\nDate: [^\r]+", b"", answer)


@pytest.mark.parametrize("said", ANSWERS.values(), ids=ANSWERS.keys())
async def test_the_client_gets_the_same_answer_each_way(station: Any, said: bytes) -> None:
    # What hangs up once is asked again; twice, it is a fault.
    says = [said, said] if said == b"hang up" else [said]
    async with station() as here:
        here.says = list(says)
        express = await here.ask(here.request())
        assert here.taken == [True]
        await until(lambda: here.is_quiet)
        await here.warm()
        async with here.regular() as link:
            here.says = list(says)
            again = await link.ask(here.request())
            assert here.again == [True]
            assert here.taken == []
        await until(lambda: here.is_quiet)
        here.general()
        await here.warm()
        here.says = list(says)
        general = await here.ask(here.request())
        assert without_reference(express) == without_reference(again) == without_reference(general)


CLOSING = {
    "HTTP/1.1": (*ASKED[:-1], "Connection: close"),
    "HTTP/1.0": ("GET /some/page?of=it&x=%2F HTTP/1.0", *ASKED[1:-1]),
    "HTTP/1.0, as nginx asks": ("GET /some/page?of=it&x=%2F HTTP/1.0", *ASKED[1:-1], "Connection: close"),
}


@pytest.mark.parametrize("lines", CLOSING.values(), ids=CLOSING.keys())
@pytest.mark.parametrize("said", ANSWERS.values(), ids=ANSWERS.keys())
async def test_whoever_wants_nothing_more_gets_the_same_answer_each_way_and_its_end(
    station: Any, said: bytes, lines: tuple[str, ...]
) -> None:
    says = [said, said] if said == b"hang up" else [said]
    async with station() as here:
        answers = []
        for ways in ((True, False), (True, False), (False, True), (False, False)):
            await until(lambda: here.is_quiet)
            await here.warm()
            here.says = list(says)
            if not any(ways):
                here.general()
            reader, writer = await here.dial()
            # What comes behind it is nobody's.
            writer.write(here.request(*lines))
            answers.append(await asyncio.wait_for(reader.read(), 10))
            writer.close()
            assert (True in here.taken, True in here.again) == ways
        assert len(set(map(without_reference, answers))) == 1
        # aiohttp's own answers to HTTP/1.0 end so without saying it.
        assert b"\r\nConnection: close\r\n" in answers[0] or answers[0].startswith(b"HTTP/1.0 502 ")


async def test_the_application_and_the_audit_see_the_same_both_ways(station: Any) -> None:
    async with station() as here:
        await here.ask(here.request())
        assert here.taken == [True]
        here.general()
        await here.ask(here.request())
        assert here.heads[0] == here.heads[1]
        assert here.heads[0].count(b"\r\nX-App-User: ") == 1
        assert b"mallory" not in here.heads[0]
        assert b"Cookie: own=theirs; last=one\r\n" in here.heads[0]
        lines = [{**line, "time": "", "reference": ""} for line in here.running.audit() if line["event"] == "decision"]
        assert lines[-1] == lines[-2]
        assert lines[-1]["person"] == "ada"


async def test_a_path_with_strange_letters_is_written_to_the_audit_as_ever(station: Any) -> None:
    async with station() as here:
        target = "/%E2%80%AE%22%7E\u007e%C2%85"
        await here.ask(here.request(f"GET {target} HTTP/1.1", *ASKED[1:]))
        assert here.taken == [True]
        here.general()
        await here.ask(here.request(f"GET {target} HTTP/1.1", *ASKED[1:]))
        paths = [line["path"] for line in here.running.audit() if line["event"] == "decision"]
        assert paths[-1] == paths[-2] == '/\u202e"~~\x85'
        assert "\u202e".encode() not in here.running.audit_file.read_bytes()


@pytest.mark.parametrize(
    "lines",
    [
        ("OPTIONS * HTTP/1.1", *ASKED[1:]),
        ("PROPFIND /a HTTP/1.1", *ASKED[1:]),
        ("POST /a HTTP/1.1", *ASKED[1:], "Content-Length: 2"),
        ("POST /a HTTP/1.1", *ASKED[1:], "Transfer-Encoding: chunked", "", "0"),
        ("POST /a HTTP/1.1", *ASKED[1:], "Expect: 100-continue", "Content-Length: 0"),
        ("POST /-/sign-out HTTP/1.1", *ASKED[1:], "Content-Length: 0"),
        ("GET /a HTTP/1.0", *ASKED[1:]),
        ("GET http://localhost:{port}/a HTTP/1.1", *ASKED[1:]),
        ("GET /-/me HTTP/1.1", *ASKED[1:]),
        ("GET /a/../b HTTP/1.1", *ASKED[1:]),
        ("GET /a;x=1/..;/b HTTP/1.1", *ASKED[1:]),
        ("GET /a HTTP/1.1", "Host: evil.example", *ASKED[2:]),
        ("GET /a HTTP/1.1", "Host: localhost:{port}", *ASKED[1:]),
        (*ASKED[:-1], "Connection: x-twice"),
        (*ASKED, "Content-Length: 0"),
        (*ASKED, "Transfer-Encoding: chunked", "", "0"),
        (*ASKED, "Expect: 100-continue"),
        (*ASKED, "Authorization: Negotiate x"),
        (*ASKED, "Upgrade: h2c"),
        (*ASKED[:-2], "Cookie: sidecar={token}; sidecar=" + "A" * 43),
        (*ASKED[:-2], "Cookie: sidecar={token}; sidecar-form=x"),
        (*ASKED[:-2], "Cookie: sidecar=" + "A" * 43),
        (*ASKED[:-2], "Cookie: x=y"),
    ],
)
async def test_what_is_not_ordinary_takes_the_gate(station: Any, lines: tuple[str, ...]) -> None:
    async with station() as here:
        reader, writer = await here.dial()
        writer.write(here.request(*lines))
        if lines[-1] == "Content-Length: 2":
            # Its body comes later.
            await until(lambda: here.taken)
            writer.write(b"ok")
        await whole(reader)
        writer.close()
        assert True not in here.taken


async def test_whoever_lacks_the_role_is_turned_away_by_the_gate(station: Any) -> None:
    changes = {"access": [{"path": "/only/**", "allow": {"role": "editor"}}, {"path": "/**", "allow": "signed_in"}]}
    async with station(changes) as here:
        assert b"403" in (await here.ask(here.request("GET /only/this HTTP/1.1", *ASKED[1:])))[:20]
        assert here.taken == [False]
        assert here.heads == []


async def test_a_session_that_has_ended_opens_nothing(station: Any) -> None:
    async with station() as here:
        await here.running.sidecar.front.gate.keeper.end(here.token)
        answer = await here.ask(here.request())
        assert answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 302", b"HTTP/1.1 303"))
        assert here.taken == [False]
        assert here.heads == []


async def test_a_session_that_ends_under_way_cuts_the_answer_short(station: Any) -> None:
    async with station() as here:
        here.says = [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsecret|pause|" + b"|pause|" * 500]
        reader, writer = await here.dial()
        writer.write(here.request())
        assert b"secret" in await reader.readuntil(b"secret")
        assert here.taken == [True]
        await here.running.sidecar.front.gate.keeper.end(here.token)
        # Long before the application ends it.
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(3), 5)
        writer.close()
        await until(lambda: here.is_quiet)


async def test_requests_that_come_meanwhile_are_answered_in_their_order(station: Any) -> None:
    async with station() as here:
        here.says = [b"wait"]
        reader, writer = await here.dial()
        writer.write(here.request("GET /1 HTTP/1.1", *ASKED[1:]))
        await until(lambda: here.heads)
        writer.write(here.request("GET /2 HTTP/1.1", *ASKED[1:]) + here.request("GET /3 HTTP/1.1", *ASKED[1:])[:20])
        writer.write(here.request("GET /3 HTTP/1.1", *ASKED[1:])[20:])
        await asyncio.sleep(0.05)
        assert len(here.heads) == 1
        here.waits.set()
        for _ in range(3):
            assert (await whole(reader)).endswith(b"ok")
        writer.close()
        assert [head.split()[1] for head in here.heads] == [b"/1", b"/2", b"/3"]
        assert here.taken[0]


async def test_a_client_that_goes_away_takes_its_request_along(station: Any) -> None:
    async with station() as here:
        here.says = [b"wait"]
        _, writer = await here.dial()
        writer.write(here.request())
        await until(lambda: here.heads)
        assert here.taken == [True]
        writer.transport.abort()
        await until(lambda: here.is_quiet)
        here.waits.set()
        # The answer that nobody waited for is nobody else's.
        assert (await here.ask(here.request("GET /next HTTP/1.1", *ASKED[1:]))).endswith(b"ok")
        assert here.heads[-1].startswith(b"GET /next ")


async def test_a_connection_that_was_closed_meanwhile_is_replaced(station: Any) -> None:
    async with station() as here:
        here.says = [b"hang up"]
        assert (await here.ask(here.request())).endswith(b"ok")
        assert here.taken == [True]
        assert len(here.heads) == 2


async def test_an_answer_that_does_not_come_in_time_is_a_504(station: Any) -> None:
    async with station({"app": {"answer_timeout": "200ms"}}) as here:
        here.says = [b"wait"]
        answer = await here.ask(here.request())
        assert here.taken == [True]
        assert answer.startswith(b"HTTP/1.1 504")
        await until(lambda: here.is_quiet)


async def test_a_second_answer_is_nobodys(station: Any) -> None:
    async with station() as here:
        here.says = [LENGTH + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"]
        await here.ask(here.request())
        assert here.taken == [True]
        assert (await here.ask(here.request())).endswith(b"ok")


async def test_what_is_under_way_when_it_stops_is_finished(station: Any) -> None:
    async with station() as here:
        here.says = [b"wait"]
        reader, writer = await here.dial()
        writer.write(here.request())
        await until(lambda: here.heads)
        assert here.taken == [True]
        sidecar = here.running.sidecar
        stopping = asyncio.create_task(sidecar._listener.drain(20, sidecar.upstream.close))  # type: ignore[union-attr]
        await asyncio.sleep(0.1)
        here.waits.set()
        assert (await whole(reader)).endswith(b"ok")
        writer.close()
        await stopping


def test_the_express_remembers_only_so_much() -> None:
    memo: dict[int, int] = {}
    for number in range(10):
        assert _keep(memo, number, number, 3) == number
        assert len(memo) <= 3


def test_a_chunked_request_is_not_ordinary_even_if_its_connection_stayed() -> None:
    assert _is_ordinary(make_mocked_request("GET", "/"))
    assert not _is_ordinary(make_mocked_request("GET", "/", headers={"Transfer-Encoding": "chunked"}))

"""HEAD and OPTIONS take the short way, too; an answer to HEAD has no body, whatever it says, and whatever comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.station import ASKED, Link, Station, station_of
from tests.world import World

LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def station(world: World) -> Callable[..., Any]:
    """Make a station; *changes* are those of the configuration."""
    return partial(station_of, world)


async def head(here: Station, link: Link, *more: str, target: str = "/some/page") -> bytes:
    """Ask for the head alone; all that came until nothing more did."""
    link.writer.write(here.request(f"HEAD {target} HTTP/1.1", *ASKED[1:], *more))
    answer = await asyncio.wait_for(link.reader.readuntil(b"\r\n\r\n"), 10)
    await asyncio.sleep(0.05)
    return answer + bytes(link.reader._buffer)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "said",
    [
        LONG,
        CHUNKED,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nSet-Cookie: own=theirs\r\n\r\n",
    ],
)
async def test_an_answer_to_head_is_the_same_each_way(station: Any, said: bytes) -> None:
    async with station() as here, here.regular() as link:
        here.says += [said] * 3
        answers = [await head(here, link) for _ in range(3)]
        assert here.again == [False, False, True]
        assert here.taken == [True, True]
        here.general()
        here.says.append(said)
        answers.append(await head(here, link))
        assert len(set(answers)) == 1
        assert answers[0].endswith(b"\r\n\r\n")
        assert answers[0].count(b"\r\n\r\n") == 1
        # All of it over one connection, which nothing was left of.
        assert b"200 OK" in await link.ask(here.request())
        assert len(here.application.callers) == 1
        assert [sent.split()[0] for sent in here.heads] == [b"HEAD"] * 4 + [b"GET"]


@pytest.mark.parametrize(("version", "more"), [("1.0", []), ("1.1", ["Connection: close"])])
async def test_the_last_of_a_connection_may_be_head(station: Any, version: str, more: list[str]) -> None:
    async with station() as here:
        for turn in range(3):
            link = Link(*await here.dial())
            here.says.append(LONG)
            link.writer.write(here.request(f"HEAD /a HTTP/{version}", *ASKED[1:-1], *more))
            answer = await asyncio.wait_for(link.reader.read(), 10)
            assert answer.partition(b"\r\n\r\n")[2] == b"", turn
            assert b"\r\nContent-Length: 5000\r\n" in answer
            assert answer.count(b"\r\nConnection: close\r\n") == 1
            link.writer.close()
        assert here.again[-1:] == [True]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother",
        CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
    ],
)
async def test_t60_a_body_behind_an_answer_to_head_is_nobodys(station: Any, said: bytes) -> None:
    async with station() as here, here.regular() as link:
        here.says += [LONG] * 3
        for _ in range(3):
            await head(here, link)
        for turn in range(1, 4):
            here.forget()
            here.says.append(said)
            answer = await head(here, link)
            assert here.again == [True]
            assert answer.partition(b"\r\n\r\n")[2] == b""
            # That connection to the application carries nothing more.
            assert (await link.ask(here.request())).endswith(b"\r\n\r\nok")
            assert len(here.application.callers) == 1 + turn


async def test_a_body_that_is_sent_with_head_goes_along(station: Any) -> None:
    async with station() as here, here.regular() as link:
        for turn in range(3):
            data = here.request("HEAD /a HTTP/1.1", *ASKED[1:], "Content-Length: 4") + b"once"
            here.says.append(LONG)
            link.writer.write(data)
            assert b"Content-Length: 5000" in await asyncio.wait_for(link.reader.readuntil(b"\r\n\r\n"), 10), turn
        assert here.again == [False, False, True]
        assert here.bodies == [b"once"] * 3


async def test_preflights_that_are_let_through_are_known_by_their_lines(station: Any) -> None:
    rules = [
        {"path": "/api/**", "allow": "anyone", "methods": ["OPTIONS"]},
        {"path": "/api/**", "allow": "signed_in"},
        {"path": "/**", "allow": "signed_in", "methods": ["GET"]},
    ]
    async with station({"access": rules}) as here, here.regular() as link:
        asked = ("Host: localhost:{port}", "Origin: https://other.example", "Access-Control-Request-Method: PUT")
        for _ in range(3):
            assert b"200 OK" in await link.ask(here.request("OPTIONS /api/x HTTP/1.1", *asked))
        assert here.again == [False, False, True]
        assert b"X-App-User" not in b"".join(here.heads)
        here.forget()
        # What is known opens no other path, and no other method.
        for start in ("OPTIONS /page HTTP/1.1", "GET /api/x HTTP/1.1", "HEAD /api/x HTTP/1.1"):
            other = Link(*await here.dial())
            other.writer.write(here.request(start, *asked))
            answer = await asyncio.wait_for(other.reader.readuntil(b"\r\n\r\n"), 10)
            assert answer.split()[1] in (b"303", b"401", b"403")
            other.writer.close()
        assert here.heads == []


async def test_head_is_what_the_rule_for_get_says(station: Any) -> None:
    rules = [
        {"path": "/closed/**", "allow": {"group": "nobody"}, "methods": ["GET"]},
        {"path": "/**", "allow": "signed_in"},
    ]
    async with station({"access": rules}) as here, here.regular() as link:
        here.says += [LONG] * 3
        for _ in range(3):
            await head(here, link)
        here.forget()
        assert b" 403 " in (await head(here, link, target="/closed/x"))[:20]
        assert here.heads == []

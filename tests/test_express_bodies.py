"""Requests that change something, with a short body or none, take the shortest way; what their bodies say is theirs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sidecar.telemetry.audit import AuditLog
from tests.services.upstream import until
from tests.station import ASKED, LENGTH, Link, Station, station_of, whole
from tests.world import World

METHODS = ("POST", "PUT", "PATCH", "DELETE")
LONGEST = 64 * 1024


@pytest.fixture
def station(world: World) -> Callable[..., Any]:
    """Make a station; *changes* are those of the configuration."""
    return partial(station_of, world)


def sending(here: Station, body: bytes | None, method: str = "POST", target: str = "/form") -> bytes:
    """A request with *body*, of which it says nothing when that is None."""
    lines = [] if body is None else [f"Content-Length: {len(body)}"]
    return here.request(f"{method} {target} HTTP/1.1", *ASKED[1:], *lines) + (body or b"")


async def known(here: Station, link: Link, method: str = "POST") -> None:
    """Have the lines of such a request remembered."""
    for _ in range(2):
        assert b"200 OK" in await link.ask(sending(here, b"once", method))
    here.forget()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("body", [None, b"", b"a=b", b"\r\n\r\n\0\xff", b"x" * 30_000])
async def test_the_application_gets_the_same_bytes_each_way(station: Any, method: str, body: bytes | None) -> None:
    async with station() as here, here.regular() as link:
        data = sending(here, body, method)
        for _ in range(3):
            assert b"200 OK" in await link.ask(data)
        assert here.taken == [True, True]
        assert here.again == [False, False, True]
        here.general()
        await link.ask(data)
        assert here.bodies == [body or b""] * 4
        assert len(set(here.heads)) == 1
        assert here.heads[0].startswith(f"{method} /form HTTP/1.1\r\nHost: ".encode())
        assert here.heads[0].count(b"\r\nContent-Length: ") == (body is not None)
        lines = [{**line, "time": "", "reference": ""} for line in here.running.audit() if line["event"] == "decision"]
        assert lines[-1] == lines[-2] == lines[-4]
        assert (lines[-1]["method"], lines[-1]["person"]) == (method, "ada")


async def test_bodies_of_any_length_are_known_by_the_same_lines(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await known(here, link)
        bodies = [b"", b"1", b"two", b"x" * 30_000]
        for body in bodies:
            await link.ask(sending(here, body, target=f"/form/{len(body)}"))
        assert here.again == [True] * 4
        assert here.bodies == bodies
        assert [head.split()[1] for head in here.heads] == [b"/form/%d" % len(body) for body in bodies]
        # Lengths push nothing out of the memory of lines.
        assert b"Content-Length" not in {name for name, _ in here.running.sidecar.front.express._incoming}


async def test_a_connection_that_begins_at_once_with_a_body_is_known_soon(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await known(here, link)
        peer = socket.socket()
        # It is there before the connection is served.
        peer.connect(("127.0.0.1", here.running.port))
        peer.sendall(sending(here, b"once"))
        peer.setblocking(False)
        other = Link(*await asyncio.open_connection(sock=peer))
        assert (await whole(other.reader)).endswith(b"ok")
        for _ in range(2):
            await other.ask(sending(here, b"twice"))
        assert here.again[-1:] == [True]
        assert here.bodies == [b"once", b"twice", b"twice"]
        other.writer.close()


async def test_the_same_lines_with_another_method_are_another_request(station: Any) -> None:
    rules = [{"path": "/**", "allow": "signed_in", "methods": ["GET", "POST"]}]
    async with station({"access": rules}) as here, here.regular() as link:
        await known(here, link)
        for method in ("PUT", "DELETE", "PATCH"):
            assert b" 403 " in (await link.ask(sending(here, b"once", method)))[:20]
        assert here.again == [False] * 3
        assert here.heads == []
        # One that is known for its GET is not for its POST, and the other way round.
        assert b"200 OK" in await link.ask(here.request())
        assert here.again[-1]
        assert b"200 OK" in await link.ask(sending(here, None))
        assert not here.again[-1]


async def test_rules_tell_methods_apart_the_shortest_way(station: Any) -> None:
    only = {"path": "/read/**", "allow": {"group": "writers"}, "methods": ["POST"]}
    rules = [only, {"path": "/**", "allow": "signed_in"}]
    async with station({"access": rules}) as here, here.regular() as link:
        await known(here, link)
        assert b" 403 " in (await link.ask(sending(here, b"once", target="/read/this")))[:20]
        assert b" 200 " in (await link.ask(here.request("GET /read/this HTTP/1.1", *ASKED[1:])))[:20]
        assert here.again == [False, True]
        assert [head.split()[0] for head in here.heads] == [b"GET"]


@pytest.mark.parametrize("length", ["04", "+4", "4 4", "4,4", "0x4", "4\r\nContent-Length: 4", "5", "3", ""])
async def test_t60_a_length_that_is_not_the_bodys_is_for_the_parser(station: Any, length: str) -> None:
    async with station() as here, here.regular() as link:
        await known(here, link)
        link.writer.write(here.request("POST /form HTTP/1.1", *ASKED[1:], f"Content-Length: {length}") + b"once")
        await until(lambda: here.again)
        await asyncio.sleep(0.05)
        assert True not in here.again
        assert True not in here.taken
        # A body that is longer than was said is the beginning of something else, and never of it.
        assert set(here.bodies) <= {b"onc"} if length == "3" else set(here.bodies) <= {b"once"}


async def test_t60_a_body_that_is_a_request_stays_a_body(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await known(here, link)
        smuggled = here.request("DELETE /in/the/body HTTP/1.1", *ASKED[1:])
        await link.ask(sending(here, smuggled))
        await link.ask(here.request("GET /behind HTTP/1.1", *ASKED[1:]))
        assert here.again == [True, True]
        assert here.bodies == [smuggled, b""]
        assert [head.split()[:2] for head in here.heads] == [[b"POST", b"/form"], [b"GET", b"/behind"]]


async def test_t60_what_comes_behind_a_body_is_no_part_of_it(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await known(here, link)
        link.writer.write(sending(here, b"once") + here.request("GET /behind HTTP/1.1", *ASKED[1:]))
        for _ in range(2):
            assert (await whole(link.reader)).endswith(b"ok")
        assert here.bodies == [b"once", b""]
        assert [head.split()[1] for head in here.heads] == [b"/form", b"/behind"]


async def test_t60_lines_that_are_a_get_with_a_body_are_no_get_without(station: Any) -> None:
    async with station() as here, here.regular() as link:
        link.writer.write(here.request() + b"xx")
        assert b" 400 " in (await whole(link.reader))[:20]
        assert here.again == [False]
        assert here.heads == []


async def test_t60_half_a_body_is_not_between_two_requests(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await known(here, link)
        (connection,) = (one for one in here.running.sidecar._listener._servers[0].connections if one._is_between)
        data = sending(here, b"once")
        for piece in (data[:-2], data[-2:]):
            assert connection._is_between is (piece == data[:-2])
            link.writer.write(piece)
            await asyncio.sleep(0.05)
            assert not connection._is_between
        assert (await whole(link.reader)).endswith(b"ok")


async def test_t60_an_empty_line_before_a_request_is_no_line_of_it(station: Any) -> None:
    async with station() as here, here.regular() as link:
        for _ in range(3):
            assert b"200 OK" in await link.ask(b"\r\n" + sending(here, b"once"))
        assert True not in here.again
        regulars = here.running.sidecar.front.express._regulars
        assert not [head for head, _ in regulars._younger if b"HTTP/1.1" in head]


async def test_a_body_that_comes_in_pieces_is_streamed_and_the_next_is_known_again(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await known(here, link)
        data = sending(here, b"once")
        link.writer.write(data[:-2])
        await until(lambda: here.again)
        link.writer.write(data[-2:])
        assert (await whole(link.reader)).endswith(b"ok")
        assert True not in here.again + here.taken
        assert here.bodies == [b"once"]
        for _ in range(2):
            # The first one tells that the parser is between two requests.
            await link.ask(here.request())
        await link.ask(data)
        assert here.again[-2:] == [True, True]


async def test_a_body_that_is_too_long_is_refused(station: Any) -> None:
    async with station({"server": {"max_body": 10}}) as here, here.regular() as link:
        await known(here, link)
        for _ in range(2):
            assert b" 413 " in (await link.ask(sending(here, b"x" * 11)))[:20]
            link.writer.close()
            link.reader, link.writer = await here.dial()
        assert b" 200 " in (await link.ask(sending(here, b"x" * 10)))[:20]
        assert here.bodies == [b"x" * 10]


async def test_a_long_body_is_streamed(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await known(here, link)
        body = b"x" * (LONGEST + 1)
        assert b"200 OK" in await link.ask(sending(here, body))
        assert True not in here.again + here.taken
        assert here.bodies == [body]


@pytest.mark.parametrize("method", METHODS)
async def test_only_what_may_be_repeated_is_sent_again(station: Any, method: str) -> None:
    async with station() as here, here.regular() as link:
        await known(here, link, method)
        here.says = [b"hang up", LENGTH]
        answer = await link.ask(sending(here, b"once", method))
        assert here.again == [True]
        may_be = method in ("PUT", "DELETE")
        assert (b" 200 " if may_be else b" 502 ") in answer[:20]
        assert here.bodies == [b"once"] * (2 if may_be else 1)
        await until(lambda: here.is_quiet)


async def test_what_may_not_be_repeated_bets_on_no_old_connection(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await known(here, link)
        pool = here.running.sidecar.front.gate.upstream.servers[0].pool
        for connection in pool._idle:
            connection.idle_since -= 1.5
        before = len(here.application.callers)
        assert b"200 OK" in await link.ask(sending(here, b"once"))
        assert here.again == here.taken == [False]
        assert len(here.application.callers) == before + 1
        # What may be repeated does, and nothing is parsed for it.
        for connection in pool._idle:
            connection.idle_since -= 1.5
        assert b"200 OK" in await link.ask(here.request())
        assert here.again[-1]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 303 See Other\r\nLocation: /next\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab|pause|ok",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH,
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
async def test_whatever_is_answered_the_next_one_is_itself(station: Any, said: bytes) -> None:
    async with station() as here, here.regular() as link:
        await known(here, link)
        answers = []
        for _ in range(2):
            here.says = [said]
            answers.append(await link.ask(sending(here, b"once")))
            assert (await link.ask(here.request("GET /next HTTP/1.1", *ASKED[1:]))).endswith(b"ok")
        assert here.again == [True] * 4
        assert here.bodies == [b"once", b""] * 2
        here.general()
        here.says = [said]
        answers.append(await link.ask(sending(here, b"once")))
        assert len(set(answers)) == 1


async def test_an_answer_that_does_not_come_in_time_is_a_504(station: Any) -> None:
    async with station({"app": {"answer_timeout": "200ms"}}) as here, here.regular() as link:
        await known(here, link)
        here.says = [b"wait"]
        assert b" 504 " in (await link.ask(sending(here, b"once")))[:20]
        assert here.again == [True]
        await until(lambda: here.is_quiet)
        assert here.bodies == [b"once"]


async def test_a_session_that_has_ended_changes_nothing(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await known(here, link)
        await here.running.sidecar.front.gate.keeper.end(here.token)
        assert (await link.ask(sending(here, b"once")))[9:12] in (b"401", b"303")
        assert here.again == [False]
        assert here.heads == []


async def test_the_applications_own_sign_out_takes_the_gate(station: Any) -> None:
    async with station({"app": {"logout": {"path": "/logout"}}}) as here, here.regular() as link:
        await known(here, link)
        await link.ask(sending(here, b"once", target="/logout"))
        assert True not in here.again + here.taken
        assert (await link.ask(sending(here, b"once")))[9:12] in (b"401", b"303")


@pytest.mark.uncompiled
async def test_what_cannot_be_worded_has_not_been_sent(station: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with station() as here, here.regular() as link:
        await known(here, link)

        def form(*_: Any) -> None:
            raise RuntimeError

        monkeypatch.setattr(AuditLog, "form", form)
        here.running.sidecar.front.gate._forms.clear()
        # The gate words it in its own way, and sends it.
        assert b"200 OK" in await link.ask(sending(here, b"once"))
        assert here.bodies == [b"once"]

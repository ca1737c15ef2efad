"""Interim answers are passed on before the final one (RFC 9110, section 15.2), and nothing comes in that way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.upstream import exchange as exchange_module
from sidecar.upstream.connection import Connection
from tests.services.upstream import Caller, Front, front, raw_application, until
from tests.station import ASKED, Station, station_of, ways_of
from tests.test_upstream_websocket import HANDSHAKE, SWITCH
from tests.world import World

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\n"
BUSY = b"HTTP/1.1 102 Processing\r\n\r\n"


def saying(*pieces: bytes) -> Any:
    """Answer each request by *pieces*, a moment apart."""

    async def script(caller: Caller) -> None:
        while await caller.head():
            for piece in pieces:
                await caller.say(piece)
                await asyncio.sleep(0.02)

    return script


def details(place: Front) -> list[str]:
    """What was wrong, for operators."""
    assert all(isinstance(one, Unavailable) and one.reason is Reason.UPSTREAM_ANSWER for one in place.problems)
    return [one.detail for one in place.problems if isinstance(one, Unavailable)]


async def asked(place: Front, *lines: bytes, start: bytes = b"GET / HTTP/1.1") -> bytes:
    """All that comes back for one request."""
    return await place.ask(b"\r\n".join([start, b"Host: h", b"Connection: close", *lines, b"", b""]))


@pytest.mark.parametrize(
    "pieces", [(HINTS + BUSY + OK,), (HINTS, BUSY, OK), (HINTS[:9], HINTS[9:] + BUSY[:30], BUSY[30:] + OK)]
)
async def test_they_come_in_their_order_before_the_final_one(pieces: tuple[bytes, ...]) -> None:
    async with raw_application(saying(*pieces)) as application, front(application.url) as place:
        for start in (b"GET / HTTP/1.1", b"HEAD / HTTP/1.1"):
            came = await asked(place, start=start)
            assert came.startswith(HINTS + BUSY + b"HTTP/1.1 200 OK\r\n")


async def test_one_does_not_wait_for_the_final_one() -> None:
    goes_on = asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(HINTS)
        await goes_on.wait()
        await caller.say(OK)

    async with raw_application(script) as application, front(application.url) as place:
        reader, _ = await place.dial(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == HINTS
        goes_on.set()
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_one_comes_while_the_body_is_still_on_its_way() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(BUSY)
        assert await caller.reader.readexactly(3) == b"abc"
        await caller.say(OK)

    async with raw_application(script) as application, front(application.url) as place:
        reader, writer = await place.dial(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == BUSY
        writer.write(b"abc")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_one_comes_before_a_switch() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(HINTS + SWITCH)
        await caller.gone()

    async with raw_application(script) as application, front(application.url) as place:
        reader, _ = await place.dial(HANDSHAKE)
        assert await reader.readuntil(b"\r\n\r\n") == HINTS
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


async def test_http_1_0_has_none() -> None:
    async with raw_application(saying(HINTS + OK)) as application, front(application.url) as place:
        assert (await asked(place, start=b"GET / HTTP/1.0")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_100_of_the_application_stops_here() -> None:
    script = saying(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    async with raw_application(script) as application, front(application.url) as place:
        assert (await asked(place)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_only_lines_that_may_pass_do() -> None:
    early = (
        b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTrailer: x\r\n"
        b"Content-Length: 0\r\nUpgrade: h2c\r\nProxy-Authenticate: x\r\nSet-Cookie: sidecar=stolen\r\n"
        b"set-cookie: theirs=1\r\nWWW-Authenticate: Negotiate\r\nX-B: \xe4\r\nLink: <b>\r\n\r\n"
    )
    async with raw_application(saying(early, OK)) as application, front(application.url) as place:
        assert (await asked(place)).startswith(
            b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\nX-B: \xe4\r\nLink: <b>\r\n\r\nHTTP/1.1 200 OK\r\n"
        )


async def test_what_is_added_to_an_answer_is_added_once() -> None:
    alter = lambda lines: [*lines, ("Set-Cookie", "gone=")]  # noqa: E731 - a list's end
    async with raw_application(saying(HINTS + OK)) as application, front(application.url, alter=alter) as place:
        assert (await asked(place)).count(b"Set-Cookie") == 1


@pytest.mark.parametrize(
    "early",
    [
        HINTS.replace(b"</s.css>", b"a\x01b"),
        HINTS.replace(b"Early", b"Ea\x01rly"),
        b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nX-A: 1\r\n\r\n" * 17,
    ],
)
@pytest.mark.parametrize("is_apart", [True, False])
async def test_t60_a_nonsensical_one_becomes_502(early: bytes, is_apart: bool) -> None:
    pieces = (early, OK) if is_apart else (early + OK,)
    async with raw_application(saying(*pieces)) as application, front(application.url) as place:
        came = await asked(place)
        assert came.count(b"HTTP/1.1 103 ") <= 16
        assert came.replace(b"HTTP/1.1 103 Early Hints\r\nX-A: 1\r\n\r\n", b"").startswith(b"HTTP/1.1 502 ")
        assert len(details(place)) == 1
        assert "Unavailable" not in details(place)[0]


async def test_t60_none_comes_after_the_final_one() -> None:
    async with raw_application(saying(OK[:-1], b"k" + HINTS)) as application, front(application.url) as place:
        for number in (1, 2):
            came = await asked(place)
            assert came.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"103" not in came
            assert len(application.callers) == number


async def test_a_client_that_has_gone_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(exchange_module, "interim_bytes", lambda _: written.append(HINTS) or HINTS)
    goes_on = asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.head()
        await goes_on.wait()
        await caller.say(HINTS)
        await caller.gone()

    async with raw_application(script) as application, front(application.url) as place:
        _, writer = await place.dial(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(lambda: application.callers)
        writer.transport.abort()
        await asyncio.sleep(0.05)
        goes_on.set()
        await until(lambda: not place.upstream.live)
        assert written == []


async def test_a_request_is_not_sent_twice_once_one_has_come() -> None:
    async def script(caller: Caller) -> None:
        if caller.number == 1:
            await caller.head()
            await caller.say(OK)
        await caller.head()
        await caller.say(HINTS)

    async with raw_application(script) as application, front(application.url) as place:
        await asked(place)
        came = await asked(place)
        assert came.startswith(HINTS + b"HTTP/1.1 502 ")
        assert len(application.callers) == 1


async def test_one_of_the_last_request_is_not_kept_for_the_next() -> None:
    connection = Connection(asyncio.get_running_loop(), lambda _: None)
    connection.begin(for_head=False)
    connection.data_received(HINTS)
    connection.begin(for_head=False)
    came: list[object] = []
    connection.watch_interim(came.append)
    assert came == []
    connection.data_received(HINTS)
    assert len(came) == 1


# When the request was sent on its way without a task


@pytest.fixture
def station(world: World) -> Callable[..., Any]:
    """Make a station; *changes* are those of the configuration."""
    return partial(station_of, world)


async def came_for(here: Station, way: str, said: bytes) -> bytes:
    """What the client gets for *said*, and "!" for the end of an ordinary answer after it, on the same connection."""
    async with here.regular() as link:
        if way == "general":
            here.general()
        elif way == "depart":
            ways_of(here.running.sidecar).again = lambda *_: None
        # The connection to the application has served somebody in a task before.
        await here.ask(here.request("POST /p HTTP/1.1", *ASKED[1:], "Content-Length: 0"))
        here.forget()
        here.says = [said, OK.replace(b"ok", b"!!")]
        link.writer.write(here.request())
        await until(lambda: here.heads)
        link.writer.write(here.request())
        return await link.reader.readuntil(b"!!")


@pytest.mark.parametrize("way", ["again", "depart", "general"])
@pytest.mark.parametrize("said", [HINTS + BUSY + OK, HINTS + b"|pause|" + BUSY + OK, HINTS + BUSY + b"|pause|" + OK])
async def test_the_shortest_way_passes_them_on(station: Any, way: str, said: bytes) -> None:
    async with station() as here:
        came = await came_for(here, way, said)
        assert came.startswith(HINTS + BUSY + b"HTTP/1.1 200 OK\r\n")
        assert came.count(b"HTTP/1.1 200 OK\r\n") == 2
        assert (True in here.again) is (way == "again")
        assert (True in here.taken) is (way == "depart")
        await until(lambda: here.is_quiet)


async def test_the_shortest_way_does_not_wait_for_the_final_one(station: Any) -> None:
    async with station() as here, here.regular() as link:
        here.says = [HINTS + b"|pause|" * 100 + OK]
        link.writer.write(here.request())
        async with asyncio.timeout(1):
            assert await link.reader.readuntil(b"\r\n\r\n") == HINTS
        assert here.again == [True]
        assert (await link.reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("way", ["again", "depart", "general"])
async def test_t60_a_nonsensical_one_on_the_shortest_way_becomes_502(station: Any, way: str) -> None:
    async with station() as here:
        came = await came_for(here, way, HINTS.replace(b"</s.css>", b"a\x01b") + OK)
        assert came.startswith(b"HTTP/1.1 502 ")
        await until(lambda: here.is_quiet)

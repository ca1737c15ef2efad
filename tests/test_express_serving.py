"""One client's connection keeps its order and its bounds, whichever way its requests take."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sidecar import front as front_module
from sidecar.config.service import Server
from sidecar.core.audit import Event
from sidecar.serving import HttpServer, _Connection, server_of
from tests.services.certificates import make_certificates
from tests.services.upstream import until
from tests.station import ASKED, LENGTH, Link, Station, station_of, whole
from tests.test_upstream_targets import server_tls
from tests.world import World

SLOWLY = b"|pause||pause|HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab|pause|cd"


@pytest.fixture
def station(world: World) -> Callable[..., Any]:
    """Make a station; *changes* are those of the configuration."""
    return partial(station_of, world)


def get(here: Station, target: str, *more: str) -> bytes:
    return here.request(f"GET {target} HTTP/1.1", *ASKED[1:], *more)


def targets(here: Station) -> list[bytes]:
    return [head.split()[1] for head in here.heads]


@pytest.mark.parametrize("is_general", [False, True])
@pytest.mark.parametrize("kind", ["GET {} HTTP/1.1", "GET /a%20b{} HTTP/1.1", "POST {} HTTP/1.1"])
async def test_many_requests_in_one_piece_are_all_answered(station: Any, kind: str, is_general: bool) -> None:
    async with station() as here:
        if is_general:
            here.general()
        more = ["Content-Length: 0"] if kind.startswith("POST") else []
        # More than aiohttp parses at once: it asks for the rest when some are done, also of a connection's first piece.
        sent = [here.request(kind.format(f"/{number}"), *ASKED[1:], *more) for number in range(100)]
        reader, writer = await here.dial()
        writer.write(b"".join(sent))
        async with asyncio.timeout(10):
            for _ in sent:
                assert (await whole(reader)).endswith(LENGTH[-2:])
        writer.close()
        assert len(here.heads) == 100


async def have_two_idle(here: Station) -> None:
    """Have two connections to the application that a request could take."""
    here.says = [b"wait", b"wait"]
    asking = [asyncio.create_task(here.ask(here.request())) for _ in range(2)]
    await until(lambda: len(here.heads) == 2)
    here.waits.set()
    await asyncio.gather(*asking)
    here.waits.clear()
    here.forget()


def only_connection(here: Station) -> _Connection:
    """Of the one client that is there."""
    servers: list[HttpServer] = here.running.sidecar._listener._servers  # type: ignore[union-attr]
    (connection,) = servers[0].connections
    assert isinstance(connection, _Connection)
    return connection


@pytest.mark.parametrize("announced", [None, ("192.0.2.7", 4711)], ids=["", "announced"])
@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
async def test_where_a_connection_comes_from_is_known_before_its_first_request(
    tmp_path: Path, kind: str, announced: tuple[str, int] | None
) -> None:
    came: list[tuple[Any, Any]] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        protocol: Any = request.protocol
        came.append((protocol._origin, (request.remote or "", request.secure)))
        return web.Response(text="ok")

    server = server_of(Server(public_url="http://localhost"), answer)
    loop, path = asyncio.get_running_loop(), str(tmp_path / "socket")
    certificates = make_certificates(tmp_path)
    trust = ssl.create_default_context(cafile=str(certificates.authority))
    speak = partial(server.speak, announced)
    if kind == "unix":
        listening = await loop.create_unix_server(speak, path)
        reader, writer = await asyncio.open_unix_connection(path)
    else:
        listening = await loop.create_server(
            speak, "127.0.0.1", 0, ssl=server_tls(certificates) if kind == "tls" else None
        )
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "localhost" if kind == "tls" else "127.0.0.1", port, ssl=trust if kind == "tls" else None
        )
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await whole(reader)
    finally:
        writer.close()
        listening.close()
        await server.shutdown(1)
    ((known, said),) = came
    assert known == said
    assert known == ("192.0.2.7" if announced else "" if kind == "unix" else "127.0.0.1", kind == "tls")


async def test_a_body_that_comes_before_the_task_has_its_turn_is_no_endless_head(station: Any) -> None:
    async with station() as here:
        reader, writer = await here.dial()
        await until(lambda: len(here.running.sidecar._listener._servers[0].connections) == 1)
        connection = only_connection(here)
        # All within one turn of the loop, as it may be with a large body over a connection of its own.
        connection.data_received(here.request("POST /some/page HTTP/1.1", *ASKED[1:], "Content-Length: 150000"))
        connection._begin()
        for _ in range(3):
            connection.data_received(b"x" * 50_000)
        assert connection.transport is not None
        assert b"200 OK" in await asyncio.wait_for(whole(reader), 10)
        assert here.bodies == [b"x" * 150_000]
        writer.close()


async def test_t60_the_beginning_of_a_head_behind_a_request_is_not_forgotten(station: Any) -> None:
    async with station() as here, here.regular() as link:
        # With a line that is new, so that a parser reads it.
        link.writer.write(get(here, "/1", "X-New: 1") + b"GET /2 HTTP/1.1\r\nX-Swallowed: ")
        await whole(link.reader)
        here.again.clear()
        await link.ask(get(here, "/3"))
        assert targets(here) == [b"/1", b"/2"]
        assert True not in here.again


async def test_what_was_held_is_answered_after_an_answer_that_takes_a_task(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await have_two_idle(here)
        here.says = [SLOWLY]
        link.writer.write(get(here, "/1"))
        await until(lambda: here.heads)
        link.writer.write(get(here, "/2"))
        assert (await whole(link.reader)).endswith(b"abcd")
        assert (await whole(link.reader)).endswith(b"ok")
        assert targets(here) == [b"/1", b"/2"]
        assert here.again[0]


async def test_what_comes_during_a_task_waits_for_its_end(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await have_two_idle(here)
        here.says = [b"wait"]
        link.writer.write(here.request("POST /1 HTTP/1.1", *ASKED[1:], "Content-Length: 0"))
        await until(lambda: here.heads)
        link.writer.write(get(here, "/2"))
        await asyncio.sleep(0.05)
        assert targets(here) == [b"/1"]
        here.waits.set()
        for _ in range(2):
            assert (await whole(link.reader)).endswith(b"ok")
        assert targets(here) == [b"/1", b"/2"]


async def test_a_task_gets_the_request_that_it_carries_on(station: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    carry_on = front_module.Trip.carry_on

    async def noted(trip: front_module.Trip, request: Any) -> Any:
        seen.append(request.raw_path)
        return await carry_on(trip, request)

    monkeypatch.setattr(front_module.Trip, "carry_on", noted)
    async with station() as here, here.regular() as link:
        await link.ask(get(here, "/parsed", "X-New: 1"))
        await link.ask(get(here, "/parsed", "X-New: 2"))
        here.says = [SLOWLY]
        await link.ask(get(here, "/not-parsed"))
        assert here.again[-1]
        assert seen == ["/not-parsed"]


async def test_a_connection_serves_any_number_of_new_heads(station: Any) -> None:
    async with station() as here, here.regular() as link:
        for number in range(50):
            assert b"200 OK" in await link.ask(get(here, "/a", f"X-New: {number}"))
        assert here.taken.count(True) == 50
        # The parser has let go of each of them: it takes several at once.
        link.writer.write(get(here, "/a", "X-New: a") * 3)
        for _ in range(3):
            assert b"200 OK" in await whole(link.reader)


async def test_heads_in_pieces_are_bounded_one_by_one(station: Any) -> None:
    async with station({"server": {"max_header": "2KiB"}}) as here, here.regular() as link:
        for number in range(8):
            data = get(here, "/a", f"X-New: {number}", f"X-Long: {'x' * 1000}")
            link.writer.write(data[:-5])
            await asyncio.sleep(0.01)
            assert b"200 OK" in await link.ask(data[-5:])


async def test_the_time_for_a_head_ends_with_it(station: Any) -> None:
    async with station({"server": {"head_timeout": "1s"}}) as here, here.regular() as link:
        data = get(here, "/a", "X-New: 1")
        link.writer.write(data[:-5])
        await asyncio.sleep(0.01)
        assert b"200 OK" in await link.ask(data[-5:])
        await asyncio.sleep(1.2)
        assert b"200 OK" in await link.ask(data)


async def test_a_client_that_is_in_use_is_not_idle(station: Any) -> None:
    async with station({"server": {"client_idle": "1s"}}) as here, here.regular() as link:
        for _ in range(6):
            await asyncio.sleep(0.3)
            assert b"200 OK" in await link.ask(here.request())
        assert here.again == [True] * 6


async def test_a_client_that_waits_is_not_idle_and_is_so_afterwards(station: Any) -> None:
    async with station({"server": {"client_idle": "1s"}}) as here, here.regular() as link:
        here.says = [b"wait"]
        link.writer.write(here.request())
        await until(lambda: here.heads)
        await asyncio.sleep(1.3)
        here.waits.set()
        assert (await whole(link.reader)).endswith(b"ok")
        assert here.again == [True]
        async with asyncio.timeout(3):
            assert await link.reader.read() == b""


async def test_what_is_held_is_bounded_and_nothing_of_it_is_lost(station: Any) -> None:
    async with station() as here, here.regular() as link:
        here.says = [b"wait"]
        link.writer.write(get(here, "/1"))
        await until(lambda: here.heads)
        one = get(here, "/2", f"X-Long: {'x' * 3000}")
        many = 2000
        link.writer.write(one * many)
        await asyncio.sleep(0.2)
        assert len(only_connection(here)._held) < 1_000_000
        here.waits.set()
        for _ in range(1 + 200):
            assert (await whole(link.reader)).endswith(b"ok")


async def test_leaving_ends_with_the_last_answer(station: Any) -> None:
    async with station() as here, here.regular() as link:
        here.says = [b"wait"]
        link.writer.write(here.request())
        await until(lambda: here.heads)
        sidecar = here.running.sidecar
        stopping = asyncio.create_task(sidecar._listener.drain(60, sidecar.upstream.close))  # type: ignore[union-attr]
        await asyncio.sleep(2.3)
        here.waits.set()
        async with asyncio.timeout(10):
            await stopping
        assert (await whole(link.reader)).endswith(b"ok")


async def test_a_stream_ends_with_the_session_though_its_lines_began_on_a_public_page(station: Any) -> None:
    rules = [{"path": "/public/**", "allow": "anyone"}, {"path": "/**", "allow": "signed_in"}]
    async with station({"access": rules, "headers": None}) as here:
        link = Link(*await here.dial())
        for _ in range(3):
            await link.ask(get(here, "/public/x"))
        assert here.again[-1]
        here.says = [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsecret|pause|" + b"|pause|" * 500]
        link.writer.write(get(here, "/mine"))
        await link.reader.readuntil(b"secret")
        assert here.again[-1]
        await here.running.sidecar.front.gate.keeper.end(here.token)
        # Long before the application ends it.
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(link.reader.readexactly(3), 5)
        link.writer.close()
        await until(lambda: here.is_quiet)


async def trickle(link: Link, piece: bytes, pause: float) -> int:
    """Send *piece* again and again, or wait, until the connection has ended; bytes that were sent."""
    sent = 0
    try:
        while piece and sent < 100_000:
            link.writer.write(piece)
            await link.writer.drain()
            sent += len(piece)
            await asyncio.sleep(pause)
        assert await link.reader.read() == b""
    except ConnectionError:
        pass
    return sent


@pytest.mark.parametrize("piece", [b"X-Slow: 1\r\n", b""])
async def test_a_head_without_an_end_ends_the_connection(station: Any, piece: bytes) -> None:
    async with station({"server": {"head_timeout": "1s"}}) as here, here.regular() as link:
        link.writer.write(b"GET / HTTP/1.1\r\n")
        async with asyncio.timeout(4):
            await trickle(link, piece, 0.05)
        assert here.heads == []


async def test_a_head_that_grows_is_cut_off_long_before_its_time(station: Any) -> None:
    async with station({"server": {"max_header": "2KiB"}}) as here, here.regular() as link:
        link.writer.write(b"GET / HTTP/1.1\r\n")
        async with asyncio.timeout(8):
            assert await trickle(link, b"X-More: " + b"x" * 490 + b"\r\n", 0.005) < 50_000


async def test_audit_lines_are_worded_when_the_last_answer_has_been_given(station: Any) -> None:
    async with station() as here:
        await here.ask(get(here, "/"))
        audit = here.running.sidecar.audit
        audit.flush()
        audit.rest()
        # Nothing else words them meanwhile.
        audit._timer = asyncio.get_running_loop().call_later(60, audit.rest)
        for blanks in (0, 35):
            form = audit.form(Event.DECISION, {"effect": "allow"}, "path")
            for _ in range(blanks):
                audit.fill(form, 0.0, "/x")
            await here.ask(get(here, f"/{blanks}"))
            assert len(audit._blanks) == (0 if blanks else 1)

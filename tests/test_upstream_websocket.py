"""A WebSocket passes as raw bytes both ways; it ends with the session, and nothing else is ever tunnelled."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import WSCloseCode, WSMsgType, web

from sidecar.reason import Reason
from tests.services.upstream import Caller, Front, aiohttp_application, front, raw_application, until

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324 - RFC 6455
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\nX-oDD: 1\r\n\r\n"
)


async def echo(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)
    return socket


@asynccontextmanager
async def echoing(**settings: float) -> AsyncIterator[tuple[Front, aiohttp.ClientWebSocketResponse]]:
    async with (
        aiohttp_application(echo) as url,
        front(url, **settings) as place,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{place.url}/ws", max_msg_size=0) as socket,
    ):
        yield place, socket


async def test_messages_pass_both_ways() -> None:
    async with echoing() as (_, socket):
        for text in ("hello", "", "ä" * 70_000):
            await socket.send_str(text)
            assert await socket.receive_str() == text
        await socket.send_bytes(b"\x00" * 3_000_000)
        assert await socket.receive_bytes() == b"\x00" * 3_000_000


async def test_the_clients_close_reaches_the_application_and_the_answer_to_it_comes_back() -> None:
    closed: list[int | None] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(autoclose=False)
        await socket.prepare(request)
        await socket.receive()
        closed.append(socket.close_code)
        await socket.close(code=4002)
        return socket

    async with (
        aiohttp_application(handle) as url,
        front(url) as place,
        aiohttp.ClientSession() as session,
        session.ws_connect(place.url) as socket,
    ):
        await socket.close(code=4001)
        assert (closed, socket.close_code) == ([4001], 4002)
        await until(lambda: not place.upstream.live)
        assert not place.ending._watchers


@pytest.mark.parametrize(
    ("end", "code"), [("session", WSCloseCode.POLICY_VIOLATION), ("drain", WSCloseCode.GOING_AWAY)]
)
async def test_t64_a_socket_ends_with_its_session_and_with_the_process(end: str, code: int) -> None:
    async with echoing() as (place, socket):
        await socket.send_str("x")
        await socket.receive_str()
        if end == "session":
            place.ending.end()
        else:
            place.upstream.drain()
        message = await socket.receive()
        assert (message.type, message.data) == (WSMsgType.CLOSE, code)
        await until(lambda: not place.upstream.live)


async def test_a_silent_socket_ends() -> None:
    async with echoing(idle_timeout=0.2) as (_, socket):
        message = await socket.receive()
        assert (message.type, message.data) == (WSMsgType.CLOSE, WSCloseCode.GOING_AWAY)


async def test_a_socket_that_talks_stays() -> None:
    async with echoing(idle_timeout=0.5) as (_, socket):
        for _ in range(8):
            await asyncio.sleep(0.1)
            await socket.send_str("x")
            assert await socket.receive_str() == "x"


def switching(*after: bytes):  # noqa: ANN201 - a script
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(SWITCH + b"".join(after))
        await caller.gone()

    return script


async def test_the_handshake_passes_with_its_lines_and_bytes_that_come_early_are_kept() -> None:
    seen: list[bytes] = []

    async def script(caller: Caller) -> None:
        seen.append(await caller.head())
        await asyncio.sleep(0.02)
        await caller.say(SWITCH + b"\x81\x02ho")
        seen.append(await caller.reader.readexactly(8))

    async with raw_application(script) as application, front(application.url) as place:
        reader, writer = await place.dial(HANDSHAKE + b"early")
        writer.write(b"")
        got = await reader.readuntil(b"\x81\x02ho")
        writer.write(b"ly.")
        await reader.read()
    assert got == (
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\nX-oDD: 1\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02ho"
    )
    assert seen == [
        b"GET /ws HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"earlyly.",
    ]


async def test_no_close_frame_is_written_into_the_middle_of_a_message() -> None:
    async with raw_application(switching(b"\x81\x05he")) as application, front(application.url) as place:
        reader, _ = await place.dial(HANDSHAKE)
        await reader.readuntil(b"\x81\x05he")
        place.ending.end()
        assert await reader.read() == b""


async def test_a_client_that_ignores_the_close_is_dropped() -> None:
    async with raw_application(switching()) as application, front(application.url) as place:
        reader, _ = await place.dial(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        place.ending.end()
        assert (await reader.read()).startswith(b"\x88")
        await until(lambda: not place.upstream.live)


async def test_a_session_that_has_ended_gets_no_socket_for_long() -> None:
    async with raw_application(switching()) as application, front(application.url) as place:
        place.ending.end()
        reader, _ = await place.dial(HANDSHAKE)
        await reader.read()
        await until(lambda: not place.upstream.live)


async def test_a_client_that_leaves_closes_the_applications_side() -> None:
    left = asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(SWITCH)
        await caller.gone()
        left.set()

    async with raw_application(script) as application, front(application.url) as place:
        reader, writer = await place.dial(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        await left.wait()


async def test_an_application_that_leaves_closes_the_clients_side() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(SWITCH + b"\x81\x02ho")

    async with raw_application(script) as application, front(application.url) as place:
        assert (await place.ask(HANDSHAKE)).endswith(b"\x81\x02ho")


@pytest.mark.parametrize("slow", ["application", "client"])
async def test_a_side_that_does_not_read_stops_the_other(slow: str) -> None:
    written = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        try:
            while True:
                writer.write(b"\x82\x7e\xff\xff" + b"x" * 65535)
                await writer.drain()
                written += 65539
        except ConnectionError:
            pass

    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(SWITCH)
        await (flood(caller.writer) if slow == "client" else asyncio.Event().wait())

    async with raw_application(script, limit=1024) as application, front(application.url) as place:
        reader, writer = await place.dial(HANDSHAKE, limit=1024)
        await reader.readuntil(b"\r\n\r\n")
        flooding = asyncio.create_task(flood(writer)) if slow == "application" else None
        last = -1
        while last != written:
            last = written
            await asyncio.sleep(0.3)
        if flooding is not None:
            flooding.cancel()
        writer.transport.abort()
    assert 0 < written < 40_000_000


@pytest.mark.parametrize(
    "answer",
    [
        SWITCH.replace(ACCEPT, b"AAAA"),
        SWITCH.replace(b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n", b""),
        SWITCH.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        SWITCH.replace(b"Upgrade: websocket\r\n", b""),
        SWITCH.replace(b"X-oDD: 1", b"X-oDD: \x01"),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_a_switch_that_does_not_answer_the_handshake_becomes_502(answer: bytes) -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(answer)
        await caller.gone()

    async with raw_application(script) as application, front(application.url) as place:
        assert (await place.ask(HANDSHAKE.replace(b"keep-alive", b"close"))).startswith(b"HTTP/1.1 502 ")
        assert place.problems[0].reason is Reason.UPSTREAM_ANSWER  # type: ignore[attr-defined]


async def test_an_answer_other_than_101_is_passed_and_nothing_is_tunnelled() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\nno")
        assert await caller.gone() == b""

    async with raw_application(script) as application, front(application.url) as place:
        got = await place.ask(HANDSHAKE + b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\n")


async def test_a_handshake_without_a_key_is_refused() -> None:
    async with front("http://127.0.0.1:1") as place:
        request = HANDSHAKE.replace(b"Sec-WebSocket-Key: " + KEY + b"\r\n", b"Connection: close\r\n")
        assert (await place.ask(request)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Upgrade: WebSocket", b"Upgrade: h2c"),
        (b"Upgrade: WebSocket", b"Upgrade: tcp"),
        (b"Upgrade: WebSocket", b"Upgrade: websocket, h2c"),
        (b"Upgrade: WebSocket", b"Upgrade: h2c\r\nUpgrade: websocket"),
        (b"keep-alive, Upgrade", b"keep-alive"),
        (b"GET /ws", b"POST /ws"),
        (b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_any_other_upgrade_is_an_ordinary_request(old: bytes, new: bytes) -> None:
    seen: list[bytes] = []

    async def script(caller: Caller) -> None:
        seen.append(await caller.head())
        await caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with raw_application(script) as application, front(application.url) as place:
        reader, _ = await place.dial(HANDSHAKE.replace(old, new))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert b"pgrade" not in seen[0]


async def test_a_handshake_with_a_body_is_an_ordinary_request() -> None:
    seen: list[bytes] = []

    async def script(caller: Caller) -> None:
        seen.append(await caller.head())
        await caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with raw_application(script) as application, front(application.url) as place:
        reader, _ = await place.dial(HANDSHAKE[:-2] + b"Content-Length: 3\r\n\r\nabc")
        await reader.readuntil(b"\r\n\r\n")
    assert b"pgrade" not in seen[0]


async def test_sockets_do_not_use_up_the_connections_for_requests() -> None:
    async def script(caller: Caller) -> None:
        head = await caller.head()
        if b"/ws" in head:
            await caller.say(SWITCH)
            await caller.gone()
        await caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with (
        raw_application(script) as application,
        front(application.url, max_connections=1, connect_timeout=0.5) as place,
    ):
        for _ in range(3):
            reader, _ = await place.dial(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
        assert (await place.get()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", SWITCH], ids=["426", "101"]
)
async def test_calling_a_request_a_handshake_does_not_get_more_connections(answer: bytes) -> None:
    now = most = 0

    async def script(caller: Caller) -> None:
        nonlocal now, most
        await caller.head()
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.05)
        now -= 1
        await caller.say(answer)
        assert await caller.gone() == b""

    async with raw_application(script) as application, front(application.url, max_connections=2) as place:
        status = answer[:12]

        async def shake() -> bytes:
            reader, _ = await place.dial(HANDSHAKE)
            return (await reader.readuntil(b"\r\n\r\n"))[:12]

        assert await asyncio.gather(*[shake() for _ in range(12)]) == [status] * 12
        assert most == 2
        (server,) = place.upstream.servers
        await until(lambda: not server.pool.busy)
        # What was asked to switch serves nobody else.
        assert server.pool.idle == 0
        assert len(application.callers) == 12


async def test_while_draining_no_new_socket_is_opened() -> None:
    async with raw_application(switching()) as application, front(application.url) as place:
        place.upstream.drain()
        reader, _ = await place.dial(HANDSHAKE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("side", ["client", "application"])
async def test_a_message_that_is_too_large_ends_the_socket(side: str) -> None:
    got: list[int] = []

    async def long(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            got.append(len(message.data))
            await socket.send_str("x" * (101 if side == "application" else 1))
        return socket

    async with (
        aiohttp_application(long) as url,
        front(url, websocket_message=100) as place,
        aiohttp.ClientSession() as http,
        http.ws_connect(place.url) as socket,
    ):
        await socket.send_str("x" * 100)
        if side == "client":
            assert (await socket.receive()).data == "x"
            await socket.send_str("x" * 101)
        closed = await socket.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1009)
    assert got == [100]

"""Load balancers announce whose connection they pass on; nobody else can, and nobody is waited for."""

from __future__ import annotations

import asyncio
import ssl
import struct
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from sidecar import doorway
from sidecar.core.proxy_protocol import LONGEST_BLOCK, SIGNATURE, read_block, read_line, rest_of_block
from tests.services.certificates import make_certificates
from tests.world import Running, World

TRUSTED = {"proxy_protocol": "true", "trusted_proxies": ["127.0.0.0/8"]}
GET = "GET /public/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"


def block(source: str, port: int = 4711, *, command: int = 0x21, family: int = 0, more: bytes = b"") -> bytes:
    address = ip_address(source)
    family = family or (0x11 if address.version == 4 else 0x21)
    body = address.packed + address.packed + struct.pack("!HH", port, 443) + more
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(body)) + body


def the_get(running: Running) -> bytes:
    return GET.format(host=running.url.removeprefix("http://").removeprefix("https://")).encode()


async def said(running: Running, data: bytes, context: ssl.SSLContext | None = None, then: bytes = b"") -> bytes:
    """What comes back for *data*; with a *context* TLS begins after it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    try:
        writer.write(data)
        if context is not None:
            await writer.start_tls(context, server_hostname="localhost")
        writer.write(then)
        async with asyncio.timeout(8):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def forwarded(running: Running) -> str:
    return running.application.seen[-1].values("X-Forwarded-For")[0]


ANNOUNCED = {
    "line 4": (b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n", "203.0.113.7"),
    "line 6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", "2001:db8::7"),
    "line of nobody": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "line of nobody with more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "127.0.0.1"),
    "block 4": (block("203.0.113.7"), "203.0.113.7"),
    "block 6": (block("2001:db8::7"), "2001:db8::7"),
    "block with more": (block("203.0.113.7", more=b"\x04\x00\x03abc"), "203.0.113.7"),
    "block of nobody": (block("203.0.113.7", command=0x20), "127.0.0.1"),
    "block of a Unix socket": (SIGNATURE + b"\x21\x31" + struct.pack("!H", 216) + bytes(216), "127.0.0.1"),
}


@pytest.mark.parametrize(("header", "client"), ANNOUNCED.values(), ids=ANNOUNCED.keys())
async def test_t07_the_application_sees_who_was_announced(world: World, header: bytes, client: str) -> None:
    running = await world({"server": TRUSTED})
    for cut in (0, 5, len(header)):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(header[:cut])
        await asyncio.sleep(0.01)
        writer.write(header[cut:] + the_get(running))
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert forwarded(running) == client


MALFORMED = {
    "nothing announced": b"",
    "lower case": b"proxy TCP4 203.0.113.7 198.51.100.1 4711 443\r\n",
    "no number": b"PROXY TCP4 203.0.113.7 198.51.100.1 x 443\r\n",
    "too large a port": b"PROXY TCP4 203.0.113.7 198.51.100.1 65536 443\r\n",
    "signed port": b"PROXY TCP4 203.0.113.7 198.51.100.1 +1 443\r\n",
    "wrong family": b"PROXY TCP6 203.0.113.7 198.51.100.1 4711 443\r\n",
    "no address": b"PROXY TCP4 wiki.example 198.51.100.1 4711 443\r\n",
    "two spaces": b"PROXY TCP4  203.0.113.7 198.51.100.1 4711 443\r\n",
    "line feed alone": b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\n",
    "beyond ASCII": b"PROXY TCP4 203.0.113.\xb7 198.51.100.1 4711 443\r\n",
    "too long": b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
    "version 1 in a block": SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
    "unknown command": SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
    "UDP": SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),
    "too short": SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
    "too large": SIGNATURE + b"\x21\x11\xff\xff" + bytes(65535),
}


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED.keys())
async def test_t07_what_is_malformed_is_closed_without_an_answer(world: World, header: bytes) -> None:
    running = await world({"server": TRUSTED})
    assert await said(running, header + the_get(running)) == b""
    assert not running.application.seen


async def test_t07_a_stranger_cannot_announce_anybody(world: World) -> None:
    running = await world({"server": {**TRUSTED, "trusted_proxies": ["192.0.2.0/24"]}})
    assert await said(running, ANNOUNCED["line 4"][0] + the_get(running)) == b""
    assert not running.application.seen


async def test_t07_without_the_setting_an_announcement_is_no_request(world: World) -> None:
    running = await world({"server": {"trusted_proxies": ["127.0.0.0/8"]}})
    assert b" 400 " in await said(running, ANNOUNCED["line 4"][0] + the_get(running))
    assert not running.application.seen


async def test_t07_an_announced_stranger_is_not_believed_what_it_forwards(world: World) -> None:
    running = await world({"server": TRUSTED})
    lie = the_get(running).replace(b"Connection", b"X-Forwarded-For: 10.9.9.9\r\nConnection")
    await said(running, ANNOUNCED["line 4"][0] + lie)
    assert forwarded(running) == "203.0.113.7"
    await said(running, b"PROXY TCP4 127.0.0.9 127.0.0.1 1 2\r\n" + lie)
    assert forwarded(running) == "10.9.9.9"


@pytest.mark.parametrize("header", [ANNOUNCED["line 4"][0], ANNOUNCED["block 4"][0]], ids=["line", "block"])
async def test_the_announcement_stands_before_tls(world: World, tmp_path: Path, header: bytes) -> None:
    certificates = make_certificates(tmp_path)
    tls = {"certificate": str(certificates.certificate), "key": str(certificates.key)}
    running = await world({"server": {**TRUSTED, "tls": tls, "public_url": "https://localhost"}})
    context = ssl.create_default_context(cafile=str(certificates.authority))
    get = GET.format(host="localhost").encode()
    assert (await said(running, header, context, get)).startswith(b"HTTP/1.1 200")
    assert forwarded(running) == "203.0.113.7"
    # A client that speaks no TLS after it harms nobody.
    assert not (await said(running, header + get)).startswith(b"HTTP/1.1 200")
    assert (await said(running, header, context, get)).startswith(b"HTTP/1.1 200")


async def test_an_announcement_that_does_not_come_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorway, "_PATIENCE", 0.05)
    running = await world({"server": TRUSTED})
    for start in (b"", b"PROXY TCP4 ", SIGNATURE + b"\x21\x11"):
        assert await said(running, start) == b""
    assert (await said(running, ANNOUNCED["line 4"][0] + the_get(running))).startswith(b"HTTP/1.1 200")


async def test_a_stopped_sidecar_lets_nobody_in_and_finishes_what_runs(world: World) -> None:
    running = await world({"server": TRUSTED})
    begun = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(_: Any) -> Any:
        from aiohttp import web  # noqa: PLC0415 - one test's

        begun.set()
        await go_on.wait()
        return web.Response(text="done")

    running.application.answer = slow
    asked = asyncio.create_task(said(running, ANNOUNCED["line 4"][0] + the_get(running)))
    await begun.wait()
    world._closers.remove(running.sidecar.stop)
    stopping = asyncio.create_task(running.sidecar.stop())
    await asyncio.sleep(0.2)
    go_on.set()
    assert (await asked).endswith(b"done")
    await stopping
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", running.port)


async def test_a_head_that_trickles_in_is_cut_off(world: World) -> None:
    running = await world({"server": {"head_timeout": "200ms"}})
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    # A whole head is answered, however many follow it on the same connection.
    for _ in range(2):
        writer.write(the_get(running).replace(b"Connection: close\r\n", b""))
        assert await reader.readuntil(b"}")
    trickle = asyncio.create_task(dripping(writer, the_get(running)))
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    trickle.cancel()
    writer.close()
    assert len(running.application.seen) == 2


async def dripping(writer: asyncio.StreamWriter, data: bytes) -> None:
    for number in range(len(data) - 1):
        writer.write(data[number : number + 1])
        await asyncio.sleep(0.05)


def test_the_reader_bounds_what_it_asks_for() -> None:
    with pytest.raises(ValueError, match="QUIT"):
        rest_of_block(SIGNATURE + b"\x21\x11" + struct.pack("!H", LONGEST_BLOCK + 1))
    assert read_line(b"PROXY TCP4 203.0.113.7 198.51.100.1 0 65535") == ("203.0.113.7", 0)
    whole = block("203.0.113.7", 99)
    assert read_block(whole[:16], whole[16:]) == ("203.0.113.7", 99)

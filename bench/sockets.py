"""Ten thousand WebSockets that say nothing: what they hold of memory."""

from __future__ import annotations

import asyncio
import resource
import time

import uvloop

from bench.peers import Surroundings
from bench.report import Report, Table

_MANY = 10_000
_AT_ONCE = 100
# What the process keeps for itself: files, pipes, libraries, the listener.
_RESERVE = 300
_HANDSHAKE = (
    "GET /live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Origin: http://127.0.0.1:{port}\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class _Quiet(asyncio.Protocol):
    """One client, who waits for 101 and then for nothing."""

    def __init__(self) -> None:
        self.begun: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Note the answer."""
        if not self.begun.done():
            self.begun.set_result(data.startswith(b"HTTP/1.1 101"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Note that there will be none."""
        if not self.begun.done():
            self.begun.set_result(False)


async def _open(port: int, cookie: str, many: int) -> list[asyncio.Transport]:
    """Open *many*; raises RuntimeError when one is refused."""
    hello = _HANDSHAKE.format(port=port, cookie=cookie).encode()
    loop, opened = asyncio.get_running_loop(), list[asyncio.Transport]()

    async def one() -> None:
        transport, quiet = await loop.create_connection(_Quiet, "127.0.0.1", port)
        opened.append(transport)
        transport.write(hello)
        if not await quiet.begun:
            message = f"WebSocket {len(opened)} was refused"
            raise RuntimeError(message)

    while len(opened) < many:
        await asyncio.gather(*(one() for _ in range(min(_AT_ONCE, many - len(opened)))))
    return opened


def measure(here: Surroundings, report: Report) -> None:
    """Open as many as the system lets one worker have, up to ten thousand."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # Each takes two of the worker's files: one to the client and one to the application.
    many = min(1000 if report.is_quick else _MANY, (limit - _RESERVE) // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    peer = here.sidecar(to_taker=True)
    peer.cookie = peer.sign_in()
    idle = max(peer.processes.resident())

    async def hold() -> tuple[float, float, float]:
        began = time.perf_counter()
        opened = await _open(peer.place.port, peer.cookie, many)
        took, before = time.perf_counter() - began, peer.processes.seconds()
        await asyncio.sleep(2)
        held, spent = max(peer.processes.resident()), (peer.processes.seconds() - before) / 2
        for transport in opened:
            transport.abort()
        return took, held, spent

    took, held, spent = uvloop.run(hold())
    here.end([peer])
    about = (
        f"{many} WebSockets of one person at one worker, all idle"
        + (f" (the limit of {limit} open files allows no more)" if many < _MANY and not report.is_quick else "")
        + "."
    )
    row = (
        f"{many}",
        f"{many / took:.0f}",
        f"{idle:.0f}",
        f"{held:.0f}",
        f"{(held - idle) * 1024 / many:.1f}",
        f"{spent:.1%}",
    )
    columns = ("WebSockets", "opened/s", "MB before", "MB with them", "KB each", "CPU while idle")
    report.tables.append(Table("Idle WebSockets", about, columns, [row]))
    all_of_them = held + (held - idle) / many * (_MANY - many)
    report.judge("10,000 idle WebSockets in at most 400 MB per worker", all_of_them, 400, " MB")

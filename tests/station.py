"""A sidecar before an application that says what it is told, to see which way a request takes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.services.upstream import Caller, RawApplication, raw_application
from tests.world import Running, World

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ASKED = (
    "GET /some/page?of=it&x=%2F HTTP/1.1",
    "Host: localhost:{port}",
    "User-Agent: something",
    "accept: */*",
    "X-Twice: one",
    "X-Twice: two",
    "X-Empty:",
    "X-App-User: mallory",
    "X_App_User: mallory",
    "x-forwarded-for: 10.9.9.9",
    "X-Utf: \u00e4",
    "Cookie: own=theirs; sidecar={token}; sidecar-browser={token}; last=one",
    "Connection: keep-alive",
)


@dataclass
class Link:
    """A client's connection that stays."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, data: bytes) -> bytes:
        """One request; the whole answer."""
        self.writer.write(data)
        return await whole(self.reader)


@dataclass
class Station:
    """A sidecar before an application that says what it is told, and somebody who has signed in."""

    running: Running
    application: RawApplication
    token: str
    says: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    taken: list[bool] = field(default_factory=list)
    again: list[bool] = field(default_factory=list)
    waits: asyncio.Event = field(default_factory=asyncio.Event)
    is_closed: bool = False

    def request(self, *lines: str) -> bytes:
        text = "\r\n".join([*(lines or ASKED), "", ""]).format(port=self.running.port, token=self.token)
        return text.encode()

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.running.port)

    async def warm(self) -> None:
        """Have the session remembered, and a connection to the application idle."""
        assert b"200 OK" in await self.ask(self.request())
        self.forget()

    def forget(self) -> None:
        """Begin a new page of what was noted."""
        for noted in (self.taken, self.again, self.heads, self.bodies):
            noted.clear()

    @asynccontextmanager
    async def regular(self, *lines: str) -> AsyncIterator[Link]:
        """Make a connection whose header lines are known: the next request on it is nobody's to parse."""
        link = Link(*await self.dial())
        try:
            for _ in range(2):
                assert b"200 OK" in await link.ask(self.request(*lines))
            self.forget()
            yield link
        finally:
            link.writer.close()

    async def ask(self, data: bytes) -> bytes:
        """One request on a connection of its own; the whole answer."""
        reader, writer = await self.dial()
        writer.write(data)
        try:
            return await (reader.readuntil(b"\r\n\r\n") if data.startswith(b"HEAD") else whole(reader))
        finally:
            writer.close()

    def general(self) -> None:
        """From now on nothing departs at once."""
        ways = ways_of(self.running.sidecar)
        ways.depart = ways.again = lambda *_: None

    @property
    def is_quiet(self) -> bool:
        front = self.running.sidecar.front
        return front.gate.upstream.live == 0 and front.metrics._under_way == 0


async def whole(reader: asyncio.StreamReader, *, is_head: bool = False) -> bytes:
    """One answer as it is framed, with interim ones before it; one without a length lasts as long as the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 1"):
        return head + await whole(reader, is_head=is_head)
    if is_head or head.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304")):
        return head
    if match := re.search(rb"\r\ncontent-length: (\d+)", head.lower()):
        return head + await reader.readexactly(int(match[1]))
    if b"transfer-encoding: chunked" in head.lower():
        return head + await reader.readuntil(b"0\r\n\r\n")
    return head + await reader.read()


class Ways:
    """The ways at once of a sidecar, each of which a test may replace; all else of them is as ever."""

    def __init__(self, express: Any) -> None:
        self.express = express
        self.depart: Callable[..., Any] = express.depart
        self.again: Callable[..., Any] = express.again

    def __getattr__(self, name: str) -> Any:
        return getattr(self.express, name)


def ways_of(sidecar: Any) -> Ways:
    """Those of *sidecar*, put where it looks for them."""
    front = sidecar.front
    if not isinstance(front.express, Ways):
        front.express = Ways(front.express)
    return front.express


@asynccontextmanager
async def station_of(world: World, changes: dict[str, Any] | None = None) -> AsyncIterator[Station]:
    """Make a station; *changes* are those of the configuration."""
    found: list[Station] = []

    async def script(caller: Caller) -> None:
        while head := await caller.head():
            here = found[0] if found else None
            if here is None:
                await caller.say(LENGTH)
                continue
            here.heads.append(head)
            length = re.search(rb"\r\nContent-Length: (\d+)\r", head)
            here.bodies.append(await caller.reader.readexactly(int(length[1])) if length else b"")
            said = here.says.pop(0) if here.says else LENGTH
            if said == b"wait":
                await here.waits.wait()
                said = LENGTH
            if said == b"hang up":
                return
            for piece in said.split(b"|pause|"):
                await caller.say(piece)
                await asyncio.sleep(0.02)
            if said.endswith(b"|pause|"):
                return

    async with raw_application(script) as application:
        app = {"upstream": application.url, **(changes or {}).get("app", {})}
        running = await world({**(changes or {}), "app": app})
        async with running.browser() as browser:
            await browser.sign_in("ada", "/")
            here = Station(running, application, browser.cookie())
        found.append(here)
        ways = ways_of(running.sidecar)
        ways.depart = _noting(ways.depart, here.taken)
        ways.again = _noting(ways.again, here.again)
        await here.warm()
        yield here


def _noting(way: Callable[..., Any], taken: list[bool]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        sent = way(*arguments)
        taken.append(sent is not None)
        return sent

    return noted

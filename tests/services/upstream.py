"""A front that carries requests through the room under test, and applications that behave exactly as badly as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from aiohttp import web

from sidecar.config.service import App
from sidecar.core.headers import HeaderPlan
from sidecar.faults import Refused, Unavailable
from sidecar.upstream import Alter, Ending, Head, RelayedResponse, Upstream, wants_websocket

Script = Callable[["Caller"], Awaitable[None]]


@dataclass(slots=True)
class Caller:
    """One connection that the application accepted; ``number`` counts from 1."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def head(self) -> bytes:
        """Read one request head; b"" when the connection ended instead."""
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    async def say(self, data: bytes) -> None:
        """Write at once."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End the connection by RST."""
        self.writer.transport.abort()

    async def gone(self) -> bytes:
        """Wait until the other side has ended the connection; what came until then."""
        rest = b""
        try:
            while data := await self.reader.read(65536):
                rest += data
        except ConnectionError:
            pass
        return rest


@dataclass(slots=True)
class RawApplication:
    """A server that runs a script for each connection."""

    port: int = 0
    callers: list[Caller] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def raw_application(script: Script, **options: Any) -> AsyncIterator[RawApplication]:
    """Run *script* for each connection; the connection is closed after it."""
    application = RawApplication()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        caller = Caller(reader, writer, len(application.callers) + 1)
        application.callers.append(caller)
        try:
            await script(caller)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    if "path" in options:
        server = await asyncio.start_unix_server(serve, **options)
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, **options)
        application.port = server.sockets[0].getsockname()[1]
    try:
        yield application
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def aiohttp_application(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Serve every path and method by *handler*; yields the URL."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(app, auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass(slots=True)
class Front:
    """The sidecar's server in front of an application; what it saw is kept for the test."""

    upstream: Upstream
    port: int = 0
    affinity: str = ""
    told: list[tuple[str, str]] = field(default_factory=list)
    answers: list[RelayedResponse] = field(default_factory=list)
    problems: list[Exception] = field(default_factory=list)
    ending: Ending = field(default_factory=Ending)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    async def dial(self, data: bytes = b"", limit: int = 1 << 16) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection, closed at the end of the test at the latest, and send *data*."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=limit)
        self.writers.append(writer)
        writer.write(data)
        return reader, writer

    async def ask(self, data: bytes) -> bytes:
        """Send *data* on a connection of its own and read until its end."""
        reader, _ = await self.dial(data)
        return await reader.read()

    async def get(self, path: str = "/", *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
        """Ask for *path* and end the connection after it."""
        head = [f"{method} {path} HTTP/{version}", "Host: wiki.example", "Connection: close", *lines]
        return await self.ask("\r\n".join([*head, "", ""]).encode("latin-1"))


_PLAN = HeaderPlan(managed=frozenset())


@asynccontextmanager
async def front(
    upstream: str | Sequence[str],
    *,
    alter: Alter | None = None,
    body: bytes | None = None,
    max_body: int | None = None,
    handler_cancellation: bool = False,
    **settings: Any,
) -> AsyncIterator[Front]:
    """Serve with aiohttp's low-level server as the gate does; *settings* are those of ``app``, times in seconds."""
    for name in ("connect_timeout", "answer_timeout", "idle_timeout"):
        if name in settings:
            settings[name] = timedelta(seconds=settings[name])
    told: list[tuple[str, str]] = []
    section = App.model_validate({"upstream": upstream, **settings})
    tell = lambda happening, server: told.append((happening.value, server))  # noqa: E731 - a list's end
    place = Front(Upstream(section, max_body=max_body, tell=tell), told=told)
    watch = asyncio.create_task(place.upstream.look_after_servers())

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        lines = (("Host", request.headers["Host"]), *_PLAN.incoming(request.raw_headers))
        head = Head(request.method, request.raw_path, lines)
        try:
            if wants_websocket(request):
                answer = await place.upstream.tunnel(
                    request, head, alter=alter, ended=place.ending, affinity=place.affinity
                )
            else:
                answer = await place.upstream.carry(
                    request, head, alter=alter, ended=place.ending, body=body, affinity=place.affinity
                )
        except (Refused, Unavailable) as problem:
            place.problems.append(problem)
            return web.Response(status=problem.status, text=problem.reason.value)
        place.answers.append(answer)
        return answer

    server = web.Server(
        handle, access_log=None, auto_decompress=False, handler_cancellation=handler_cancellation, lingering_time=0.2
    )
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    place.port = listener.sockets[0].getsockname()[1]
    try:
        yield place
    finally:
        listener.close()
        for writer in place.writers:
            writer.close()
        watch.cancel()
        await place.upstream.close()
        await server.shutdown(1)


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop run until *condition* holds; the test's own time limit ends it otherwise."""
    while not condition():  # noqa: ASYNC110 - what is waited for belongs to the code under test
        await asyncio.sleep(0.005)

"""What an ordinary application and an ordinary client see of each other: everything, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
import resource

import aiohttp
import pytest
from aiohttp import web

from tests.services.upstream import Caller, aiohttp_application, front, raw_application, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answering(answer: bytes, seen: list[bytes] | None = None):  # noqa: ANN201 - a script
    async def script(caller: Caller) -> None:
        while head := await caller.head():
            if seen is not None:
                seen.append(head)
            await caller.say(answer)

    return script


async def test_the_request_reaches_the_application_byte_for_byte() -> None:
    seen: list[bytes] = []
    async with raw_application(answering(OK, seen)) as application, front(application.url) as place:
        await place.get("/a%2Fb//c;x=1?q=%C3%A4&q=", "X-oDD-caSe: \xe4\xff", "X-Two: 1", "x-two: 2")
    assert b"".join(seen) == (
        b"GET /a%2Fb//c;x=1?q=%C3%A4&q= HTTP/1.1\r\nHost: wiki.example\r\n"
        b"X-oDD-caSe: \xe4\xff\r\nX-Two: 1\r\nx-two: 2\r\n\r\n"
    )


async def test_the_answer_reaches_the_client_byte_for_byte_and_nothing_is_added() -> None:
    answer = (
        b"HTTP/1.1 299 Quite \xe4 Reason\r\nX-oDD: \xe4\xff\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"Content-Length: 2\r\n\r\nok"
    )
    async with raw_application(answering(answer)) as application, front(application.url) as place:
        got = await place.get()
    assert got == answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


async def test_hop_by_hop_lines_of_the_answer_stop_here() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n"
        b"Proxy-Connection: x\r\nTE: x\r\nTrailer: x\r\nUpgrade: h2c\r\nX-Hop: 1\r\nX-End: 1\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    async with raw_application(answering(answer)) as application, front(application.url) as place:
        got = await place.get()
    assert got == b"HTTP/1.1 200 OK\r\nX-End: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def test_the_gate_may_alter_the_answers_lines() -> None:
    def alter(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [line for line in lines if not line[1].startswith("sidecar=")] + [("Set-Cookie", "sidecar=ours")]

    answer = OK.replace(b"\r\nC", b"\r\nSet-Cookie: sidecar=theirs\r\nSet-Cookie: app=1\r\nC")
    async with raw_application(answering(answer)) as application, front(application.url, alter=alter) as place:
        got = await place.get()
    assert re.findall(rb"Set-Cookie: (.*)\r", got) == [b"app=1", b"sidecar=ours"]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
async def test_a_request_without_a_body_gets_no_framing(method: str) -> None:
    seen: list[bytes] = []
    async with raw_application(answering(OK, seen)) as application, front(application.url) as place:
        await place.get(method=method)
    assert seen == [f"{method} / HTTP/1.1\r\nHost: wiki.example\r\n\r\n".encode()]


async def test_a_small_body_goes_in_one_write_with_its_length() -> None:
    first: list[bytes] = []

    async def script(caller: Caller) -> None:
        first.append(await caller.reader.read(65536))
        await caller.say(OK)

    async with raw_application(script) as application, front(application.url) as place:
        await place.ask(b"POST /f HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3\r\n\r\na=b")
    assert first == [b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na=b"]


async def test_a_chunked_body_stays_chunked() -> None:
    seen: list[bytes] = []

    async def script(caller: Caller) -> None:
        seen.extend([await caller.head(), await caller.reader.readuntil(b"0\r\n\r\n")])
        await caller.say(OK)

    chunks = b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: dropped\r\n\r\n"
    async with raw_application(script) as application, front(application.url) as place:
        await place.ask(
            b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        )
    assert seen == [b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nabcde\r\n0\r\n\r\n"]


async def test_a_kept_form_replaces_the_requests_own_body() -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async with aiohttp_application(echo) as url, front(url, body=b"kept=1") as place:
        assert (await place.get(method="POST")).endswith(b"\r\n\r\nkept=1")


async def test_large_bodies_stream_both_ways_and_arrive_whole() -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk)
        return response

    digest = hashlib.sha256()

    async def parts():  # noqa: ANN202 - an async generator
        for number in range(400):
            part = bytes([number % 251]) * 50_000
            digest.update(part)
            yield part

    async with aiohttp_application(echo) as url, front(url) as place, aiohttp.ClientSession() as session:
        got = hashlib.sha256()
        async with session.post(place.url, data=parts()) as answer:
            async for chunk in answer.content.iter_any():
                got.update(chunk)
    assert got.digest() == digest.digest()


async def test_a_client_that_does_not_read_stops_the_application_and_memory_stays_flat() -> None:
    written = 0

    async def script(caller: Caller) -> None:
        nonlocal written
        await caller.head()
        await caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            await caller.say(b"x" * 100_000)
            written += 100_000

    async with raw_application(script) as application, front(application.url) as place:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _, writer = await place.dial(limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        last = -1
        while last != written:
            last = written
            await asyncio.sleep(0.2)
        writer.transport.abort()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 0 < written < 30_000_000  # what the kernel's buffers of four sockets take
    assert after - before < 40_000  # KiB


async def test_an_application_that_does_not_read_stops_the_client() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await asyncio.Event().wait()

    async with raw_application(script, limit=1024) as application, front(application.url) as place:
        _, writer = await place.dial(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n")
        written, last = 0, -1
        while last != written:
            last = written
            try:
                while True:
                    writer.write(b"x" * 100_000)
                    async with asyncio.timeout(0.3):
                        await writer.drain()
                    written += 100_000
            except TimeoutError:
                pass
        writer.transport.abort()
    assert written < 40_000_000


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\n"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 204 No Content\r\n"),
        (
            b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 7\r\n\r\n',
            b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 7\r\n',
        ),
    ],
)
async def test_an_answer_without_a_body_has_none(answer: bytes, expected: bytes) -> None:
    async with raw_application(answering(answer)) as application, front(application.url) as place:
        assert await place.get() == expected + b"Connection: close\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n" + b"a body all the same".ljust(70),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n",
    ],
)
async def test_an_answer_to_head_has_no_body_whatever_the_application_sends(answer: bytes) -> None:
    async with raw_application(answering(answer)) as application, front(application.url) as place:
        got = await place.get(method="HEAD")
        again = await place.get(method="HEAD")
    assert got == again == b"HTTP/1.1 200 OK\r\nContent-Length: 70\r\nConnection: close\r\n\r\n"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"


async def test_a_chunked_answer_stays_chunked() -> None:
    async with raw_application(answering(CHUNKED)) as application, front(application.url) as place:
        got = await place.get()
    assert got == (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nabcde\r\n0\r\n\r\n")


async def test_an_old_client_gets_a_chunked_answer_until_the_end_of_the_connection() -> None:
    async with raw_application(answering(CHUNKED)) as application, front(application.url) as place:
        got = await place.ask(b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
    assert got == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde"


async def test_an_old_client_may_keep_its_connection() -> None:
    async with raw_application(answering(OK)) as application, front(application.url) as place:
        request = b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n"
        got = await place.ask(request + request.replace(b"keep-alive", b"close"))
    assert got.count(b"200 OK") == 2
    assert got.count(b"Connection: keep-alive") == 1


async def test_a_body_until_the_end_of_the_connection_arrives_whole() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(b"HTTP/1.0 200 OK\r\n\r\n")
        for _ in range(20):
            await caller.say(b"0123456789" * 10_000)

    async with (
        raw_application(script) as application,
        front(application.url) as place,
        aiohttp.ClientSession() as session,
        session.get(place.url) as answer,
    ):
        assert len(await answer.read()) == 2_000_000
        assert answer.headers["Transfer-Encoding"] == "chunked"


async def test_content_encoding_is_left_alone() -> None:
    body = gzip.compress(b"hello")
    seen: list[bytes] = []

    async def echo(request: web.Request) -> web.Response:
        seen.append(await request.read())
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async with (
        aiohttp_application(echo) as url,
        front(url) as place,
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(place.url, data=body, headers={"Content-Encoding": "gzip"}) as answer,
    ):
        assert await answer.read() == body
        assert answer.headers["Content-Encoding"] == "gzip"
    assert seen == [body]


async def test_an_expectation_is_met_here_once_the_application_is_there() -> None:
    seen: list[bytes] = []

    async def script(caller: Caller) -> None:
        seen.extend([await caller.head(), await caller.reader.readexactly(3)])
        await caller.say(OK)

    async with raw_application(script) as application, front(application.url) as place:
        reader, writer = await place.dial(
            b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        writer.close()
    assert seen == [b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n", b"abc"]


async def test_an_application_that_is_down_costs_no_upload() -> None:
    async with front("http://127.0.0.1:1") as place:
        got = await place.ask(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 502")


async def test_every_event_of_a_stream_is_passed_on_at_once() -> None:
    go_on = asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            await caller.say(b"data: %d\n\n" % number)
            go_on.clear()
            await go_on.wait()

    async with (
        raw_application(script) as application,
        front(application.url) as place,
        aiohttp.ClientSession() as session,
        session.get(place.url) as answer,
    ):
        for number in range(3):
            assert await answer.content.readuntil(b"\n\n") == b"data: %d\n\n" % number
            go_on.set()


async def test_the_clients_connection_serves_many_requests() -> None:
    async with raw_application(answering(OK)) as application, front(application.url) as place:
        requests = b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n" * 3
        got = await place.ask(requests + b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert got.count(b"200 OK") == 4
    assert len(application.callers) == 1


async def test_while_draining_answers_tell_clients_to_connect_anew() -> None:
    async with raw_application(answering(OK)) as application, front(application.url) as place:
        place.upstream.drain()
        got = await place.ask(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in got


async def test_closing_lets_what_is_under_way_finish() -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.head()
        arrived.set()
        await go_on.wait()
        await caller.say(OK)

    async with raw_application(script) as application, front(application.url) as place:
        asking = asyncio.create_task(place.get())
        await arrived.wait()
        closing = asyncio.create_task(place.upstream.close(grace=30))
        await asyncio.sleep(0)
        assert not closing.done()
        go_on.set()
        await closing
        assert (await asking).endswith(b"ok")
        assert (await place.get()).startswith(b"HTTP/1.1 503")


async def test_closing_ends_what_does_not_finish_in_time() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.gone()

    async with raw_application(script) as application, front(application.url) as place:
        asking = asyncio.create_task(place.get())
        await until(lambda: place.upstream.live)
        await place.upstream.close(grace=0.05)
        assert (await asking).startswith(b"HTTP/1.1 503")

"""Connections are kept, bounded, never shared when they are one person's; requests are repeated only when safe."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.config.service import App
from sidecar.model import Reason
from sidecar.upstream import exchange as exchange_module
from sidecar.upstream import pool as pool_module
from sidecar.upstream.target import targets_of
from tests.services.upstream import Caller, Front, front, raw_application, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def polite(caller: Caller) -> None:
    while await caller.head():
        await caller.say(OK)


def idle(place: Front) -> int:
    return place.upstream.servers[0].pool.idle


async def test_a_connection_serves_the_next_request() -> None:
    async with raw_application(polite) as application, front(application.url) as place:
        for _ in range(3):
            assert (await place.get()).endswith(b"ok")
        assert len(application.callers) == 1
        assert idle(place) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nwww-authenticate: negotiate abc\r\nContent-Length: 2\r\n\r\nok",
        OK + OK,
        OK + b"HTTP/1.1 200 OK\r\nX-A: ",
        OK + b"HTTP",
    ],
)
async def test_t61_a_connection_that_is_not_clean_serves_nobody_else(answer: bytes) -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(answer)
        await caller.gone()

    async with raw_application(script) as application, front(application.url) as place:
        for _ in range(2):
            assert (await place.get()).endswith(b"\r\n\r\nok")
        assert len(application.callers) == 2
        assert idle(place) == 0


@pytest.mark.parametrize("protocol", [b"h2,h2c", b"websocket"])
async def test_an_application_may_offer_another_protocol(protocol: bytes) -> None:
    async def script(caller: Caller) -> None:
        while await caller.head():
            await caller.say(OK.replace(b"\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\n", 1))

    async with raw_application(script) as application, front(application.url) as place:
        for _ in range(2):
            assert (await place.get()).endswith(b"ok")


@pytest.mark.parametrize("credential", ["NTLM abc", "Negotiate abc", "negotiate abc"])
async def test_t61_a_connection_that_one_person_signed_in_serves_nobody_else(credential: str) -> None:
    async with raw_application(polite) as application, front(application.url) as place:
        await place.get("/", f"Authorization: {credential}")
        await place.get()
        assert len(application.callers) == 2


async def test_t61_a_cookie_of_one_person_never_reaches_the_next() -> None:
    seen: list[bytes] = []

    async def script(caller: Caller) -> None:
        while head := await caller.head():
            seen.append(head)
            await caller.say(OK.replace(b"\r\nC", b"\r\nSet-Cookie: app=alice; Path=/\r\nC"))

    async with raw_application(script) as application, front(application.url) as place:
        assert b"app=alice" in await place.get("/alice", "Cookie: a=alice")
        await place.get("/bob")
    assert len(application.callers) == 1
    assert b"alice" not in seen[1]
    assert b"ookie" not in seen[1]


async def test_t61_the_trailers_of_one_person_s_answer_are_no_lines_of_the_next() -> None:
    answers = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nSet-Cookie: app=alice\r\n\r\n",
        OK,
    ]

    async def script(caller: Caller) -> None:
        while await caller.head():
            await caller.say(answers[min(len(taken), 1)])
            taken.append(caller.number)

    taken: list[int] = []
    async with raw_application(script) as application, front(application.url) as place:
        for target in ("/alice", "/bob"):
            assert b"alice" not in await place.get(target)
        assert len(application.callers) == 1


async def test_a_connection_that_the_application_closes_is_dropped_at_once() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(OK)

    async with raw_application(script) as application, front(application.url) as place:
        await place.get()
        await until(lambda: idle(place) == 0)
        assert (await place.get(method="POST")).endswith(b"ok")


async def test_bytes_that_nobody_asked_for_end_an_idle_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_KEEP_IDLE", 3600.0)
    async with raw_application(polite) as application, front(application.url) as place:
        await place.get()
        await application.callers[0].say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await until(lambda: idle(place) == 0)
        assert (await place.get()).endswith(b"\r\n\r\nok")


async def test_idle_connections_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_KEEP_IDLE", 3600.0)
    async with raw_application(polite) as application, front(application.url, idle_timeout=0.1) as place:
        await place.get()
        assert idle(place) == 1
        monkeypatch.setattr(pool_module, "_KEEP_IDLE", 0.0)
        await until(lambda: idle(place) == 0)


async def lazy(caller: Caller) -> None:
    """Answer the first request, and hang up when a second one comes on the same connection."""
    await caller.head()
    await caller.say(OK)
    if caller.number == 1:
        await caller.reader.read(1)
        caller.reset()
    else:
        await polite(caller)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_a_request_that_met_a_closing_connection_is_repeated_where_that_is_safe(method: str) -> None:
    async with raw_application(lazy) as application, front(application.url) as place:
        await place.get()
        assert (await place.get("/", "Content-Length: 0", method=method)).startswith(b"HTTP/1.1 200 ")
        assert len(application.callers) == 2


@pytest.mark.parametrize("method", ["POST", "PATCH", "LOCK"])
async def test_a_request_that_may_have_been_done_is_not_repeated(method: str) -> None:
    async with raw_application(lazy) as application, front(application.url) as place:
        await place.get()
        assert (await place.get(method=method)).startswith(b"HTTP/1.1 502 ")
        assert len(application.callers) == 1


async def test_a_request_is_not_repeated_when_its_body_has_been_streamed() -> None:
    async with raw_application(lazy) as application, front(application.url) as place:
        await place.get()
        await place.dial(b"PUT / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab")
        await until(lambda: place.problems)
        assert len(application.callers) == 1


async def test_a_request_is_not_repeated_when_the_answer_had_begun() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(OK)
        await caller.head()
        await caller.say(b"HTTP/1.1 2")

    async with raw_application(script) as application, front(application.url) as place:
        await place.get()
        assert (await place.get()).startswith(b"HTTP/1.1 502 ")
        assert len(application.callers) == 1


async def test_a_request_is_not_repeated_when_the_application_was_too_slow() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(OK)
        await caller.gone()

    async with raw_application(script) as application, front(application.url, answer_timeout=0.1) as place:
        await place.get()
        assert (await place.get()).startswith(b"HTTP/1.1 504 ")
        assert len(application.callers) == 1


async def test_a_request_is_repeated_once_only() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        if caller.number == 1:
            await caller.say(OK)
            await caller.head()

    async with raw_application(script) as application, front(application.url) as place:
        await place.get()
        assert (await place.get()).startswith(b"HTTP/1.1 502 ")
        assert len(application.callers) == 2


async def test_what_cannot_be_repeated_does_not_bet_on_an_old_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_SURELY_ALIVE", 0.0)
    async with raw_application(polite) as application, front(application.url) as place:
        await place.get()
        await place.get(method="POST")
        assert len(application.callers) == 2
        await place.get()
        assert len(application.callers) == 2


class Bench:
    """An application that answers when told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.busy = self.most = 0

    async def __call__(self, caller: Caller) -> None:
        while await caller.head():
            self.busy += 1
            self.most = max(self.most, self.busy)
            await self.go_on.wait()
            self.busy -= 1
            await caller.say(OK)


async def test_no_more_requests_than_configured_are_at_the_application() -> None:
    bench = Bench()
    async with raw_application(bench) as application, front(application.url, max_connections=3) as place:
        asking = [asyncio.create_task(place.get(method=("GET", "POST")[n % 2])) for n in range(12)]
        await until(lambda: bench.busy == 3)
        bench.go_on.set()
        assert all(answer.endswith(b"ok") for answer in await asyncio.gather(*asking))
    assert bench.most == 3


async def test_waiting_for_a_connection_ends_in_504() -> None:
    bench = Bench()
    async with (
        raw_application(bench) as application,
        front(application.url, max_connections=1, connect_timeout=0.1) as place,
    ):
        first = asyncio.create_task(place.get())
        await until(lambda: bench.busy)
        assert (await place.get()).startswith(b"HTTP/1.1 504 ")
        assert place.problems[0].reason is Reason.UPSTREAM_SLOW  # type: ignore[attr-defined]
        bench.go_on.set()
        assert (await first).endswith(b"ok")
        assert (await place.get()).endswith(b"ok")
        assert place.upstream.servers[0].pool.busy == 0


async def test_a_client_that_stops_waiting_loses_no_place() -> None:
    bench = Bench()
    async with (
        raw_application(bench) as application,
        front(application.url, max_connections=1, handler_cancellation=True) as place,
    ):
        first = asyncio.create_task(place.get())
        await until(lambda: bench.busy)
        _, writer = await place.dial(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        pool = place.upstream.servers[0].pool
        await until(lambda: pool._queue)
        writer.transport.abort()
        await until(lambda: not pool._queue)
        bench.go_on.set()
        assert (await first).endswith(b"ok")
        assert pool.busy == 0


async def test_a_place_that_comes_free_for_somebody_who_just_left_is_not_lost() -> None:
    async with raw_application(polite) as application:
        pool = pool_module.Pool(targets_of(App(upstream=application.url))[0], bound=1, patience=5)
        first = await pool.take()
        second = asyncio.create_task(pool.take())
        await asyncio.sleep(0)
        pool.give_back(first, may_be_shared=False)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert pool.busy == 0
        await until(lambda: application.callers)


async def test_event_streams_leave_room_for_requests() -> None:
    async def script(caller: Caller) -> None:
        head = await caller.head()
        if head.startswith(b"GET /events"):
            await caller.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            await caller.gone()
        else:
            await caller.say(OK)
            await polite(caller)

    async with (
        raw_application(script) as application,
        front(application.url, max_connections=1, connect_timeout=0.5) as place,
    ):
        for _ in range(3):
            reader, _ = await place.dial(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
            await reader.readuntil(b"data: 1\n\n")
        assert (await place.get()).endswith(b"ok")
        assert place.upstream.servers[0].pool.busy == 0


async def test_the_slowest_client_gives_its_place_to_whoever_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "_SETTLED", 0.01)

    async def script(caller: Caller) -> None:
        if (await caller.head()).startswith(b"POST"):
            await caller.reader.readexactly(5000)
        await caller.say(OK)

    async with (
        raw_application(script) as application,
        front(application.url, max_connections=2, connect_timeout=5, answer_timeout=0.5) as place,
    ):
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n"
        slow, _ = await place.dial(head + b"x")
        quick, writer = await place.dial(head + b"x" * 4000)
        await until(lambda: len(application.callers) == 2)
        assert (await place.get()).endswith(b"ok")
        assert await was_cut(slow)
        writer.write(b"x" * 1000)
        assert (await quick.readuntil(b"ok")).endswith(b"ok")


async def test_a_client_that_reads_nothing_gives_its_place_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "_SETTLED", 0.01)

    async def script(caller: Caller) -> None:
        if (await caller.head()).startswith(b"GET /large"):
            await caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 50_000_000)
        await caller.say(OK)

    async with (
        raw_application(script) as application,
        front(application.url, max_connections=1, connect_timeout=5, answer_timeout=0.5) as place,
    ):
        await place.dial(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n", limit=1024)
        await until(lambda: application.callers)
        assert (await place.get()).endswith(b"ok")


async def test_nobody_is_cut_while_the_application_is_the_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "_SETTLED", 0.01)
    bench = Bench()
    async with (
        raw_application(bench) as application,
        front(application.url, max_connections=1, connect_timeout=0.3, answer_timeout=2, idle_timeout=0.5) as place,
    ):
        first = asyncio.create_task(place.get())
        await until(lambda: bench.busy)
        assert (await place.get()).startswith(b"HTTP/1.1 504 ")
        bench.go_on.set()
        assert (await first).endswith(b"ok")


async def was_cut(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True

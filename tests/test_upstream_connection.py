"""A connection to the application serves another request only when nothing of the last one can be left on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.upstream.connection import Connection
from tests.services.upstream import Caller, RawApplication, front, raw_application, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
BARE_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
FAULT = Unavailable(Reason.STOPPING)


async def silent(caller: Caller) -> None:
    await caller.gone()


@pytest_asyncio.fixture
async def application() -> AsyncIterator[RawApplication]:
    """An application that says nothing: what comes is what the test says."""
    async with raw_application(silent) as application:
        yield application


@pytest_asyncio.fixture
async def lost() -> list[Connection]:
    """Connections that have ended."""
    return []


async def connected(application: RawApplication, lost: list[Connection]) -> Connection:
    """A real one, at work for a GET; nothing has been sent."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(loop, lost.append), "127.0.0.1", application.port)
    connection.begin(for_head=False)
    return connection


@pytest_asyncio.fixture
async def connection(application: RawApplication, lost: list[Connection]) -> AsyncIterator[Connection]:
    """One whose head has been sent."""
    connection = await connected(application, lost)
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    connection.is_sent = True
    yield connection
    connection.abort()
    await until(lambda: lost)


@pytest_asyncio.fixture
async def stuck(lost: list[Connection]) -> AsyncIterator[Connection]:
    """One to an application that takes nothing, with more to send than anybody holds."""

    async def deaf(_caller: Caller) -> None:
        await asyncio.Event().wait()

    async with raw_application(deaf) as application:
        connection = await connected(application, lost)
        connection.send(b"x" * 50_000_000)
        yield connection


async def test_it_serves_another_request_once_an_answer_is_whole(connection: Connection) -> None:
    for answer in (OK, CHUNKED, HINTS + OK):
        connection.watch_interim(lambda _: None)
        connection.data_received(answer)
        assert connection.at_hand is not None
        assert connection.finish(may_be_shared=True)
        connection.begin(for_head=False)
        assert connection.at_hand is None
        connection.is_sent = True


@pytest.mark.parametrize(
    "came",
    [
        OK[:-1],
        OK[:20],
        b"",
        HINTS,
        OK + OK,
        OK + b"HTTP",
        OK + b"x",
        OK.replace(b"1.1", b"1.0"),
        OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1),
        CHUNKED[:-2],
        CHUNKED + OK,
        SWITCH,
        BARE_SWITCH,
        OK + SWITCH,
    ],
)
async def test_t60_it_serves_nobody_after_anything_else(connection: Connection, came: bytes) -> None:
    if came:
        connection.data_received(came)
    assert not connection.finish(may_be_shared=True)
    assert not connection.is_open


async def test_it_serves_nobody_while_a_request_is_not_sent_whole(connection: Connection) -> None:
    connection.is_sent = False
    connection.data_received(OK)
    assert not connection.finish(may_be_shared=True)
    assert not connection.is_open


@pytest.mark.parametrize("is_plain", [True, False])
async def test_it_serves_nobody_when_it_must_not_be_shared(connection: Connection, is_plain: bool) -> None:
    if is_plain:
        connection.tell(lambda: None)
    connection.data_received(OK)
    assert (connection.plain is not None) is is_plain
    assert not connection.finish(may_be_shared=False)
    assert not connection.is_open


@pytest.mark.parametrize("is_plain", [True, False])
@pytest.mark.parametrize("ends", ["close", "fail"])
async def test_it_serves_nobody_once_it_ends(connection: Connection, is_plain: bool, ends: str) -> None:
    if is_plain:
        connection.tell(lambda: None)
    connection.data_received(OK)
    if ends == "close":
        connection.close()
    else:
        connection.fail(FAULT)
    assert not connection.finish(may_be_shared=True)


async def test_an_answer_that_must_not_be_taken_is_not_at_hand(connection: Connection) -> None:
    connection.data_received(OK)
    connection.fail(FAULT)
    assert connection.at_hand is None


@pytest.mark.parametrize("came", [OK[:-1], OK + OK, SWITCH, BARE_SWITCH, HINTS + OK, HINTS])
async def test_only_a_whole_answer_that_is_alone_is_at_hand(connection: Connection, came: bytes) -> None:
    connection.data_received(came)
    assert connection.at_hand is None


@pytest.mark.parametrize("pieces", [(OK,), (OK[:30], OK[30:]), (CHUNKED,), (HINTS, OK), (b"no HTTP\r\n\r\n",), ()])
async def test_it_speaks_once(connection: Connection, lost: list[Connection], pieces: tuple[bytes, ...]) -> None:
    spoken: list[int] = []
    connection.tell(lambda: spoken.append(1))
    for piece in pieces:
        connection.data_received(piece)
    if pieces:
        assert spoken == [1]
    connection.abort()
    await until(lambda: lost)
    assert spoken == [1]


async def test_it_is_silent_once_it_was_finished(connection: Connection, lost: list[Connection]) -> None:
    spoken: list[int] = []
    connection.tell(lambda: spoken.append(1))
    connection.finish(may_be_shared=False)
    await until(lambda: lost)
    assert spoken == []


async def test_what_begins_in_pieces_is_not_taken_for_a_plain_answer(connection: Connection) -> None:
    connection.tell(lambda: None)
    connection.data_received(b"HTTP/1.1 200 OK\r\nX-Body: ")
    connection.data_received(OK)
    assert connection.plain is None


async def test_nobody_who_waits_in_a_task_gets_a_plain_answer(connection: Connection) -> None:
    waiting = asyncio.create_task(connection.message())
    await asyncio.sleep(0)
    connection.data_received(OK)
    assert connection.plain is None
    assert (await waiting).code == 200


async def test_the_first_fault_counts(connection: Connection) -> None:
    connection.fail(FAULT)
    connection.fail(Unavailable(Reason.UPSTREAM_SLOW))
    with pytest.raises(Unavailable) as caught:
        await connection.message()
    assert caught.value is FAULT


async def test_a_fault_breaks_off_a_body_and_leaves_a_whole_one(connection: Connection) -> None:
    connection.data_received(OK)
    whole = connection.payload
    connection.fail(FAULT)
    assert whole is not None
    assert await whole.read() == b"ok"


async def test_a_fault_ends_whoever_reads(connection: Connection) -> None:
    connection.data_received(OK[:-1])
    payload = connection.payload
    assert payload is not None
    assert payload.read_nowait() == b"o"
    connection.fail(FAULT)
    with pytest.raises(Unavailable):
        await payload.readany()


async def test_bytes_that_nobody_asked_for_end_it(connection: Connection) -> None:
    connection.data_received(OK)
    assert connection.finish(may_be_shared=True)
    connection.data_received(b"HTTP")
    assert not connection.is_open


async def test_the_end_of_an_idle_connection_is_nobodys_fault(connection: Connection, lost: list[Connection]) -> None:
    connection.data_received(OK)
    assert connection.finish(may_be_shared=True)
    connection.close()
    await until(lambda: lost)
    assert connection._error is None


@pytest.mark.parametrize("end", [None, ConnectionResetError()])
async def test_a_body_until_the_end_is_whole_when_the_end_was_proper(
    connection: Connection, end: Exception | None
) -> None:
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nok")
    payload = connection.payload
    assert payload is not None
    connection.connection_lost(end)
    if end is None:
        assert await payload.read() == b"ok"
    else:
        with pytest.raises(Unavailable):
            await payload.read()


async def test_what_was_read_before_the_end_can_be_had_after_it(connection: Connection) -> None:
    said = b"x" * 300_000
    connection.data_received(SWITCH + said)
    payload = connection.payload
    assert payload is not None
    # So much that nothing more was read.
    assert connection._reading_paused
    transport = connection.transport
    connection.connection_lost(None)
    assert await payload.read() == said
    transport.abort()


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_more_comes_than_anybody_takes_while_it_ends(connection: Connection, end: str) -> None:
    size = 300_000
    getattr(connection, end)()
    # The event loop may have read this before; it can neither be told to pause any more, nor to go on.
    connection.data_received(SWITCH + b"x" * size)
    payload = connection.payload
    assert payload is not None
    assert connection._reading_paused
    assert len(await payload.readany()) == size
    assert not connection._reading_paused


async def test_whoever_waits_to_write_hears_of_the_end(stuck: Connection) -> None:
    waiting = asyncio.create_task(stuck.drain())
    await asyncio.sleep(0)
    assert not waiting.done()
    stuck.abort()
    async with asyncio.timeout(2):
        with pytest.raises(Unavailable):
            await waiting
    with pytest.raises(Unavailable):
        await stuck.drain()


async def test_a_fault_before_the_end_counts(connection: Connection) -> None:
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nok")
    payload = connection.payload
    assert payload is not None
    connection._error = FAULT
    connection.connection_lost(None)
    with pytest.raises(Unavailable):
        await payload.read()


async def test_what_follows_an_answer_to_head_ends_it(connection: Connection) -> None:
    for came, is_fit in ((OK[:-2], True), (OK, False)):
        connection.finish(may_be_shared=False)
        connection.begin(for_head=True)
        connection.is_sent = True
        connection.data_received(came)
        assert connection._is_dirty() is not is_fit


async def test_many_requests_may_have_interim_answers_and_heads_in_pieces() -> None:
    line = b"X-Long: " + b"x" * 9000 + b"\r\n"

    async def script(caller: Caller) -> None:
        while await caller.head():
            await caller.say(HINTS + OK[:17] + line)
            await asyncio.sleep(0.005)
            await caller.say(OK[17:])

    async with raw_application(script) as application, front(application.url) as place:
        for _ in range(20):
            assert (await place.get()).endswith(b"ok")
        assert len(application.callers) == 1


async def test_what_is_not_taken_does_not_keep_it_open(stuck: Connection, lost: list[Connection]) -> None:
    assert not stuck.finish(may_be_shared=True)
    async with asyncio.timeout(2):
        await until(lambda: lost)

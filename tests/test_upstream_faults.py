"""What happens when the application, the client or the session is not well-behaved: never a falsely complete answer."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.faults import Refused
from sidecar.reason import Reason
from sidecar.upstream import Head
from sidecar.upstream.head import Framing, compose
from tests.services.upstream import Caller, Front, front, raw_application, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def once(answer: bytes):  # noqa: ANN201 - a script
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(answer)

    return script


def reasons(place: Front) -> list[Reason]:
    return [problem.reason for problem in place.problems]  # type: ignore[attr-defined]


LONG = b"x" * 70_000
NONSENSE = {
    "not http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "no answer at all but a line": b"\r\n\r\nhello\r\n\r\n",
    "http 2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    "two equal lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "empty length": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    "enormous length": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nok",
    "gzip as transfer coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    "gzip under chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked with a tail": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked123\r\n\r\n0\r\n\r\n",
    "chunks in http 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "nul": b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "escape": b"HTTP/1.1 200 OK\r\nX-A: a\x1bb\r\nContent-Length: 0\r\n\r\n",
    "delete": b"HTTP/1.1 200 OK\r\nX-A: a\x7fb\r\nContent-Length: 0\r\n\r\n",
    "lone cr": b"HTTP/1.1 200 OK\r\nX-A: a\rSet-Cookie: x=1\r\nContent-Length: 0\r\n\r\n",
    "control in the reason": b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 0\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 0\r\n\r\n",
    "one long line": b"HTTP/1.1 200 OK\r\nX-A: " + LONG + b"\r\nContent-Length: 0\r\n\r\n",
    "few lines without an end": b"HTTP/1.1 200 OK\r\n" + (b"X-A: " + LONG[:30_000] + b"\r\n") * 3,
    "head without an end": b"HTTP/1.1 200 OK\r\n" + b"X-A: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n" * 1700,
    "large head": b"HTTP/1.1 200 OK\r\n" + b"X-A: " + LONG[:33_000] + b"\r\nX-B: " + LONG[:33_000] + b"\r\n\r\n",
    "many lines": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"Content-Length: 0\r\n\r\n",
    "long reason": b"HTTP/1.1 200 " + LONG + b"\r\nContent-Length: 0\r\n\r\n",
    "101 unasked": b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "bare 101": b"HTTP/1.1 101 Switching\r\n\r\n",
    "endless interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + OK,
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE.keys())
async def test_t60_a_nonsensical_answer_becomes_502_and_its_connection_is_not_used_again(answer: bytes) -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(answer)
        await caller.gone()

    async with raw_application(script) as application, front(application.url) as place:
        got = await place.get()
        assert got.startswith(b"HTTP/1.1 502 ")
        assert b"Set-Cookie" not in got
        assert reasons(place) == [Reason.UPSTREAM_ANSWER]
        await place.get()
    assert len(application.callers) == 2


BROKEN_BODIES = {
    "length not reached": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
    "chunks without an end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n12345",
    "head only": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
}


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("answer", BROKEN_BODIES.values(), ids=BROKEN_BODIES.keys())
async def test_a_body_that_is_cut_short_is_never_taken_for_the_whole(answer: bytes, version: bytes) -> None:
    started = asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(answer)
        await started.wait()

    async with raw_application(script) as application, front(application.url) as place:
        reader, writer = await place.dial(b"GET / HTTP/%b\r\nHost: h\r\n\r\n" % version)
        await reader.readuntil(b"\r\n\r\n")
        started.set()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await until(lambda: place.answers)
        assert place.answers[0].is_broken


@pytest.mark.parametrize("garbage", [b"zz\r\nabc\r\n", b"5\r\n1234567\r\n", b"-1\r\n"])
async def test_t60_a_body_with_invalid_chunks_breaks_off(garbage: bytes) -> None:
    started = asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await started.wait()
        await caller.say(garbage)
        await caller.gone()

    async with raw_application(script) as application, front(application.url) as place:
        reader, writer = await place.dial(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readuntil(b"a\r\n")
        started.set()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_reset_does_not_end_a_body_that_lasts_until_the_end_of_the_connection() -> None:
    started = asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await started.wait()
        caller.reset()

    async with raw_application(script) as application, front(application.url) as place:
        reader, writer = await place.dial(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readuntil(b"half")
        caller = application.callers[0]
        caller.writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER 0: RST
        started.set()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_application_that_hangs_up_becomes_502(method: str) -> None:
    async with raw_application(once(b"")) as application, front(application.url) as place:
        assert (await place.get(method=method)).startswith(b"HTTP/1.1 502 ")
        assert reasons(place) == [Reason.UPSTREAM_DOWN]
    assert len(application.callers) == 1


async def test_half_a_head_becomes_502() -> None:
    async with raw_application(once(b"HTTP/1.1 200 OK\r\nX-A: ")) as application, front(application.url) as place:
        assert (await place.get()).startswith(b"HTTP/1.1 502 ")


async def test_nobody_listening_becomes_502() -> None:
    async with front("http://127.0.0.1:1") as place:
        assert (await place.get()).startswith(b"HTTP/1.1 502 ")
        assert reasons(place) == [Reason.UPSTREAM_DOWN]


async def silent(caller: Caller) -> None:
    await caller.head()
    await caller.gone()


async def test_an_application_that_does_not_answer_in_time_becomes_504_and_is_asked_once() -> None:
    async with raw_application(silent) as application, front(application.url, answer_timeout=0.1) as place:
        assert (await place.get()).startswith(b"HTTP/1.1 504 ")
        assert reasons(place) == [Reason.UPSTREAM_SLOW]
    assert len(application.callers) == 1


async def test_an_application_that_falls_silent_in_a_body_breaks_off() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        assert await caller.gone() == b""

    async with raw_application(script) as application, front(application.url, idle_timeout=0.1) as place:
        with pytest.raises(ConnectionResetError):
            await place.get()


async def test_a_client_that_falls_silent_in_its_upload_is_dropped() -> None:
    async with (
        raw_application(silent) as application,
        front(application.url, idle_timeout=0.1, answer_timeout=60) as place,
    ):
        with pytest.raises(ConnectionResetError):
            await place.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf")
        await until(lambda: place.answers)
        assert place.answers[0].is_broken


async def test_a_client_that_does_not_read_is_dropped() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            await caller.say(b"x" * 1_000_000)

    async with raw_application(script) as application, front(application.url, idle_timeout=0.2) as place:
        _, writer = await place.dial(limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(lambda: place.answers)
        assert place.answers[0].is_broken
        writer.transport.abort()


@pytest.mark.parametrize("handler_cancellation", [False, True])
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"])
async def test_a_client_that_leaves_ends_the_applications_connection(answer: bytes, handler_cancellation: bool) -> None:
    noticed = asyncio.Event()
    asked = asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(answer)
        asked.set()
        await caller.gone()
        noticed.set()

    async with (
        raw_application(script) as application,
        front(application.url, idle_timeout=3, handler_cancellation=handler_cancellation) as place,
    ):
        _, writer = await place.dial(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await asked.wait()
        writer.close()
        await noticed.wait()
        await until(lambda: not place.upstream.live)


async def test_a_client_that_leaves_in_its_upload_ends_the_applications_connection() -> None:
    got: list[bytes] = []

    async def script(caller: Caller) -> None:
        await caller.head()
        got.append(await caller.gone())

    async with raw_application(script) as application, front(application.url) as place:
        _, writer = await place.dial(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345")
        await until(lambda: application.callers)
        writer.transport.abort()
        await until(lambda: got)
        assert got == [b"12345"]
        await until(lambda: place.answers)


async def test_an_early_answer_is_passed_and_the_upload_stops() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!")
        await caller.gone()

    async with raw_application(script) as application, front(application.url) as place:
        got = await place.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nhalf")
        assert got == b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!"
        await until(lambda: not place.upstream.live)
        await place.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nhalf")
    assert len(application.callers) == 2


async def test_an_answer_may_begin_before_the_upload_has_ended() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2):
            word = await caller.reader.readexactly(3)
            await caller.say(b"3\r\n" + word + b"\r\n")
        await caller.say(b"0\r\n\r\n")

    async with raw_application(script) as application, front(application.url) as place:
        reader, writer = await place.dial(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        for word in (b"abc", b"def"):
            writer.write(word)
            assert await reader.readuntil(word) == b"3\r\n" + word
            await reader.readexactly(2)
        assert await reader.read() == b"0\r\n\r\n"
        writer.close()


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 11\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n5\r\n12345\r\n0\r\n\r\n"],
)
@pytest.mark.parametrize("piecewise", [True, False])
async def test_a_body_over_the_limit_is_refused(framing: bytes, piecewise: bool) -> None:
    async with raw_application(silent) as application, front(application.url, max_body=10) as place:
        reader, writer = await place.dial(b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n")
        if piecewise:
            half = len(framing) - 8
            writer.write(framing[:half])
            await asyncio.sleep(0.02)
            writer.write(framing[half:])
        else:
            writer.write(framing)
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
        writer.close()
        assert reasons(place) == [Reason.BODY_TOO_LARGE]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", b"400"),
        (b"HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", b"400"),
        (b"HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked123\r\n\r\n0\r\n\r\n", b"400"),
        # 2 to the power of 64, and five.
        (b"HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551621\r\n\r\nabcde", b"400"),
    ],
)
async def test_t60_a_request_with_doubtful_framing_is_refused(lines: bytes, status: bytes) -> None:
    seen: list[bytes] = []

    async def script(caller: Caller) -> None:
        while head := await caller.head():
            seen.append(head)
            await caller.say(OK)

    async with raw_application(script) as application, front(application.url) as place:
        got = await place.ask(b"POST / " + lines + b"GET /smuggled HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert got.split()[1] == status
    assert not any(head.startswith(b"POST") for head in seen)


@pytest.mark.parametrize(
    "head",
    [
        Head("GET", "/", (("X-A", "1\r\nX-B: 2"),)),
        Head("GET", "/", (("X-A", "1\n"),)),
        Head("GET", "/", (("X-A", "\x00"),)),
        Head("GET", "/", (("X-A", "\ud800"),)),
        Head("GET", "/ HTTP/1.1\r\nX-A: 1", ()),
        Head("GET", "/a b", ()),
        Head("GET", "http://other/", ()),
        Head("GET", "*", ()),
        Head("", "/", ()),
        Head("GET /x", "/", ()),
        Head("POST", "/", (("content-length", "5"),)),
        Head("POST", "/", (("X-A", "1"), ("Transfer-Encoding", "chunked"))),
        Head("POST", "/", (("Connection", "close"),)),
        Head("POST", "/", (("Upgrade", "websocket"),)),
    ],
)
def test_a_head_that_could_be_read_in_two_ways_is_not_sent(head: Head) -> None:
    with pytest.raises(Refused):
        compose(head, Framing(length=0))


def test_options_may_ask_for_the_whole_server() -> None:
    assert compose(Head("OPTIONS", "*", ()), Framing()).data == b"OPTIONS * HTTP/1.1\r\n\r\n"


async def test_lines_that_the_gate_adds_cannot_split_the_answer() -> None:
    async with (
        raw_application(once(OK)) as application,
        front(application.url, alter=lambda lines: [*lines, ("Set-Cookie", "a\r\nX-B: 2")]) as place,
    ):
        assert (await place.get()).startswith(b"HTTP/1.1 502 ")


async def test_a_session_that_ends_cuts_a_long_stream_short() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        await caller.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await caller.gone()

    async with raw_application(script) as application, front(application.url) as place:
        reader, writer = await place.dial(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readuntil(b"data: 1\n\n")
        place.ending.end()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await until(lambda: not place.upstream.live)
        assert not place.ending._watchers


async def test_a_session_that_ends_stops_a_request_that_still_waits() -> None:
    async with raw_application(silent) as application, front(application.url) as place:
        asking = asyncio.create_task(place.get())
        await until(lambda: place.ending._watchers)
        place.ending.end()
        assert (await asking).startswith(b"HTTP/1.1 401 ")


async def test_the_answer_that_ends_the_session_still_arrives() -> None:
    async def script(caller: Caller) -> None:
        await caller.head()
        place.ending.end()
        await caller.say(OK)

    async with raw_application(script) as application, front(application.url) as place:
        assert (await place.get()).endswith(b"ok")
        assert not place.ending._watchers


async def test_a_gate_that_fails_to_alter_leaks_no_connection() -> None:
    def fail(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
        raise LookupError(lines)

    async with raw_application(once(OK)) as application, front(application.url, alter=fail) as place:
        assert (await place.get()).startswith(b"HTTP/1.1 500 ")
        assert place.upstream.live == 0

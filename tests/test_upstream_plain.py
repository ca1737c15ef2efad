"""An answer that is read line by line means what the parser says it means, or it is left to the parser."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.faults import Unavailable
from sidecar.upstream import plain
from sidecar.upstream.answer import MAX_LINES, head_bytes, judge
from sidecar.upstream.plain import plain_answer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_plain_answer_is_passed_on_without_what_is_for_us() -> None:
    said = b"HTTP/1.1 404 Not There\r\nServer: x\r\nKeep-Alive: 5\r\nConnection: keep-alive\r\nX-E:\r\n"
    found = plain_answer(said + b"Content-Length: 2\r\n\r\nno")
    assert found is not None
    assert found.status == 404
    assert found.data == b"HTTP/1.1 404 Not There\r\nServer: x\r\nX-E: \r\nContent-Length: 2\r\n\r\nno"


@pytest.mark.parametrize(
    "answer",
    [
        OK[:-1],
        OK[:20],
        OK + b"x",
        OK + OK,
        OK.replace(b"1.1", b"1.0"),
        OK.replace(b"200 OK", b"204 No Content"),
        OK.replace(b"200 OK", b"304 Not Modified"),
        OK.replace(b"200 OK", b"101 Switching Protocols"),
        OK.replace(b"200 OK", b"600 Odd"),
        OK.replace(b"200 OK", b"200"),
        OK.replace(b"200 OK", b"200  OK"),
        OK.replace(b"200 OK", b"200 O\x01K"),
        OK.replace(b"\r\n", b"\n"),
        OK.replace(b"Content-Length: 2\r\n", b""),
        OK.replace(b"Length: 2", b"Length: 02"),
        OK.replace(b"Length: 2", b"Length: +2"),
        OK.replace(b"Length: 2", b"Length: 2, 2"),
        OK.replace(b"Content-Length: 2", b"Content-Length: 2\r\nContent-Length: 2"),
        OK.replace(b"Content-Length: 2", b"Content-Length : 2"),
        OK.replace(b"Content-Length: 2", b"Content-Length: 2\r\nTransfer-Encoding: chunked"),
        *(
            OK.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")
            for line in (
                b"Set-Cookie: a=b",
                b"WWW-Authenticate: Negotiate",
                b"Content-Type: text/event-stream",
                b"Content-Type: Text/Event-Stream; x",
                b"Connection: close",
                b"Connection: x-a",
                b" folded: 1",
                b"X-A",
                b": x",
                b"X A: 1",
                b"X-A: \x01",
                b"X-A: a\rb",
                b"X-A: a\nb",
                b"X-A: a\x7fb",
                b"X-A: a\x00",
                b"X-A:  a",
                b"X-A: a ",
                b"X-A:a",
            )
        ),
        OK.replace(b"\r\n\r\n", b"\r\n" + b"X: 1\r\n" * MAX_LINES + b"\r\n"),
        OK.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"),
    ],
)
def test_t60_what_takes_any_care_goes_to_the_parser(answer: bytes) -> None:
    assert plain_answer(OK) is not None
    assert plain_answer(answer) is None


LINES = st.sampled_from(
    [
        b"Server: x",
        b"server: X y",
        b"Content-Length: 2",
        b"content-length: 2",
        b"Content-Length: 3",
        b"Content-Type: text/html",
        b"Set-Cookie: a",
        b"Connection: keep-alive",
        b"Connection: close",
        b"Keep-Alive: 5",
        b"Trailer: X",
        b"Upgrade: h2c",
        b"Transfer-Encoding: chunked",
        b"X-B: \xe4\xff",
        b"X-E:",
        b"X-T: a\tb",
        b"X-S: a b ",
    ]
)
WHOLE = st.builds(
    lambda start, lines, body: b"\r\n".join([start, *lines, b"", body]),
    st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 299 x y", b"HTTP/1.1 503 Not now", b"HTTP/1.1 204 No", OK[:9]]),
    st.lists(LINES, max_size=6),
    st.sampled_from([b"ok", b"abc", b"", b"ok\r\n"]),
)
SPOILT = st.builds(
    lambda data, at, what: data[: at % len(data)] + what + data[at % len(data) :],
    WHOLE,
    st.integers(0, 200),
    st.sampled_from([b"", b" ", b"\r", b"\n", b"\r\n", b"\0", b":", b"\t", b"\x7f", b"\x80", b"0", b","]),
)


@settings(max_examples=1500, deadline=None)
@given(SPOILT)
def test_t60_what_is_read_line_by_line_is_what_the_parser_reads(data: bytes) -> None:
    found = plain_answer(data)
    if found is None:
        return
    status, lines, body = parsed(data)
    head, _, rest = found.data.partition(b"\r\n\r\n")
    assert (found.status, rest) == (status, body)
    # Only where among the lines the length stands differs.
    assert sorted(head.split(b"\r\n")) == sorted(lines)


def parsed(data: bytes) -> tuple[int, list[bytes], bytes]:
    """What the general way makes of *data*: status, lines of the head, body."""

    async def read() -> tuple[int, list[bytes], bytes]:
        loop = asyncio.get_running_loop()
        parser = HttpResponseParser(BaseProtocol(loop), loop, 1 << 16, response_with_body=True, auto_decompress=False)
        messages, _, tail = parser.feed_data(data)
        (message, payload) = messages[0]
        assert (len(messages), tail, payload.is_eof(), message.should_close) == (1, b"", True, False)
        answer = judge(message, "GET")
        head = head_bytes(answer, answer.lines, f"Content-Length: {answer.length}\r\n")
        return answer.status, head.removesuffix(b"\r\n\r\n").split(b"\r\n"), payload.read_nowait()

    try:
        return asyncio.run(read())
    except Unavailable as fault:
        return 502, [str(fault).encode()], b""


def test_only_so_many_lines_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_MOST_KEPT", 8)
    monkeypatch.setattr(plain, "_lines", {})
    for number in range(50):
        assert plain_answer(OK.replace(b"\r\n\r\n", b"\r\nX: %d\r\nY: %b\r\n\r\n" % (number, b"y" * 300)))
        assert len(plain._lines) <= 8
    assert all(len(line) <= 256 for line in plain._lines)

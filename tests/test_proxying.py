"""One table of what a proxy must carry, asked of the sidecar and, as the reference, of nginx.

Each case is a request, an answer, and what must have reached the other side. It is asked four times: of the sidecar
with the whole request at once, of the sidecar piece by piece (so that bodies are streamed), of the sidecar on a
connection where it came twice before, and of a real nginx. Where
nginx does something else, the case says so, and which of the two is right.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from tests.services.nginx import Nginxes
from tests.services.upstream import Caller, raw_application
from tests.station import whole
from tests.world import a_world

pytestmark = pytest.mark.asyncio(loop_scope="module")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Case:
    """*sent* lacks Host, which is added. ``reaches`` must be in what the application got, ``never`` must not be.

    ``body`` must be what the client gets, framing aside, when it is given; ``has`` and ``lacks`` are parts of it.
    ``before`` is what must come before the final answer. ``differs`` says why nginx is not asked for the same.
    """

    name: str
    sent: bytes
    answer: bytes = OK
    reaches: tuple[bytes, ...] = ()
    never: tuple[bytes, ...] = ()
    has: tuple[bytes, ...] = ()
    lacks: tuple[bytes, ...] = ()
    body: bytes | None = None
    before: bytes | None = None
    status: int = 200
    differs: str = ""


def get(target: str = "/p", *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def post(body: bytes, *lines: str, method: str = "POST") -> bytes:
    return get("/p", f"Content-Length: {len(body)}", *lines, method=method) + body


def chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"


def answer(*lines: str, body: bytes = b"", status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1") + body


# A rule lets these pass only when it names them.
UNUSUAL = ["PROPFIND", "REPORT", "PURGE"]
METHODS = [
    Case(f"method {method}", get(method=method), reaches=(f"{method} /p HTTP/1.1\r\n".encode(),), body=b"ok")
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", *UNUSUAL)
]
TARGETS = [
    Case(f"target {target}", get(target), reaches=(f" {target} HTTP/1.1\r\n".encode("latin-1"),), body=b"ok")
    for target in (
        "/",
        "/a%20b",
        "/%E2%82%AC",
        "/%e2%82%ac",
        "/a+b",
        "/a:b@c!$&'()*,=~",
        "/p?",
        "/p?a=b&a=c&&=;x",
        "/p?q=%2F%2e%00%zz",
        "/p?u=http://h/?x=1",
        "/p?a[]=1&b={x}|^`",
        "/p/",
    )
]
CASES = [
    *METHODS,
    *TARGETS,
    Case(
        "HEAD",
        get(method="HEAD"),
        answer("Content-Length: 1000"),
        (b"HEAD /p",),
        has=(b"Content-Length: 1000",),
        body=b"",
    ),
    Case(
        "absolute form becomes origin form",
        get("http://{host}/p?x=1"),
        reaches=(b"GET /p?x=1 HTTP/1.1\r\n",),
        body=b"ok",
    ),
    Case(
        "OPTIONS *",
        get("*", method="OPTIONS"),
        status=400,
        differs="neither forwards it: here every target is judged by a path rule, and * has none",
    ),
    # Bodies
    Case("body with a length", post(b"hello"), reaches=(b"Content-Length: 5\r\n", b"\r\n\r\nhello"), body=b"ok"),
    Case("empty body with a length", post(b""), reaches=(b"Content-Length: 0\r\n",), body=b"ok"),
    Case("a body with GET", post(b"hello", method="GET"), reaches=(b"\r\n\r\nhello",), body=b"ok"),
    Case(
        "chunked body",
        get("/p", "Transfer-Encoding: chunked", method="POST") + chunked(b"he", b"llo"),
        reaches=(b"Transfer-Encoding: chunked\r\n",),
        never=(b"Content-Length",),
        body=b"ok",
        differs="nginx counts a chunked body that it has whole; RFC 9112, section 6.1, leaves framing to each hop",
    ),
    Case(
        "trailers of the request are dropped, as RFC 9110, section 6.5.1, allows",
        get("/p", "Transfer-Encoding: chunked", "Trailer: X-Sum", method="POST")
        + chunked(b"he", trailer=b"X-Sum: 1\r\n"),
        never=(b"X-Sum: 1",),
        body=b"ok",
    ),
    Case(
        "content coding of the request",
        post(b"\x1f\x8b\x08broken", "Content-Encoding: gzip"),
        reaches=(b"Content-Encoding: gzip\r\n", b"\r\n\r\n\x1f\x8b\x08broken"),
        body=b"ok",
    ),
    # Header lines of the request
    Case(
        "order, spelling and duplicates of lines",
        get("/p", "x-B: 1", "X-a: 2", "X-B: 3", "x-empty:", "X-a: 4"),
        reaches=(b"x-B: 1\r\nX-a: 2\r\nX-B: 3\r\n", b"x-empty: \r\n", b"X-a: 4\r\n"),
        body=b"ok",
    ),
    Case("bytes beyond ASCII", get("/p", "X-Name: J\xf6rg"), reaches=(b"X-Name: J\xf6rg\r\n",), body=b"ok"),
    Case("a long line", get("/p", f"X-Long: {'x' * 16000}"), reaches=(b"x" * 16000,), body=b"ok"),
    Case(
        "cookies byte for byte",
        get("/p", 'Cookie: a="b c"; d=%20; e==; f=1,2;g'),
        reaches=(b'Cookie: a="b c"; d=%20; e==; f=1,2;g\r\n',),
        body=b"ok",
    ),
    Case(
        "two Cookie lines stay two",
        get("/p", "Cookie: a=1", "Cookie: b=2"),
        reaches=(b"Cookie: a=1\r\nCookie: b=2\r\n",),
        body=b"ok",
        differs="nginx joins them with '; ', which RFC 9113, section 8.2.3, asks for from HTTP/2 on; both are right",
    ),
    Case(
        "hop-by-hop lines stop here",
        get("/p", "Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "TE: trailers"),
        never=(b"X-Hop: 1", b"timeout=5"),
        body=b"ok",
        differs="nginx passes on what Connection names; RFC 9110, section 7.6.1: it MUST be removed",
    ),
    Case("no line is added to the answer's question", get(), never=(b"User-Agent", b"Accept"), body=b"ok"),
    Case(
        "100-continue is met here",
        post(b"hello", "Expect: 100-continue"),
        reaches=(b"\r\n\r\nhello",),
        never=(b"Expect",),
        body=b"ok",
    ),
    # Answers
    *(
        Case(
            f"status {status}",
            get(),
            answer(status=status),
            lacks=(b"Transfer-Encoding",),
            body=b"",
            status=int(status[:3]),
        )
        for status in ("204 No Content", "304 Not Modified")
    ),
    Case("304 keeps its length", get(), answer("Content-Length: 7", status="304 Not Modified"), status=304, body=b""),
    Case(
        "a reason of its own",
        get(),
        answer("Content-Length: 0", status="404 Gone Fishing"),
        status=404,
        has=(b"Gone Fishing",),
    ),
    Case("a status of its own", get(), answer("Content-Length: 0", status="799 Odd"), status=799, has=(b" 799 Odd",)),
    Case("chunked answer", get(), answer("Transfer-Encoding: chunked", body=chunked(b"he", b"llo")), body=b"hello"),
    Case(
        "trailers of the answer are dropped, as RFC 9110, section 6.5.1, allows",
        get(),
        answer("Transfer-Encoding: chunked", "Trailer: X-Sum", body=chunked(b"he", trailer=b"X-Sum: 1\r\n")),
        lacks=(b"X-Sum: 1",),
        body=b"he",
    ),
    Case(
        "an answer to the end of the connection",
        get(),
        answer("Content-Type: text/plain", body=b"hello"),
        body=b"hello",
    ),
    Case(
        "content coding of the answer",
        get("/p", "Accept-Encoding: gzip"),
        answer("Content-Encoding: gzip", "Content-Length: 5", body=b"\x1f\x8bxyz"),
        reaches=(b"Accept-Encoding: gzip\r\n",),
        has=(b"Content-Encoding: gzip\r\n",),
        body=b"\x1f\x8bxyz",
    ),
    Case(
        "order, spelling and duplicates in the answer",
        get(),
        answer("x-B: 1", "X-a: 2", "x-B: 3", "X-Empty:", "Content-Length: 0"),
        has=(b"x-B: 1\r\nX-a: 2\r\nx-B: 3\r\nX-Empty: \r\n",),
    ),
    Case(
        "cookies of the application",
        get(),
        answer('Set-Cookie: a="x y"; Path=/', "Set-Cookie: b=%20; HttpOnly; Foo", "Content-Length: 0"),
        has=(b'Set-Cookie: a="x y"; Path=/\r\nSet-Cookie: b=%20; HttpOnly; Foo\r\n',),
    ),
    Case(
        "bytes beyond ASCII in the answer", get(), answer("X-Name: J\xf6rg", "Content-Length: 0"), has=(b"J\xf6rg\r\n",)
    ),
    Case(
        "a redirect elsewhere",
        get(),
        answer("Location: http://127.0.0.1:1/x", "Content-Length: 0", status="302 F"),
        status=302,
        has=(b"Location: http://127.0.0.1:1/x\r\n",),
    ),
    Case(
        "an interim answer comes before the final one",
        get(),
        answer("Link: </s.css>", "X-Early: 1", status="103 Early Hints") + OK,
        body=b"ok",
        before=b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\nX-Early: 1\r\n\r\n",
        lacks=(b"X-Early",),
        differs="nginx 1.22 takes 103 for the final answer; RFC 9110, section 15.2: a final one follows",
    ),
    Case(
        "a 100 that the client did not wait for stops here",
        get(),
        answer(status="100 Continue") + OK,
        body=b"ok",
        before=b"",
        differs="nginx 1.22 takes it for the final answer, too; RFC 9110, section 15.2: ours end here",
    ),
    Case(
        "a long head of the answer",
        get(),
        answer(f"X-Long: {'x' * 3000}", "Content-Length: 0"),
        has=(b"x" * 3000,),
    ),
    # Smuggling
    *(
        Case(f"t60 {name}", sent, status=400, never=(b"/evil",), reaches=())
        for name, sent in {
            "two framings": get("/p", "Content-Length: 4", "Transfer-Encoding: chunked", method="POST")
            + chunked(b"GET /evil"),
            "two lengths": get("/p", "Content-Length: 4", "Content-Length: 5", method="POST") + b"abcde",
            "signed length": get("/p", "Content-Length: +4", method="POST") + b"abcd",
            "space before the colon": get("/p", "Content-Length : 4", method="POST") + b"abcd",
        }.items()
    ),
]


@dataclass(slots=True)
class Scripted:
    """What an application answers by now, and what it has got since then."""

    answer: bytes = OK
    got: list[bytes] = field(default_factory=list)

    def begin(self, answer: bytes) -> None:
        """Answer so from now on, and forget what was."""
        self.answer, self.got = answer, []

    async def talk(self, caller: Caller) -> None:
        """Take each request whole, keep it, and answer."""
        while head := await caller.head():
            got, answer = self.got, self.answer
            got.append(head + await _body(head, caller))
            await caller.say(answer)
            if b"ength" not in answer and b"chunked" not in answer:
                return


async def _body(head: bytes, caller: Caller) -> bytes:
    if length := re.search(rb"Content-Length: (\d+)", head):
        return await caller.reader.readexactly(int(length[1]))
    if b"Transfer-Encoding: chunked" in head:
        return await caller.reader.readuntil(b"0\r\n\r\n")
    return b""


@dataclass(slots=True)
class Place:
    """A proxy to ask, and how."""

    port: int
    host: str
    piecewise: bool = False
    repeats: bool = False
    statuses: list[bytes] = field(default_factory=list)

    async def ask(self, sent: bytes) -> bytes:
        """All that comes back for one request on a connection of its own."""
        start, _, rest = sent.partition(b"\r\n")
        start = start.replace(b"{host}", self.host.encode())
        data = b"%b\r\nHost: %b\r\nConnection: close\r\n%b" % (start, self.host.encode(), rest)
        if b"\r\nConnection: keep-alive, X-Hop" in data:
            data = data.replace(b"Connection: close\r\n", b"").replace(b"keep-alive, X-Hop", b"close, X-Hop")
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        if self.repeats:
            return await self._ask_again(reader, writer, data.replace(b"Connection: close\r\n", b"", 1))
        try:
            head, _, body = data.partition(b"\r\n\r\n")
            pieces = [head + b"\r\n\r\n", body[:3], body[3:]] if self.piecewise else [data]
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.01 if self.piecewise else 0)
            async with asyncio.timeout(8):
                return await reader.read()
        except (ConnectionError, RuntimeError):
            # uvloop calls writing on a connection that has ended the latter.
            return b""
        finally:
            writer.close()

    async def _ask_again(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
        """The same three times over, as long as the connection stays: what the last one gets."""
        came = b""
        try:
            async with asyncio.timeout(8):
                for _ in range(3):
                    writer.write(data)
                    came = await whole(reader, is_head=data.startswith(b"HEAD"))
        except (ConnectionError, RuntimeError, asyncio.IncompleteReadError):
            # It was the last one on this connection.
            pass
        finally:
            writer.close()
        return came


KINDS = ("sidecar, at hand", "sidecar, streamed", "sidecar, again", "nginx")


@dataclass(frozen=True, slots=True)
class Places:
    """Each kind of proxy before one application; all cases share them."""

    application: Scripted
    of: Mapping[str, Place]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def places(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Places]:
    """The proxies."""
    scripted, nginxes = Scripted(), Nginxes()
    rules = [{"path": "/**", "allow": "anyone", "methods": UNUSUAL}, {"path": "/**", "allow": "anyone"}]
    try:
        async with raw_application(scripted.talk) as application, a_world(tmp_path_factory.mktemp("world")) as world:
            running = await world({"app": {"upstream": application.url}, "access": rules})
            nginx = Place(nginxes.proxy(application.url).port, "localhost")
            host = running.url.removeprefix("http://")
            sidecars = {kind: Place(running.port, host, "streamed" in kind, "again" in kind) for kind in KINDS[:3]}
            yield Places(scripted, {**sidecars, "nginx": nginx})
    finally:
        nginxes.discard()


def split(came: bytes) -> tuple[int, bytes, bytes]:
    """Status, head and body of the final answer; a chunked body is put together."""
    while came.startswith(b"HTTP/1.1 1"):
        came = came.partition(b"\r\n\r\n")[2]
    head, _, body = came.partition(b"\r\n\r\n")
    if b"\r\nTransfer-Encoding: chunked" in head:
        whole = b""
        while (size := int(body.partition(b"\r\n")[0], 16)) > 0:
            start = body.index(b"\r\n") + 2
            whole += body[start : start + size]
            body = body[start + size + 2 :]
        body = whole
    return int(head[9:12]), head + b"\r\n", body


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_proxy_carries(case: Case, kind: str, places: Places) -> None:
    if kind == "nginx" and case.differs:
        pytest.skip(case.differs)
    places.application.begin(case.answer)
    came = await places.of[kind].ask(case.sent)
    seen = b"".join(places.application.got)
    if case.status == 400 and not came:
        # Who is refused and goes on sending may lose the answer with its connection.
        assert not seen
        return
    status, head, body = split(came)
    assert case.before is None or came.startswith(case.before + b"HTTP/1.1 200 ")
    assert status == case.status, head
    assert case.body is None or body == case.body
    for part in case.reaches:
        assert part in seen
    for part in case.never:
        assert part not in seen
    for part in case.has:
        assert part in head
    for part in case.lacks:
        assert part not in head + body

"""Whatever comes, in whatever order: with the shortest way and without it everybody sees the same bytes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.model import Session, SignedIn
from tests.services.upstream import Caller, raw_application
from tests.station import LENGTH, ways_of, whole
from tests.world import Running, a_world

pytestmark = pytest.mark.asyncio(loop_scope="module")
PEOPLE = ("ada", "grace")
RULES = [
    {"path": "/public/**", "allow": "anyone"},
    {"path": "/only/**", "allow": {"role": "editor"}},
    {"path": "/**", "allow": {"role": ["admin", "editor", "reader"]}, "methods": ["GET", "HEAD", "POST"]},
]
# What may end the connection, and with it what comes behind, or came in the same piece.
CLOSING = re.compile(
    rb"Connection: (?:close|x)|Transfer-Encoding|\r\nHost:.*\r\nHost:|\0|\r[^\n]|[^\r]\n|\n[^\r:]* :|\n ", re.DOTALL
)


@dataclass(frozen=True)
class Send:
    """Requests that leave at once: in pieces that end at *cuts*, or each in a piece of its own when it *is_apart*."""

    requests: tuple[bytes, ...]
    cuts: tuple[int, ...] = ()
    is_apart: bool = False


@dataclass(frozen=True)
class Change:
    """Something happens to the session of *who*: it ends, or its claims do."""

    who: int
    groups: tuple[str, ...] | None = None


Step = Send | Change


@dataclass
class Outcome:
    """What the application, the client and the audit saw."""

    heads: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    audit: list[dict[str, Any]] = field(default_factory=list)


@dataclass(repr=False)
class Stage:
    """A sidecar, people who have signed in, and an application that answers what it is told."""

    running: Running
    sessions: list[tuple[str, Session]]
    heads: list[bytes] = field(default_factory=list)
    says: list[Sequence[bytes]] = field(default_factory=list)
    went: list[int] = field(default_factory=lambda: [0, 0])
    bodies_went: list[int] = field(default_factory=lambda: [0, 0])
    read: int = 0

    async def talk(self, caller: Caller) -> None:
        """Answer each request on one connection."""
        while head := await caller.head():
            length = re.search(rb"Content-Length: (\d+)", head)
            self.heads.append(head + (await caller.reader.readexactly(int(length[1])) if length else b""))
            pieces = self.says.pop(0) if self.says else (LENGTH,)
            if len(self.heads) % 3 == 0:
                # What comes meanwhile is held.
                await asyncio.sleep(0.003)
            for piece in pieces:
                await caller.say(piece)
                await asyncio.sleep(0.001 if len(pieces) > 1 else 0)
            if not pieces[-1]:
                return

    def by_the_shortest_way(self, is_on: bool) -> None:
        """Let requests depart without a task, or none; what departs is counted."""
        ways = ways_of(self.running.sidecar)
        for name, index in (("depart", 0), ("again", 1)):
            way = getattr(ways.express, name)
            setattr(ways, name, self._counting(way, index) if is_on else lambda *_: None)

    def _counting(self, way: Any, index: int) -> Any:
        def counted(*arguments: Any) -> Any:
            sent = way(*arguments)
            self.went[index] += sent is not None
            self.bodies_went[index] += sent is not None and sent[0].method != "GET"
            return sent

        return counted

    async def renewed(self) -> None:
        """Have everybody sign in anew."""
        keeper, now = self.running.sidecar.front.gate.keeper, self.running.sidecar.front.clock()
        opened = [SignedIn(session.identity, now) for _, session in self.sessions]
        self.sessions = [await keeper.open(signed_in, now) for signed_in in opened]

    async def change(self, step: Change) -> None:
        keeper, now = self.running.sidecar.front.gate.keeper, self.running.sidecar.front.clock()
        token, session = self.sessions[step.who]
        if step.groups is None:
            await keeper.end(token)
        else:
            identity = replace(session.identity, groups=step.groups)
            await keeper.renew(token, session, SignedIn(identity, session.auth_time), now)

    def sent(self, data: bytes) -> bytes:
        """*data* with what is known only now."""
        for number, (token, _) in enumerate(self.sessions):
            data = data.replace(b"{%d}" % number, token.encode())
        return data.replace(b"{port}", str(self.running.port).encode()).replace(b"{long}", b"x" * 3000)

    def noted(self) -> list[dict[str, Any]]:
        """Audit lines since the last time, but for what differs each time."""
        self.running.sidecar.audit.flush()
        data = self.running.audit_file.read_bytes()
        lines = [json.loads(line) for line in data[self.read :].splitlines()]
        self.read = len(data)
        changing = {"time", "reference", "session", "n", "hash", "chain"}
        kept = [line for line in lines if line["event"] != "audit-anchor"]
        return [{name: value for name, value in line.items() if name not in changing} for line in kept]

    async def play(self, steps: Sequence[Step], says: Sequence[Sequence[bytes]]) -> Outcome:
        """Take all *steps* on one connection."""
        self.heads, self.says = [], [*says]
        self.noted()
        outcome = Outcome(self.heads)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.running.port)
        try:
            async with asyncio.timeout(10):
                for step in steps:
                    if isinstance(step, Change):
                        await self.change(step)
                        continue
                    await self._send(writer, step)
                    for request in step.requests:
                        came = await whole(reader, is_head=request.startswith(b"HEAD"))
                        outcome.answers.append(re.sub(rb"[0-9a-f]{12,}|\r\nDate: [^\r]+", b"", came))
        except (asyncio.IncompleteReadError, ConnectionError, RuntimeError):
            # uvloop calls writing on a connection that has ended the latter.
            outcome.answers.append(b"the end")
        finally:
            writer.close()
        outcome.audit = self.noted()
        return outcome

    async def _send(self, writer: asyncio.StreamWriter, step: Send) -> None:
        parts = [self.sent(request) for request in step.requests]
        data = b"".join(parts)
        ends = sorted({1 + cut % len(data) for cut in step.cuts} | {len(data)})
        if step.is_apart:
            ends = list(accumulate(map(len, parts)))
        for begin, end in zip([0, *ends], ends, strict=False):
            writer.write(data[begin:end])
            if end < len(data):
                await asyncio.sleep(0.001)

    async def both_ways(self, steps: Sequence[Step], says: Sequence[Sequence[bytes]] = ()) -> tuple[Outcome, Outcome]:
        """Play it with the shortest way and without."""
        outcomes = []
        for is_on in (True, False):
            self.by_the_shortest_way(is_on)
            outcomes.append(await self.play(steps, says))
            if any(isinstance(step, Change) for step in steps):
                await self.renewed()
        return outcomes[0], outcomes[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One for all examples: what is remembered of one must not change another."""
    stages: list[Stage] = []

    async def talk(caller: Caller) -> None:
        await (stages[0].talk(caller) if stages else caller.say(LENGTH))

    async with raw_application(talk) as application, a_world(tmp_path_factory.mktemp("world")) as world:
        # An application that answers nonsense is asked on.
        app = {"upstream": application.url, "circuit": {"failures": 100}}
        # One of the lines that vary is managed.
        headers = {"X-Correlation-ID": "{{ user.username }}"}
        running = await world({"app": app, "access": RULES, "headers": headers})
        sessions = []
        for person in PEOPLE:
            async with running.browser() as browser:
                await browser.sign_in(person, "/")
                session = await running.sidecar.front.gate.keeper.find(browser.cookie(), running.sidecar.front.clock())
                assert session is not None
                sessions.append((browser.cookie(), session))
        express = running.sidecar.front.express
        # One has been learnt.
        express._variance.note([(b"X-New", b"%d" % number) for number in range(64)])
        assert b"x-new" in express._variance.names
        stages.append(Stage(running, sessions))
        yield stages[0]


# Requests

COOKIE = [b"Cookie: a=1; sidecar={%d}; sidecar-browser={%d}; b=2" % (number, number) for number in range(2)]
SOUND = [
    *(
        b"/some/page?of=it&x=%2F",
        b"/",
        b"/a%20b",
        b"/%41dmin",
        b"/a?",
        b"/a?b?c",
        b"/only/this",
        b"/public/x",
        b"/a;b=1",
    ),
    *(b"/~x_y.z-", b"/.git", b"/-/nothing", b"/a%2fb"),
]
TARGETS = [
    *SOUND,
    *(b"/a//b", b"/a/../b", b"/a?q=%zz", b"/a#b", b"/\xc3\xa4", b"*", b"//a", b"http://localhost:{port}/a"),
    *(b"http://evil.example/a", b"/{long}", b"/a?\x7f", b'/a?"'),
]
VARYING = [
    name + b": " + value
    for name in (b"Referer", b"X-Request-ID", b"if-none-match", b"X-NEW", b"X-Correlation-ID")
    for value in (
        *(b"", b"one", b"two", b"a b", b" a", b"a ", b"a\tb", b"\xe4", b"\xc3\xa4", b"{long}", b"\0"),
        *(b'W/"x", "y"', b"bytes=0-1", b"a: b", b"a,b;c=d"),
    )
]
ODD = [
    *(b"X-App-User: mallory", b"x_app_user: mallory", b"X-Forwarded-For: 10.9.9.9", b"Forwarded: for=x", b"X-New: 1"),
    *(b"x-new: 1", b"X-New:", b"X-New:1", b"X-New:  1 ", b"X-New: \xff", b"Accept: text/html", b"X-Twice: three"),
    *(b"Connection: x-twice", b"Connection: Keep-Alive", b"Connection:", b"Cookie: c=3", b"Cookie: sidecar={1}"),
    *(b"Cookie: sidecar-form=x", b"Authorization: Bearer x", b"Content-Length: 0", b"Expect: 100-continue"),
    *(b"Upgrade: h2c", b"TE: trailers", b"Host: localhost:{port}", b"Host: evil.example", b"Sec-Fetch-Mode: cors"),
    *(b" folded: 1", b"X-New : 1", b"X-New: a\0b", b"X-New: a\rb", b"Content-Length: 3\r\n\r\nabc"),
    *(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0", b"Connection: close", b"Referer : x", b"Referer: a\nX-B: 1"),
]


BODIES = [
    *(b"", b"a=b&c=d", b"\r\n\r\n", b"GET /in/the/body HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\0\xff" * 700),
    *(b'{"a": 1}', b"0\r\n\r\n", b"x" * 70_000),
]
SWALLOWING = b"GET /first HTTP/1.1\r\nX-Swallowed: "


@st.composite
def habits(draw: st.DrawFn) -> list[bytes]:
    """Lines that a client sends with each request, some of which vary from one to the next."""
    lines = [b"Host: localhost:{port}", b"User-Agent: x", b"accept: */*", b"X-Twice: one", b"X-Twice: two"]
    lines += draw(st.sampled_from([[COOKIE[0]]] * 4 + [[COOKIE[1]], []]))
    more = draw(st.lists(st.sampled_from(VARYING), max_size=2))
    if draw(st.sampled_from([False, False, True])):
        more.append(draw(st.sampled_from(ODD)))
    for line in more:
        lines.insert(draw(st.integers(1, len(lines))), line)
    return lines


@st.composite
def changing(draw: st.DrawFn, usual: bytes, *, is_alone: bool) -> tuple[bytes, list[bytes], bytes]:
    """First line of a request with a body, what says how long that is, rightly or not, and the body.

    Its method is mostly the *usual* one.
    """
    body = draw(st.sampled_from(BODIES))
    method = draw(st.sampled_from([usual] * 9 + [b"POST", b"PUT", b"GET"]))
    target = draw(st.sampled_from([*TARGETS[:1] * 3, b"/public/x"]))
    odd = [b"content-length:%d", b"Content-Length: 0%d", b"Content-Length: +%d"] if is_alone else []
    said = draw(st.sampled_from([b"Content-Length: %d"] * 6 + odd)) % len(body)
    twice = is_alone and draw(st.sampled_from([False] * 9 + [True]))
    return b"%b %b HTTP/1.1" % (method, target), [said] * (1 + twice), body


def _rearrange(lines: list[bytes], how: str, at: int) -> None:
    if how == "double":
        lines.insert(at, lines[at])
    elif how == "drop":
        del lines[at]
    else:
        lines[at - 1], lines[at] = lines[at], lines[at - 1]


@st.composite
def requests(draw: st.DrawFn, habit: list[bytes], *, is_alone: bool, bodies: int, usual: bytes) -> bytes:
    """One request of somebody with that *habit*, now and then another; what may end the connection only *is_alone*.

    *bodies* says how often it has a body, and *usual* is the method then.
    """
    lines = [*habit]
    for at, line in enumerate(lines):
        others = [one for one in VARYING if one.partition(b":")[0] == line.partition(b":")[0]]
        if others:
            lines[at] = draw(st.sampled_from([line, *others[:3], *others]))
    start = b"GET %b HTTP/1.1" % TARGETS[0]
    oddities = ["start", "double", "drop", "swap", "odd", "odd"] if is_alone else []
    how = draw(st.sampled_from([""] * 6 + ["body"] * bodies + ["target"] * 3 + ["case", *oddities]))
    body = b""
    at = draw(st.integers(0, len(lines) - 1)) if how in ("case", "double", "drop", "swap") else 0
    if how == "target":
        start = b"GET %b HTTP/1.1" % draw(st.sampled_from(TARGETS if is_alone else SOUND))
    elif how == "body":
        start, said, body = draw(changing(usual, is_alone=is_alone))
        lines += said
    elif how == "start":
        start = draw(
            st.sampled_from(
                [
                    *[b"HEAD /a HTTP/1.1"] * 3,
                    b"OPTIONS /a HTTP/1.1",
                    b"POST /a HTTP/1.1",
                    b"get /a HTTP/1.1",
                    b"GET /a HTTP/1.0",
                ]
            )
        )
    elif how == "case":
        name, _, value = lines[at].partition(b":")
        lines[at] = name.swapcase() + b":" + value
    elif how in ("double", "drop", "swap"):
        _rearrange(lines, how, at)
    elif how == "odd":
        lines.insert(draw(st.integers(1, len(lines))), draw(st.sampled_from(ODD)))
    return b"\r\n".join([start, *lines, b"", body])


@st.composite
def stories(draw: st.DrawFn) -> list[Step]:
    """What one client does: often the same, alone, whole and again."""
    habit, bodies = draw(habits()), draw(st.sampled_from([1, 60, 60]))
    usual = draw(st.sampled_from([b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS"]))
    steps: list[Step] = []
    for _ in range(draw(st.integers(3, 9))):
        how = draw(st.sampled_from(["alone"] * 6 + ["behind one another", "one by one", "in pieces", "change"]))
        if how == "change":
            steps.append(Change(draw(st.sampled_from([0, 0, 1])), draw(st.sampled_from([None, ("wiki-editors",), ()]))))
            continue
        many = draw(st.integers(2, 3)) if how in ("behind one another", "one by one") else 1
        several = [draw(requests(habit, is_alone=how == "alone", bodies=bodies, usual=usual)) for _ in range(many)]
        if any(map(CLOSING.search, several)):
            del several[1:]
            how = "alone"
        cuts = draw(st.lists(st.integers(0, 4000), max_size=2)) if how in ("behind one another", "in pieces") else []
        if how == "in pieces" and not cuts:
            # The whole of a request, as it came before, ends an unfinished head.
            several[0], cuts = SWALLOWING + several[0], [len(SWALLOWING) - 1]
        steps.append(Send(tuple(several), tuple(cuts), is_apart=how == "one by one"))
    return steps


@settings(max_examples=220, deadline=None, derandomize=True, database=None)
@given(steps=stories())
async def test_t60_requests_reach_the_application_alike(stage: Stage, steps: list[Step]) -> None:
    shortest, general = await stage.both_ways(steps)
    assert shortest == general


async def test_many_of_them_took_the_shortest_way(stage: Stage) -> None:
    departed, came_again = stage.went
    assert departed > 60
    assert came_again > 25
    departed, came_again = stage.bodies_went
    assert departed > 20
    assert came_again > 20


# Answers

ORDINARY = b"\r\n".join([b"GET /some/page HTTP/1.1", b"Host: localhost:{port}", COOKIE[0], b"Referer: x", b"", b""])
STARTS = [
    *(
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 404 Not There",
        b"HTTP/1.1 500 x",
        b"HTTP/1.1 201",
        b"HTTP/1.1 201 ",
        b"HTTP/1.0 200 OK",
    ),
    *(
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 304 Not Modified",
        b"HTTP/1.1 799 Odd",
        b"HTTP/1.1 200  OK",
        b"HTTP/1.1 205 Reset",
    ),
    *(b"http/1.1 200 OK", b"HTTP/1.1 099 x", b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 20 x", b"HTTP/2.0 200 OK"),
    *(b"HTTP/1.1 200 O\x01K", b"HTTP/1.1 200 \xe4"),
]
SAID = [
    *(b"Server: x", b"server: y", b"X-A: 1", b"x-a: 2", b"X-E:", b"X-S:  1 ", b"X-T:1", b"X-B: \xe4\xff", b'ETag: "x"'),
    *(b"Content-Type: text/html", b"Content-Type: Text/Event-Stream; x", b"Set-Cookie: a=b", b"set-cookie: sidecar=x"),
    *(
        b"Connection: keep-alive",
        b"Connection: Close",
        b"Connection: x-a",
        b"Keep-Alive: 5",
        b"Upgrade: h2c",
        b"Trailer: x",
    ),
    *(b"WWW-Authenticate: Negotiate", b"WWW-Authenticate: Basic x", b"Location: /x", b"Content-Encoding: gzip"),
]
BROKEN = [
    *(
        b"X-C : 1",
        b" folded: 1",
        b"X-C",
        b": x",
        b"X C: 1",
        b"X-C: a\0b",
        b"X-C: a\x01b",
        b"X-C: a\rb",
        b"X-C: a\nb: c",
    ),
    *(b"Content-Length: 2", b"content-length: 3", b"Content-Length: +2", b"Content-Length: 2, 2", b"Content-Length:2"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Content-Length: 02", b"Transfer-Encoding: identity"),
]
FRAMED = [
    *(
        (b"Content-Length: 2", b"ok"),
        (b"Content-Length: 0", b""),
        (b"content-length: 3", b"a\r\n"),
        (b"Content-Length:2", b"ok"),
    ),
    *((b"Content-Length: 30000", b"x" * 30000), (b"Transfer-Encoding: chunked", b"2\r\nok\r\n0\r\n\r\n")),
    (b"Transfer-Encoding: chunked", b"2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n"),
    *((b"Content-Length: 2", b"okay"), (b"Content-Length: 2", b"ok" + LENGTH)),
]
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


@st.composite
def answers(draw: st.DrawFn) -> Sequence[bytes]:
    """One answer in the pieces that it is sent in; what is not sound comes in one."""
    how = draw(st.sampled_from([""] * 6 + ["start", "broken", "early", "pieces", "pieces", "cut"]))
    line, body = draw(st.sampled_from(FRAMED))
    lines = [*draw(st.lists(st.sampled_from(SAID), max_size=4)), line]
    start = draw(st.sampled_from(STARTS)) if how == "start" else STARTS[0]
    if how == "broken":
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(BROKEN)))
    data = (EARLY if how == "early" else b"") + b"\r\n".join([start, *lines, b"", body])
    if how == "cut":
        # And the connection ends there.
        return (data[: draw(st.integers(1, len(data)))], b"")
    if how == "pieces" and not body.endswith((b"okay", LENGTH)):
        at = draw(st.integers(1, len(data) - 1))
        return (data[:at], data[at:])
    return (data,)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(says=st.lists(answers(), min_size=1, max_size=4))
async def test_t60_answers_reach_the_client_alike(stage: Stage, says: list[Sequence[bytes]]) -> None:
    steps = [Send((ORDINARY,))] * (len(says) + 1)
    # The connection to the application is there, and what comes is known, before the first of them.
    await stage.play(steps[:1], ())
    shortest, general = await stage.both_ways([*steps[:1], *steps], [(LENGTH,), *says])
    assert shortest == general


async def test_many_of_them_came_the_shortest_way(stage: Stage) -> None:
    assert stage.went[1] > 250

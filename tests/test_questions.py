"""Questions of front proxies that are answered at once get the answer, and the audit line, that they get in a task."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.forger import running_forger, sign
from tests.fronts_world import RULES, sections
from tests.station import Link, whole
from tests.test_attacks_forward_auth import STRANGE
from tests.test_attacks_headers import assertion_key
from tests.test_journey import users_table
from tests.world import Running, World

DIALECTS = ["caddy", "envoy", "haproxy", "nginx", "traefik"]
CHANGING = ("time", "reference", "n", "hash", "chain")


@dataclass
class Counter:
    """A sidecar that front proxies ask, and which of the questions it answered at once."""

    running: Running
    dialect: str
    cookies: dict[str, str]
    quick: Any
    link: Link
    ways: list[str] = field(default_factory=list)
    is_off: bool = False

    def first(self, request: Any, seen: Any, now: float) -> Any:
        answer = None if self.is_off else self.quick.first(request, seen, now)
        if answer is not None:
            self.ways.append("first")
        return answer

    def again(self, data: bytes, origin: Any, now: float) -> Any:
        answer = None if self.is_off else self.quick.again(data, origin, now)
        if answer is not None:
            self.ways.append("again")
        return answer

    def lines(self, target: str, who: str = "grace", method: str = "GET", *more: str) -> list[str]:
        """A question in this dialect, line by line."""
        told = {
            "nginx": (f"X-Original-Method: {method}", f"X-Original-URI: {target}", "X-Forwarded-Host: localhost"),
            "envoy": ("Content-Length: 0",),
        }
        forwarded = (f"X-Forwarded-Method: {method}", f"X-Forwarded-Uri: {target}", "X-Forwarded-Host: localhost")
        first = f"{method} /-/auth{target} HTTP/1.1" if self.dialect == "envoy" else "GET /-/auth HTTP/1.1"
        cookie = [f"Cookie: {self.cookies[who]}; own=theirs"] if who else []
        about = ["X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: http", "Accept: */*", "Referer: /page"]
        return [first, "Host: localhost", *told.get(self.dialect, forwarded), *about, *cookie, *more]

    async def ask(self, target: str, who: str = "grace", method: str = "GET", *more: str) -> bytes:
        """One question on the connection that stays; its answer without what differs each time."""
        return await self.say(written(self.lines(target, who, method, *more)))

    async def say(self, data: bytes) -> bytes:
        try:
            answer = await asyncio.wait_for(self.link.ask(data), 10)
        except (asyncio.IncompleteReadError, ConnectionError):
            # Whoever says what cannot be read is hung up on.
            answer = b""
        if b"\r\nConnection: close" in answer or answer.startswith(b"HTTP/1.0") or not answer:
            await hang_up(self.link)
            self.link = await dial(self.running)
        kept = [line for line in answer.split(b"\r\n") if not line.startswith((b"Date: ", b"X-Sidecar-Reference: "))]
        return re.sub(rb"\b[0-9a-f]{16}\b", b"reference", b"\r\n".join(kept))

    async def warm(self, target: str = "/page", who: str = "grace", *more: str) -> None:
        """Ask until it is answered at once, and by the bytes of the header lines alone."""
        for _ in range(4):
            assert status(await self.ask(target, who, "GET", *more)) == 200
        assert self.ways[-1] == "again"
        self.ways.clear()

    async def both(self, *question: str) -> bytes:
        """The same question at once and in a task: one answer, and one audit line."""
        noted = len(self.running.audit())
        at_once = await self.ask(*question)
        self.is_off = True
        in_a_task = await self.ask(*question)
        self.is_off = False
        assert sorted(at_once.split(b"\r\n")) == sorted(in_a_task.split(b"\r\n")), question
        lines = [unchanging(line) for line in self.running.audit()[noted:] if line["event"] == "decision"]
        assert len(lines) == 2, question
        assert lines[0] == lines[1], question
        return at_once


def unchanging(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in CHANGING}


def written(lines: list[str]) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


async def hang_up(link: Link) -> None:
    link.writer.close()
    with contextlib.suppress(ConnectionError):
        await link.writer.wait_closed()


async def dial(running: Running) -> Link:
    return Link(*await asyncio.open_connection("127.0.0.1", running.port))


@asynccontextmanager
async def counter(
    world: World, dialect: str, *people: str, options: Mapping[str, Any] | None = None, **changes: Any
) -> AsyncIterator[Counter]:
    found = {"access": RULES, "server": {"trusted_proxies": ["127.0.0.1"]}, **sections(dialect), **changes}
    running = await world(found, **(options or {}))
    cookies: dict[str, str] = {}
    for person in people or ("grace",):
        async with running.browser() as browser:
            await browser.sign_in(person, "/-/login?to=/public/x")
            cookies[person] = f"sidecar={browser.cookie()}; sidecar-browser=x"
    front = running.sidecar.front
    here = Counter(running, dialect, cookies, front.questions, await dial(running))
    front.questions = here
    try:
        yield here
    finally:
        await hang_up(here.link)


def status(answer: bytes) -> int:
    return int(answer.split()[1])


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_what_is_answered_at_once_is_what_a_task_says(world: World, dialect: str) -> None:
    async with counter(world, dialect, "grace", "ada") as here:
        for who in ("grace", "ada"):
            await here.warm("/page", who)
        for target in ("/page", "/page?a=b&c=%2F", "/save/1/", "/here-not/x"):
            # The connection is grace's no more than anybody's.
            for who in ("grace", "ada"):
                answer = await here.both(target, who)
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                assert f"X-Remote-User: {who}".encode() in answer
        assert b"X-Remote-User: " not in (await here.both("/public/x")).replace(b"X-Remote-User: \r\n", b"")
        assert here.ways == ["again"] * 9
        here.ways.clear()
        # Rules look at method and network, which the front proxy tells.
        assert status(await here.both("/lan/x", "")) == 200
        assert b"X-Remote-Roles: editor" in await here.both("/save/1", "grace", "POST")
        # Envoy asks by HEAD about HEAD, and aiohttp tells no length then.
        methods = ["OPTIONS"] if dialect == "envoy" else ["HEAD", "OPTIONS"]
        for method in methods:
            for _ in range(2):
                await here.ask("/page", "grace", method)
            assert status(await here.both("/page", "grace", method)) == 200
        assert b"\r\nCookie: own=theirs\r\n" in await here.both("/page")
        assert here.ways == ["first", "first", *["first", "first", "again"] * len(methods), "again"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_header_lines_that_are_known_open_nothing_else(world: World, dialect: str) -> None:
    async with counter(world, dialect, "grace", "mallory") as here:
        for who in ("grace", ""):
            await here.warm("/page" if who else "/public/x", who)
            for target in (*STRANGE, "/closed/x", "/strong/x", "/admin/x", "/-/login", "/-", "/" + "x" * 17000):
                answer = await here.ask(target, who)
                assert answer == b"" or 300 < status(answer) < 500, target
                assert b"X-Remote-User" not in answer, target
            assert here.ways == []
        for _ in range(3):
            assert status(await here.ask("/page", "mallory")) in (401, 403)
        assert here.ways == []


async def test_lines_that_only_look_like_those_that_are_known_are_read_again(world: World) -> None:
    async with counter(world, "nginx") as here:
        await here.warm()
        good = here.lines("/page")
        # What stands for a value that was set aside, where the value belongs: the lines are those that are known.
        marked = [line.replace("URI: /page", "URI: \0") for line in good]
        twice = [*good, "X-Original-URI: /admin/x"]
        for lines in (
            marked,
            [line.replace("Referer: /page", "Referer: \0") for line in good],
            [line.replace("URI: /page", "URI: ") for line in good],
            twice,
            [line for line in good if "URI" not in line],
            [*good, "X_Remote_User: root"],
            [line.replace("/-/auth", "/-/auth/answer") for line in good],
            [*good, "Transfer-Encoding: chunked"],
        ):
            answer = await here.say(written(lines) + (b"0\r\n\r\n" if "chunked" in lines[-1] else b""))
            assert b"200 OK" not in answer or "chunked" in lines[-1], lines
            assert here.ways == [], lines
        for lines, ways in (
            ([*good, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="], []),
            ([*good, "Upgrade: websocket", "Connection: Upgrade"], []),
            ([line.replace("HTTP/1.1", "HTTP/1.0") for line in good], ["first"]),
            ([*[line.replace("HTTP/1.1", "HTTP/1.0") for line in good], "Connection: keep-alive"], []),
            ([*good, "Connection: close"], ["first"]),
            ([*good, "Expect: 100-continue"], ["first"]),
            ([*good, "Content-Length: 0"], ["first"]),
            ([line.replace("/-/auth", "/-/auth?x") for line in good], ["first"]),
            ([line.replace("GET /-/auth", "POST /-/auth") for line in good], ["first"]),
        ):
            await hang_up(here.link)
            here.link = await dial(here.running)
            here.ways.clear()
            assert status(await here.say(written(lines))) in (200, 403)
            assert here.ways == ways, lines


@pytest.mark.parametrize("dialect", ["envoy", "nginx", "traefik"])
async def test_a_question_without_a_path_is_not_answered_by_what_another_line_says(world: World, dialect: str) -> None:
    async with counter(world, dialect) as here:
        for who in ("grace", ""):
            await here.warm("/page" if who else "/public/x", who)
            # Its last line that differs each time is a Referer, which anybody may write.
            lines = here.lines("/page" if who else "/public/x", who)
            first = "GET /-/auth HTTP/1.1" if dialect == "envoy" else "GET /-/auth/page HTTP/1.1"
            for referer in ("/page", "/public/x"):
                said = [line.replace("Referer: /page", f"Referer: {referer}") for line in lines]
                assert status(await here.say(written([first, *said[1:]]))) == 404
                assert here.ways == []


async def test_what_comes_with_a_body_or_another_question_is_not_cut_short(world: World) -> None:
    async with counter(world, "nginx") as here:
        await here.warm()
        await here.warm("/page", "grace", "Content-Length: 0")
        good = here.lines("/page")
        assert status(await here.say(written([*good, "Content-Length: 5"]) + b"hello")) == 200
        two = written(good) + written(here.lines("/admin/x"))
        here.link.writer.write(two)
        answers = [await whole(here.link.reader), await whole(here.link.reader)]
        assert [status(answer) for answer in answers] == [200, 403]
        # In pieces: half of the lines, and lines whose body is still to come.
        for data, at in ((written(good), 40), (written([*good, "Content-Length: 47"]) + written(good)[:47], -47)):
            here.link.writer.write(data[:at])
            await asyncio.sleep(0.05)
            assert here.ways == []
            here.link.writer.write(data[at:])
            assert status(await whole(here.link.reader)) == 200
        for _ in range(4):
            assert status(await here.ask("/page")) == 200
        assert here.ways[-1] == "again"


@pytest.mark.parametrize("dialect", ["envoy", "nginx"])
async def test_a_question_over_a_connection_of_its_own_is_its_last(world: World, dialect: str) -> None:
    async with counter(world, dialect) as here:
        await here.warm()
        own = ([], ["Connection: close"])
        for version, more in (("1.0", own[0]), ("1.1", own[1]), ("1.0", own[1])):
            for turn in range(4):
                lines = [*here.lines(f"/page?{turn}"), *more]
                data = written([lines[0].replace("HTTP/1.1", f"HTTP/{version}"), *lines[1:]])
                link = await dial(here.running)
                link.writer.write(data)
                answer = await asyncio.wait_for(link.reader.read(), 10)
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), turn
                assert answer.count(b"\r\nConnection: close\r\n") == 1
                assert answer.count(b"HTTP/") == 1
                assert b"\r\nX-Remote-User: grace\r\n" in answer
                await hang_up(link)
            # The lines of one version say something else in the other.
            assert here.ways == ["first", "first", "again", "again"]
            here.ways.clear()
            await here.both("/page")
            here.ways.clear()


async def test_who_asks_belongs_to_what_is_known_and_whoever_does_not_listen_is_told_nothing(world: World) -> None:
    @dataclass
    class Client:
        writing_paused: bool

    async with counter(world, "nginx") as here:
        await here.warm()
        front, data = here.running.sidecar.front, written(here.lines("/page"))
        assert front.again(Client(writing_paused=True), data, ("127.0.0.1", False)) is None
        for stranger in (("127.0.0.2", False), ("127.0.0.1", True), ("", False)):
            assert front.again(Client(writing_paused=False), data, stranger) is None
        assert here.ways == []
        assert front.again(Client(writing_paused=False), data, ("127.0.0.1", False)).data.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("dialect", ["envoy", "nginx"])
async def test_each_question_counts_and_too_many_are_refused(world: World, dialect: str) -> None:
    async with counter(world, dialect, limits={"requests": "20/1h"}) as here:
        statuses = [status(await here.ask("/page")) for _ in range(25)]
        assert statuses[:20] == [200] * 20
        assert statuses[20:] == ([403] if dialect == "nginx" else [429]) * 5
        assert here.ways.count("again") >= 17


async def test_whoever_signs_out_is_out_at_once(world: World) -> None:
    async with counter(world, "traefik", "grace", "ada") as here:
        for who in ("grace", "ada"):
            await here.warm("/page", who)
        session = [line["session"] for line in here.running.audit() if line.get("person") == "grace"][-1]
        await here.running.sidecar.front.gate.keeper.end_id(session)
        assert status(await here.ask("/page", "grace")) == 401
        assert here.ways == []
        assert status(await here.ask("/page", "ada")) == 200
        assert here.ways == ["again"]


async def test_nobody_passes_unnoted(world: World) -> None:
    async with counter(world, "caddy", audit={"on_failure": "refuse"}) as here:
        await here.warm()
        async with here.running.full_disk():
            assert status(await here.ask("/page")) == 503
            assert here.ways == []
        await asyncio.to_thread(here.running.sidecar.audit.flush)
        assert status(await here.ask("/page")) == 200


async def test_an_account_comes_first(world: World, tmp_path: Path) -> None:
    options = {"provision": True, "environment": {"USERS_DB": users_table(tmp_path / "users.db")}}
    async with counter(world, "haproxy", options=options) as here:
        assert status(await here.ask("/page")) == 200
        # Whoever has none yet waits for it in a task; then it is known.
        assert here.ways == []
        for _ in range(3):
            await here.ask("/page")
        assert here.ways == ["first", "first", "again"]


async def test_programs_that_show_a_token_are_answered_at_once(world: World) -> None:
    async with running_forger() as forger:
        rules = [{"path": "/api/**", "allow": {"bearer": "corp"}}, {"path": "/**", "allow": "signed_in"}]
        changes = {"access": rules, "logins": {"corp": {"bearer": {"audience": "https://api"}}}}
        running = await world({**sections("traefik"), **changes}, issuer=forger.issuer)
        front = running.sidecar.front
        here = Counter(running, "traefik", {}, front.questions, await dial(running))
        front.questions = here
        now = int(world.clock())
        claims = {"aud": "https://api", "client_id": "script", "jti": "j", "iat": now, "exp": now + 300}
        bearer = f"Authorization: Bearer {sign(forger.standard_claims(**claims), typ='at+jwt')}"
        for _ in range(4):
            assert b"X-Remote-User: ada" in await here.ask("/api/x", "", "GET", bearer)
        assert here.ways == ["first", "first", "again"]
        await here.both("/api/x", "", "GET", bearer)
        here.ways.clear()
        assert status(await here.ask("/api/x", "", "GET", bearer[:-1] + ("A" if bearer[-1] != "A" else "B"))) == 401
        assert here.ways == []
        await hang_up(here.link)


def edits(dialect: str) -> st.SearchStrategy[list[tuple[str, int, str]]]:
    """What is done to the lines of a question: how, to which, and with what."""
    values = [
        "",
        "/page",
        "/admin/x",
        "/public/x",
        "\0",
        " ",
        "0",
        "a b",
        "\udce4",
        "localhost",
        "GET",
        "x,y",
        "/-/me",
        "close",
        "keep-alive",
    ]
    names = [
        "Connection",
        "X-Forwarded-Uri",
        "X-Original-URI",
        "Referer",
        "Content-Length",
        "Cookie",
        "Upgrade",
        "X-Any",
        "X_Remote_User",
    ]
    lines = st.builds("{}: {}".format, st.sampled_from(names), st.sampled_from(values))
    ways = st.one_of(
        st.tuples(st.just("put"), st.integers(1, 9), lines),
        st.tuples(st.just("say"), st.integers(1, 9), st.sampled_from(values)),
        st.tuples(st.sampled_from(["drop", "twice", "swap", "space"]), st.integers(1, 9), st.just("")),
        st.tuples(st.just("start"), st.just(0), st.sampled_from(["/admin/x", "?", "/", "x", " ", "/answer", "\0"])),
        st.tuples(st.just("version"), st.just(0), st.sampled_from(["1.0", "1.2", "2.0"])),
    )
    return st.lists(ways, min_size=1, max_size=3)


def edited(lines: list[str], changes: list[tuple[str, int, str]]) -> list[str]:
    found = list(lines)
    for how, place, text in changes:
        at = place % len(found) or 1
        name, _, value = found[at].partition(": ")
        if how == "put":
            found.insert(at, text)
        elif how == "say":
            found[at] = f"{name}: {text}"
        elif how == "drop":
            del found[at]
        elif how == "twice":
            found.insert(at, found[at])
        elif how == "swap":
            found[at] = f"{name.swapcase()}: {value}"
        elif how == "version":
            found[0] = found[0].replace("HTTP/1.1", f"HTTP/{text}")
        elif how == "space":
            found[at] = f"{name}:  {value} "
        else:
            found[0] = found[0].replace(" HTTP/", f"{text} HTTP/")
        if len(found) < 3:
            break
    return found


@pytest.mark.parametrize("dialect", ["envoy", "nginx", "traefik"])
async def test_whatever_is_done_to_a_question_each_way_says_the_same(world: World, dialect: str) -> None:
    async with counter(world, dialect, limits={"requests": "off", "bad_tokens": "off"}) as here:
        loop = asyncio.get_running_loop()
        await here.warm()

        async def compare(changes: list[tuple[str, int, str]]) -> None:
            data = written(edited(here.lines("/page"), changes))
            answers = []
            for here.is_off in (False, True):
                # What cannot be read is answered, or not, by whether it is the first of its connection.
                await hang_up(here.link)
                here.link = await dial(here.running)
                assert status(await here.ask("/page")) == 200
                answers.append(await here.say(data))
            at_once, in_a_task = answers
            here.is_off = False
            if at_once.startswith(b"HTTP/1.1") and in_a_task.startswith(b"HTTP/1.0"):
                # aiohttp answers in the version that was spoken, in which a connection ends unless somebody says not.
                at_once = at_once.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"\r\nConnection: close", b"")
            assert sorted(at_once.split(b"\r\n")) == sorted(in_a_task.split(b"\r\n")), data

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(edits(dialect))
        def play(changes: list[tuple[str, int, str]]) -> None:
            asyncio.run_coroutine_threadsafe(compare(changes), loop).result(60)

        await asyncio.to_thread(play)
        assert {"first", "again"} <= set(here.ways)


async def test_a_signed_header_is_written_once_and_renewed_in_time(world: World) -> None:
    options = {"environment": {"ASSERTION_KEY": assertion_key()}}
    assertion = {"audience": "wiki", "key": {"env": "ASSERTION_KEY"}, "lifetime": "2m"}
    async with counter(world, "traefik", options=options, assertion=assertion) as here:
        await here.warm()
        ((asker, _),) = here.quick._askers._younger.values()
        admission = asker.admission
        first = await here.ask("/page")
        assert b"\r\nX-Sidecar-Assertion: ey" in first
        assert await here.ask("/page?again") == first
        assert asker.admission is admission
        world.clock.ahead += 61
        renewed = await here.ask("/page")
        assert renewed != first
        assert b"\r\nX-Sidecar-Assertion: ey" in renewed
        assert here.ways[:2] == ["again"] * 2

"""Whoever comes again with the same header lines is not read again, and is let through no more than anybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sidecar.core.regulars import VARYING
from tests.services.upstream import until
from tests.station import ASKED, LENGTH, Link, Station, station_of, ways_of, whole
from tests.world import World


@pytest.fixture
def station(world: World) -> Callable[..., Any]:
    """Make a station; *changes* are those of the configuration."""
    return partial(station_of, world)


TRACED = (*ASKED[:4], "Referer: http://localhost/{one}", *ASKED[4:8], "X-Request-ID: {one}", *ASKED[8:])


def traced(here: Station, one: str, target: str = "/some/page") -> bytes:
    """A request that has two lines which nobody else has."""
    lines = [line.replace("{one}", one) for line in TRACED]
    return here.request(f"GET {target} HTTP/1.1", *lines[1:])


def remembered(here: Station) -> set[Any]:
    """Heads that are known, and where each comes from."""
    regulars = here.running.sidecar.front.express._regulars
    return regulars._younger.keys() | regulars._elder.keys()


def forget_heads(here: Station) -> None:
    """From now on no head has come before."""
    regulars = here.running.sidecar.front.express._regulars
    for known in (regulars._younger, regulars._elder, regulars._once):
        known.clear()


async def status(link: Link, data: bytes) -> bytes:
    """Status of the answer to one more request."""
    return (await link.ask(data))[9:12]


async def test_the_application_gets_the_same_lines_whoever_read_them(station: Any) -> None:
    async with station() as here:
        for ask in (here.request, lambda: traced(here, "first"), lambda: traced(here, "another-one?")):
            link = Link(*await here.dial())
            await link.ask(traced(here, "learnt"))
            await link.ask(here.request())
            here.forget()
            await link.ask(ask())
            assert here.again == [True]
            link.writer.close()
            heads = list(here.heads)
            ways = ways_of(here.running.sidecar)
            kept, ways.again = ways.again, lambda *_: None
            await here.ask(ask())
            ways.again = kept
            assert here.heads == heads * 2


async def test_values_that_differ_each_time_are_kept_apart(station: Any) -> None:
    async with station() as here, here.regular() as link:
        for _ in range(2):
            await link.ask(traced(here, "one"))
        here.forget()
        for one in ("two", "three", "two"):
            await link.ask(traced(here, one))
            assert f"\r\nX-Request-ID: {one}\r\n".encode() in here.heads[-1]
            assert f"\r\nReferer: http://localhost/{one}\r\n".encode() in here.heads[-1]
        assert here.again == [True] * 3


async def test_a_name_of_which_nobody_knows_is_learnt_when_its_value_differs_each_time(station: Any) -> None:
    async with station() as here, here.regular() as link:
        for number in range(70):
            await link.ask(here.request(*ASKED[:4], f"X-Acme-Trace: {number}", *ASKED[4:]))
        assert here.again[:66] == [False] * 66
        here.forget()
        for number in range(70, 73):
            await link.ask(here.request(*ASKED[:4], f"X-Acme-Trace: {number}", *ASKED[4:]))
            assert f"\r\nX-Acme-Trace: {number}\r\n".encode() in here.heads[-1]
        assert here.again == [True] * 3


@pytest.mark.parametrize(
    "name", ["Accept", "X-Forwarded-For", "Cookie", "X-App-User", "X-Requested-With", "Connection"]
)
async def test_t60_a_name_that_means_something_is_never_learnt(station: Any, name: str) -> None:
    async with station() as here, here.regular() as link:
        for number in range(130):
            await link.ask(here.request(*ASKED, f"{name}: {number}"))
        assert not here.running.sidecar.front.express._variance.names - VARYING
        assert True not in here.again


@pytest.mark.parametrize("empty", ["", "\0"])
async def test_t60_a_varying_line_without_its_value_does_not_cut_the_request_in_two(station: Any, empty: str) -> None:
    async with station() as here, here.regular() as link:
        for _ in range(2):
            await link.ask(traced(here, "one"))
        here.forget()
        data = traced(here, "one").replace(b"X-Request-ID: one", b"X-Request-ID: " + empty.encode())
        data = data.replace(b"Referer: http://localhost/one", b"Referer: " + empty.encode())
        assert await status(link, data) == (b"400" if empty else b"200")
        assert True not in here.again
        for head in here.heads:
            assert head.startswith(b"GET /some/page HTTP/1.1\r\nHost: ")
            assert b"\r\nX-App-User: ada\r\n" in head


async def test_a_varying_line_that_is_managed_is_never_passed_on(station: Any) -> None:
    async with station({"headers": {"X-Request-ID": "{{ user.username }}"}}) as here:
        link = Link(*await here.dial())
        for one in ("mallory", "eve", "trudy"):
            await link.ask(traced(here, one))
            assert b"X-Request-ID: ada\r\n" in here.heads[-1]
            assert b"X-Request-ID: " + one.encode() not in here.heads[-1]
            # Nor does the value go astray: it stands in the other line alone.
            assert here.heads[-1].count(one.encode()) == 1
        link.writer.close()


async def test_the_audit_and_the_counters_notice_it_like_any_other(station: Any) -> None:
    async with station() as here, here.regular() as link:
        before = here.running.sidecar.front.metrics.render().count(b"sidecar_requests")
        await link.ask(here.request("GET /again HTTP/1.1", *ASKED[1:]))
        assert here.again == [True]
        lines = [line for line in here.running.audit() if line["event"] == "decision"]
        assert lines[-1]["path"] == "/again"
        assert {**lines[-1], "time": "", "reference": "", "path": ""} == {
            **lines[-2],
            "time": "",
            "reference": "",
            "path": "",
        }
        assert lines[-1]["reference"] != lines[-2]["reference"]
        assert before


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/-/me", b"200"),
        ("/a/../b", b"400"),
        ("/a%2fb", b"400"),
        ("/a;x=1/..;/b", b"400"),
        ("//a", b"400"),
        ("/a#b", b"400"),
        ("/a?b#c", b"400"),
        ("/.git", b"200"),
        ("/" + "a/" * 9000, b"414"),
        ("http://localhost:{port}/a", b"200"),
        ("http://evil.example/a", b"421"),
        ("*", b"400"),
    ],
)
async def test_a_target_that_takes_a_second_look_is_judged_as_ever(station: Any, target: str, said: bytes) -> None:
    async with station() as here, here.regular() as link:
        assert await status(link, here.request(f"GET {target} HTTP/1.1", *ASKED[1:])) == said
        assert True not in here.again


@pytest.mark.parametrize(
    "start", ["POST /a HTTP/1.1", "PURGE /a HTTP/1.1", "HEAD /a HTTP/1.1", "GET /a HTTP/1.0", "get /a HTTP/1.1"]
)
async def test_another_method_or_version_is_judged_as_ever(station: Any, start: str) -> None:
    async with station() as here, here.regular() as link:
        link.writer.write(here.request(start, *ASKED[1:]))
        assert await link.reader.readuntil(b"\r\n\r\n")
        assert True not in here.again


async def test_a_line_that_the_parser_would_not_take_is_refused(station: Any) -> None:
    async with station({"server": {"max_header": "2KiB"}}) as here, here.regular() as link:
        assert await status(link, here.request(f"GET /{'a' * 3000} HTTP/1.1", *ASKED[1:])) == b"400"
        assert here.again == []


async def test_names_that_windows_shortens_are_refused(station: Any) -> None:
    async with station({"app": {"ignore_case": True}}) as here, here.regular() as link:
        assert await status(link, here.request("GET /admin./x HTTP/1.1", *ASKED[1:])) == b"400"
        assert here.again == [False]


@pytest.mark.parametrize(
    "lines",
    [
        ("Host: evil.example", *ASKED[2:]),
        ("Host: localhost:{port}", *ASKED[1:]),
        (*ASKED[1:], "Authorization: Bearer x"),
        (*ASKED[1:], "Expect: 100-continue"),
        (*ASKED[1:], "Content-Length: 0"),
        (*ASKED[1:], "Content-Length : 0"),
        (*ASKED[1:], "Transfer-Encoding: chunked", "", "0"),
        (*ASKED[1:], " folded: 1"),
        (*ASKED[1:-1], "Connection: x-twice"),
        (*ASKED[1:-1], "Connection: close"),
        (*ASKED[1:], "Referer: a\x00b"),
        (*ASKED[1:], "Referer: a\rX-App-User: eve"),
        (*ASKED[1:], "Referer: a\nX-App-User: eve"),
    ],
)
async def test_other_header_lines_are_read_anew(station: Any, lines: tuple[str, ...]) -> None:
    async with station() as here, here.regular() as link:
        link.writer.write(here.request("GET /a HTTP/1.1", *lines))
        assert await link.reader.readuntil(b"\r\n\r\n")
        assert True not in here.again


async def test_a_session_that_has_ended_opens_nothing(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await here.running.sidecar.front.gate.keeper.end(here.token)
        assert await status(link, here.request()) in (b"401", b"302", b"303")
        assert here.again == [False]
        assert here.heads == []


async def test_whoever_lacks_the_role_is_turned_away(station: Any) -> None:
    rules = [{"path": "/only/**", "allow": {"role": "editor"}}, {"path": "/**", "allow": "signed_in"}]
    async with station({"access": rules}) as here, here.regular() as link:
        assert await status(link, here.request("GET /only/this HTTP/1.1", *ASKED[1:])) == b"403"
        assert here.again == [False]
        assert here.heads == []


async def test_too_many_are_turned_away(station: Any) -> None:
    async with station({"limits": {"requests": "6/1h"}}) as here, here.regular() as link:
        said = [await status(link, here.request()) for _ in range(6)]
        assert said[0] == b"200"
        assert said[-1] == b"429"
        await asyncio.sleep(0.1)
        assert len(here.heads) == said.count(b"200")


@pytest.mark.uncompiled
async def test_what_is_told_of_a_person_is_told_anew_when_it_changes(station: Any) -> None:
    async with station() as here, here.regular() as link:
        await link.ask(here.request())
        assert b"\r\nX-App-User: ada\r\n" in here.heads[-1]
        gate = here.running.sidecar.front.gate
        lines_of = gate._lines_of
        type(gate)._lines_of = lambda *_: (("X-App-User", "countess"),)  # type: ignore[method-assign, assignment]
        try:
            await link.ask(here.request())
        finally:
            type(gate)._lines_of = lines_of.__func__  # type: ignore[method-assign, attr-defined]
        assert here.again == [True, True]
        assert b"\r\nX-App-User: countess\r\n" in here.heads[-1]


async def test_what_was_written_once_is_not_written_again(station: Any) -> None:
    async with station() as here, here.regular() as link:
        express = here.running.sidecar.front.express
        memos: list[dict[Any, Any]] = [express._identity, express._about, express._incoming]
        before = [dict(memo) for memo in memos]
        await link.ask(here.request(*ASKED, "X-New: 1"))
        assert here.taken == [True]
        for memo, known in zip(memos, before, strict=True):
            assert known
            assert all(memo[key] is written for key, written in known.items())


async def test_credentials_that_sign_in_the_connection_take_the_gate(station: Any) -> None:
    rules = [{"path": "/public/**", "allow": "anyone"}, {"path": "/**", "allow": "signed_in"}]
    changes = {"access": rules, "headers": {"Authorization": "Negotiate {{ user.username }}"}}
    async with station(changes) as here:
        link = Link(*await here.dial())
        for _ in range(3):
            # Leaves a connection idle that is nobody's.
            await link.ask(here.request("GET /public/x HTTP/1.1", *ASKED[1:]))
            here.forget()
            await link.ask(here.request())
            assert b"Authorization: Negotiate ada\r\n" in here.heads[-1]
            assert True not in here.taken + here.again
        link.writer.close()


async def test_a_varying_line_in_an_odd_spelling_is_kept(station: Any) -> None:
    async with station() as here:
        link = Link(*await here.dial())
        for _ in range(3):
            await link.ask(here.request(*ASKED, "Referer:  http://localhost/odd"))
            assert here.heads[-1].count(b"\r\nReferer: http://localhost/odd\r\n") == 1
            assert b"X-Twice: one\r\n" in here.heads[-1]
        # What can never be known again takes no room.
        assert [head for head, _ in remembered(here) if b"/odd" in head] == []
        link.writer.close()


async def test_while_nothing_can_be_noted_nobody_gets_in(station: Any) -> None:
    async with station({"audit": {"on_failure": "refuse"}}) as here, here.regular() as link, here.running.full_disk():
        assert await status(link, here.request()) == b"503"
        assert here.heads == []


# What is only safe between two requests


async def test_t60_lines_that_end_an_unfinished_head_are_no_request(station: Any) -> None:
    async with station() as here, here.regular() as link:
        link.writer.write(b"GET /first HTTP/1.1\r\nX-Swallowed: ")
        await asyncio.sleep(0.05)
        await link.ask(here.request("GET /second HTTP/1.1", *ASKED[1:]))
        assert [head.split()[1] for head in here.heads] == [b"/first"]
        assert b"X-Swallowed: GET /second HTTP/1.1\r\n" in here.heads[0]


async def test_t60_a_head_that_came_in_pieces_is_not_remembered(station: Any) -> None:
    async with station() as here:
        link = Link(*await here.dial())
        link.writer.write(b"GET /first HTTP/1.1\r\nX-Swallowed: ")
        await asyncio.sleep(0.05)
        await link.ask(here.request("GET /second HTTP/1.1", *ASKED[1:]))
        assert here.taken == [True]
        await link.ask(here.request())
        assert b"Swallowed" in here.heads[0]
        assert b"Swallowed" not in here.heads[1]
        link.writer.close()


async def test_t60_a_head_behind_another_is_not_remembered(station: Any) -> None:
    async with station() as here:
        forget_heads(here)
        two = here.request("GET /1 HTTP/1.1", *ASKED[1:]) + here.request("GET /2 HTTP/1.1", *ASKED[1:])
        for _ in range(2):
            link = Link(*await here.dial())
            link.writer.write(two)
            for _ in range(2):
                await whole(link.reader)
            link.writer.close()
        assert remembered(here) == set()


async def test_t60_a_body_that_looks_like_a_request_is_none(station: Any) -> None:
    async with station() as here, here.regular() as link:
        body = here.request("GET /in/the/body HTTP/1.1", *ASKED[1:])
        head = here.request("GET /-/nothing HTTP/1.1", *ASKED[1:], f"Content-Length: {len(body)}")
        assert await status(link, head) == b"404"
        link.writer.write(body)
        await asyncio.sleep(0.1)
        assert here.heads == []
        await link.ask(here.request("GET /behind HTTP/1.1", *ASKED[1:]))
        assert [head.split()[1] for head in here.heads] == [b"/behind"]


async def test_t60_a_body_of_a_form_that_looks_like_a_request_is_none(station: Any) -> None:
    async with station() as here, here.regular() as link:
        body = here.request("GET /in/the/body HTTP/1.1", *ASKED[1:])
        link.writer.write(here.request("POST /form HTTP/1.1", *ASKED[1:], f"Content-Length: {len(body)}"))
        await asyncio.sleep(0.05)
        link.writer.write(body)
        await whole(link.reader)
        assert here.heads[0].startswith(b"POST /form ")
        assert True not in here.again


async def test_t60_a_trailer_is_no_line_of_the_next_request(station: Any) -> None:
    async with station() as here:
        link = Link(*await here.dial())
        head = here.request("GET /1 HTTP/1.1", *ASKED[1:-1], "Transfer-Encoding: chunked")
        link.writer.write(head + b"2\r\nok\r\n0\r\nX-A: 1\r\nX-Trailer: 1\r\n\r\n" + here.request())
        answers = await link.reader.read()
        assert answers.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in answers.lower()
        assert b"X-Trailer" not in b"".join(here.heads)
        link.writer.close()


async def test_requests_that_come_meanwhile_are_answered_in_their_order(station: Any) -> None:
    async with station() as here, here.regular() as link:
        here.says = [b"wait"]
        link.writer.write(here.request("GET /1 HTTP/1.1", *ASKED[1:]))
        await until(lambda: here.heads)
        assert here.again == [True]
        link.writer.write(
            here.request("GET /2 HTTP/1.1", *ASKED[1:]) + here.request("GET /3 HTTP/1.1", *ASKED[1:])[:20]
        )
        link.writer.write(here.request("GET /3 HTTP/1.1", *ASKED[1:])[20:])
        await asyncio.sleep(0.05)
        assert len(here.heads) == 1
        here.waits.set()
        for _ in range(3):
            assert (await whole(link.reader)).endswith(b"ok")
        assert [head.split()[1] for head in here.heads] == [b"/1", b"/2", b"/3"]


async def test_what_comes_during_a_long_answer_is_answered_after_it(station: Any) -> None:
    async with station() as here, here.regular() as link:
        here.says = [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab|pause||pause||pause|cd"]
        link.writer.write(here.request("GET /1 HTTP/1.1", *ASKED[1:]))
        await link.reader.readuntil(b"ab")
        link.writer.write(here.request("GET /2 HTTP/1.1", *ASKED[1:]))
        assert await link.reader.readexactly(2) == b"cd"
        assert (await whole(link.reader)).endswith(b"ok")
        assert [head.split()[1] for head in here.heads] == [b"/1", b"/2"]
        # And then it is between two requests again.
        here.forget()
        await link.ask(here.request())
        await link.ask(here.request())
        assert here.again[-1]


async def test_a_client_that_goes_away_takes_its_request_along(station: Any) -> None:
    async with station() as here, here.regular() as link:
        here.says = [b"wait"]
        link.writer.write(here.request())
        await until(lambda: here.heads)
        link.writer.transport.abort()
        await until(lambda: here.is_quiet)
        here.waits.set()
        assert (await here.ask(here.request("GET /next HTTP/1.1", *ASKED[1:]))).endswith(b"ok")
        assert here.heads[-1].startswith(b"GET /next ")


async def test_an_answer_that_does_not_come_in_time_is_a_504(station: Any) -> None:
    async with station({"app": {"answer_timeout": "200ms"}}) as here, here.regular() as link:
        here.says = [b"wait"]
        assert await status(link, here.request()) == b"504"
        assert here.again == [True]
        await until(lambda: here.is_quiet)


async def test_a_session_that_ends_before_the_answer_begins_cuts_it_short(station: Any) -> None:
    async with station() as here, here.regular() as link:
        here.says = [b"wait"]
        link.writer.write(here.request())
        await until(lambda: here.heads)
        await here.running.sidecar.front.gate.keeper.end(here.token)
        here.waits.set()
        here.says = []
        # Its head comes alone, so that a task goes on with it.
        assert here.again == [True]
        await whole(link.reader)
        here.general()
        assert await status(link, here.request()) in (b"401", b"302", b"303")


async def test_a_stream_ends_with_a_session_that_ended_before_it_began(station: Any) -> None:
    async with station() as here, here.regular() as link:
        keeper = here.running.sidecar.front.gate.keeper
        here.says = [b"|pause||pause||pause|HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nse" + b"|pause|" * 500]
        link.writer.write(here.request())
        await until(lambda: here.heads)
        assert here.again == [True]
        await keeper.end(here.token)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            # Long before the application ends it.
            await asyncio.wait_for(link.reader.readuntil(b"no such end"), 5)
        await until(lambda: here.is_quiet)


async def test_while_it_leaves_the_last_answer_says_so(station: Any) -> None:
    async with station() as here, here.regular() as link:
        here.running.sidecar._listener._is_draining = True
        for data in (here.request(), here.request(*ASKED, "X-New: 1")):
            await link.ask(data)
        # What would say so is the task.
        assert here.taken == here.again == []


async def test_heads_of_another_client_are_not_known(station: Any) -> None:
    changes = {"server": {"trusted_proxies": ["127.0.0.0/8"]}}
    async with station(changes) as here, here.regular() as link:
        await link.ask(here.request())
        assert b"X-Forwarded-For: 10.9.9.9\r\n" in here.heads[-1]
        assert {origin for _, origin in remembered(here)} == {("127.0.0.1", False)}
        other = [line.replace("10.9.9.9", "10.8.8.8") for line in ASKED]
        await link.ask(here.request(*other))
        assert b"X-Forwarded-For: 10.8.8.8\r\n" in here.heads[-1]
        assert here.again == [True, False]


async def test_each_of_our_names_reaches_the_application_as_itself(station: Any) -> None:
    async with station({"server": {"hosts": ["other.example"]}}) as here, here.regular() as link:
        for name in ("localhost", "other.example") * 3:
            assert await status(link, here.request(ASKED[0], f"Host: {name}:{{port}}", *ASKED[2:])) == b"200"
            assert f"\r\nHost: {name}:".encode() in here.heads[-1]
        assert here.again == [True, False, True, False, True, True]
        assert here.taken == [True, True]


async def test_the_same_head_from_another_address_is_read_anew(station: Any) -> None:
    async with station() as here, here.regular() as link:
        forget_heads(here)
        other = Link(*await asyncio.open_connection("127.0.0.1", here.running.port, local_addr=("127.0.0.2", 0)))
        for _ in range(3):
            await other.ask(here.request())
            assert b"\r\nX-Forwarded-For: 127.0.0.2\r\n" in here.heads[-1]
        await link.ask(here.request())
        assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in here.heads[-1]
        assert here.again == [False, False, True, False]
        other.writer.close()


async def test_t60_a_head_that_comes_but_once_is_not_remembered(station: Any) -> None:
    async with station() as here, here.regular() as link:
        before = remembered(here)
        for number in range(6):
            await link.ask(here.request(*ASKED, f"X-New: {number}"))
        assert remembered(here) == before
        for _ in range(2):
            await link.ask(here.request(*ASKED, "X-New: 0"))
        assert len(remembered(here)) == len(before) + 1
        assert here.again == [False] * 7 + [True]


async def test_a_long_head_is_not_remembered(station: Any) -> None:
    async with station() as here:
        link = Link(*await here.dial())
        for _ in range(3):
            await link.ask(here.request(*ASKED, "X-Long: " + "x" * 5000))
        assert True not in here.again
        assert b"x-long" not in {name.lower() for name, _ in here.running.sidecar.front.express._incoming}
        link.writer.close()


async def test_an_answer_of_another_kind_is_parsed_and_the_next_is_known_again(station: Any) -> None:
    async with station() as here, here.regular() as link:
        here.says = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", LENGTH]
        for _ in range(3):
            assert b"ok" in await link.ask(here.request())
        assert here.again == [True] * 3
        assert here.taken == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_the_same_lines_of_another_version_mean_another_end(station: Any, method: str) -> None:
    lasting, ending = ((f"{method} /some/page?of=it&x=%2F HTTP/1.{version}", *ASKED[1:-1]) for version in (1, 0))
    async with station() as here:
        for _ in range(3):
            reader, writer = await here.dial()
            writer.write(here.request(*ending))
            assert b"\r\nConnection: close\r\n" in await asyncio.wait_for(reader.read(), 10)
            writer.close()
        assert True in here.again
        async with here.regular(*lasting) as link:
            for _ in range(2):
                assert b"onnection" not in await link.ask(here.request(*lasting))
            assert True in here.again
            here.again.clear()
            link.writer.write(here.request(*ending))
            assert b"\r\nConnection: close\r\n" in await asyncio.wait_for(link.reader.read(), 10)
            assert True in here.again

"""Heads that count as the same are read as the same, but for the values that are taken out of them."""

from __future__ import annotations

import asyncio
from inspect import signature

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from sidecar.arrival import Arrival
from sidecar.core.headers import HeaderPlan
from sidecar.core.paths import read_simple_start, read_target
from sidecar.core.regulars import VARYING, Recurring, varies, without_varying
from sidecar.faults import Refused
from sidecar.model import Visit

LINE = st.builds(
    lambda name, colon, value: name + colon + value,
    st.sampled_from([b"Referer", b"referer", b"X-Request-ID", b"X-Other", b"Host", b"Range", b"If-None-Match"]),
    st.sampled_from([b": ", b": ", b": ", b":", b":  ", b" : "]),
    st.sampled_from(
        [b"", b"a", b"a b", b" a", b"a ", b"\xe4", b"a\tb", b"a\rb", b"a\nb", b"a\r\n b", b"a\0", b'W/"x", "y"']
    ),
)
HEAD = st.builds(lambda lines: b"\r\n".join([b"", *lines, b"", b""]), st.lists(LINE, max_size=4))

BASE = b"\r\nHost: wiki\r\nReferer: /a\r\nX-Request-ID: 7\r\nCookie: s=1\r\n\r\n"


def edited(head: bytes, how: str, at: int, byte: int) -> bytes:
    """One small edit of *head*, such as somebody would try who wants it to be taken for another."""
    at %= len(head)
    lines = head.split(b"\r\n")
    line = at % len(lines)
    if how == "change":
        return head[:at] + bytes([byte]) + head[at + 1 :]
    if how == "insert":
        return head[:at] + bytes([byte]) + head[at:]
    if how == "drop":
        return head[:at] + head[at + 1 :]
    if how == "double":
        return b"\r\n".join([*lines[: line + 1], *lines[line:]])
    return head.replace(b"\r\n", b"\n", 1 + at % 3) if how == "bare" else head.replace(b": ", b":\r\n ", 1 + at % 3)


EDIT = st.tuples(
    st.sampled_from(["change", "insert", "drop", "double", "bare", "fold"]),
    # Mostly within and around the values that are taken out.
    st.one_of(st.integers(0, 500), st.sampled_from([BASE.index(b"/a") + 1, BASE.index(b"7"), BASE.index(b"7") + 1])),
    st.one_of(st.sampled_from(b"\r\n\0\t :,;"), st.integers(0, 255)),
)


def parsed(head: bytes) -> list[tuple[bytes, bytes]] | None:
    """Lines as the server's parser reads them, None when it refuses them."""

    async def read() -> list[tuple[bytes, bytes]] | None:
        loop = asyncio.get_running_loop()
        parser = HttpRequestParser(BaseProtocol(loop), loop, 1 << 16, auto_decompress=False)
        try:
            messages, _, _ = parser.feed_data(b"GET / HTTP/1.1" + head)
        except Exception:  # noqa: BLE001 - whatever it says, it is a refusal
            return None
        return list(messages[0][0].raw_headers) if len(messages) == 1 else None

    return asyncio.run(read())


@settings(max_examples=800, deadline=None)
@given(HEAD, HEAD)
def test_t60_heads_that_count_as_one_are_read_alike(one: bytes, other: bytes) -> None:
    (key, values), (other_key, others) = without_varying(one), without_varying(other)
    lines = parsed(one)
    if lines is not None:
        # What comes out of the parser's lines is what was taken out of the bytes, where that is used at all.
        taken = [value for name, value in lines if varies(name, value)]
        if taken == values:
            again = iter(values)
            assert [(name, next(again) if varies(name, value) else value) for name, value in lines] == lines
    if (key, len(values)) == (other_key, len(others)) and lines is not None:
        read = parsed(other)
        assert read is not None
        assert [name for name, _ in read] == [name for name, _ in lines]
        pairs = zip(lines, read, strict=True)
        assert all(here == there or (here[1] in values and there[1] in others) for here, there in pairs)


@pytest.mark.parametrize("name", sorted({*VARYING, b"content-length"}))
def test_a_name_is_known_in_any_case_and_its_neighbours_are_not(name: bytes) -> None:
    for spelt in (name, name.upper(), name.title()):
        assert without_varying(b"\r\n%b: x\r\n\r\n" % spelt) == (b"\r\n%b: \0\r\n\r\n" % spelt, [b"x"])
    for other in {name + b"x", b"x" + name, name[:-1], name[1:], name + b" "} - VARYING:
        assert without_varying(b"\r\n%b: x\r\n\r\n" % other)[1] == []


def test_values_are_taken_out_in_their_order() -> None:
    head = b"\r\nHost: h\r\nReferer: a\r\nX: Referer: b\r\nX-Request-Id: c\r\n\r\n"
    assert without_varying(head) == (
        b"\r\nHost: h\r\nReferer: \0\r\nX: Referer: b\r\nX-Request-Id: \0\r\n\r\n",
        [b"a", b"c"],
    )


@pytest.mark.parametrize(
    "line", [b"Referer:a", b"Referer:  a", b"Referer: a ", b"Referer: a\tb", b"Referer: \xe4", b"Referer: ", b"X: a"]
)
def test_only_a_whole_value_in_the_usual_spelling_is_taken_out(line: bytes) -> None:
    head = b"\r\nHost: h\r\n" + line + b"\r\n\r\n"
    assert without_varying(head) == (head, [])


@pytest.mark.parametrize("value", [b"", b" a", b"a ", b"a\tb", b"a\0", b"\xe4"])
def test_a_value_that_could_be_read_in_another_way_does_not_count_as_varying(value: bytes) -> None:
    assert varies(b"REFERER", b"a")
    assert not varies(b"Referer", value)
    assert not varies(b"X", b"a")


def test_t60_a_line_that_came_empty_is_another_than_one_with_a_value() -> None:
    full, empty = b"\r\nReferer: a\r\nRange: \r\n\r\n", b"\r\nReferer: \r\nRange: a\r\n\r\n"
    assert without_varying(full)[0] != without_varying(empty)[0]
    assert without_varying(full)[0] != without_varying(full.replace(b"a", b""))[0]


def test_nothing_that_varies_means_anything_here() -> None:
    arrival = Arrival(trusted=(), hosts=frozenset(["h"]), is_secure=True, largest_head=9999)
    plan = HeaderPlan(frozenset())

    def visit(value: str) -> object:
        headers = CIMultiDict({"Host": "h", **{name.decode(): value for name in VARYING}})
        request: web.BaseRequest = make_mocked_request("GET", "/", headers=headers)
        made = arrival.visit(request, 0.0)
        return {name: getattr(made, name) for name in signature(Visit).parameters if name != "reference"}

    assert visit("x") == visit("Bearer text/html cors navigate")
    for name in VARYING:
        assert plan.incoming(((name, b"x"),)) == [(name.decode(), "x")]
        assert plan.stands_alone(name, b"x")


@settings(max_examples=800, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["/", "a", "..", ".", "%2f", "%41", ";", "?", "#", "//", "\\", ":", "~", " ", "é", "x.y", "&=", '"']
        )
    )
)
def test_t13_a_simple_start_means_what_the_target_means(pieces: list[str]) -> None:
    raw = "/" + "".join(pieces)
    start = f"GET {raw} HTTP/1.1\r\n".encode("latin-1")
    found = read_simple_start(start + b"Host: h\r\n\r\n")
    try:
        target = read_target(raw)
    except Refused:
        assert found is None
        return
    if found is not None:
        assert found == (b"GET", raw.encode("latin-1"), target.path, b"1", len(start))
        assert target.literal == target.path
        assert not target.authority


def test_only_an_ordinary_method_of_today_is_a_simple_start() -> None:
    assert read_simple_start(b"GET /a?b HTTP/1.1\r\n") == (b"GET", b"/a?b", "/a", b"1", 19)
    assert read_simple_start(b"GET /a?b HTTP/1.0\r\n") == (b"GET", b"/a?b", "/a", b"0", 19)
    for method in (b"HEAD", b"OPTIONS", b"POST", b"PUT", b"PATCH", b"DELETE"):
        start = method + b" /a HTTP/1.1\r\n"
        assert read_simple_start(start) == (method, b"/a", "/a", b"1", len(start))
    for start in (
        b"GET /a HTTP/1.2",
        b"GET /a HTTP/0.9",
        b"get /a HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"TRACE /a HTTP/1.1",
        b"post /a HTTP/1.1",
        b"POSTS /a HTTP/1.1",
        b" GET /a HTTP/1.1",
        b"GET  /a HTTP/1.1",
    ):
        assert read_simple_start(start + b"\r\n") is None
    assert read_simple_start(b"GET /a HTTP/1.1\n\r\n") is None


@settings(max_examples=800, deadline=None)
@given(st.lists(EDIT, min_size=1, max_size=3))
def test_t60_small_edits_of_a_head_that_came_before_never_pass_for_it(edits: list[tuple[str, int, int]]) -> None:
    head = BASE
    for edit in edits:
        head = edited(head, *edit)
    (key, values), (other_key, others) = without_varying(BASE), without_varying(head)
    if key != other_key or len(values) != len(others):
        return
    read, before = parsed(head), parsed(BASE)
    assert read is not None
    assert before is not None
    instead = iter(others)
    assert read == [(name, next(instead) if varies(name, value) else value) for name, value in before]


def kept(recurring: Recurring[str, int], key: str, value: int, size: int = 1) -> None:
    """Remember what comes for the second time."""
    recurring.keep(key, value, size)
    recurring.keep(key, value, size)


def test_what_comes_for_the_second_time_is_remembered() -> None:
    recurring: Recurring[str, int] = Recurring(10)
    recurring.keep("a", 1, 1)
    assert (recurring.get("a"), len(recurring)) == (None, 0)
    recurring.keep("a", 2, 1)
    assert (recurring.get("a"), len(recurring)) == (2, 1)
    recurring.keep("a", 3, 1)
    assert recurring.get("a") == 3


def test_what_was_asked_for_lately_stays_and_the_rest_is_forgotten() -> None:
    recurring: Recurring[str, int] = Recurring(3)
    for number, key in enumerate("abcdefghijklmnop"):
        kept(recurring, key, number)
        assert recurring.get("a") == 0
        assert len(recurring) <= 6
    assert recurring.get("p") == 15
    assert [recurring.get(key) for key in "bcdefgh"] == [None] * 7


def test_what_is_large_takes_the_place_of_many() -> None:
    recurring: Recurring[str, int] = Recurring(10)
    for key in "abcdefghi":
        kept(recurring, key, 1)
    kept(recurring, "large", 1, 10)
    assert len(recurring) == 10
    kept(recurring, "larger", 1, 10)
    assert [recurring.get(key) for key in ("a", "large", "larger")] == [None, 1, 1]


def test_to_remember_the_same_again_takes_no_further_room() -> None:
    recurring: Recurring[str, int] = Recurring(10)
    kept(recurring, "other", 1)
    for number in range(50):
        recurring.keep("a", number, 5)
    assert (recurring.get("other"), recurring._elder) == (1, {})


def test_of_what_comes_once_only_so_much_is_held() -> None:
    recurring: Recurring[str, int] = Recurring(10)
    for number in range(100_000):
        recurring.keep(str(number), number, 1)
    assert len(recurring) == 0
    assert 0 < len(recurring._once) <= 32_768

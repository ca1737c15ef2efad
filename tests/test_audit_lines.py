"""Lines of which nearly all was written before are those that would be written anew, byte for byte."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.audit import Event
from sidecar.core.chain import beginning, linked, linked_all
from sidecar.telemetry import outlet as outlets
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.personal import Policy

# What strangers can put into a path, and more: halves of pairs, controls, what turns the direction of writing.
_TEXTS = st.text(
    st.characters(exclude_categories=()) | st.sampled_from('%s%%"\\\x7f\u202e\u2028\udcff\n\r\0'), min_size=1
)
NOW = 1_800_000_000.1239


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, lines: bytes) -> int:
        self.lines += lines.splitlines(keepends=True)
        return len(lines)

    def place(self) -> str:
        return ""

    def close(self) -> None:
        pass


@given(_TEXTS, _TEXTS, st.sampled_from(["keep", "pseudonym", "network", "drop"]))
@example("\u202eada", "/\u202e\x7f", "keep")
@example("ada", "/\x7f", "keep")
def test_a_line_of_a_form_is_the_line(person: str, path: str, treatment: str) -> None:
    kept = Kept()
    policy = Policy({"person": "pseudonym", "path": treatment}, b"key")
    log = AuditLog([kept], lambda: NOW, None, policy)
    told = {"effect": "allow", "rule": "100%s", "person": person, "subject": person, "method": ""}
    form = log.form(Event.DECISION, told, "path", "reference")
    assert form is not None
    log.fill(form, NOW, path, "0123")
    log.record(Event.DECISION, {**told, "path": path, "reference": "0123"})
    log.close()
    filled, recorded = kept.lines
    # A form has its holes even where nothing is left to say.
    assert filled.replace(b'"path":"",', b"") == recorded


@given(st.lists(st.binary(min_size=2, max_size=50), max_size=5), st.integers(1, 2**60))
def test_lines_that_are_chained_together_are_chained_one_by_one(lines: list[bytes], number: int) -> None:
    last = beginning("0" * 16)
    together, at_last = linked_all(lines, "0" * 16, number, last)
    one_by_one = []
    for distance, line in enumerate(lines):
        text, last = linked(line, "0" * 16, number + distance, last)
        one_by_one.append(text)
    assert (together, at_last) == (one_by_one, last)


async def test_what_is_told_once_does_not_wait_as_long_as_what_is_told_of_every_request() -> None:
    log = AuditLog([Kept()], lambda: NOW)
    form = log.form(Event.DECISION, {"effect": "allow"}, "path")
    assert form is not None
    now = asyncio.get_running_loop().time()

    def waits() -> float:
        assert log._timer is not None
        return log._timer.when() - now

    log.fill(form, NOW, "/a")
    assert waits() > 0.08
    log.record(Event.DECISION, {"path": "/b"})
    assert waits() < 0.08
    soon = waits()
    log.fill(form, NOW, "/c")
    assert waits() == soon
    log.close()


async def test_lines_are_written_in_their_order_whenever_they_are_worded() -> None:
    kept = Kept()
    log = AuditLog([kept], lambda: NOW)
    form = log.form(Event.DECISION, {"effect": "allow"}, "path")
    assert form is not None
    log.fill(form, NOW, "/a")
    log.record(Event.DECISION, {"path": "/b"})
    log.fill(form, NOW, "/c")
    log.close()
    assert [json.loads(line)["path"] for line in kept.lines] == ["/a", "/b", "/c"]


async def test_lines_are_worded_when_nobody_waits_for_an_answer_or_a_few_at_a_time() -> None:
    log = AuditLog([Kept()], lambda: NOW)
    form = log.form(Event.DECISION, {"effect": "allow"}, "path")
    (outlet,) = log._outlets

    def waiting_after(fills: int) -> tuple[int, int]:
        for _ in range(fills):
            log.fill(form, NOW, "/a")
        return len(log._blanks), outlet._put

    assert waiting_after(127) == (127, 0)
    assert waiting_after(1) == (96, 32)
    log.catch_up()
    assert waiting_after(31) == (31, 128)
    log.catch_up()
    assert waiting_after(1) == (32, 128)
    log.catch_up()
    assert waiting_after(0) == (0, 160)
    log.close()


def test_without_an_event_loop_nothing_waits_for_another_line() -> None:
    kept = Kept()
    log = AuditLog([kept], lambda: NOW)
    form = log.form(Event.DECISION, {"effect": "allow"}, "path")
    assert form is not None
    log.fill(form, NOW, "/a")
    while not kept.lines:
        time.sleep(0.001)
    log.close()


def test_lines_that_are_not_written_yet_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlets, "_MOST_BYTES", 10_000)
    kept = Kept()
    log = AuditLog([kept], lambda: NOW)
    form = log.form(Event.DECISION, {"effect": "allow"}, "path")
    assert form is not None

    async def many() -> None:
        for _ in range(64):
            log.fill(form, NOW, "/" * 999)
        log.catch_up()

    asyncio.run(many())
    log.rest()
    assert log.dropped > 50
    log.flush()
    assert 5 <= len(kept.lines) <= 9
    assert len(kept.lines) + log.dropped == 64
    log.close()

"""Names whose values differ each time are learnt, and none on which anything here depends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.http import HttpVersion11

from sidecar.arrival import Arrival
from sidecar.config.callers import Certificates
from sidecar.core.headers import HeaderPlan
from sidecar.core.regulars import VARYING, without_varying
from sidecar.core.variance import Variance
from sidecar.express import _is_ordinary

NAME = b"x-acme-trace"


def noted(variance: Variance, name: bytes, *values: bytes) -> None:
    for value in values:
        variance.note([(b"Host", b"h"), (name, value)])


def numbers(many: int) -> list[bytes]:
    return [b"%d" % number for number in range(many)]


def test_a_name_whose_values_nearly_all_differ_is_learnt() -> None:
    variance = Variance(lambda name: name != b"host")
    head = b"\r\nX-Acme-Trace: 7\r\nHost: h\r\n\r\n"
    noted(variance, b"X-Acme-Trace", *numbers(63))
    assert variance.names == VARYING
    assert without_varying(head, variance.lines) == (head, [])
    noted(variance, b"x-ACME-trace", b"63")
    assert variance.names == VARYING | {NAME}
    assert without_varying(head, variance.lines) == (head.replace(b"7", b"\0"), [b"7"])


@pytest.mark.parametrize(("distinct", "is_learnt"), [(1, False), (20, False), (55, False), (56, True)])
def test_a_name_whose_values_come_again_is_not(distinct: int, *, is_learnt: bool) -> None:
    variance = Variance(lambda name: name != b"host")
    for _ in range(4):
        noted(variance, NAME, *(b"%d" % (number % distinct) for number in range(64)))
    assert (NAME in variance.names) == is_learnt


def test_nothing_is_learnt_that_may_not_vary_or_is_too_long_or_known() -> None:
    asked = []

    def may_vary(name: bytes) -> bool:
        asked.append(name)
        return False

    variance = Variance(may_vary)
    for name in (NAME, b"x" * 65, b"Content-Length", b"Referer"):
        noted(variance, name, *numbers(200))
    assert variance.names == VARYING
    assert set(asked) == {b"host", NAME}


def test_strangers_can_have_so_many_names_learnt_and_watched() -> None:
    variance = Variance(lambda name: name != b"host")
    for number in range(100):
        noted(variance, b"x-%d" % number, *numbers(64))
    assert len(variance.names - VARYING) == 32
    variance = Variance(lambda name: name != b"host")
    for number in range(1000):
        noted(variance, b"x-%d" % number, b"a")
    assert len(variance._watched) <= 128
    assert variance.names == VARYING


class Lines:
    """Header lines that note what they are asked for."""

    def __init__(self, there: Mapping[str, str]) -> None:
        self.there = there
        self.asked: set[str] = set()

    def get(self, name: str, default: str | None = None) -> str | None:
        self.asked.add(name)
        return self.there.get(name, default)

    def getall(self, name: str, default: Sequence[str] = ()) -> Sequence[str]:
        return [self.there[name]] if name in self else default

    def __contains__(self, name: str) -> bool:
        self.asked.add(name)
        return name in self.there


def test_nothing_on_which_a_visit_depends_can_be_learnt(tmp_path: Path) -> None:
    """Whatever is asked for while a request is looked at is among what ``reads`` names, or never passes."""
    certificates = Certificates(header="X-Client-Certificate", proxies=(ip_network("10.0.0.0/8"),), ca=tmp_path / "ca")
    arrival = Arrival(
        trusted=certificates.proxies,
        hosts=frozenset(["h"]),
        is_secure=True,
        largest_head=9999,
        certificates=certificates,
    )
    asked: set[str] = set()
    for there in ({}, {"Sec-Fetch-Mode": "navigate"}, {"X-Client-Certificate": "x"}):
        lines = Lines({"Host": "h", **there})
        request: Any = SimpleNamespace(
            method="GET", headers=lines, remote="10.0.0.1", secure=False, version=HttpVersion11, raw_headers=()
        )
        arrival.refuse_strange_hosts(arrival.visit(request, 0.0), request)
        assert _is_ordinary(request)
        asked |= lines.asked
    assert {"Host", "Cookie", "Authorization", "Accept", "Sec-Fetch-Dest", "Expect", certificates.header} <= asked
    plan = HeaderPlan(frozenset())
    assert not {name for name in asked if plan.passes(name.encode()) and not arrival.reads(name.lower().encode())}

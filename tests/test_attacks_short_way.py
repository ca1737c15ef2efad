"""Attacks on what is remembered of requests, and on those that take the short way, on a running sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from sidecar.core import addresses
from sidecar.core.addresses import host_of
from sidecar.core.client_certificates import UNREADABLE, certificate_in
from sidecar.core.cookies import parse_cookies, weight_of
from tests.station import Link, Station, station_of
from tests.world import World

HOST = "Host: localhost:{port}"


@pytest.fixture
def station(world: World) -> Callable[..., Any]:
    """Make a station; *changes* are those of the configuration."""
    return partial(station_of, world)


@asynccontextmanager
async def linked(here: Station) -> AsyncIterator[Link]:
    """A client's connection that stays."""
    link = Link(*await here.dial())
    try:
        yield link
    finally:
        link.writer.close()


def many_cookies(number: int, token: str) -> str:
    """A short line with a great many cookies, which is another for each *number*."""
    return "Cookie: " + "; ".join([*[f"{number:03}{one:02x}=zz" for one in range(190)], f"sidecar={token}"])


# What is remembered


async def test_cookies_of_strangers_are_not_remembered(station: Any) -> None:
    async with station() as here, linked(here) as link:
        gate = here.running.sidecar.front.gate
        known = len(gate._tokens)
        for number in range(5):
            for _ in range(3):
                await link.ask(here.request("GET / HTTP/1.1", HOST, many_cookies(number, f"stranger-{number}")))
        assert len(gate._tokens) == known
        # Of somebody who is known they are, and weigh what they take.
        for _ in range(3):
            await link.ask(here.request("GET / HTTP/1.1", HOST, many_cookies(0, here.token)))
        assert len(gate._tokens) == known + 1
        assert gate._tokens._size > 190 * 150


async def test_a_head_weighs_what_its_cookies_take(station: Any) -> None:
    async with station() as here, linked(here) as link:
        regulars = here.running.sidecar.front.express._regulars
        before, known = regulars._size, len(regulars)
        for _ in range(3):
            await link.ask(here.request("GET /public/x HTTP/1.1", HOST, many_cookies(0, "stranger")))
        assert len(regulars) == known + 1
        assert regulars._size - before > 190 * 150


def test_cookies_weigh_more_than_their_letters() -> None:
    ((name, value),) = pairs = parse_cookies(["ab=cd"])
    assert weight_of(pairs) >= pairs[0].__sizeof__() + name.__sizeof__() + value.__sizeof__()
    assert weight_of([("a", "\U0001f600" * 100)]) >= ("\U0001f600" * 100).__sizeof__()


async def test_a_long_name_of_a_line_is_not_remembered(station: Any) -> None:
    async with station() as here, linked(here) as link:
        for number in range(3):
            long = f"X-{number}-{'a' * 20_000}: b"
            assert b"200 OK" in await link.ask(here.request("GET /public/x HTTP/1.1", HOST, long))
        assert max(len(name) for name, _ in here.running.sidecar.front.express._incoming) < 2048


def test_a_host_that_nobody_has_is_not_remembered() -> None:
    before = addresses._host_of.cache_info()
    assert host_of("a" * 30_000) == ""
    assert addresses._host_of.cache_info() == before
    assert host_of("a" * 253 + ":8080") == "a" * 253


def test_a_certificate_full_of_blanks_is_read_in_one_go() -> None:
    text = f"-----BEGIN CERTIFICATE-----{' ' * 32_000}!"
    loop = asyncio.new_event_loop()
    began = loop.time()
    assert certificate_in([text], "nginx") == UNREADABLE
    assert loop.time() - began < 0.5
    loop.close()

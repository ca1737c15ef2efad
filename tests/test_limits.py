"""Clients that ask too often are turned away, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.values import parse_rate
from sidecar.core.limits import Meter, client_of
from sidecar.core.rates import Rate
from tests.world import World

# What a meter does


def test_so_many_pass_at_once_and_then_one_for_each_that_was_earned() -> None:
    meter = Meter(Rate(3, 60.0))
    assert [meter.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert meter.take("a", 0.0) == pytest.approx(20.0)
    assert meter.take("a", 19.0) == pytest.approx(1.0)
    assert meter.take("a", 20.0) == 0.0
    assert meter.take("a", 20.0) > 0
    assert [meter.take("a", 500.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_a_clock_that_was_set_back_keeps_nobody_out() -> None:
    meter = Meter(Rate(2, 60.0))
    assert meter.take("a", 7200.0) == 0.0
    assert [meter.take("a", 3600.0) for _ in range(3)] == [0.0, 0.0, pytest.approx(30.0)]
    assert meter.take("a", 3630.0) == 0.0


def test_waiting_counts_nothing_and_clients_are_apart() -> None:
    meter = Meter(Rate(1, 60.0))
    assert meter.wait("a", 0.0) == 0.0
    assert meter.take("a", 0.0) == 0.0
    assert meter.wait("a", 1.0) == pytest.approx(59.0)
    assert meter.take("b", 1.0) == 0.0


def test_no_limit_and_no_address_are_never_counted() -> None:
    assert all(Meter(Rate(0, 1.0)).take("a", 0.0) == 0.0 for _ in range(9))
    meter = Meter(Rate(1, 60.0))
    assert all(meter.take("", 0.0) == 0.0 for _ in range(9))


def test_what_is_remembered_of_strangers_is_bounded() -> None:
    meter = Meter(Rate(1, 60.0), most=100)
    for number in range(1000):
        meter.take(f"10.0.{number // 250}.{number % 250}", 0.0)
    assert len(meter._due) == 100


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::2", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_an_address_stands_for_its_site(address: str, client: str) -> None:
    assert client_of(address) == client


@pytest.mark.parametrize(("text", "rate"), [("30/1m", Rate(30, 60.0)), ("off", Rate(0, 1.0)), (False, Rate(0, 1.0))])
def test_a_rate_is_written_like_thirty_in_a_minute(text: Any, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["30", "/1m", "0/1m", "30/0s", "30/m", "-1/1m", 30, True, None, "1e9/1s", "30/1m/1m"])
def test_anything_else_is_no_rate(text: Any) -> None:
    with pytest.raises(ValueError, match="written like"):
        parse_rate(text)


# What clients meet


async def test_t75_whoever_begins_too_many_sign_ins_waits_and_the_signed_in_do_not(world: World) -> None:
    running = await world({"limits": {"sign_in": "4/1h"}})
    async with running.browser() as ada, running.browser() as flood:
        await ada.sign_in("ada")
        answers = [await flood.page("/-/login?to=/") for _ in range(6)]
        assert [answer.status for answer in answers].count(429) >= 2
        assert answers[-1].status == 429
        assert 0 < int(answers[-1].headers["Retry-After"]) <= 900
        assert (await ada.page("/")).status == 200
    assert any(line.get("reason") == "rate-limited" for line in running.audit())


async def test_t75_answers_of_providers_are_limited_before_they_cost_anything(world: World) -> None:
    running = await world({"limits": {"answers": "3/1h"}})
    async with running.browser() as browser:
        answers = [await browser.page(f"/-/callback/corp?state=x{number}&code=y") for number in range(5)]
    assert [answer.status for answer in answers] == [400, 400, 400, 429, 429]


async def test_t75_after_too_many_bad_tokens_good_ones_wait_too(world: World) -> None:
    running = await world({"limits": {"bad_tokens": "3/1h"}, "logins": {"corp": {"bearer": {"audience": "api"}}}})
    async with running.browser() as browser:
        bad = {"Authorization": "Bearer a.b.c"}
        answers = [await browser.fetch("/", headers=bad) for _ in range(5)]
        assert [answer.status for answer in answers] == [401, 401, 401, 429, 429]
        assert (await browser.fetch("/")).status == 401


async def test_requests_can_be_limited_for_each_client(world: World) -> None:
    running = await world({"limits": {"requests": "2/1h"}, "access": [{"path": "/**", "allow": "anyone"}]})
    async with running.browser() as browser:
        assert [(await browser.page("/")).status for _ in range(3)] == [200, 200, 429]
    assert len(running.application.seen) == 2


async def test_probes_are_never_limited(world: World) -> None:
    running = await world({"limits": {"requests": "1/1h", "sign_in": "1/1h", "answers": "1/1h"}})
    async with running.browser() as browser:
        assert {(await browser.page("/-/live")).status for _ in range(5)} == {200}

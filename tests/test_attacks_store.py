"""What a session store in trouble does to people (T58): a 503 page, no circle, no open door, and back by itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import redis

from tests.services.process import free_port
from tests.services.redis import RedisServer, RedisServers
from tests.world import Browser, Running, World, until

PASSWORD = "not-so-secret"


@dataclass(frozen=True, slots=True)
class Trouble:
    """How a Redis gets into it and out again; ``reads`` when sessions can still be read meanwhile."""

    name: str
    begin: Callable[[RedisServer], Any]
    end: Callable[[RedisServer], Any]
    reads: bool = False
    options: tuple[str, ...] = field(default=())


def told(server: RedisServer, *command: str | int) -> None:
    with server.client() as client:
        client.execute_command(*command)


def need_no_password(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url, password=PASSWORD) as client:
        client.config_set("requirepass", "")


def ask_for_a_password(server: RedisServer) -> None:
    # The password holds for new connections; those that are there have to be closed.
    with server.client() as client:
        client.config_set("requirepass", PASSWORD)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


TROUBLES = (
    Trouble("gone", RedisServer.stop, RedisServer.start),
    Trouble("frozen", RedisServer.pause, RedisServer.resume),
    Trouble(
        "READONLY",
        lambda server: told(server, "REPLICAOF", "127.0.0.1", free_port()),
        lambda server: told(server, "REPLICAOF", "NO", "ONE"),
        reads=True,
    ),
    Trouble(
        "MASTERDOWN",
        lambda server: told(server, "REPLICAOF", "127.0.0.1", free_port()),
        lambda server: told(server, "REPLICAOF", "NO", "ONE"),
        options=("--replica-serve-stale-data", "no"),
    ),
    Trouble(
        "OOM",
        lambda server: told(server, "CONFIG", "SET", "maxmemory", "1"),
        lambda server: told(server, "CONFIG", "SET", "maxmemory", "0"),
        reads=True,
    ),
    Trouble(
        "NOAUTH",
        ask_for_a_password,
        need_no_password,
    ),
)


async def started(world: World, server: RedisServer, **sessions: Any) -> Running:
    """A sidecar with its sessions there, impatient so that the tests are short."""
    section = {"redis": {"env": "REDIS_URL"}, "timeout": "1s", **sessions}
    return await world({"sessions": section}, environment={"REDIS_URL": server.url})


async def answers(browser: Browser, status: int) -> bool:
    return (await browser.page("/")).status == status


async def is_told_to_come_back(browser: Browser, target: str) -> bool:
    """True when *target* leads to the page that says that sessions cannot be looked up, without a turn."""
    answer = await browser.follow(await browser.page(target))
    text = await answer.text()
    return (answer.status, "store-unavailable" in text, answer.headers.get("Retry-After")) == (503, True, "5")


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
async def test_t58_a_redis_in_trouble_is_a_503_page_and_nothing_else(
    world: World, redis_servers: RedisServers, trouble: Trouble
) -> None:
    server = redis_servers(*trouble.options)
    running = await started(world, server)
    async with running.browser() as ada, running.browser() as late, running.browser() as stranger:
        await ada.sign_in("ada")
        back = (await late.choose(await late.at_provider("/page"), "alan")).headers["Location"]
        running.application.seen.clear()
        await asyncio.to_thread(trouble.begin, server)
        if trouble.reads:
            # What can be read is enough for who is signed in.
            assert await answers(ada, 200)
        else:
            await until(partial(answers, ada, 503))
            running.application.seen.clear()
            assert await is_told_to_come_back(ada, "/")
        assert await is_told_to_come_back(stranger, "/")
        assert await is_told_to_come_back(late, back)
        assert late.cookie() == ""
        assert (await stranger.fetch("/", headers={"Cookie": f"sidecar={'A' * 43}"})).status in (401, 503)
        assert [seen for seen in running.application.seen if not seen.values("X-App-User")] == []
        # What is open to anyone does not need it, and the process is alive.
        for browser in (stranger, ada):
            assert (await browser.page("/public/x")).status == 200
        assert (await stranger.page("/-/live")).status == 200
        if not trouble.reads:
            assert (await stranger.page("/-/ready")).status == 503
        await asyncio.to_thread(trouble.end, server)
        await until(partial(can_begin, stranger))
        if trouble.name != "gone":
            await until(partial(answers, ada, 200))
        if trouble.name not in ("gone", "OOM"):
            # The sign-in that met the trouble was not used up by it; a full Redis still takes things out.
            landed = await late.page(back)
            assert (landed.status, landed.headers["Location"]) == (302, "/page")
        assert (await stranger.sign_in("grace")).status == 200


async def can_begin(browser: Browser) -> bool:
    return (await browser.page("/-/login?to=/")).status == 302


async def test_t58_a_redis_that_is_loading_is_a_503_page_and_everybody_is_there_afterwards(
    world: World, redis_servers: RedisServers
) -> None:
    server = redis_servers("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
    running = await started(world, server)
    async with running.browser() as ada:
        await ada.sign_in("ada")
        with server.client() as client:
            for number in range(200):
                client.set(f"{number}", os.urandom(1000))
            client.save()
        await asyncio.to_thread(server.stop)
        await until(partial(answers, ada, 503))
        starting = asyncio.create_task(asyncio.to_thread(server.start))
        while not starting.done():
            answer = await ada.page("/")
            assert answer.status in (200, 503)
        await starting
        await until(partial(answers, ada, 200))
    details = {line.get("detail") for line in running.audit() if line.get("effect") == "unavailable"}
    assert "redis: BusyLoadingError (it is still loading its data)" in details


async def test_t58_a_failover_of_sentinel_needs_no_restart_and_signs_nobody_out(
    world: World, redis_servers: RedisServers
) -> None:
    sentinel = redis_servers.sentinel()
    watching = {"master": sentinel.name, "nodes": [f"{sentinel.host}:{sentinel.port}"]}
    running = await started(world, sentinel.master, sentinel=watching)
    async with running.browser() as ada, running.browser() as alan:
        await ada.sign_in("ada")
        with sentinel.master.client() as client:
            assert client.execute_command("WAIT", 1, 5000) == 1
        await asyncio.to_thread(sentinel.master.stop)
        async with asyncio.timeout(30):
            while True:
                answer = await ada.page("/")
                assert answer.status in (200, 503)
                with suppress(ConnectionError):
                    if await can_begin(alan) and answer.status == 200:
                        break
                await asyncio.sleep(0.05)
        assert (await alan.sign_in("alan")).status == 200
        with sentinel.replica.client() as client:
            assert client.execute_command("ROLE")[0] == b"master"
        # Word of an end comes from the new master, too.
        await ada.page("/-/logout")
        assert (await ada.fetch("/")).status == 401

"""A form that met an expired session: kept sealed and bounded, and sent on once, by whoever wrote it."""

from __future__ import annotations

import asyncio

import pytest

from tests.services.redis import RedisServer
from tests.world import Browser, Running, World


async def with_redis(world: World, redis_url: str, **sessions: object) -> Running:
    section = {"redis": {"env": "REDIS_URL"}, **sessions}
    return await world({"sessions": section}, environment={"REDIS_URL": redis_url})


async def sent(browser: Browser, data: bytes, kind: str = "text/plain") -> str:
    """Send a form without a session; what the page says."""
    headers = {"Origin": browser.url, "Content-Type": kind}
    answer = await browser.page("/notes", "POST", data=data, headers=headers)
    assert answer.status == 200
    return await answer.text()


async def test_what_is_kept_is_sealed_and_leaves_the_store_with_the_sign_in(
    world: World, redis_url: str, redis_server: RedisServer
) -> None:
    running = await with_redis(world, redis_url)
    async with running.browser() as browser:
        answer = await browser.page(
            "/notes", "POST", data={"text": "a very private note"}, headers={"Origin": running.url}
        )
        with redis_server.client() as client:
            dump = {key: client.dump(key) or b"" for key in client.keys()}  # noqa: SIM118 - no mapping
        (kept,) = [key for key in dump if b":form:" in key]
        assert len(dump[kept]) > 100
        for word in (b"private", b"text=", b"/notes", b"urlencoded"):
            assert not any(word in value or word in key for key, value in dump.items())
        await browser.follow(await browser.choose(await browser.follow(answer), "ada"))
        with redis_server.client() as client:
            assert client.exists(kept) == 0
        assert [seen.body for seen in running.application.seen] == [b"text=a+very+private+note"]
        # It is not sent a second time.
        await browser.page("/notes")
        assert [seen.method for seen in running.application.seen] == ["POST", "GET"]


@pytest.mark.parametrize(("size", "is_kept"), [(65536, True), (65537, False)])
async def test_a_form_over_the_limit_is_not_kept_and_the_person_is_told_to_sign_in(
    world: World, size: int, is_kept: bool
) -> None:
    running = await world()
    async with running.browser() as browser:
        said = await sent(browser, b"x" * size)
        assert ("is kept until you have signed in" in said) is is_kept
        assert (browser.cookie("sidecar-form") != "") is is_kept


async def test_what_is_no_form_is_not_kept_and_the_limit_can_be_nothing(world: World) -> None:
    running = await world()
    never = await world({"sessions": {"keep_post": "0"}})
    async with running.browser() as browser:
        for kind in ("application/json", "application/octet-stream", ""):
            assert "is kept" not in await sent(browser, b"{}", kind)
    async with never.browser() as browser:
        assert "is kept" not in await sent(browser, b"x")


async def test_a_form_with_no_end_in_sight_is_not_waited_for(world: World) -> None:
    running = await world()
    lines = f"Host: localhost:{running.port}\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\n"
    # Without a length nothing is kept, so nothing is read.
    head = f"POST /notes HTTP/1.1\r\n{lines}Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    async with asyncio.timeout(10):
        answer = await running.raw(head.encode())
    assert b"Please sign in first" in answer
    assert running.application.seen == []


async def test_somebody_else_at_the_same_browser_does_not_send_it(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.sign_in("ada")
        # Ada's session ends; her form is hers, whoever signs in now.
        await running.sidecar.front.gate.keeper.end(browser.cookie())
        answer = await browser.page("/notes", "POST", data={"text": "ada's"}, headers={"Origin": running.url})
        browser.forget_provider()
        await browser.follow(await browser.choose(await browser.follow(answer), "grace"))
    assert {seen.method for seen in running.application.seen} == {"GET"}

"""Two replicas behind one Redis, and something breaks in the middle: what was half done is done when it comes again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from tests.forger import Forger, running_forger, sign
from tests.saml_farewells import Partners, section
from tests.services.redis import AclUser, RedisServer
from tests.test_replicas import asked, at
from tests.world import Browser, Running, World

Servers = Callable[..., RedisServer]
REDIS = {"sessions": {"redis": {"env": "REDIS_URL"}}}
DUE = 61


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let turns that nobody gives back end soon."""
    monkeypatch.setattr("sidecar.sessions.turn._ONCE_LEASE", 0.5)


@contextmanager
def half_down(server: RedisServer, *forbidden: str) -> Iterator[None]:
    """Have Redis refuse some commands for a while: what was begun breaks off, and cannot be undone."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "sidecar", *(f"-{name}" for name in forbidden))
        try:
            yield
        finally:
            client.execute_command("ACL", "SETUSER", "sidecar", "+@all")


async def two_at(world: World, redis_url: str, *issuers: str) -> list[Running]:
    """Replicas at the public address of the first one, each with its own idea of who issues."""
    changes: dict[str, Any] = REDIS
    running: list[Running] = []
    for issuer in issuers:
        running.append(await world(changes, environment={"REDIS_URL": redis_url}, issuer=issuer))
        changes = {**REDIS, "server": {"public_url": running[0].url}}
    return running


@asynccontextmanager
async def signed_in(running: Running, forger: Forger) -> AsyncIterator[Browser]:
    """Somebody who has just signed in, at this very replica."""
    told = {"Host": running.url.removeprefix("http://")}
    async with running.browser() as browser:
        begun = URL((await browser.page(str(at(running, "/-/login")), headers=told)).headers["Location"])
        forger.nonce, forger.claims = begun.query["nonce"], {"groups": ["wiki-readers"]}
        back = at(running, f"/-/callback/corp?state={begun.query['state']}&code=c")
        assert (await browser.page(str(back), headers=told)).status == 302
        assert (await asked(browser, running)).status == 200
        yield browser


async def at_once() -> None:
    """Let the provider answer without delay."""


class Rotating:
    """A token endpoint whose refresh tokens are good once; `before` a yes and `again`, before a no, it waits."""

    def __init__(self, forger: Forger) -> None:
        self.shown: list[str] = []
        self.before: Callable[[], Awaitable[None]] = at_once
        self.again: Callable[[], Awaitable[None]] = at_once
        self._forger = forger
        self._numbers = count()
        forger.handlers["/token"] = self._answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        form = dict(parse_qsl(await request.text()))
        token = form.get("refresh_token", "")
        if "code" in form:
            self._forger.token_answer = {"refresh_token": f"r-{next(self._numbers)}", "expires_in": 60}
        if not token:
            return await self._forger._token(request)
        is_used = token in self.shown
        self.shown.append(token)
        await (self.again if is_used else self.before)()
        if is_used:
            return web.json_response({"error": "invalid_grant"}, status=400)
        signed = sign(self._forger.standard_claims(nonce=None, **self._forger.claims))
        answer = {"access_token": "at", "token_type": "Bearer", "expires_in": 60, "id_token": signed}
        return web.json_response({**answer, "refresh_token": f"r-{next(self._numbers)}"})


async def test_t31_tokens_that_come_while_redis_is_away_are_stored_when_it_is_back(
    world: World, redis_servers: Servers
) -> None:
    server = redis_servers(acl=AclUser())
    async with running_forger() as forger:
        provider = Rotating(forger)
        one, other = await two_at(world, server.url, forger.issuer, forger.issuer)
        async with signed_in(one, forger) as browser:
            away = ExitStack()

            async def goes_away() -> None:
                away.enter_context(half_down(server, "set"))
                asyncio.get_running_loop().call_later(0.5, away.close)

            provider.before = goes_away
            world.clock.ahead = DUE
            assert (await asked(browser, one)).status == 200
            provider.before = at_once
            assert (await asked(browser, other)).status == 200
            world.clock.ahead = 2 * DUE
            assert (await asked(browser, other)).status == 200
    assert provider.shown == ["r-0", "r-1"]


async def test_t31_who_lost_the_turn_and_asks_with_a_used_token_signs_nobody_out(
    world: World, redis_server: RedisServer, redis_url: str
) -> None:
    async with running_forger() as forger:
        provider = Rotating(forger)
        one, other = await two_at(world, redis_url, forger.issuer, forger.issuer)
        async with signed_in(one, forger) as browser:
            came, stored = asyncio.Event(), asyncio.Event()

            async def loses_the_turn() -> None:
                with redis_server.client() as client:
                    # As after a failover to a replica that had not heard of it yet.
                    assert client.delete(*client.keys("*:refresh:*")) == 1
                late.append(asyncio.create_task(asked(browser, other)))
                await came.wait()

            async def is_late() -> None:
                came.set()
                await stored.wait()

            late: list[asyncio.Task[Any]] = []
            provider.before, provider.again = loses_the_turn, is_late
            world.clock.ahead = DUE
            assert (await asked(browser, one)).status == 200
            provider.before = at_once
            stored.set()
            assert (await late[0]).status == 200
            assert (await asked(browser, one)).status == 200
    assert provider.shown == ["r-0", "r-0", "r-1"]


async def test_t30_who_signs_out_while_the_provider_is_waited_for_is_let_in_nowhere(
    world: World, redis_url: str
) -> None:
    async with running_forger() as forger:
        provider = Rotating(forger)
        one, other = await two_at(world, redis_url, forger.issuer, forger.issuer)
        async with signed_in(one, forger) as browser:

            async def signs_out() -> None:
                assert (await asked(browser, other, "/-/logout")).status == 302
                raise web.HTTPServiceUnavailable

            provider.before = signs_out
            world.clock.ahead = DUE
            assert (await asked(browser, one)).status == 401
    assert provider.shown == ["r-0"]


async def test_t31_a_no_to_the_newest_token_is_a_no(world: World, redis_url: str) -> None:
    async with running_forger() as forger:
        provider = Rotating(forger)
        one, other = await two_at(world, redis_url, forger.issuer, forger.issuer)
        async with signed_in(one, forger) as browser:
            provider.shown = ["r-0"]
            world.clock.ahead = DUE
            assert (await asked(browser, one)).status == 401
            assert (await asked(browser, other)).status == 401
    assert provider.shown == ["r-0", "r-0"]


async def test_t31_another_provider_of_the_same_name_is_never_shown_the_refresh_token(
    world: World, redis_url: str
) -> None:
    async with running_forger() as forger, running_forger() as newer:
        Rotating(forger)
        theirs = Rotating(newer)
        one, other = await two_at(world, redis_url, forger.issuer, newer.issuer)
        async with signed_in(one, forger) as browser:
            assert (await asked(browser, other)).status == 200
            world.clock.ahead = DUE
            assert (await asked(browser, other)).status == 401
    assert theirs.shown == []


async def test_secrets_change_one_replica_after_the_other_and_nobody_is_signed_out(
    world: World, redis_url: str
) -> None:
    secrets = {
        "OLD": "the old secret, which is long enough for all",
        "NEW": "a new secret, long enough for anybody, too",
    }
    async with running_forger() as forger:
        Rotating(forger)
        running: list[Running] = []
        for names in (["OLD"], ["OLD", "NEW"], ["NEW", "OLD"], ["NEW"]):
            changes: dict[str, Any] = {"sessions": {**REDIS["sessions"], "secrets": [{"env": name} for name in names]}}
            if running:
                changes["server"] = {"public_url": running[0].url}
            known = {"REDIS_URL": redis_url, **secrets}
            running.append(await world(changes, environment=known, issuer=forger.issuer))
        former, *later = [replace(one, url=running[0].url) for one in running]
        for newer in later:
            for one, other in ((former, newer), (newer, former)):
                async with signed_in(one, forger) as browser:
                    # A refresh writes the session and its tokens anew.
                    world.clock.ahead = DUE
                    assert (await asked(browser, other)).status == 200
                    world.clock.ahead = 2 * DUE
                    assert (await asked(browser, one)).status == 200
                    world.clock.ahead = 0
            former = newer


async def test_t30_a_logout_that_the_store_broke_off_is_done_when_the_provider_tells_another_replica(
    world: World, redis_servers: Servers
) -> None:
    server = redis_servers(acl=AclUser())
    async with running_forger() as forger:
        one, other = await two_at(world, server.url, forger.issuer, forger.issuer)
        async with signed_in(one, forger) as browser:
            form = forger.farewell(sub="ada")
            with half_down(server, "getdel", "del"):
                assert (await browser.fetch("/-/backchannel/corp", "POST", data=form)).status == 503
            assert (await asked(browser, one)).status == 200
            elsewhere = f"http://127.0.0.1:{other.port}/-/backchannel/corp"
            told = {"Host": one.url.removeprefix("http://")}
            assert (await browser.fetch(elsewhere, "POST", data=form, headers=told)).status == 200
            assert (await asked(browser, one)).status == 401
            assert (await browser.fetch("/-/backchannel/corp", "POST", data=form)).status == 400


async def test_t30_a_logout_told_to_both_at_once_counts_once(world: World, redis_url: str) -> None:
    async with running_forger() as forger, aiohttp.ClientSession() as http:
        running = await two_at(world, redis_url, forger.issuer, forger.issuer)
        told = {"Host": running[0].url.removeprefix("http://")}
        for turn in range(5):
            form = forger.farewell(f"j-{turn}", sub="ada")
            doors = [at(one, "/-/backchannel/corp") for one in running] * 3
            answers = await asyncio.gather(*(http.post(door, data=form, headers=told) for door in doors))
            assert sorted(answer.status for answer in answers) == [200, 400, 400, 400, 400, 400]


async def test_t45_a_logout_request_that_the_store_broke_off_counts_when_it_comes_again(
    world: World, redis_servers: Servers, tmp_path: Path
) -> None:
    server = redis_servers(acl=AclUser())
    changes = {**REDIS, "logins": {"corp": None, "partners": section(tmp_path)}}
    partners = Partners(await world(changes, environment={"REDIS_URL": server.url}), world)
    message = partners.farewell(attributes={"ID": "_once"})
    async with partners.running.browser() as browser:
        await partners.sign_in(browser)
        with half_down(server, "getdel", "del"):
            assert (await partners.send(message, "post")).status == 503
        assert await partners.is_in(browser)
        assert (await partners.send(message, "post")).status in (200, 303)
        assert not await partners.is_in(browser)
        assert (await partners.send(message, "post")).status == 400

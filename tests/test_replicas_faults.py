"""Two replicas behind one Redis, and something breaks in the middle: what was half done is done when it comes again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from yarl import URL

from sidecar.logins.token_claims import LOGOUT_EVENT
from tests.forger import running_forger, sign
from tests.saml_farewells import Partners, section
from tests.services.redis import AclUser, RedisServer
from tests.world import World

Servers = Callable[..., RedisServer]
REDIS = {"sessions": {"redis": {"env": "REDIS_URL"}}}


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


async def test_t30_a_logout_that_the_store_broke_off_is_done_when_the_provider_tells_another_replica(
    world: World, redis_servers: Servers
) -> None:
    server = redis_servers(acl=AclUser())
    async with running_forger() as forger:
        environment = {"REDIS_URL": server.url}
        one = await world(REDIS, environment=environment, issuer=forger.issuer)
        at_one = {"server": {"public_url": one.url}}
        other = await world({**REDIS, **at_one}, environment=environment, issuer=forger.issuer)
        async with one.browser() as browser:
            begun = URL((await browser.page("/-/login")).headers["Location"])
            forger.nonce, forger.claims = begun.query["nonce"], {"groups": ["wiki-readers"]}
            await browser.page(f"/-/callback/corp?state={begun.query['state']}&code=c")
            assert (await browser.fetch("/")).status == 200
            now = int(time.time())
            claims = {"iss": forger.issuer, "aud": "wiki", "iat": now, "exp": now + 60, "jti": "j", "sub": "ada"}
            form = {"logout_token": sign({**claims, "events": {LOGOUT_EVENT: {}}}, typ="logout+jwt")}
            with half_down(server, "getdel", "del"):
                assert (await browser.fetch("/-/backchannel/corp", "POST", data=form)).status == 503
            assert (await browser.fetch("/")).status == 200
            elsewhere = f"http://127.0.0.1:{other.port}/-/backchannel/corp"
            told = {"Host": one.url.removeprefix("http://")}
            assert (await browser.fetch(elsewhere, "POST", data=form, headers=told)).status == 200
            assert (await browser.fetch("/")).status == 401
            assert (await browser.fetch("/-/backchannel/corp", "POST", data=form)).status == 400


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

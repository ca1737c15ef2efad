"""Two replicas behind one Redis and one directory behave as one, with a real OpenID provider."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from joserfc.jwk import ECKey
from yarl import URL

from tests.services.oidc import OidcProvider
from tests.services.process import free_port
from tests.services.redis import RedisServer
from tests.test_journey import users_of, users_table
from tests.world import Browser, Running, World, until


async def sign_in_for_real(browser: Browser, provider: OidcProvider, login: str, target: str = "/") -> None:
    """Sign in at the real provider, and follow back."""
    answer = await browser.page(target)
    begun = await browser.page(answer.headers["Location"])
    back = await provider.sign_in(browser.http, begun.headers["Location"], login)
    answer = await browser.page(str(back))
    assert answer.status == 302, await answer.text()


async def two(
    world: World,
    provider: OidcProvider,
    redis_url: str,
    tmp_path: Path,
    directory: str,
    changes: dict[str, Any] | None = None,
    *,
    is_patient: bool = True,
    **secrets: str,
) -> tuple[Running, Running, Path]:
    """Two sidecars at one public address: same application, Redis, directory and users table."""
    port = free_port()
    url = f"http://localhost:{port}"
    client = provider.client(
        [f"{url}/-/callback/corp"],
        client_id="wiki",
        secret="a client secret that is long",
        post_logout_redirect_uris=[f"{url}/-/signed-out"],
        backchannel_logout_uri=f"{url}/-/backchannel/corp",
    )
    users = tmp_path / "users.db"
    environment = {"USERS_DB": users_table(users), "OIDC_SECRET": client.secret, "REDIS_URL": redis_url, **secrets}
    application = await world.application()
    shared = {
        "server": {"public_url": url},
        # How busy the machine is shall not decide; what a store that is too slow does has tests of its own.
        "sessions": {"redis": {"env": "REDIS_URL"}, **({"timeout": "20s"} if is_patient else {})},
        "directory": {"url": directory, "timeout": "30s"},
        "logins": {"corp": {"scopes": ["openid", "profile", "email", "groups"]}},
        **(changes or {}),
    }
    running = [
        await world(
            shared,
            application=application,
            environment=environment,
            issuer=provider.issuer,
            provision=True,
            port=number,
        )
        for number in (port, 0)
    ]
    return running[0], running[1], users


def at(running: Running, target: str) -> URL:
    """Address of *target* at one replica."""
    return URL(f"http://127.0.0.1:{running.port}{target}", encoded=True)


async def asked(browser: Browser, running: Running, target: str = "/", **headers: str) -> aiohttp.ClientResponse:
    """Ask one replica directly, as a front proxy would, with this browser's session."""
    first = {"Host": browser._running.url.removeprefix("http://"), "Cookie": f"sidecar={browser.cookie()}"}
    async with aiohttp.ClientSession() as http:
        answer = await http.get(at(running, target), headers={**first, **headers}, allow_redirects=False)
        await answer.read()
        return answer


async def answers_with(status: int, browser: Browser, running: Running) -> bool:
    """True when this replica now answers so."""
    return (await asked(browser, running)).status == status


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def directory_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The directory on each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shared.db"
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


async def test_t70_fifty_first_requests_on_two_replicas_make_one_account(
    world: World, oidc_provider: OidcProvider, redis_url: str, tmp_path: Path, directory_url: str
) -> None:
    one, other, users = await two(world, oidc_provider, redis_url, tmp_path, directory_url)
    async with one.browser() as browser:
        await sign_in_for_real(browser, oidc_provider, "ada")
        work = [asked(browser, (one, other)[number % 2], f"/{number}") for number in range(50)]
        answers = await asyncio.gather(*work)
    assert {answer.status for answer in answers} == {200}
    assert [row[0] for row in users_of(users)].count("ada") == 1
    created = [line for running in (one, other) for line in running.audit() if line["event"] == "account-created"]
    assert len(created) == 1


async def test_a_sign_out_at_one_replica_ends_the_session_and_the_websocket_at_the_other(
    world: World, oidc_provider: OidcProvider, redis_url: str, tmp_path: Path
) -> None:
    one, other, _ = await two(world, oidc_provider, redis_url, tmp_path, f"sqlite:///{tmp_path}/shared.db")
    async with one.browser() as browser, aiohttp.ClientSession() as http:
        await sign_in_for_real(browser, oidc_provider, "ada")
        headers = {"Host": one.url.removeprefix("http://"), "Cookie": f"sidecar={browser.cookie()}"}
        token = browser.cookie()
        assert (await asked(browser, other)).status == 200
        async with http.ws_connect(at(other, "/ws"), headers={**headers, "Origin": one.url}) as socket:
            await socket.send_str("x")
            assert (await socket.receive()).data == "echo x"
            await browser.page("/-/logout")
            closed = await asyncio.wait_for(socket.receive(), 3)
            assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 1008, "session ended")
        answer = await http.get(at(other, "/"), headers={**headers, "Cookie": f"sidecar={token}"})
        assert answer.status == 401
        again = {**headers, "Cookie": f"sidecar={token}", "Origin": one.url}
        for running in (one, other):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(at(running, "/ws"), headers=again)
            assert refused.value.status == 401


async def test_t30_a_sign_out_at_the_provider_ends_the_session_at_both(
    world: World, oidc_provider: OidcProvider, redis_url: str, tmp_path: Path
) -> None:
    one, other, _ = await two(world, oidc_provider, redis_url, tmp_path, f"sqlite:///{tmp_path}/shared.db")
    async with one.browser() as browser, aiohttp.ClientSession() as http:
        await sign_in_for_real(browser, oidc_provider, "ada")
        assert (await asked(browser, one)).status == 200
        assert (await asked(browser, other)).status == 200
        headers = {"Host": one.url.removeprefix("http://"), "Cookie": f"sidecar={browser.cookie()}", "Origin": one.url}
        async with http.ws_connect(at(other, "/ws"), headers=headers) as socket:
            await socket.send_str("x")
            assert (await socket.receive()).data == "echo x"
            # The provider tells the first replica; the socket is the second's.
            sent = await oidc_provider.end_sessions("ada")
            assert sent
            closed = await asyncio.wait_for(socket.receive(), 3)
            assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 1008, "session ended")
        for running in (one, other):
            await until(partial(answers_with, 401, browser, running), within=3)
    assert any(line["event"] == "provider-logout" and line["ended"] == 1 for line in one.audit())


async def test_t31_t56_a_hundred_requests_on_an_expired_token_make_one_token_call_and_see_the_new_groups(
    world: World, oidc_provider: OidcProvider, redis_url: str, tmp_path: Path
) -> None:
    oidc_provider.configure(access_token_ttl=60)
    one, other, _ = await two(world, oidc_provider, redis_url, tmp_path, f"sqlite:///{tmp_path}/shared.db")
    async with one.browser() as browser:
        await sign_in_for_real(browser, oidc_provider, "ada")
        assert (await asked(browser, one)).status == 200
        before = oidc_provider.count("/token")
        oidc_provider.set_claims("ada", {"groups": ["wiki-editors"]})
        world.clock.ahead = 61
        answers = await asyncio.gather(*(asked(browser, (one, other)[n % 2], f"/{n}") for n in range(100)))
    assert {answer.status for answer in answers} == {200}
    assert oidc_provider.count("/token") - before == 1
    # The group that is gone at the provider is gone here, on the open session.
    assert one.application.seen[-1].values("X-App-Roles") == ["editor"]


async def test_t31_a_provider_that_is_down_signs_nobody_out_and_one_that_says_no_does(
    world: World, oidc_provider: OidcProvider, redis_url: str, tmp_path: Path
) -> None:
    oidc_provider.configure(access_token_ttl=60)
    one, _, _ = await two(world, oidc_provider, redis_url, tmp_path, f"sqlite:///{tmp_path}/shared.db")
    async with one.browser() as browser:
        await sign_in_for_real(browser, oidc_provider, "ada")
        world.clock.ahead = 61
        oidc_provider.break_endpoint("/token", status=503)
        assert (await asked(browser, one)).status == 200
        oidc_provider.repair()
        world.clock.ahead = 121
        oidc_provider.remove_account("ada")
        assert (await asked(browser, one)).status == 401
        # That was the end of the session, not the answer to one request.
        world.clock.ahead = 0
        assert (await asked(browser, one)).status == 401


async def test_t31_a_token_call_slower_than_its_lease_is_made_once_at_two_replicas(
    world: World, oidc_provider: OidcProvider, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.sessions.keeper._REFRESH_LEASE", 0.3)
    oidc_provider.configure(access_token_ttl=60)
    one, other, _ = await two(world, oidc_provider, redis_url, tmp_path, f"sqlite:///{tmp_path}/shared.db")
    async with one.browser() as browser:
        await sign_in_for_real(browser, oidc_provider, "ada")
        assert (await asked(browser, one)).status == 200
        before = oidc_provider.count("/token")
        oidc_provider.break_endpoint("/token", delay=1.5)
        world.clock.ahead = 61
        answers = await asyncio.gather(*(asked(browser, (one, other)[n % 2], f"/{n}") for n in range(40)))
    assert {answer.status for answer in answers} == {200}
    assert oidc_provider.count("/token") - before == 1


async def test_t58_when_redis_is_down_the_answer_is_503_and_it_recovers_by_itself(
    world: World, oidc_provider: OidcProvider, redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    directory = f"sqlite:///{tmp_path}/shared.db"
    one, _, _ = await two(world, oidc_provider, redis_url, tmp_path, directory, is_patient=False)
    async with one.browser() as browser:
        await sign_in_for_real(browser, oidc_provider, "ada")
        assert (await asked(browser, one)).status == 200
        redis_server.pause()
        try:
            await until(partial(answers_with, 503, browser, one))
            page = await asked(browser, one, Accept="text/html", **{"Sec-Fetch-Mode": "navigate"})
            assert page.status == 503
            assert "store-unavailable" in await page.text()
            assert (await asked(browser, one, "/public/x")).status == 200
            assert (await asked(browser, one, "/-/ready")).status == 503
            assert (await asked(browser, one, "/-/live")).status == 200
        finally:
            redis_server.resume()
        await until(partial(answers_with, 200, browser, one))


async def test_the_users_table_has_no_unique_index_so_the_sidecar_alone_prevents_doubles(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    users_table(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO users (login) VALUES ('twin'), ('twin')")
    assert [row[0] for row in users_of(path)].count("twin") == 2


async def test_a_new_secret_signs_nobody_out_and_an_old_one_that_is_removed_does(
    world: World, oidc_provider: OidcProvider, redis_url: str, tmp_path: Path
) -> None:
    def with_secrets(*names: str) -> dict[str, Any]:
        return {"sessions": {"redis": {"env": "REDIS_URL"}, "secrets": [{"env": name} for name in names]}}

    secrets = {
        "OLD": "the old secret, which is long enough for all",
        "NEW": "a new secret, long enough for anybody, too",
    }
    directory = f"sqlite:///{tmp_path}/shared.db"
    one, _, users = await two(world, oidc_provider, redis_url, tmp_path, directory, with_secrets("OLD"), **secrets)
    environment = {"USERS_DB": f"sqlite:///{users}", "OIDC_SECRET": "x" * 30, "REDIS_URL": redis_url, **secrets}

    async def restarted(*names: str) -> Running:
        """Another replica at the same public address, with these secrets."""
        changes = {**with_secrets(*names), "server": {"public_url": one.url}, "directory": directory}
        return await world(changes, environment=environment, issuer=oidc_provider.issuer, provision=True)

    async with one.browser() as browser:
        await sign_in_for_real(browser, oidc_provider, "ada")
        assert (await asked(browser, one)).status == 200
        for names, status in ((("NEW", "OLD"), 200), (("OLD", "NEW"), 200), (("NEW",), 401)):
            assert (await asked(browser, await restarted(*names))).status == status, names


async def test_a_client_may_sign_who_it_is(world: World, oidc_provider: OidcProvider) -> None:
    key = ECKey.generate_key("P-256")
    port = free_port()
    url = f"http://localhost:{port}"
    oidc_provider.client(
        [f"{url}/-/callback/corp"],
        client_id="wiki",
        auth_method="private_key_jwt",
        jwks={"keys": [{**key.as_dict(private=False), "kid": "k-1", "use": "sig"}]},
        token_endpoint_auth_signing_alg="ES256",
    )
    signing = {"client_secret": None, "private_key": {"env": "KEY"}, "private_key_id": "k-1"}
    for signer, status in ((ECKey.generate_key("P-256"), 503), (key, 302)):
        running = await world(
            {
                "logins": {"corp": {**signing, "scopes": ["openid", "profile", "email", "groups"]}},
                "roles": {"reader": "{{ 'staff' in groups }}"},
            },
            environment={"KEY": signer.as_pem(private=True).decode()},
            issuer=oidc_provider.issuer,
            port=port,
        )
        async with running.browser() as browser:
            begun = await browser.page((await browser.page("/")).headers["Location"])
            back = await oidc_provider.sign_in(browser.http, begun.headers["Location"], "bob")
            # A key that the provider does not know is a fault of the setup, not the person's.
            assert (await browser.page(str(back))).status == status
            if status == 302:
                assert (await browser.page("/")).status == 200
        await running.sidecar.stop()
        world._closers.remove(running.sidecar.stop)

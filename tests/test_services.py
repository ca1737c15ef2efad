"""The servers that other tests stand on really answer."""

from __future__ import annotations

import secrets
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import redis as redis_library
from aiohttp import web
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel as SentinelClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from yarl import URL

from tests.services import process
from tests.services.process import ServiceFailedError, ServiceMissingError, find_program
from tests.services.redis import AclUser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page

    from tests.services.databases import Databases
    from tests.services.mariadb import MariadbServer
    from tests.services.oidc import Client, OidcProvider, OidcProviders
    from tests.services.postgres import PostgresServer
    from tests.services.redis import RedisServer, RedisServers


async def test_redis_answers_and_starts_every_test_empty(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("left", "behind")


async def test_what_an_earlier_test_left_in_redis_is_gone(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0


async def test_redis_can_be_stopped_and_started_on_the_same_port(redis_servers: RedisServers) -> None:
    server = redis_servers()
    url = server.url
    server.stop()
    async with Redis.from_url(url) as client:
        with pytest.raises(redis_library.ConnectionError):
            await client.ping()
        server.start()
        assert await client.ping()
    assert server.url == url


async def test_a_paused_redis_accepts_connections_and_says_nothing(redis_servers: RedisServers) -> None:
    server = redis_servers()
    server.pause()
    async with Redis.from_url(server.url, socket_timeout=0.2) as client:
        with pytest.raises(redis_library.TimeoutError):
            await client.ping()
        server.resume()
        assert await client.ping()


async def test_a_redis_with_tls_is_trusted_only_by_its_own_authority(redis_servers: RedisServers) -> None:
    server = redis_servers(tls=True)
    assert server.url.startswith("rediss://")
    assert server.certificates is not None
    authority = str(server.certificates.authority)
    async with Redis.from_url(server.url, ssl_ca_certs=authority) as client:
        assert await client.ping()
    async with Redis.from_url(server.url) as stranger:
        with pytest.raises((redis_library.ConnectionError, ssl.SSLError)):
            await stranger.ping()


async def test_a_redis_with_an_acl_admits_only_its_user_to_its_keys(redis_servers: RedisServers) -> None:
    server = redis_servers(acl=AclUser("app", "p/w:d", "~sidecar:* &* +@all"))
    async with Redis.from_url(server.url) as client:
        await client.set("sidecar:x", "1")
        with pytest.raises(redis_library.ResponseError):
            await client.set("other:x", "1")
    async with Redis(host=server.host, port=server.port) as stranger:
        with pytest.raises(redis_library.AuthenticationError):
            await stranger.ping()


async def test_a_redis_with_a_memory_limit_refuses_what_does_not_fit(redis_servers: RedisServers) -> None:
    server = redis_servers(maxmemory="3mb")
    async with Redis.from_url(server.url) as client:
        await client.set("small", b"x")
        with pytest.raises(redis_library.ResponseError, match="maxmemory"):
            await _fill(client)


async def _fill(client: Redis) -> None:
    for number in range(100):
        await client.set(f"filler:{number}", b"x" * 100_000)


async def test_a_sentinel_fails_over_to_the_replica(redis_servers: RedisServers) -> None:
    sentinel = redis_servers.sentinel()
    assert sentinel.current_master_port() == sentinel.master.port
    sentinel.master.stop()
    end = time.monotonic() + 30
    while sentinel.current_master_port() != sentinel.replica.port and time.monotonic() < end:
        time.sleep(0.05)  # noqa: ASYNC251 - nothing else runs in this loop
    finder = SentinelClient([(sentinel.host, sentinel.port)])
    assert await finder.discover_master(sentinel.name) == (sentinel.replica.host, sentinel.replica.port)
    for client in finder.sentinels:
        await client.aclose()


async def test_each_kind_of_database_takes_and_gives_back_a_row(database_url: str) -> None:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE people (name VARCHAR(40))"))
        await connection.execute(text("INSERT INTO people VALUES ('Zoë 🦊')"))
        assert (await connection.execute(text("SELECT name FROM people"))).scalar_one() == "Zoë 🦊"
    await engine.dispose()


async def test_two_databases_of_one_test_are_apart(postgres_databases: Databases, mariadb_databases: Databases) -> None:
    for databases in (postgres_databases, mariadb_databases):
        first, second = create_async_engine(databases()), create_async_engine(databases())
        for engine in (first, second):
            async with engine.begin() as connection:
                await connection.execute(text("CREATE TABLE same_name (id INT)"))
            await engine.dispose()


async def test_a_database_server_keeps_its_rows_over_a_restart(
    postgres_server: PostgresServer, mariadb_server: MariadbServer, postgres_url: str, mariadb_url: str
) -> None:
    for server, url in ((postgres_server, postgres_url), (mariadb_server, mariadb_url)):
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE kept (id INT)"))
        await engine.dispose()
        server.stop()
        assert not server.is_running
        server.start()
        async with engine.begin() as connection:
            assert (await connection.execute(text("SELECT COUNT(*) FROM kept"))).scalar_one() == 0
        await engine.dispose()


def test_a_stopped_or_paused_server_is_brought_back_for_the_next_test(
    redis_server: RedisServer, postgres_server: PostgresServer, mariadb_server: MariadbServer
) -> None:
    redis_server.stop()
    postgres_server.pause()
    mariadb_server.stop()
    for server in (redis_server, postgres_server, mariadb_server):
        server.renew()
        assert server.is_running


def test_a_server_that_is_not_installed_is_a_failure_that_says_so() -> None:
    with pytest.raises(ServiceMissingError, match="no-such-server is not installed; `make test` installs it"):
        find_program("no-such-server")


def test_a_server_that_ends_at_once_is_a_failure_that_shows_its_last_words() -> None:
    server = process.Server("short", ["/bin/sh", "-c", "echo gone >&2; exit 3"], answers=lambda: False)
    with pytest.raises(process.ServiceFailedError, match="short ended while starting:\ngone"):
        server.start()
    server.discard()


CALLBACK = "http://127.0.0.1:9/callback"


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """The smallest client that can be: enough to see whether the provider is one."""

    http: aiohttp.ClientSession
    provider: OidcProvider
    client: Client

    async def discovery(self) -> dict[str, Any]:
        url = f"{self.provider.issuer}/.well-known/openid-configuration"
        async with self.http.get(url) as response:
            return dict(await response.json())

    async def sign_in(self, login: str, **parameters: str) -> dict[str, Any]:
        """Run the code flow with PKCE; return the token response with the ID token's claims under `claims`."""
        verifier, state, nonce = (secrets.token_urlsafe(32) for _ in range(3))
        endpoints = await self.discovery()
        question = {
            "client_id": self.client.id,
            "response_type": "code",
            "redirect_uri": CALLBACK,
            "scope": "openid profile email groups",
            "state": state,
            "nonce": nonce,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
            **parameters,
        }
        asked = URL(endpoints["authorization_endpoint"]).with_query(question)
        answer = await self.provider.sign_in(self.http, asked, login)
        assert str(answer).startswith(CALLBACK)
        assert answer.query["state"] == state
        assert answer.query["iss"] == self.provider.issuer
        tokens = await self.token(
            grant_type="authorization_code",
            code=answer.query["code"],
            redirect_uri=CALLBACK,
            code_verifier=verifier,
        )
        assert tokens["claims"]["nonce"] == nonce
        return tokens

    async def token(self, **form: str) -> dict[str, Any]:
        endpoint = (await self.discovery())["token_endpoint"]
        basic = {"Authorization": aiohttp.encode_basic_auth(self.client.id, self.client.secret)}
        async with self.http.post(endpoint, data=form, headers=basic) as response:
            tokens = dict(await response.json())
        if "id_token" in tokens:
            tokens["claims"] = jwt.decode(tokens["id_token"], await self.keys()).claims
        return tokens

    async def keys(self) -> KeySet:
        async with self.http.get((await self.discovery())["jwks_uri"]) as response:
            return KeySet.import_key_set(await response.json())


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


@pytest.fixture
def relying_party(http: aiohttp.ClientSession, oidc_provider: OidcProvider) -> RelyingParty:
    return RelyingParty(http, oidc_provider, oidc_provider.client(CALLBACK))


async def test_someone_signs_in_at_the_provider(relying_party: RelyingParty) -> None:
    tokens = await relying_party.sign_in("ada")
    claims = tokens["claims"]
    assert claims["sub"] == "ada"
    assert claims["email"] == "ada@example.com"
    assert claims["email_verified"] is True
    assert claims["groups"] == ["wiki-admins", "staff"]
    assert relying_party.provider.count("/token") == 1


async def test_a_second_sign_in_needs_no_form(relying_party: RelyingParty) -> None:
    await relying_party.sign_in("ada")
    assert (await relying_party.sign_in("nobody asked"))["claims"]["sub"] == "ada"


async def test_a_changed_claim_shows_at_the_next_sign_in(relying_party: RelyingParty) -> None:
    relying_party.provider.set_claims("ada", {"groups": ["staff"], "department": "Engines", "email": None})
    claims = (await relying_party.sign_in("ada"))["claims"]
    assert claims["groups"] == ["staff"]
    assert claims["department"] == "Engines"
    assert "email" not in claims


async def test_what_an_earlier_test_changed_at_the_provider_is_undone(relying_party: RelyingParty) -> None:
    assert (await relying_party.sign_in("ada"))["claims"]["groups"] == ["wiki-admins", "staff"]


async def test_rotated_keys_show_in_the_key_set_and_sign_the_next_token(relying_party: RelyingParty) -> None:
    before = {key.kid for key in (await relying_party.keys()).keys}
    published = relying_party.provider.rotate_keys()
    assert {key.kid for key in (await relying_party.keys()).keys} == set(published) > before
    tokens = await relying_party.sign_in("ada")
    assert jws.extract_compact(tokens["id_token"].encode()).headers()["kid"] == published[0]
    relying_party.provider.rotate_keys(keep_old=False)
    assert not before & {key.kid for key in (await relying_party.keys()).keys}


async def test_a_refresh_token_is_rotated_and_the_old_one_is_refused(relying_party: RelyingParty) -> None:
    first = (await relying_party.sign_in("ada"))["refresh_token"]
    relying_party.provider.set_claims("ada", {"groups": []})
    refreshed = await relying_party.token(grant_type="refresh_token", refresh_token=first)
    assert refreshed["claims"]["groups"] == []
    assert refreshed["refresh_token"] != first
    again = await relying_party.token(grant_type="refresh_token", refresh_token=first)
    assert again["error"] == "invalid_grant"


async def test_claims_can_be_left_to_the_userinfo_endpoint(relying_party: RelyingParty) -> None:
    relying_party.provider.configure(claims_in_id_token=False)
    tokens = await relying_party.sign_in("ada")
    assert "email" not in tokens["claims"]
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    async with relying_party.http.get(f"{relying_party.provider.issuer}/me", headers=bearer) as response:
        assert (await response.json())["email"] == "ada@example.com"


async def test_access_tokens_for_a_resource_are_signed_and_carry_groups(relying_party: RelyingParty) -> None:
    relying_party.provider.configure(default_resource="https://api.example.com", access_token_ttl=60)
    tokens = await relying_party.sign_in("ada")
    claims = jwt.decode(tokens["access_token"], await relying_party.keys()).claims
    assert claims["aud"] == "https://api.example.com"
    assert claims["sub"] == "ada"
    assert claims["groups"] == ["wiki-admins", "staff"]
    assert claims["exp"] - claims["iat"] == 60


async def test_a_resource_can_be_asked_for_by_name(relying_party: RelyingParty) -> None:
    tokens = await relying_party.sign_in("ada", resource="https://other.example.com")
    claims = jwt.decode(tokens["access_token"], await relying_party.keys()).claims
    assert claims["aud"] == "https://other.example.com"


async def test_a_client_signs_in_with_a_private_key(relying_party: RelyingParty) -> None:
    key = ECKey.generate_key("P-256", {"kid": "mine", "use": "sig", "alg": "ES256"})
    client = relying_party.provider.client(
        (),
        auth_method="private_key_jwt",
        jwks={"keys": [key.as_dict(private=False)]},
        token_endpoint_auth_signing_alg="ES256",
        grant_types=("client_credentials",),
    )
    now = int(time.time())
    assertion = {
        "iss": client.id,
        "sub": client.id,
        "aud": relying_party.provider.issuer,
        "jti": secrets.token_hex(8),
        "iat": now,
        "exp": now + 60,
    }
    form = {
        "grant_type": "client_credentials",
        "client_id": client.id,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": jwt.encode({"alg": "ES256", "kid": "mine"}, assertion, key),
    }
    async with relying_party.http.post(f"{relying_party.provider.issuer}/token", data=form) as response:
        assert response.status == 200, await response.text()
        assert (await response.json())["token_type"] == "Bearer"


async def test_a_client_may_send_its_secret_in_the_form(
    oidc_provider: OidcProvider, http: aiohttp.ClientSession
) -> None:
    client = oidc_provider.client((), auth_method="client_secret_post", grant_types=("client_credentials",))
    form = {"grant_type": "client_credentials", "client_id": client.id, "client_secret": client.secret}
    async with http.post(f"{oidc_provider.issuer}/token", data=form) as response:
        assert response.status == 200, await response.text()
        token = (await response.json())["access_token"]
    form = {"token": token, "client_id": client.id, "client_secret": client.secret}
    async with http.post(f"{oidc_provider.issuer}/token/introspection", data=form) as response:
        assert (await response.json())["active"] is True


async def test_the_acr_that_was_asked_for_is_reached(relying_party: RelyingParty) -> None:
    tokens = await relying_party.sign_in("ada", acr_values="urn:test:mfa", max_age="3600")
    assert tokens["claims"]["acr"] == "urn:test:mfa"
    assert tokens["claims"]["amr"] == ["pwd", "otp", "mfa"]
    assert tokens["claims"]["auth_time"]


async def test_someone_cancels_the_sign_in(relying_party: RelyingParty) -> None:
    query = {
        "client_id": relying_party.client.id,
        "response_type": "code",
        "redirect_uri": CALLBACK,
        "scope": "openid",
        "state": "s",
        "code_challenge": "x" * 43,
        "code_challenge_method": "S256",
    }
    url = URL(f"{relying_party.provider.issuer}/auth").with_query(query)
    answer = await relying_party.provider.sign_in(relying_party.http, url, "ada", cancel=True)
    assert answer.query["error"] == "access_denied"
    with pytest.raises(ServiceFailedError, match="Nobody has that login"):
        await relying_party.provider.sign_in(relying_party.http, url, "mallory")


async def test_a_sign_out_ends_the_session_at_the_provider_and_comes_back(
    http: aiohttp.ClientSession, oidc_provider: OidcProvider
) -> None:
    client = oidc_provider.client(CALLBACK, post_logout_redirect_uris=["http://127.0.0.1:9/bye"])
    party = RelyingParty(http, oidc_provider, client)
    tokens = await party.sign_in("ada")
    end = URL((await party.discovery())["end_session_endpoint"])
    hint = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": "http://127.0.0.1:9/bye"}
    back = await oidc_provider.sign_out(http, end.with_query({**hint, "state": "x"}))
    assert str(back) == "http://127.0.0.1:9/bye?state=x"
    assert (await party.sign_in("bob"))["claims"]["sub"] == "bob"


async def test_a_client_is_told_over_the_back_channel_that_a_session_ended(
    http: aiohttp.ClientSession, oidc_provider: OidcProvider, aiohttp_server: Any
) -> None:
    told: list[str] = []

    async def listen(request: web.Request) -> web.Response:
        told.append(str((await request.post())["logout_token"]))
        return web.Response()

    application = web.Application()
    application.router.add_post("/backchannel", listen)
    server = await aiohttp_server(application)
    client = oidc_provider.client(CALLBACK, backchannel_logout_uri=str(server.make_url("/backchannel")))
    party = RelyingParty(http, oidc_provider, client)
    sid = (await party.sign_in("ada"))["claims"]["sid"]
    assert await oidc_provider.end_sessions("ada") == [{"client_id": client.id, "status": "ok"}]
    claims = jwt.decode(told[0], await party.keys()).claims
    assert (claims["sub"], claims["sid"], claims["aud"]) == ("ada", sid, client.id)


async def test_an_endpoint_can_be_broken_and_repaired(relying_party: RelyingParty) -> None:
    relying_party.provider.break_endpoint("/jwks", status=503, body="{}")
    url = f"{relying_party.provider.issuer}/jwks"
    async with relying_party.http.get(url) as response:
        assert response.status == 503
    relying_party.provider.repair()
    async with relying_party.http.get(url) as response:
        assert response.status == 200
    assert relying_party.provider.count("/jwks") == 2


def test_a_wrong_registration_is_refused_at_once(oidc_provider: OidcProvider) -> None:
    with pytest.raises(ServiceFailedError, match="redirect_uris"):
        oidc_provider.client("not a url")


async def test_two_providers_run_side_by_side(oidc_provider: OidcProvider, oidc_providers: OidcProviders) -> None:
    other = oidc_providers()
    assert other.issuer != oidc_provider.issuer
    assert other.rotate_keys()


async def test_a_person_signs_in_with_a_real_browser(
    oidc_provider: OidcProvider, page: Page, aiohttp_server: Any
) -> None:
    async def arrived(request: web.Request) -> web.Response:
        return web.Response(text=f"state {request.query['state']}")

    application = web.Application()
    application.router.add_get("/callback", arrived)
    callback = str((await aiohttp_server(application)).make_url("/callback"))
    query = {
        "client_id": oidc_provider.client(callback).id,
        "response_type": "code",
        "redirect_uri": callback,
        "scope": "openid",
        "state": "from-the-browser",
        "code_challenge": "x" * 43,
        "code_challenge_method": "S256",
    }
    await page.goto(str(URL(f"{oidc_provider.issuer}/auth").with_query(query)))
    await page.get_by_label("Login").fill("ada")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_text("state from-the-browser").wait_for()


async def test_each_page_starts_without_cookies(page: Page) -> None:
    assert await page.context.cookies() == []

"""Sign-in at a real OpenID provider."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc.jwk import ECKey, RSAKey

from sidecar.config.login import OidcLogin
from sidecar.config.values import Secret
from sidecar.faults import Refused, Unavailable
from sidecar.logins.login import Ask
from sidecar.logins.oidc import OpenIdLogin
from sidecar.logins.opening import callback_address
from sidecar.model import Grant, Session, SignedIn
from sidecar.reason import Reason
from tests.forger import plan, query
from tests.services.oidc import Client, OidcProvider

BACK = callback_address("https://wiki.example.com", "/_", "corp")
SIGNED_OUT = "https://wiki.example.com/_/signed-out"

Open = Callable[..., OpenIdLogin]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A browser's connections and cookies."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


@pytest.fixture
async def open_login(oidc_provider: OidcProvider) -> AsyncIterator[Open]:
    """Open a login at the real provider, closed at the end."""
    opened: list[OpenIdLogin] = []

    def open_it(client: Client | None = None, **fields: Any) -> OpenIdLogin:
        client = client or oidc_provider.client(BACK, post_logout_redirect_uris=[SIGNED_OUT])
        secret = {"client_secret": Secret(client.secret)} if client.secret else {}
        identity_plan = fields.pop("plan", plan())
        section = OidcLogin(type="oidc", issuer=oidc_provider.issuer, client_id=client.id, **{**secret, **fields})
        opened.append(OpenIdLogin("corp", section, BACK, identity_plan))
        return opened[-1]

    yield open_it
    for login in opened:
        await login.close()


async def sign_in(
    login: OpenIdLogin, provider: OidcProvider, http: aiohttp.ClientSession, who: str = "ada", ask: Ask | None = None
) -> SignedIn:
    begun = await login.begin("state-1", ask or Ask())
    back = await provider.sign_in(http, begun.url, who)
    answer = query(str(back))
    assert str(back).startswith(BACK + "?")
    assert answer["state"] == "state-1"
    return await login.finish(begun.kept, answer, time.time())


def session_of(signed: SignedIn) -> Session:
    now = time.time()
    return Session(
        "s-1",
        signed.identity,
        now,
        now + 3600,
        now,
        signed.auth_time,
        signed.acr,
        signed.amr,
        signed.sid,
        signed.refresh_at,
    )


async def test_somebody_signs_in(oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession) -> None:
    signed = await sign_in(open_login(), oidc_provider, http)
    person = signed.identity
    assert (person.provider, person.issuer, person.subject) == ("corp", oidc_provider.issuer, "ada")
    assert (person.username, person.email, person.name) == ("ada", "ada@example.com", "Ada Lovelace")
    assert person.groups == ("wiki-admins", "staff")
    assert person.claims == {"groups": ["wiki-admins", "staff"]}
    assert signed.grant.id_token
    assert signed.grant.refresh_token
    assert 200 < signed.refresh_at - time.time() < 300


async def test_t33_an_address_that_is_not_verified_is_not_believed(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    for number, who in enumerate(("eve", "quoted", "double")):
        if number:
            address = {"quoted": '"a@evil.example"@example.com', "double": "a@evil.example@example.com"}[who]
            oidc_provider.set_claims(who, {"preferred_username": who, "email": address, "email_verified": True})
        http.cookie_jar.clear()
        assert (await sign_in(open_login(), oidc_provider, http, who)).identity.email == ""


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
async def test_the_client_says_who_it_is_in_each_way(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession, method: str
) -> None:
    # Characters that Basic needs form-encoded (RFC 6749, section 2.3.1).
    secret = None if method == "none" else "p:%+& " + "x" * 32
    client = oidc_provider.client(BACK, client_id=f"wiki {method}+1", auth_method=method, secret=secret)
    login = open_login(client, client_auth=method)
    assert (await sign_in(login, oidc_provider, http)).identity.subject == "ada"


@pytest.mark.parametrize("form", ["RSA PEM", "EC JWK", "EC PEM"])
async def test_the_client_signs_who_it_is(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession, form: str
) -> None:
    key = RSAKey.generate_key(2048) if form.startswith("RSA") else ECKey.generate_key("P-256")
    text = key.as_pem(private=True).decode() if form.endswith("PEM") else json.dumps(key.as_dict(private=True))
    public = {**key.as_dict(private=False), "kid": "k-1", "use": "sig"}
    algorithm = "RS256" if form.startswith("RSA") else "ES256"
    client = oidc_provider.client(
        BACK, auth_method="private_key_jwt", jwks={"keys": [public]}, token_endpoint_auth_signing_alg=algorithm
    )
    login = open_login(client, private_key=Secret(text), private_key_id="k-1")
    assert (await sign_in(login, oidc_provider, http)).identity.subject == "ada"


async def test_a_wrong_client_secret_is_a_fault_of_the_setup_not_of_the_person(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    client = oidc_provider.client(BACK)
    login = open_login(replace(client, secret="wrong"))
    with pytest.raises(Unavailable, match="invalid_client"):
        await sign_in(login, oidc_provider, http)


async def test_signatures_of_another_configured_algorithm_are_verified(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    client = oidc_provider.client(BACK, id_token_signed_response_alg="ES256")
    signed = await sign_in(open_login(client, algorithms=("ES256",)), oidc_provider, http)
    assert signed.identity.subject == "ada"
    with pytest.raises(Refused) as caught:
        await sign_in(open_login(client), oidc_provider, http)
    assert caught.value.reason is Reason.TOKEN_ALGORITHM


async def test_a_code_works_once_and_only_with_its_verifier(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    login = open_login()
    begun = await login.begin("state-1", Ask())
    answer = query(str(await oidc_provider.sign_in(http, begun.url, "ada")))
    other = await login.begin("state-2", Ask())
    with pytest.raises(Refused) as caught:
        await login.finish(other.kept, answer, time.time())
    assert caught.value.reason is Reason.LOGIN_CODE_REFUSED
    again = query(str(await oidc_provider.sign_in(http, begun.url, "ada")))
    await login.finish(begun.kept, again, time.time())
    with pytest.raises(Refused) as caught:
        await login.finish(begun.kept, again, time.time())
    assert caught.value.reason is Reason.LOGIN_CODE_REFUSED


async def test_who_cancels_is_told_so(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    login = open_login()
    begun = await login.begin("state-1", Ask())
    answer = query(str(await oidc_provider.sign_in(http, begun.url, "ada", cancel=True)))
    with pytest.raises(Refused, match="access_denied") as caught:
        await login.finish(begun.kept, answer, time.time())
    assert caught.value.reason is Reason.LOGIN_PROVIDER_ERROR
    assert oidc_provider.count("/token") == 0


async def test_t28_this_provider_always_says_who_it_is(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    login = open_login()
    begun = await login.begin("state-1", Ask())
    answer = query(str(await oidc_provider.sign_in(http, begun.url, "ada")))
    for wrong in ({**answer, "iss": "https://other.example"}, {k: v for k, v in answer.items() if k != "iss"}):
        with pytest.raises(Refused) as caught:
            await login.finish(begun.kept, wrong, time.time())
        assert caught.value.reason is Reason.LOGIN_ISSUER_MIXED
    assert oidc_provider.count("/token") == 0


async def test_a_fresh_sign_in_is_asked_for_and_seen(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    login = open_login()
    asked = Ask(max_age=600, acr=("urn:test:mfa",))
    signed = await sign_in(login, oidc_provider, http, ask=asked)
    assert abs(signed.auth_time - time.time()) < 60
    assert signed.acr == "urn:test:mfa"
    again = await sign_in(login, oidc_provider, http, ask=Ask(prompt="login", max_age=0))
    assert again.auth_time >= signed.auth_time


@pytest.mark.parametrize("userinfo", ["auto", "always"])
async def test_claims_that_the_id_token_lacks_come_from_userinfo(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession, userinfo: str
) -> None:
    oidc_provider.configure(claims_in_id_token=False)
    signed = await sign_in(open_login(userinfo=userinfo), oidc_provider, http)
    assert (signed.identity.email, signed.identity.groups) == ("ada@example.com", ("wiki-admins", "staff"))
    assert oidc_provider.count("/me") == 1


async def test_userinfo_is_not_asked_without_need(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    await sign_in(open_login(), oidc_provider, http)
    assert oidc_provider.count("/me") == 0
    oidc_provider.configure(claims_in_id_token=False)
    with pytest.raises(Refused) as caught:
        await sign_in(open_login(userinfo="never"), oidc_provider, http)
    assert caught.value.reason is Reason.IDENTITY_INCOMPLETE


@pytest.mark.parametrize("claims_in_id_token", [True, False])
async def test_a_refresh_brings_fresh_groups_and_the_next_refresh_token(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession, claims_in_id_token: bool
) -> None:
    oidc_provider.configure(claims_in_id_token=claims_in_id_token)
    login = open_login()
    first = await sign_in(login, oidc_provider, http)
    oidc_provider.set_claims("ada", {"groups": ["staff"]})
    second = await login.refresh(session_of(first), first.grant, time.time())
    assert second.identity.groups == ("staff",)
    assert second.identity.email == "ada@example.com"
    assert second.grant.refresh_token not in ("", first.grant.refresh_token)
    third = await login.refresh(session_of(second), second.grant, time.time())
    assert third.identity == second.identity
    assert (third.auth_time, third.sid) == (first.auth_time, first.sid)


async def test_a_session_that_the_provider_ended_is_not_refreshed(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    login = open_login()
    signed = await sign_in(login, oidc_provider, http)
    for grant in (Grant(), Grant(refresh_token="forged")):
        with pytest.raises(Refused) as caught:
            await login.refresh(session_of(signed), grant, time.time())
        assert caught.value.reason is Reason.REFRESH_REFUSED
    oidc_provider.remove_account("ada")
    with pytest.raises(Refused) as caught:
        await login.refresh(session_of(signed), signed.grant, time.time())
    assert caught.value.reason is Reason.REFRESH_REFUSED


async def test_a_provider_that_is_slow_or_broken_ended_nothing(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    login = open_login(timeout="1s")
    signed = await sign_in(login, oidc_provider, http)
    for fault in ({"status": 503}, {"status": 400, "body": "<html>"}, {"status": 429}, {"delay": 2}):
        oidc_provider.break_endpoint("/token", **fault)
        with pytest.raises(Unavailable):
            await login.refresh(session_of(signed), signed.grant, time.time())
    oidc_provider.repair()
    assert (await login.refresh(session_of(signed), signed.grant, time.time())).identity == signed.identity


async def test_refreshing_can_be_switched_off(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    signed = await sign_in(open_login(refresh=False), oidc_provider, http)
    assert signed.grant.refresh_token == ""
    assert signed.refresh_at == 0.0


async def test_t24_rotated_keys_cost_one_fetch(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    login = open_login()
    await sign_in(login, oidc_provider, http)
    assert oidc_provider.count("/jwks") == 1
    oidc_provider.rotate_keys(keep_old=False)
    await sign_in(login, oidc_provider, http)
    await sign_in(login, oidc_provider, http)
    assert oidc_provider.count("/jwks") == 2
    assert oidc_provider.count("/.well-known/openid-configuration") == 1


async def test_a_provider_that_is_down_at_first_is_used_when_it_is_up(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    login = open_login()
    oidc_provider.stop()
    with pytest.raises(Unavailable):
        await login.begin("state-1", Ask())
    oidc_provider.start()
    client = oidc_provider.client(BACK, client_id=login._section.client_id, secret=_secret(login))
    assert client.id == login._section.client_id
    async with asyncio.timeout(20):
        while True:
            try:
                signed = await sign_in(login, oidc_provider, http)
                break
            except Unavailable:
                await asyncio.sleep(0.1)
    assert signed.identity.subject == "ada"


def _secret(login: OpenIdLogin) -> str:
    secret = login._section.client_secret
    assert secret is not None
    return secret.reveal()


async def sign_out_url(login: OpenIdLogin, grant: Grant, session: Session) -> str | None:
    """Where signing out leads to at the provider."""
    begun = await login.begin_sign_out(session, grant, SIGNED_OUT, "bye")
    return None if begun is None else begun.url


async def test_signing_out_ends_the_session_at_the_provider(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    login = open_login()
    signed = await sign_in(login, oidc_provider, http)
    url = await sign_out_url(login, signed.grant, session_of(signed))
    assert url is not None
    assert query(url)["id_token_hint"] == signed.grant.id_token
    back = await oidc_provider.sign_out(http, url)
    assert str(back) == f"{SIGNED_OUT}?state=bye"
    assert await open_login(sign_out=False).begin_sign_out(session_of(signed), signed.grant, SIGNED_OUT, "x") is None


async def test_an_enormous_hint_is_left_out(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    login = open_login()
    signed = await sign_in(login, oidc_provider, http)
    url = await sign_out_url(login, Grant(id_token="x" * 7000), session_of(signed))
    assert url is not None
    assert "id_token_hint" not in query(url)
    assert query(url)["client_id"] == login._section.client_id


async def test_t30_a_logout_token_of_the_provider_names_the_session(
    oidc_provider: OidcProvider, open_login: Open, http: aiohttp.ClientSession
) -> None:
    tokens: list[str] = []

    async def take(request: web.Request) -> web.Response:
        tokens.append(dict(parse_qsl(await request.text()))["logout_token"])
        return web.Response()

    application = web.Application()
    application.router.add_post("/logout", take)
    async with TestServer(application) as server:
        client = oidc_provider.client(BACK, backchannel_logout_uri=str(server.make_url("/logout")))
        login = open_login(client)
        signed = await sign_in(login, oidc_provider, http)
        await oidc_provider.end_sessions("ada")
    out = await login.logged_out(tokens[0], time.time())
    assert (out.provider, out.issuer, out.subject) == ("corp", oidc_provider.issuer, "ada")
    assert out.sid == signed.sid != ""
    assert out.jti
    assert out.expires > time.time()
    # Neither kind of token passes for the other.
    with pytest.raises(Refused):
        await login.logged_out(signed.grant.id_token, time.time())
    other = open_login(oidc_provider.client(BACK))
    with pytest.raises(Refused) as caught:
        await other.logged_out(tokens[0], time.time())
    assert caught.value.reason is Reason.TOKEN_AUDIENCE


async def test_a_probe_describes_the_provider(oidc_provider: OidcProvider, open_login: Open) -> None:
    line = await open_login().probe()
    assert oidc_provider.issuer in line
    assert BACK in line
    assert "ES256" in line
    oidc_provider.stop()
    with pytest.raises(Unavailable):
        await open_login(Client("x", "y", {})).probe()


async def test_t29_only_the_configuration_chooses_scopes_and_parameters(open_login: Open) -> None:
    login = open_login(
        scopes=("openid", "groups"),
        parameters={"resource": "https://api", "prompt": "select_account"},
        max_login_age="1h",
    )
    stranger = Ask(login_hint="ada@example.com&scope=admin&redirect_uri=https://evil.example")
    sent = query((await login.begin("state-1", stranger)).url)
    assert sent["scope"] == "openid groups"
    assert sent["redirect_uri"] == BACK
    assert sent["login_hint"] == stranger.login_hint
    assert (sent["resource"], sent["prompt"], sent["max_age"]) == ("https://api", "select_account", "3600")
    assert (sent["response_type"], sent["code_challenge_method"], sent["state"]) == ("code", "S256", "state-1")
    asked = query((await login.begin("state-1", Ask(prompt="login", max_age=60))).url)
    assert (asked["prompt"], asked["max_age"]) == ("login", "60")
    for name in ("scope", "state", "redirect_uri", "code_challenge", "request_uri", "max_age", "response_mode"):
        with pytest.raises(ValueError, match=name):
            open_login(parameters={name: "x"})


async def test_every_sign_in_has_its_own_nonce_and_verifier(open_login: Open) -> None:
    login = open_login()
    begun = [await login.begin("state-1", Ask()) for _ in range(5)]
    assert len({one.kept["nonce"] for one in begun}) == 5
    assert len({one.kept["verifier"] for one in begun}) == 5
    assert all(one.kept["verifier"] not in one.url for one in begun)
    assert urlsplit(begun[0].url).path == "/auth"

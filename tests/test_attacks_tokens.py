"""Attacks by tokens (T09, T23-T26, T30, T32-T34), sent to a running sidecar by a provider that lies, and by callers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from sidecar.logins.token_claims import LOGOUT_EVENT
from tests.forger import Forger, encode, hmac_with_public_key, key, running_forger, sign
from tests.test_introspection import API as INTROSPECTED
from tests.test_introspection import Oracle
from tests.test_oidc_faults import _bomb, _cut_off, _dripping, _endless, _large, _list
from tests.world import Browser, Running, World

API = "https://wiki.example.com/api"
CHANGES: Mapping[str, Any] = {
    "limits": {"sign_in": "off", "answers": "off", "bad_tokens": "off"},
    "logins": {"corp": {"bearer": {"audience": API}, "userinfo": "never"}},
    "access": [
        {"path": "/staff/**", "allow": {"when": "{{ user.email.endswith('@example.com') }}"}},
        {"path": "/api/**", "allow": {"bearer": "corp"}},
        {"path": "/**", "allow": "signed_in"},
    ],
}
TIMES: tuple[Mapping[str, object], ...] = (
    {"exp": None},
    {"exp": 1e300},
    {"exp": 1_900_000_000.5},
    {"exp": 4_000_000_000},
    {"exp": "9999999999"},
    {"exp": True},
    {"exp": 1000},
    {"iat": 4_000_000_000},
    {"iat": None},
)


@pytest.fixture
async def forger() -> AsyncIterator[Forger]:
    async with running_forger() as started:
        started.claims = {"groups": ["wiki-readers"]}
        yield started


async def began(browser: Browser, forger: Forger) -> str:
    """Begin a sign-in in a browser without cookies; its state. The forger knows the nonce then."""
    browser.http.cookie_jar.clear()
    begun = URL((await browser.page("/-/login?to=/")).headers["Location"])
    forger.nonce = begun.query["nonce"]
    return begun.query["state"]


async def signed_in(browser: Browser, forger: Forger) -> int:
    """Sign in with what the forger says; the status of the answer."""
    state = await began(browser, forger)
    return (await browser.page(f"/-/callback/corp?state={state}&code=c")).status


def forged(claims: Mapping[str, object], forger: Forger, **header: Any) -> dict[str, str]:
    """The claims in tokens that the provider never signed, by what is wrong with them."""
    stranger = key("stranger")
    public = stranger.as_dict(private=False)
    return {
        "alg none": f"{encode({'alg': 'none', **header})}.{encode(claims)}.",
        "alg None": f"{encode({'alg': 'None', **header})}.{encode(claims)}.{encode(b'x')}",
        "no alg": f"{encode({'kid': 'one', **header})}.{encode(claims)}.{encode(b'x')}",
        "no signature": sign(claims, **header).rpartition(".")[0] + ".",
        "HMAC with the public key": hmac_with_public_key(claims),
        "another algorithm": sign(claims, key("two", "EC"), kid="one", alg="ES256", **header),
        "another key": sign(claims, stranger, kid="one", **header),
        "unknown kid": sign(claims, stranger, **header),
        "jwk": sign(claims, stranger, kid="one", jwk=public, **header),
        "jwk for an unknown kid": sign(claims, stranger, jwk=public, **header),
        "jku": sign(claims, stranger, jku=f"{forger.issuer}/stranger", **header),
        "x5u": sign(claims, stranger, x5u=f"{forger.issuer}/stranger", **header),
        "x5c": sign(claims, stranger, x5c=["MIIB"], **header),
        "crit": sign(claims, crit=["exp"], **header),
    }


async def test_t23_t24_t25_t26_no_id_token_but_a_proper_one_signs_anybody_in(world: World, forger: Forger) -> None:
    running = await world(CHANGES, issuer=forger.issuer)
    opened: list[object] = []
    async with running.browser() as browser:
        for name in forged({}, forger):
            state = await began(browser, forger)
            forger.id_token = forged(forger.standard_claims(), forger)[name]
            answer = await browser.page(f"/-/callback/corp?state={state}&code=c")
            if answer.status == 302 or browser.cookie():
                opened.append(name)
        forger.id_token = None
        wrong: tuple[Mapping[str, object], ...] = (
            {"iss": "https://other.example"},
            {"iss": None},
            {"aud": "another-client"},
            {"aud": None},
            {"aud": ["wiki", "another-client"], "azp": "another-client"},
            {"nonce": "of another sign-in"},
            {"nonce": None},
            {"sub": None},
            *TIMES,
        )
        for changes in wrong:
            forger.claims = {"groups": ["wiki-readers"], **changes}
            if await signed_in(browser, forger) == 302 or browser.cookie():
                opened.append(changes)
        assert opened == []
        assert forger.requests["/stranger"] == 0
        # All those unknown keys made it look for new ones once.
        assert forger.requests["/jwks"] <= 2
        assert running.application.seen == []
        forger.claims = {"groups": ["wiki-readers"]}
        assert await signed_in(browser, forger) == 302
        assert (await browser.fetch("/")).status == 200
    assert {line["reason"] for line in running.audit() if line["event"] == "login-failed"} >= {
        "token-algorithm",
        "token-key",
        "token-issuer",
        "token-audience",
        "token-nonce",
        "token-time",
        "token-expired",
    }


def access_token(forger: Forger, **changes: object) -> str:
    """Access token for the API."""
    now = int(time.time())
    standard = {"aud": API, "client_id": "script", "jti": "j-1", "iat": now, "exp": now + 300, "nonce": None}
    return sign(forger.standard_claims(**{**standard, **changes}), typ="at+jwt")


async def called(running: Running, browser: Browser, token: str) -> int:
    """Call the API with *token*."""
    return (await browser.fetch("/api/x", headers={"Authorization": f"Bearer {token}"})).status


async def test_t09_t23_t24_t25_t26_t34_no_token_but_a_proper_one_opens_the_api(world: World, forger: Forger) -> None:
    running = await world(CHANGES, issuer=forger.issuer)
    async with running.browser() as browser:
        assert await called(running, browser, access_token(forger)) == 200
        seen = running.application.seen.pop()
        assert seen.values("X-App-User") == ["ada"]
        assert "eyJ" not in str(seen.headers)
        assert seen.values("Authorization") == []
        now = int(time.time())
        claims = forger.standard_claims(aud=API, client_id="script", jti="j-9", iat=now, exp=now + 300, nonce=None)
        tokens = dict(forged(claims, forger, typ="at+jwt"))
        tokens |= {
            "an ID token": sign({**claims, "aud": "wiki"}),
            "an ID token for the API": sign(claims, typ="JWT"),
            "for another client": access_token(forger, aud="wiki"),
            "for anybody": access_token(forger, aud=None),
            "of another issuer": access_token(forger, iss="https://other.example"),
            "of no issuer": access_token(forger, iss=None),
            **{str(changes): access_token(forger, **changes) for changes in TIMES},
        }
        statuses = {name: await called(running, browser, token) for name, token in tokens.items()}
        assert {name: status for name, status in statuses.items() if status != 401} == {}
        assert running.application.seen == []
        assert forger.requests["/stranger"] == 0
        # T34: whoever comes with an equal jti, or after somebody else, is nobody but themselves.
        for person in ("bob", "ada", "bob"):
            own = {"sub": person, "preferred_username": person, "email": f"{person}@example.com"}
            assert await called(running, browser, access_token(forger, **own)) == 200
            assert running.application.seen[-1].values("X-App-User") == [person]
            assert running.application.seen[-1].values("X-App-Email") == [f"{person}@example.com"]


async def test_t24_fifty_unknown_keys_at_once_cause_one_fetch_and_a_new_key_is_found(
    world: World, forger: Forger
) -> None:
    running = await world(CHANGES, issuer=forger.issuer)
    async with running.browser() as browser:
        assert await called(running, browser, access_token(forger)) == 200
        before = forger.requests["/jwks"]
        now = int(time.time())
        claims = forger.standard_claims(aud=API, client_id="s", jti="j", iat=now, exp=now + 300, nonce=None)
        unknown = [sign(claims, key("stranger"), kid=f"k-{number}", typ="at+jwt") for number in range(50)]
        forger.keys.append(key("next").as_dict(private=False))
        fresh = sign(claims, key("next"), typ="at+jwt")
        statuses = await asyncio.gather(*(called(running, browser, token) for token in (*unknown, fresh)))
        assert statuses == [401] * 50 + [200]
        # Nor does one after the other.
        for token in unknown[:5]:
            assert await called(running, browser, token) == 401
        assert forger.requests["/jwks"] - before == 1


async def test_t30_no_logout_token_but_a_proper_one_ends_anything_and_that_ends_all(
    world: World, forger: Forger
) -> None:
    running = await world(CHANGES, issuer=forger.issuer)
    async with running.browser() as phone, running.browser() as laptop, running.browser() as provider:
        for browser in (phone, laptop):
            assert await signed_in(browser, forger) == 302
        now = int(time.time())
        events = {"events": {LOGOUT_EVENT: {}}}
        good: dict[str, object] = {
            "iss": forger.issuer,
            "aud": "wiki",
            "iat": now,
            "exp": now + 60,
            "jti": "j-1",
            "sub": "ada",
            **events,
        }
        wrong = [
            {"events": None},
            {"events": {}},
            {"events": {LOGOUT_EVENT: "yes"}},
            {"nonce": "n"},
            {"aud": "another"},
            {"aud": None},
            {"iss": "https://other.example"},
            {"iat": None},
            {"jti": None},
            {"sub": None},
            {"exp": 1000},
        ]
        tokens = list(forged(good, forger, typ="logout+jwt").values())
        for changes in wrong:
            claims = {name: value for name, value in {**good, **changes}.items() if value is not None}
            tokens.append(sign(claims, typ="logout+jwt"))
        for token in (*tokens, "", "x", "a.b.c"):
            answer = await provider.fetch("/-/backchannel/corp", "POST", data={"logout_token": token})
            assert answer.status == 400, token
        for browser in (phone, laptop):
            assert (await browser.fetch("/")).status == 200
        form = {"logout_token": sign(good, typ="logout+jwt")}
        assert (await provider.fetch("/-/backchannel/other", "POST", data=form)).status in (400, 404)
        assert (await provider.fetch("/-/backchannel/corp", "POST", data=form)).status == 200
        for browser in (phone, laptop):
            assert (await browser.fetch("/")).status == 401
        assert await signed_in(phone, forger) == 302
        # The same token once more ends nothing.
        assert (await provider.fetch("/-/backchannel/corp", "POST", data=form)).status == 400
        assert (await phone.fetch("/")).status == 200


async def test_a_logout_token_with_a_session_leaves_those_of_other_browsers_and_nobody_unknown(
    world: World, forger: Forger
) -> None:
    running = await world(CHANGES, issuer=forger.issuer)
    number = 0

    async def told(**claims: str) -> int:
        nonlocal number
        number += 1
        form = forger.farewell(f"j-{number}", **claims)
        return (await provider.fetch("/-/backchannel/corp", "POST", data=form)).status

    async with running.browser() as phone, running.browser() as laptop, running.browser() as provider:

        async def open_ones() -> tuple[bool, bool]:
            return (await phone.fetch("/")).status == 200, (await laptop.fetch("/")).status == 200

        for browser, sid in ((phone, "phone"), (laptop, "")):
            forger.claims = {"groups": ["wiki-readers"], **({"sid": sid} if sid else {})}
            assert await signed_in(browser, forger) == 302
        # Whose session that was, only the sub says.
        assert (await told(sid="gone"), await open_ones()) == (200, (True, True))
        assert (await told(sid="gone", sub="bob"), await open_ones()) == (200, (True, True))
        # Ended there before, or here: the others go on. But the laptop's may have been that one: nobody said.
        assert (await told(sid="gone", sub="ada"), await open_ones()) == (200, (True, False))
        assert (await told(sid="phone", sub="ada"), await open_ones()) == (200, (False, False))
        forger.claims = {"groups": ["wiki-readers"], "sid": "again"}
        assert await signed_in(phone, forger) == 302
        assert (await told(sub="ada"), await open_ones()) == (200, (False, False))
    ends = [line["ended"] for line in running.audit() if line["event"] == "provider-logout"]
    assert ends == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("by", ["sid", "sub"])
async def test_t30_a_sign_out_at_the_provider_counts_for_a_sign_in_that_is_under_way(
    world: World, forger: Forger, by: str
) -> None:
    corp = {**CHANGES["logins"]["corp"], "userinfo": "always"}
    running = await world({**CHANGES, "logins": {"corp": corp}}, issuer=forger.issuer)
    forger.claims = {"groups": ["wiki-readers"], "sid": "s-1"}
    is_asked, goes_on = asyncio.Event(), asyncio.Event()

    async def slowly(_: web.Request) -> web.StreamResponse:
        is_asked.set()
        await goes_on.wait()
        return web.json_response({"sub": "ada"})

    async with running.browser() as phone, running.browser() as provider:
        forger.handlers = {"/me": slowly}
        state = await began(phone, forger)
        coming = asyncio.create_task(phone.page(f"/-/callback/corp?state={state}&code=c"))
        await is_asked.wait()
        form = forger.farewell(f"j-{by}", sub="ada", **({"sid": "s-1"} if by == "sid" else {}))
        assert (await provider.fetch("/-/backchannel/corp", "POST", data=form)).status == 200
        goes_on.set()
        answer = await coming
        assert (answer.status, phone.cookie()) == (401, "")
        assert "has ended" in await answer.text()
        assert await running.sidecar.front.gate.keeper.list_all() == ()
        # It says nothing about those that come later.
        assert await signed_in(phone, forger) == 302
        assert (await phone.fetch("/")).status == 200
    (failed,) = [line for line in running.audit() if line["event"] == "login-failed"]
    assert failed["reason"] == "session-expired"


async def ten_megabytes(_: web.Request) -> web.StreamResponse:
    """A token answer whose ID token is huge."""
    token = f"{encode({'alg': 'RS256', 'kid': 'one'})}.{'A' * (10 << 20)}.x"
    return web.json_response({"access_token": "at", "token_type": "Bearer", "id_token": token})


async def test_t32_t63_an_oversized_or_endless_answer_of_a_provider_is_a_503_page(world: World, forger: Forger) -> None:
    corp = {**CHANGES["logins"]["corp"], "userinfo": "always", "timeout": "500ms"}
    running = await world({**CHANGES, "logins": {"corp": corp}}, issuer=forger.issuer)
    async with running.browser() as browser:
        for path in ("/token", "/me"):
            for fault in (_large, _endless, _dripping, _list, _bomb, _cut_off, ten_megabytes):
                forger.handlers = {path: fault}
                state = await began(browser, forger)
                answer = await browser.page(f"/-/callback/corp?state={state}&code=c")
                # Where ten_megabytes stands for userinfo it is an object of no use: somebody else's.
                told = (answer.status, path, fault.__name__)
                assert answer.status == 503 or (answer.status, fault) == (403, ten_megabytes), told
                assert browser.cookie() == "", told
                assert "yyy" not in await answer.text()
        # A JWE whose content would unpack to far more than was sent: five parts are no token here.
        forger.handlers = {}
        forger.id_token = ".".join(
            [encode({"alg": "dir", "enc": "A128GCM", "zip": "DEF"}), "", "AAAA", "A" * 9000, "AAAA"]
        )
        assert await signed_in(browser, forger) in (400, 401, 403)
        assert browser.cookie() == ""
        forger.id_token = None
        assert await signed_in(browser, forger) == 302
        assert (await browser.fetch("/")).status == 200


AMBIGUOUS = (
    "a@evil.example@example.com",
    '"a@evil.example"@example.com',
    "ada@evil.example\n@example.com",
    "ada@evil.example,ada@example.com",
    "ada@evil.example ada@example.com",
    "<ada@evil.example>ada@example.com",
    "ada@evil.example\x00@example.com",
    "ada@\uff45xample.com",
    "@example.com",
    "ada@",
)


async def test_t33_no_ambiguous_or_unverified_address_counts(world: World, forger: Forger) -> None:
    running = await world(CHANGES, issuer=forger.issuer)
    cases: list[Mapping[str, object]] = [{"email": address} for address in AMBIGUOUS]
    cases += [{"email_verified": value} for value in (False, None, "false", 0, [], {})]
    async with running.browser() as browser:
        for case in cases:
            forger.claims = {"groups": ["wiki-readers"], **case}
            if not str(case.get("email", "")).isprintable():
                # It is no identity at all then.
                assert (await signed_in(browser, forger), browser.cookie()) == (403, ""), case
                continue
            assert await signed_in(browser, forger) == 302, case
            assert (await browser.fetch("/staff/x")).status == 403, case
            assert (await browser.fetch("/")).status == 200, case
            assert running.application.seen[-1].careless("X-App-Email") == [], case
        forger.claims = {"groups": ["wiki-readers"]}
        assert await signed_in(browser, forger) == 302
        assert (await browser.fetch("/staff/x")).status == 200
        assert running.application.seen[-1].values("X-App-Email") == ["ada@example.com"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b"{}"),
        (403, b"a firewall says no"),
        (413, b""),
        (500, b"the server tripped over it"),
        (200, b'{"active":true,"name":"\\ud800"}'),
        (200, b'{"active":true,"number":1e999}'),
        (200, b'{"x":"' + b"y" * (1 << 20) + b'"}'),
    ],
)
async def test_whoever_has_an_odd_token_keeps_nobody_else_out(
    world: World, forger: Forger, status: int, body: bytes
) -> None:
    oracle = Oracle(forger)
    rules = [{"path": "/**", "allow": {"bearer": "corp"}}]
    bearer = {"audience": INTROSPECTED, "introspection": {}}
    changes = {"logins": {"corp": {"bearer": bearer}}, "access": rules}
    running = await world(changes, issuer=forger.issuer)
    async with aiohttp.ClientSession() as http:

        async def ask(token: str) -> int:
            async with http.get(running.url + "/x", headers={"Authorization": f"Bearer {token}"}) as answer:
                return answer.status

        for number in range(3):
            oracle.status, oracle.body = status, body
            assert await ask("odd") == 503
            oracle.status, oracle.body = 200, None
            assert await ask(f"good{number}") == 200
        # And the provider is asked about it no more than once a second.
        assert [one["token"] for one in oracle.asked].count("odd") == 1

"""Sign-in at a provider that lies, or that somebody else pretends to be."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc.jwk import OKPKey

from sidecar.config.values import Secret
from sidecar.core.template import Compiler
from sidecar.faults import Refused, Unavailable
from sidecar.logins.discovery import metadata_from
from sidecar.logins.login import Ask
from sidecar.logins.oidc import OpenIdLogin
from sidecar.logins.opening import callback_address, open_logins
from sidecar.logins.token_claims import LOGOUT_EVENT
from sidecar.model import Grant, Identity, Session
from sidecar.reason import Reason
from tests.forger import (
    CLIENT,
    REDIRECT,
    Forger,
    encode,
    half_hash,
    hmac_with_public_key,
    key,
    plan,
    public_pem,
    query,
    running_forger,
    section,
    sign,
    sign_in,
)
from tests.services.certificates import make_certificates

Open = Callable[..., OpenIdLogin]
DISCOVERY = "/.well-known/openid-configuration"
TEN_MEGABYTES = 10 << 20


@pytest.fixture
async def forger() -> AsyncIterator[Forger]:
    async with running_forger() as started:
        yield started


@pytest.fixture
async def open_login(forger: Forger) -> AsyncIterator[Open]:
    opened: list[OpenIdLogin] = []

    def open_it(**fields: Any) -> OpenIdLogin:
        made = {name: fields.pop(name) for name in ("plan", "clock") if name in fields}
        issuer = fields.pop("issuer", forger.issuer)
        opened.append(OpenIdLogin("corp", section(issuer, **fields), REDIRECT, **{"plan": plan(), **made}))
        return opened[-1]

    yield open_it
    for login in opened:
        await login.close()


def session_for(forger: Forger, **fields: Any) -> Session:
    now = time.time()
    person = Identity("corp", forger.issuer, "ada", "ada", "ada@example.com", "Ada", ("staff",), {"groups": ["staff"]})
    standard = {
        "id": "s-1",
        "identity": person,
        "created": now,
        "expires": now + 3600,
        "seen": now,
        "auth_time": 1000.0,
    }
    return Session(**{**standard, **fields})


async def refusal_of(login: OpenIdLogin, forger: Forger, **answer: str) -> Reason:
    with pytest.raises(Refused) as caught:
        await sign_in(login, forger, **answer)
    return caught.value.reason


# The browser's answer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"state": "x"}, Reason.LOGIN_ANSWER_INVALID),
        ({"code": ""}, Reason.LOGIN_ANSWER_INVALID),
        ({"code": "c" * 4097}, Reason.LOGIN_ANSWER_INVALID),
        ({"code": "c\n"}, Reason.LOGIN_ANSWER_INVALID),
        ({"code": "c", "error": "access_denied"}, Reason.LOGIN_ANSWER_INVALID),
        ({"error": "access_denied"}, Reason.LOGIN_PROVIDER_ERROR),
        ({"code": "c", "iss": "https://other.example"}, Reason.LOGIN_ISSUER_MIXED),
        ({"code": "c", "iss": ""}, Reason.LOGIN_ISSUER_MIXED),
        ({"code": "c", "iss": "\udcff"}, Reason.LOGIN_ISSUER_MIXED),
        ({"error": "access_denied", "iss": "https://other.example"}, Reason.LOGIN_ISSUER_MIXED),
    ],
)
async def test_a_bad_answer_is_refused_before_its_code_is_used(
    forger: Forger, open_login: Open, answer: dict[str, str], reason: Reason
) -> None:
    assert await refusal_of(open_login(), forger, **answer) is reason
    assert not forger.requests["/token"]


async def test_t28_the_code_of_another_provider_is_not_redeemed_here(forger: Forger, open_login: Open) -> None:
    login = open_login()
    begun = await login.begin("state-1", Ask())
    for changed in ({"issuer": "https://other.example"}, {"redirect_uri": REDIRECT.replace("corp", "partners")}):
        with pytest.raises(Refused) as caught:
            await login.finish({**begun.kept, **changed}, {"code": "c"}, time.time())
        assert caught.value.reason is Reason.LOGIN_ISSUER_MIXED
    assert not forger.requests["/token"]


async def test_t28_a_provider_that_names_itself_must_do_so(forger: Forger, open_login: Open) -> None:
    forger.metadata["authorization_response_iss_parameter_supported"] = True
    assert await refusal_of(open_login(), forger, code="c") is Reason.LOGIN_ISSUER_MIXED
    signed = await sign_in(open_login(), forger, code="c", iss=forger.issuer)
    assert signed.identity.subject == "ada"


async def test_t28_each_login_has_a_redirect_uri_of_its_own() -> None:
    sections = {name: section("https://id.example.com") for name in ("corp", "partners")}
    opened = open_logins(sections, "https://wiki.example.com/", "/_/", {name: plan() for name in sections})
    assert {login._redirect_uri for login in opened.values()} == {
        "https://wiki.example.com/_/callback/corp",
        "https://wiki.example.com/_/callback/partners",
    }
    assert callback_address("https://wiki.example.com", "_", "corp") == REDIRECT


async def test_what_a_provider_says_of_an_error_is_not_repeated(forger: Forger, open_login: Open) -> None:
    with pytest.raises(Refused) as caught:
        await sign_in(open_login(), forger, error="<script>alert(1)</script>", error_description="call 0900")
    assert caught.value.detail == "unreadable"


# ID tokens


async def test_a_proper_sign_in_at_the_forger_passes(forger: Forger, open_login: Open) -> None:
    forger.claims = {"amr": ["pwd", "otp"], "acr": "2", "sid": "s", "at_hash": half_hash("at"), "auth_time": 1000}
    signed = await sign_in(open_login(), forger)
    assert (signed.amr, signed.acr, signed.sid, signed.auth_time) == (("pwd", "otp"), "2", "s", 1000.0)
    assert signed.refresh_at == 0.0
    form = forger.forms[0]
    assert (form["grant_type"], form["code"], form["redirect_uri"]) == ("authorization_code", "code-1", REDIRECT)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://other.example"}, Reason.TOKEN_ISSUER),
        ({"aud": "another-client"}, Reason.TOKEN_AUDIENCE),
        ({"azp": "another-client"}, Reason.TOKEN_AUDIENCE),
        ({"nonce": "of another sign-in"}, Reason.TOKEN_NONCE),
        ({"exp": 1e300}, Reason.TOKEN_TIME),
        ({"exp": 4_000_000_000}, Reason.TOKEN_TIME),
        ({"exp": 1000}, Reason.TOKEN_EXPIRED),
        ({"iat": 4_000_000_000}, Reason.TOKEN_TIME),
        ({"at_hash": half_hash("another token")}, Reason.TOKEN_CLAIM),
        ({"c_hash": half_hash("another code")}, Reason.TOKEN_CLAIM),
        ({"amr": [["pwd"]]}, Reason.TOKEN_CLAIM),
        ({"amr": ["pwd"] * 21}, Reason.TOKEN_CLAIM),
        ({"acr": 2}, Reason.TOKEN_CLAIM),
        ({"sid": {}}, Reason.TOKEN_CLAIM),
        ({"auth_time": "now"}, Reason.TOKEN_TIME),
        ({"preferred_username": None}, Reason.IDENTITY_INCOMPLETE),
    ],
)
async def test_t25_t26_an_id_token_with_a_wrong_claim_opens_nothing(
    forger: Forger, open_login: Open, claims: dict[str, object], reason: Reason
) -> None:
    forger.claims = claims
    assert await refusal_of(open_login(userinfo="never"), forger) is reason


@pytest.mark.parametrize(
    ("ahead", "detail"),
    [
        (600, "iat is 600 s in the future: compare the clocks"),
        (-600, "expired 300 s ago, and was issued 600 s ago by its own account: compare the clocks"),
    ],
)
async def test_clocks_that_differ_are_named_with_their_difference(
    forger: Forger, open_login: Open, ahead: int, detail: str
) -> None:
    now = int(time.time())
    forger.claims = {"iat": now + ahead, "exp": now + ahead + 300}
    login = open_login(userinfo="never")
    begun = await login.begin("state-1", Ask())
    forger.nonce = begun.kept["nonce"]
    with pytest.raises(Refused) as refused:
        await login.finish(begun.kept, {"code": "c", "iss": forger.issuer}, now)
    assert refused.value.detail == detail


async def test_t23_a_forged_id_token_opens_nothing(forger: Forger, open_login: Open) -> None:
    login = open_login()
    begun = await login.begin("state-1", Ask())
    claims = forger.standard_claims(nonce=begun.kept["nonce"])
    for forged in (
        f"{encode({'alg': 'none'})}.{encode(claims)}.",
        hmac_with_public_key(claims),
        sign(claims, key("stranger"), kid="one"),
        sign(claims, key("stranger"), kid="one", jwk=key("stranger").as_dict(private=False)),
        sign(claims, key("stranger"), kid="one", jku=f"{forger.issuer}/stranger"),
    ):
        forger.id_token = forged
        with pytest.raises(Refused):
            await login.finish(begun.kept, {"code": "c"}, time.time())
    forger.id_token = None
    assert (await sign_in(login, forger)).identity.subject == "ada"


async def test_a_login_that_is_too_old_is_refused_and_consent_may_take_its_time(
    forger: Forger, open_login: Open
) -> None:
    now = int(time.time())
    login = open_login(clock=lambda: now - 600.0)
    begun = await login.begin("state-1", Ask(max_age=60))
    assert query(begun.url)["max_age"] == "60"
    for auth_time, passes in ((now - 650, True), (now - 700, False), (None, False)):
        forger.nonce, forger.claims = begun.kept["nonce"], {"auth_time": auth_time}
        if passes:
            assert (await login.finish(begun.kept, {"code": "c"}, float(now))).auth_time == auth_time
            continue
        with pytest.raises(Refused) as caught:
            await login.finish(begun.kept, {"code": "c"}, float(now))
        assert caught.value.reason is Reason.STEP_UP_UNMET


async def test_an_unknown_time_of_sign_in_is_the_oldest_there_is(forger: Forger, open_login: Open) -> None:
    assert (await sign_in(open_login(), forger)).auth_time == 0.0


# Answers that are too large, too slow, or no answers


async def _large(_: web.Request) -> web.StreamResponse:
    return web.json_response({"sub": "ada", "x": "y" * TEN_MEGABYTES})


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        while True:
            await response.write(b" " * 65_536)
    except ConnectionError:
        return response


async def _dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)
    except ConnectionError:
        return response


async def _silent(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def _list(_: web.Request) -> web.StreamResponse:
    return web.json_response([{"sub": "ada"}])


async def _page(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>Sign in to the Wi-Fi</html>", content_type="text/html")


async def _bytes(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"\xff\xfe{}")


async def _deep(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b'{"a":' + b"[" * 100_000)


async def _broken(_: web.Request) -> web.StreamResponse:
    return web.Response(status=502)


async def _bomb(_: web.Request) -> web.StreamResponse:
    packed = gzip.compress(b" " * TEN_MEGABYTES)
    return web.Response(body=packed, headers={"Content-Encoding": "gzip"}, content_type="application/json")


async def _cut_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"sub":')
    assert request.transport is not None
    request.transport.close()
    return response


@pytest.mark.parametrize("path", [DISCOVERY, "/jwks", "/token", "/me"])
@pytest.mark.parametrize(
    "fault",
    [_large, _endless, _dripping, _silent, _list, _page, _bytes, _deep, _broken, _bomb, _cut_off],
    ids=lambda fault: fault.__name__.strip("_"),
)
async def test_t32_an_answer_that_is_none_makes_the_provider_unavailable(
    forger: Forger, open_login: Open, path: str, fault: Any
) -> None:
    forger.handlers[path] = fault
    login = open_login(userinfo="always", timeout="500ms")
    with pytest.raises(Unavailable) as caught:
        await sign_in(login, forger)
    assert caught.value.reason is Reason.PROVIDER_DOWN
    assert "yyy" not in str(caught.value)


async def test_t32_a_small_answer_that_unpacks_to_a_large_one_is_not_unpacked(forger: Forger, open_login: Open) -> None:
    forger.handlers[DISCOVERY] = _bomb
    with pytest.raises(Unavailable, match="compressed"):
        await open_login().begin("state-1", Ask())


@pytest.mark.parametrize("path", [DISCOVERY, "/jwks", "/token", "/me"])
async def test_a_good_body_with_a_bad_status_is_not_used(forger: Forger, open_login: Open, path: str) -> None:
    ordinary = forger.answer

    async def failing(request: web.Request) -> web.StreamResponse:
        handler = forger.handlers.pop(path)
        response = await ordinary(request)
        forger.handlers[path] = handler
        response.set_status(500)
        return response

    forger.handlers[path] = failing
    with pytest.raises(Unavailable):
        await sign_in(open_login(userinfo="always"), forger)


@pytest.mark.parametrize("path", [DISCOVERY, "/jwks", "/token", "/me"])
async def test_redirects_are_not_followed(forger: Forger, open_login: Open, path: str) -> None:
    async def elsewhere(_: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(f"{forger.issuer}/elsewhere")

    forger.handlers[path] = elsewhere
    with pytest.raises(Unavailable):
        await sign_in(open_login(userinfo="always"), forger)
    assert forger.requests[path] == 1
    assert not forger.requests["/elsewhere"]


@pytest.mark.parametrize(
    "answer",
    [
        {"id_token": None},
        {"id_token": 5},
        {"id_token": ["a.b.c"]},
        {"id_token": "a" * 70_000},
        {"access_token": None},
        {"access_token": ""},
        {"access_token": "a\r\nX-Evil: 1"},
        {"access_token": {"a": 1}},
        {"token_type": None},
        {"token_type": "DPoP"},
        {"token_type": ["Bearer"]},
        {"refresh_token": 5},
    ],
)
async def test_a_token_answer_without_proper_tokens_is_none(
    forger: Forger, open_login: Open, answer: dict[str, object]
) -> None:
    forger.token_answer = answer
    with pytest.raises(Unavailable):
        await sign_in(open_login(), forger)


@pytest.mark.parametrize(
    ("lifetime", "after"), [(None, 2880), (100, 80), ("100", 80), (1, 30), (-5, 2880), (True, 2880), (10**12, 69120)]
)
async def test_the_next_refresh_is_due_in_time_whatever_lifetime_is_said(
    forger: Forger, open_login: Open, lifetime: object, after: float
) -> None:
    forger.token_answer = {"refresh_token": "r", "expires_in": lifetime}
    login = open_login()
    begun = await login.begin("state-1", Ask())
    forger.nonce = begun.kept["nonce"]
    now = time.time()
    assert (await login.finish(begun.kept, {"code": "c"}, now)).refresh_at == now + after


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [
        (400, {"error": "invalid_grant"}, True),
        (401, {"error": "invalid_grant"}, True),
        (400, {"error": "invalid_client", "error_description": "secret is s3cret"}, False),
        (400, {"error": ["invalid_grant"]}, False),
        (400, {}, False),
        (403, {"error": "invalid_grant"}, False),
        (500, {"error": "invalid_grant"}, False),
        (503, {"error": "invalid_grant"}, False),
    ],
)
async def test_only_the_providers_own_word_refuses_a_grant(
    forger: Forger, open_login: Open, status: int, body: dict[str, object], refused: bool
) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    forger.handlers["/token"] = answer
    expected = (Reason.LOGIN_CODE_REFUSED, Reason.REFRESH_REFUSED) if refused else (Reason.PROVIDER_DOWN,) * 2
    login = open_login()
    with pytest.raises((Refused, Unavailable)) as caught:
        await sign_in(login, forger)
    assert caught.value.reason is expected[0]  # type: ignore[attr-defined]
    assert "s3cret" not in str(caught.value)
    with pytest.raises((Refused, Unavailable)) as caught:
        await login.refresh(session_for(forger), Grant(refresh_token="r"), time.time())
    assert caught.value.reason is expected[1]  # type: ignore[attr-defined]


# Discovery


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"issuer": ["x"]},
        {"token_endpoint": None},
        {"token_endpoint": "http://token.example.com/token"},
        {"token_endpoint": "https://user:pw@token.example.com/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": 5},
        {"userinfo_endpoint": "http://169.254.169.254/latest"},
        {"end_session_endpoint": "//evil.example"},
    ],
)
async def test_a_discovery_document_that_misleads_is_not_used(
    forger: Forger, open_login: Open, metadata: dict[str, object]
) -> None:
    forger.metadata = metadata
    with pytest.raises(Unavailable):
        await open_login().begin("state-1", Ask())


async def test_a_trailing_slash_makes_another_issuer(forger: Forger, open_login: Open) -> None:
    with pytest.raises(Unavailable, match="configured is"):
        await open_login(issuer=f"{forger.issuer}/").begin("state-1", Ask())


async def test_an_issuer_without_https_is_not_asked(open_login: Open) -> None:
    with pytest.raises(Unavailable, match="not https"):
        await open_login(issuer="http://id.example.com").probe()


async def test_discovery_is_fetched_once_for_all_and_renewed_in_the_background(
    forger: Forger, open_login: Open
) -> None:
    clock = [1_000_000.0]
    login = open_login(clock=lambda: clock[0])
    await asyncio.gather(*(login.begin(f"state-{number}", Ask()) for number in range(20)))
    assert forger.requests[DISCOVERY] == 1
    clock[0] += 3601
    forger.metadata["authorization_endpoint"] = "https://new.example.com/auth"
    assert (await login.begin("state", Ask())).url.startswith(forger.issuer)
    await login.provider.discovery.fetch()
    assert (await login.begin("state", Ask())).url.startswith("https://new.example.com/auth?")
    # What is known goes on being used while the document is broken.
    forger.handlers[DISCOVERY] = _broken
    clock[0] += 3601
    await login.begin("state", Ask())
    with pytest.raises(Unavailable):
        await login.provider.discovery.fetch()
    assert (await login.begin("state", Ask())).url.startswith("https://new.example.com/auth?")


async def test_tries_at_a_provider_that_is_down_are_spaced_out(forger: Forger, open_login: Open) -> None:
    clock = [1_000_000.0]
    login = open_login(clock=lambda: clock[0])
    forger.handlers[DISCOVERY] = _broken
    for _ in range(10):
        with pytest.raises(Unavailable):
            await login.begin("state", Ask())
    assert forger.requests[DISCOVERY] == 1
    del forger.handlers[DISCOVERY]
    clock[0] += 1
    assert (await login.begin("state", Ask())).url.startswith(forger.issuer)


async def test_a_waiter_that_goes_away_leaves_the_fetch_to_the_others(forger: Forger, open_login: Open) -> None:
    arrived, release = asyncio.Event(), asyncio.Event()
    ordinary = forger.answer

    async def late(request: web.Request) -> web.StreamResponse:
        arrived.set()
        await release.wait()
        forger.handlers.clear()
        return await ordinary(request)

    forger.handlers[DISCOVERY] = late
    login = open_login()
    first, second = (asyncio.create_task(login.begin("state", Ask())) for _ in range(2))
    await arrived.wait()
    first.cancel()
    release.set()
    assert (await second).url.startswith(forger.issuer)


def test_optional_fields_of_the_wrong_kind_are_not_taken_for_a_yes() -> None:
    addresses = dict.fromkeys(("authorization_endpoint", "token_endpoint", "jwks_uri"), "https://id.example.com/x")
    odd = {"code_challenge_methods_supported": "S256", "authorization_response_iss_parameter_supported": "true"}
    found = metadata_from({"issuer": "https://id.example.com", **addresses, **odd}, "https://id.example.com")
    assert found.challenge_methods == ()
    assert not found.names_itself
    assert found.userinfo_endpoint == ""


# Userinfo


async def test_userinfo_of_somebody_else_is_refused(forger: Forger, open_login: Open) -> None:
    for answer in ({"sub": "root"}, {}, {"sub": ["ada"]}):
        forger.userinfo = answer
        forger.claims = {}
        assert await refusal_of(open_login(userinfo="always"), forger) is Reason.TOKEN_CLAIM


async def test_the_signed_claims_are_stronger_than_userinfo(forger: Forger, open_login: Open) -> None:
    forger.claims = {"name": None}
    forger.userinfo = {
        "sub": "ada",
        "name": "From userinfo",
        "preferred_username": "root",
        "groups": ["admins"],
        "email": "root@example.com",
        "email_verified": True,
        "auth_time": int(time.time()),
        "sid": "forged",
    }
    signed = await sign_in(open_login(), forger)
    person = signed.identity
    assert (person.name, person.username, person.email) == ("From userinfo", "ada", "ada@example.com")
    assert person.groups == ("staff",)
    assert (signed.auth_time, signed.sid) == (0.0, "")


async def test_t33_userinfo_does_not_verify_the_address_of_the_id_token(forger: Forger, open_login: Open) -> None:
    forger.claims = {"email": "boss@example.com", "email_verified": None}
    forger.userinfo = {"sub": "ada", "email": "ada@example.com", "email_verified": True}
    assert (await sign_in(open_login(), forger)).identity.email == ""


@pytest.mark.parametrize(
    "address",
    ["a@evil.com@corp.com", '"a@evil.com"@corp.com', "ä@corp.com", "a@corp.com,b@evil.com", "@corp.com", "a@"],
)
async def test_t33_an_address_that_is_not_plainly_one_mailbox_is_not_believed(
    forger: Forger, open_login: Open, address: str
) -> None:
    forger.claims = {"email": address}
    assert (await sign_in(open_login(), forger)).identity.email == ""


async def test_groups_that_only_a_reference_stands_for_are_unknown(forger: Forger, open_login: Open) -> None:
    forger.claims = {"groups": None, "_claim_names": {"groups": "src1"}}
    assert (await sign_in(open_login(userinfo="never"), forger)).identity.groups is None


# Refresh


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub": "root"}, Reason.REFRESH_REFUSED),
        ({"auth_time": 2000}, Reason.REFRESH_REFUSED),
        ({"iss": "https://other.example"}, Reason.TOKEN_ISSUER),
        ({"aud": "another-client"}, Reason.TOKEN_AUDIENCE),
        ({"exp": 1000}, Reason.TOKEN_EXPIRED),
    ],
)
async def test_a_refresh_that_changes_who_it_is_ends_the_session(
    forger: Forger, open_login: Open, claims: dict[str, object], reason: Reason
) -> None:
    forger.claims = claims
    with pytest.raises(Refused) as caught:
        await open_login().refresh(session_for(forger), Grant(refresh_token="r"), time.time())
    assert caught.value.reason is reason


async def test_a_session_of_another_issuer_is_not_refreshed_here(forger: Forger, open_login: Open) -> None:
    session = session_for(forger)
    session = replace(session, identity=replace(session.identity, issuer="https://other.example"))
    with pytest.raises(Refused) as caught:
        await open_login().refresh(session, Grant(refresh_token="r"), time.time())
    assert caught.value.reason is Reason.REFRESH_REFUSED


async def test_a_refresh_without_id_token_takes_userinfo_and_keeps_the_rest(forger: Forger, open_login: Open) -> None:
    login = open_login()
    forger.token_answer = {"refresh_token": "r-1"}
    forger.claims = {"auth_time": 1000, "sid": "s", "acr": "2", "amr": ["pwd"]}
    first = await sign_in(login, forger)
    session = session_for(forger, identity=first.identity, sid="s", acr="2", amr=("pwd",))
    forger.token_answer = {"id_token": None}
    forger.userinfo = {"sub": "ada", "groups": ["fresh"]}
    second = await login.refresh(session, first.grant, time.time())
    assert second.identity == replace(first.identity, groups=("fresh",), claims={"groups": ["fresh"]})
    assert second.grant == first.grant
    assert (second.auth_time, second.sid, second.acr, second.amr) == (1000.0, "s", "2", ("pwd",))
    forger.userinfo = {"sub": "root"}
    with pytest.raises(Refused):
        await login.refresh(session, first.grant, time.time())
    forger.metadata["userinfo_endpoint"] = None
    for other in (open_login(), open_login(userinfo="never")):
        third = await other.refresh(session, first.grant, time.time())
        assert third.identity == first.identity


async def test_a_refreshed_id_token_without_groups_leaves_no_old_groups(forger: Forger, open_login: Open) -> None:
    login = open_login(userinfo="never")
    forger.token_answer = {"refresh_token": "r-1"}
    first = await sign_in(login, forger)
    forger.claims = {"groups": None, "preferred_username": None, "nonce": None}
    second = await login.refresh(session_for(forger), first.grant, time.time())
    assert second.identity.username == "ada"
    assert second.identity.groups is None


@pytest.mark.parametrize("path", ["/jwks", "/me"])
async def test_a_new_refresh_token_is_kept_though_something_else_is_down(
    forger: Forger, open_login: Open, path: str
) -> None:
    forger.token_answer = {"refresh_token": "r-2"}
    forger.handlers[path] = _broken
    session, now = session_for(forger), time.time()
    grant = Grant(id_token=sign(forger.standard_claims()), refresh_token="r-1")
    signed = await open_login(userinfo="always").refresh(session, grant, now)
    assert signed.identity == session.identity
    assert signed.grant == replace(grant, refresh_token="r-2")
    assert signed.refresh_at == now + 30


# Logout tokens


async def test_t30_logout_tokens_are_verified_in_full(forger: Forger, open_login: Open) -> None:
    login = open_login()
    now = int(time.time())
    good: dict[str, Any] = {
        "iss": forger.issuer,
        "aud": CLIENT,
        "iat": now,
        "exp": now + 120,
        "jti": "j-1",
        "sub": "ada",
        "events": {LOGOUT_EVENT: {}},
    }
    for kind in (None, "JWT", "logout+jwt", "application/logout+jwt"):
        out = await login.logged_out(sign(good, typ=kind), now)
        assert (out.subject, out.sid, out.jti, out.expires) == ("ada", "", "j-1", now + 150.0)
    assert (await login.logged_out(sign({**good, "sub": "", "sid": "s-1"}), now)).sid == "s-1"
    for bad in (
        sign(good, key("stranger"), kid="one"),
        hmac_with_public_key(good),
        f"{encode({'alg': 'none'})}.{encode(good)}.",
        sign(good, typ="at+jwt"),
        sign({**good, "nonce": "n"}),
        sign({**good, "aud": "another-client"}),
        sign({**good, "iss": "https://other.example"}),
        sign({**good, "events": {}}),
        sign({name: value for name, value in good.items() if name != "jti"}),
        sign({name: value for name, value in good.items() if name != "sub"}),
    ):
        with pytest.raises(Refused):
            await login.logged_out(bad, now)


# Connections and setup


async def test_the_client_secret_and_cookies_go_nowhere_else(forger: Forger, open_login: Open) -> None:
    async def with_cookie(request: web.Request) -> web.StreamResponse:
        forger.headers.append(request.headers)
        response = web.json_response({"keys": forger.keys})
        response.set_cookie("tracker", "1")
        return response

    forger.handlers["/jwks"] = with_cookie
    login = open_login()
    await sign_in(login, forger)
    await login.provider.keys.fetch()
    await sign_in(login, forger)
    token, keys, *_ = forger.headers
    assert token["Authorization"].startswith("Basic ")
    assert "Authorization" not in keys
    assert not any("Cookie" in headers for headers in forger.headers)


async def test_a_proxy_of_the_environment_is_not_used(
    forger: Forger, open_login: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert (await sign_in(open_login(), forger)).identity.subject == "ada"


async def test_only_the_configured_authority_is_trusted(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    forger = Forger()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", forger.answer)
    server = TestServer(application, scheme="https")
    await server.start_server(ssl=context)
    forger.issuer = str(server.make_url("")).rstrip("/")
    trusting = OpenIdLogin("corp", section(forger.issuer, ca=files.authority), REDIRECT, plan())
    doubting = OpenIdLogin("corp", section(forger.issuer), REDIRECT, plan())
    assert (await sign_in(trusting, forger)).identity.subject == "ada"
    with pytest.raises(Unavailable, match="certificate is not accepted: unable to get local issuer"):
        await doubting.probe()
    for one in (trusting, doubting, server):
        await one.close()


def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    ed25519 = json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True))
    public = public_pem("one").decode()
    public_jwk = json.dumps(key("one").as_dict(private=False))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"ca": tmp_path / "missing.pem"}, r"logins\.corp\.ca: "),
        ({"parameters": {"state": "x"}}, r"logins\.corp\.parameters: state"),
        *(
            ({"client_secret": None, "private_key": Secret(text)}, r"logins\.corp\.private_key: ")
            for text in ("very-secret", '{"very-secret"', public, public_jwk, ed25519, '{"kty":"oct","k":"AAAA"}')
        ),
    ]
    for fields, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            open_logins({"corp": section("https://id.example.com", **fields)}, "https://w", "_", {"corp": plan()})
        assert "very-secret" not in str(caught.value)


async def test_a_redirect_uri_that_providers_refuse_is_found_by_the_probe(forger: Forger) -> None:
    login = OpenIdLogin("corp", section(forger.issuer), "http://wiki.example.com/_/callback/corp", plan())
    with pytest.raises(Unavailable, match="not https"):
        await login.probe()
    await login.close()


async def test_templates_that_read_all_claims_make_userinfo_needed(forger: Forger, open_login: Open) -> None:
    whole = Compiler().compile("{{ claims | length }}")
    await sign_in(open_login(plan=plan(name=whole)), forger)
    assert forger.requests["/me"] == 1

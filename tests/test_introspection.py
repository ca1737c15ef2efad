"""Opaque access tokens: what the provider says of them counts, is asked for seldom, and never longer than it holds."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from sidecar.config.login import Bearer, Introspection
from sidecar.core.api_tokens import written
from sidecar.core.binding import bound_to, refuse_others, thumbprint
from sidecar.faults import Refused, Unavailable
from sidecar.logins.introspection import IntrospectingAuthenticator
from sidecar.logins.opening import open_introspection, open_logins
from sidecar.model import Session, Visit
from sidecar.reason import Reason
from tests.forger import Forger, plan, running_forger, section
from tests.services.oidc import OidcProvider
from tests.world import World

API = "https://api.example.com"
OPAQUE = "opaque"
NOW = 1_800_000_000.0
Opened = Callable[..., IntrospectingAuthenticator]


def visit(token: str, certificate: bytes = b"") -> Visit:
    return Visit("GET", "/api", "h", "192.0.2.1", authorization=f"Bearer {token}", certificate=certificate)


# At a provider whose every answer the test chooses


class Oracle:
    """What the forger says of tokens, and what it was asked."""

    def __init__(self, forger: Forger) -> None:
        self.answer: dict[str, Any] = {}
        self.status = 200
        self.body: bytes | None = None
        self.pause = 0.0
        self.asked: list[dict[str, str]] = []
        self.authorization = ""
        forger.metadata["introspection_endpoint"] = f"{forger.issuer}/introspect"
        forger.handlers["/introspect"] = self._say

    async def _say(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(parse_qsl(await request.text())))
        self.authorization = request.headers.get("Authorization", "")
        await asyncio.sleep(self.pause)
        if self.body is not None:
            return web.Response(body=self.body, status=self.status)
        good = {
            "active": True,
            "sub": "ada",
            "preferred_username": "ada",
            "aud": API,
            "exp": NOW + 600,
            "groups": ["g"],
        }
        told = {name: value for name, value in {**good, **self.answer}.items() if value is not None}
        return web.json_response(told, status=self.status)


@pytest.fixture
async def forger() -> AsyncIterator[Forger]:
    async with running_forger() as started:
        yield started


@pytest.fixture
def oracle(forger: Forger) -> Oracle:
    return Oracle(forger)


@pytest.fixture
async def opened(forger: Forger) -> AsyncIterator[Opened]:
    closing: list[Any] = []

    def open_it(**settings: Any) -> IntrospectingAuthenticator:
        bearer = Bearer(audience=(API,), introspection=Introspection(**settings))
        sections = {"without": section("https://without.example"), "corp": section(forger.issuer, bearer=bearer)}
        made = open_logins(sections, "https://wiki.example.com", "_", {name: plan() for name in sections})
        authenticator = open_introspection(made, sections)
        assert authenticator is not None
        closing.extend([authenticator, *made.values()])
        return authenticator

    yield open_it
    for one in closing:
        await one.close()


async def refusal_of(authenticator: IntrospectingAuthenticator, shown: str = OPAQUE) -> tuple[Reason, int]:
    with pytest.raises(Refused) as caught:
        await authenticator.identify(visit(shown), NOW)
    assert shown not in str(caught.value)
    return caught.value.reason, caught.value.status


async def test_the_provider_is_asked_as_its_client_and_says_who_it_is(opened: Opened, oracle: Oracle) -> None:
    session = await opened().identify(visit("opaque"), NOW)
    assert session is not None
    assert (session.identity.subject, session.identity.groups, session.provider) == ("ada", ("g",), "corp")
    assert session.expires == NOW + 600
    assert oracle.asked == [{"token": "opaque", "token_type_hint": "access_token"}]
    assert oracle.authorization.startswith("Basic ")


@pytest.mark.parametrize("authorization", ["", "Basic YTpi", "Bearer", "Bearer a.b.c", f"Bearer {written(bytes(32))}"])
async def test_what_is_somebody_elses_is_never_sent_to_the_provider(
    opened: Opened, oracle: Oracle, authorization: str
) -> None:
    sent = Visit("GET", "/api", "h", "192.0.2.1", authorization=authorization)
    assert await opened().identify(sent, NOW) is None
    assert not oracle.asked


@pytest.mark.parametrize("token", ["a b", "ä", "\udcff", "x" * 5000, "a&token=b", "="])
async def test_what_cannot_be_a_token_is_refused_without_asking(opened: Opened, oracle: Oracle, token: str) -> None:
    with pytest.raises(Refused) as caught:
        await opened().identify(visit(token), NOW)
    assert (caught.value.reason, caught.value.status) == (Reason.TOKEN_INVALID, 401)
    assert not oracle.asked


@pytest.mark.parametrize(
    ("answer", "reason", "status"),
    [
        ({"active": False}, Reason.TOKEN_INVALID, 401),
        ({"active": None}, Reason.TOKEN_INVALID, 401),
        ({"active": "true"}, Reason.TOKEN_INVALID, 401),
        ({"active": 1}, Reason.TOKEN_INVALID, 401),
        ({"aud": None}, Reason.TOKEN_AUDIENCE, 401),
        ({"aud": "wiki"}, Reason.TOKEN_AUDIENCE, 401),
        ({"aud": [API + "/", "x"]}, Reason.TOKEN_AUDIENCE, 401),
        ({"aud": {}}, Reason.TOKEN_AUDIENCE, 401),
        ({"iss": "https://other.example"}, Reason.TOKEN_ISSUER, 401),
        ({"sub": None}, Reason.TOKEN_CLAIM, 401),
        ({"sub": 5}, Reason.TOKEN_CLAIM, 401),
        ({"exp": None}, Reason.TOKEN_TIME, 401),
        ({"exp": 1e300}, Reason.TOKEN_TIME, 401),
        ({"exp": "9999999999"}, Reason.TOKEN_TIME, 401),
        ({"exp": NOW - 31}, Reason.TOKEN_EXPIRED, 401),
        ({"nbf": NOW + 60}, Reason.TOKEN_TIME, 401),
        ({"token_type": "DPoP"}, Reason.TOKEN_BINDING, 401),
        ({"token_type": 1}, Reason.TOKEN_BINDING, 401),
        ({"cnf": {"jkt": "x"}}, Reason.TOKEN_BINDING, 401),
        ({"cnf": {"x5t#S256": "x"}}, Reason.TOKEN_BINDING, 401),
        ({"typ": "Refresh"}, Reason.TOKEN_CLAIM, 401),
        ({"token_use": "refresh_token"}, Reason.TOKEN_CLAIM, 401),
        ({"token_use": ["access_token"]}, Reason.TOKEN_CLAIM, 401),
        ({"token_use": None, "typ": "ID"}, Reason.TOKEN_CLAIM, 401),
        ({"preferred_username": None}, Reason.IDENTITY_INCOMPLETE, 403),
    ],
)
async def test_t25_t26_a_token_that_is_not_for_us_or_not_for_now_is_refused(
    opened: Opened, oracle: Oracle, answer: dict[str, Any], reason: Reason, status: int
) -> None:
    oracle.answer = answer
    authenticator = opened()
    assert await refusal_of(authenticator) == (reason, status)
    assert not authenticator._good or reason is Reason.TOKEN_BINDING


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (401, b'{"error":"invalid_client"}'),
        (302, b""),
        (200, b"nonsense"),
        (200, b"[true]"),
        (200, b""),
        (200, b'{"active":true,"active":false}'),
        (200, b'{"x":"' + b"y" * (1 << 20) + b'"}'),
    ],
)
async def test_an_answer_that_is_none_is_503_and_never_taken_for_a_bad_token(
    opened: Opened, oracle: Oracle, status: int, body: bytes
) -> None:
    oracle.status, oracle.body = status, body
    authenticator = opened()
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await authenticator.identify(visit("opaque"), NOW)
        assert (caught.value.reason, caught.value.status) == (Reason.PROVIDER_DOWN, 503)
    # Those who come right after it are not made to wait, and the provider is not hammered.
    assert len(oracle.asked) == 1
    oracle.status, oracle.body = 200, None
    assert await authenticator.identify(visit("opaque"), NOW + 1.1) is not None


@pytest.mark.parametrize("status", [302, 401, 429, 502, 503, 504])
async def test_a_provider_that_is_away_or_does_not_know_us_is_not_hammered_with_other_tokens(
    opened: Opened, oracle: Oracle, status: int
) -> None:
    oracle.status = status
    authenticator = opened()
    for number in range(3):
        with pytest.raises(Unavailable):
            await authenticator.identify(visit(f"opaque{number}"), NOW)
    assert len(oracle.asked) == 1
    oracle.status = 200
    assert await authenticator.identify(visit("another"), NOW + 1.1) is not None


async def test_a_slow_answer_is_given_up(opened: Opened, oracle: Oracle) -> None:
    oracle.pause = 5
    with pytest.raises(Unavailable):
        await opened(timeout=timedelta(seconds=0.1)).identify(visit("opaque"), NOW)


async def test_a_good_answer_is_remembered_for_a_while_and_a_bad_one_shortly(opened: Opened, oracle: Oracle) -> None:
    authenticator = opened()
    first = await authenticator.identify(visit("opaque"), NOW)
    assert await authenticator.identify(visit("opaque"), NOW + 59) is first
    assert len(oracle.asked) == 1
    oracle.answer = {"active": False}
    with pytest.raises(Refused):
        await authenticator.identify(visit("opaque"), NOW + 61)
    oracle.answer = {}
    with pytest.raises(Refused):
        await authenticator.identify(visit("opaque"), NOW + 65)
    assert len(oracle.asked) == 2
    assert await authenticator.identify(visit("opaque"), NOW + 67) is not None


async def test_nothing_is_remembered_beyond_the_end_of_the_token(opened: Opened, oracle: Oracle) -> None:
    oracle.answer = {"exp": NOW + 10}
    authenticator = opened()
    await authenticator.identify(visit("opaque"), NOW)
    oracle.answer = {"active": False}
    with pytest.raises(Refused):
        await authenticator.identify(visit("opaque"), NOW + 11)


async def test_fifty_who_come_at_once_with_one_token_make_one_question(opened: Opened, oracle: Oracle) -> None:
    authenticator = opened()
    oracle.pause = 0.05
    sessions = await asyncio.gather(*(authenticator.identify(visit("opaque"), NOW) for _ in range(50)))
    assert len({id(session) for session in sessions}) == 1
    assert len(oracle.asked) == 1
    assert not authenticator._flights


async def test_the_memory_is_bounded_and_bad_tokens_push_no_good_one_out(
    opened: Opened, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.logins.introspection._MOST", 3)
    authenticator = opened()
    good = await authenticator.identify(visit("good"), NOW)
    oracle.answer = {"active": False}
    for number in range(10):
        await refusal_of(authenticator, f"bad{number}")
        assert len(authenticator._bad) <= 3
    assert await authenticator.identify(visit("good"), NOW) is good
    oracle.answer = {}
    for number in range(10):
        await authenticator.identify(visit(f"more{number}"), NOW)
        assert len(authenticator._good) <= 3


async def test_t34_tokens_that_begin_alike_are_remembered_apart(opened: Opened, oracle: Oracle) -> None:
    authenticator = opened()
    names = ["opaque", "opaque1", "opaqu", "Opaque"]
    sessions: list[Session | None] = []
    for name in names:
        oracle.answer = {"sub": name, "preferred_username": name}
        sessions.append(await authenticator.identify(visit(name), NOW))
    assert [one.identity.subject for one in sessions if one is not None] == names
    assert len({one.id for one in sessions if one is not None}) == 4


async def test_t33_an_address_that_is_not_verified_or_not_plain_is_none(opened: Opened, oracle: Oracle) -> None:
    authenticator = opened()
    for number, (address, is_verified, kept) in enumerate(
        [
            ("ada@example.com", True, "ada@example.com"),
            ("ada@example.com", False, ""),
            ("ada@example.com", "true", ""),
            ("ada@evil.example@example.com", True, ""),
            ('"ada@example.com"@evil.example', True, ""),
            ("ada@ex\u0430mple.com", True, ""),
        ]
    ):
        oracle.answer = {"email": address, "email_verified": is_verified}
        session = await authenticator.identify(visit(f"token{number}"), NOW)
        assert session is not None
        assert session.identity.email == kept


async def test_what_is_at_hand_is_bound_as_ever(forger: Forger, opened: Opened) -> None:
    oracle = Oracle(forger)
    oracle.answer = {"cnf": {"x5t#S256": thumbprint(b"mine")}}
    authenticator = opened()
    assert authenticator.at_hand(visit(OPAQUE, b"mine"), NOW) is None
    session = await authenticator.identify(visit(OPAQUE, b"mine"), NOW)
    assert authenticator.at_hand(visit(OPAQUE, b"mine"), NOW) is session
    for other in (b"", b"other"):
        with pytest.raises(Refused, match="bound"):
            authenticator.at_hand(visit(OPAQUE, other), NOW)
    assert authenticator.at_hand(visit(""), NOW) is None


async def test_a_token_that_is_bound_to_a_certificate_is_good_with_that_one_alone(
    opened: Opened, oracle: Oracle
) -> None:
    oracle.answer = {"cnf": {"x5t#S256": thumbprint(b"mine")}}
    authenticator = opened()
    assert await authenticator.identify(visit("opaque", b"mine"), NOW) is not None
    for other in (b"", b"another"):
        with pytest.raises(Refused) as caught:
            await authenticator.identify(visit("opaque", other), NOW)
        assert (caught.value.reason, caught.value.status) == (Reason.TOKEN_BINDING, 401)


@pytest.mark.parametrize("binding", ["x", 1, [], {}, {"x5t#S256": 1}, {"x5t#S256": "a", "jkt": "b"}, {"jwk": {}}])
def test_a_binding_that_nobody_can_verify_is_refused(binding: object) -> None:
    with pytest.raises(Refused):
        bound_to({"cnf": binding})


def test_an_empty_binding_fits_no_certificate() -> None:
    with pytest.raises(Refused):
        refuse_others(bound_to({"cnf": {"x5t#S256": ""}}), b"")


# At a real provider


async def opaque_token(provider: OidcProvider, login: str, **client: Any) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Sign somebody in at another client of the provider; its access token, the whole answer, that client's header."""
    redirect = "http://127.0.0.1:9/cb"
    made = provider.client(redirect, client_id=f"robot-{secrets.token_hex(4)}", **client)
    verifier = secrets.token_urlsafe(32)
    asked = {
        "client_id": made.id,
        "response_type": "code",
        "redirect_uri": redirect,
        "scope": "openid",
        "code_challenge": urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        back = await provider.sign_in(http, URL(f"{provider.issuer}/auth?{urlencode(asked)}"), login)
        code = parse_qs(back.query_string)["code"][0]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
        headers = {"Authorization": f"Basic {b64encode(f'{made.id}:{made.secret}'.encode()).decode()}"}
        async with http.post(f"{provider.issuer}/token", data=form, headers=headers) as answer:
            told: dict[str, Any] = await answer.json()
    return told["access_token"], told, headers


async def test_t25_opaque_tokens_of_a_real_provider_open_what_they_are_for_and_nothing_else(
    world: World, oidc_provider: OidcProvider
) -> None:
    rules = [{"path": "/api/**", "allow": {"bearer": "corp", "role": ["admin", "reader"]}}]
    rules.append({"path": "/**", "allow": "signed_in"})  # type: ignore[dict-item]
    bearer = {"audience": API, "introspection": {"negative": "1s"}}
    changes = {"logins": {"corp": {"bearer": bearer}}, "access": rules, "limits": {"bad_tokens": "off"}}
    running = await world(changes, issuer=oidc_provider.issuer)
    oidc_provider.client(f"{running.url}/-/callback/corp", client_id="wiki", secret="a client secret")
    oidc_provider.configure(default_resource=API, resources={API: {"format": "opaque"}})
    token, told, robot = await opaque_token(oidc_provider, "ada")
    assert "." not in token
    oidc_provider.configure(default_resource="https://elsewhere", resources={"https://elsewhere": {"format": "opaque"}})
    foreign, *_ = await opaque_token(oidc_provider, "ada")

    async with aiohttp.ClientSession() as http:

        async def ask(shown: str) -> tuple[int, str]:
            headers = {"Authorization": f"Bearer {shown}"}
            async with http.get(running.url + "/api/x", headers=headers, allow_redirects=False) as answer:
                return answer.status, (await answer.json())["error" if answer.status != 200 else "path"]

        assert [await ask(token) for _ in range(5)] == [(200, "/api/x")] * 5
        seen = running.application.seen[-1]
        assert (seen.values("X-App-User"), seen.values("X-App-Roles")) == (["ada"], ["admin"])
        assert not seen.careless("Authorization")
        assert oidc_provider.count("/token/introspection") == 1
        # Of another audience, a refresh token, and one that the provider never issued.
        assert await ask(foreign) == (401, "token-audience")
        assert await ask(told["refresh_token"]) == (401, "token-audience")
        assert await ask("never-issued") == (401, "token-invalid")
        # The provider down: what is remembered counts for its time, nobody else gets in, and nobody is called a liar.
        oidc_provider.break_endpoint("/token/introspection", status=500)
        assert (await ask(token))[0] == 200
        assert await ask("another") == (503, "provider-unavailable")
        world.clock.ahead += 61
        assert await ask(token) == (503, "provider-unavailable")
        # Revoked there, it is refused here once it is asked for again.
        oidc_provider.repair()
        world.clock.ahead += 2
        assert (await ask(token))[0] == 200
        async with http.post(f"{oidc_provider.issuer}/token/revocation", data={"token": token}, headers=robot) as done:
            assert done.status == 200
        world.clock.ahead += 61
        assert await ask(token) == (401, "token-invalid")

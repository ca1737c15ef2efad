from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from sidecar.config.login import Bearer
from sidecar.faults import Refused
from sidecar.logins.bearer import BearerAuthenticator
from sidecar.logins.opening import open_bearer, open_logins
from sidecar.model import Session, Visit
from sidecar.reason import Reason
from tests.forger import Forger, encode, half_hash, hmac_with_public_key, key, plan, running_forger, section, sign

NOW = float(int(time.time()))
API = "https://api.example.com"
Opened = Callable[..., BearerAuthenticator]


@pytest.fixture
async def forger() -> AsyncIterator[Forger]:
    async with running_forger() as started:
        yield started


@pytest.fixture
async def opened(forger: Forger) -> AsyncIterator[Opened]:
    logins: list[Any] = []

    def open_it(own_issuer: str = "https://wiki.example.com", **bearers: Bearer) -> BearerAuthenticator:
        bearers = bearers or {"corp": Bearer(audience=(API,))}
        sections = {name: section(forger.issuer, bearer=bearer) for name, bearer in bearers.items()}
        sections["without"] = section("https://without.example")
        made = open_logins(sections, "https://wiki.example.com", "_", {name: plan() for name in sections})
        logins.extend(made.values())
        authenticator = open_bearer(made, sections, own_issuer)
        assert authenticator is not None
        return authenticator

    yield open_it
    for login in logins:
        await login.close()


def claims(forger: Forger, **changes: object) -> dict[str, object]:
    access = {"aud": API, "client_id": "script", "jti": "j-1", "iat": int(NOW), "exp": int(NOW) + 300}
    return forger.standard_claims(**{**access, **changes})


def token(forger: Forger, **changes: object) -> str:
    return sign(claims(forger, **changes), typ="at+jwt")


def visit(authorization: str) -> Visit:
    return Visit("GET", "/api", "wiki.example.com", "192.0.2.1", authorization=authorization)


async def refusal_of(authenticator: BearerAuthenticator, sent: str, now: float = NOW) -> Reason:
    with pytest.raises(Refused) as caught:
        await authenticator.identify(visit(f"Bearer {sent}"), now)
    assert caught.value.status == 401
    assert sent.rpartition(".")[2] not in str(caught.value) or sent.endswith(".")
    return caught.value.reason


async def test_a_caller_with_an_access_token_is_recognised(forger: Forger, opened: Opened) -> None:
    sent = token(forger, acr="2", auth_time=1000, sid="s")
    session = await opened().identify(visit(f"bearer {sent}"), NOW)
    assert session is not None
    assert (session.identity.subject, session.identity.groups, session.provider) == ("ada", ("staff",), "corp")
    assert (session.created, session.expires, session.seen) == (NOW, NOW + 300, NOW)
    assert (session.acr, session.auth_time, session.sid) == ("2", 1000.0, "s")
    assert session.id.startswith("bearer-")


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer opaque-api-token", "Bearerx a.b.c"]
)
async def test_what_is_no_jwt_is_left_to_others(forger: Forger, opened: Opened, authorization: str) -> None:
    assert await opened().identify(visit(authorization), NOW) is None


@pytest.mark.parametrize(
    "sent", ["a.b", ".", "a.b.c", "a.b.c.d.e", "a.b.\udcff", "a.b.c, Basic x", "a.b.c d.e.f", "." * 100_000]
)
async def test_what_looks_like_a_jwt_and_is_none_is_refused(forger: Forger, opened: Opened, sent: str) -> None:
    with pytest.raises(Refused) as caught:
        await opened().identify(visit(f"Bearer {sent}"), NOW)
    assert (caught.value.reason, caught.value.status) == (Reason.TOKEN_INVALID, 401)
    assert not forger.requests


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": None}, Reason.TOKEN_AUDIENCE),
        ({"aud": "wiki"}, Reason.TOKEN_AUDIENCE),
        ({"aud": [f"{API}/"]}, Reason.TOKEN_AUDIENCE),
        ({"iss": "https://other.example"}, Reason.TOKEN_ISSUER),
        ({"iss": None}, Reason.TOKEN_ISSUER),
        ({"iss": ["x"]}, Reason.TOKEN_ISSUER),
        ({"iss": {}}, Reason.TOKEN_ISSUER),
        ({"exp": None}, Reason.TOKEN_TIME),
        ({"exp": 1e300}, Reason.TOKEN_TIME),
        ({"exp": NOW + 300.5}, Reason.TOKEN_TIME),
        ({"exp": "9999999999"}, Reason.TOKEN_TIME),
        ({"exp": True}, Reason.TOKEN_TIME),
        ({"exp": 4_000_000_000}, Reason.TOKEN_TIME),
        ({"exp": int(NOW) - 31}, Reason.TOKEN_EXPIRED),
        ({"exp": int(NOW) + 7200}, Reason.TOKEN_TIME),
        ({"iat": None}, Reason.TOKEN_TIME),
        ({"iat": int(NOW) + 60, "exp": int(NOW) + 300}, Reason.TOKEN_TIME),
        ({"nbf": int(NOW) + 60}, Reason.TOKEN_TIME),
        ({"client_id": None}, Reason.TOKEN_CLAIM),
        ({"sub": None}, Reason.TOKEN_CLAIM),
        ({"acr": 5}, Reason.TOKEN_CLAIM),
    ],
)
async def test_t25_t26_a_token_that_is_not_for_us_or_not_for_now_is_refused(
    forger: Forger, opened: Opened, changes: dict[str, object], reason: Reason
) -> None:
    authenticator = opened()
    with pytest.raises(Refused) as caught:
        await authenticator.identify(visit(f"Bearer {token(forger, **changes)}"), NOW)
    assert caught.value.reason is reason
    assert not authenticator._known


async def test_t23_t24_a_forged_access_token_is_refused(forger: Forger, opened: Opened) -> None:
    good = claims(forger)
    stranger = key("stranger")
    authenticator = opened()
    for forged, reason in (
        (f"{encode({'alg': 'none', 'typ': 'at+jwt'})}.{encode(good)}.", Reason.TOKEN_ALGORITHM),
        (hmac_with_public_key(good), Reason.TOKEN_ALGORITHM),
        (sign(good, stranger, kid="one", typ="at+jwt"), Reason.TOKEN_INVALID),
        (sign(good, stranger, typ="at+jwt"), Reason.TOKEN_KEY),
        (sign(good, stranger, kid="one", typ="at+jwt", jwk=stranger.as_dict(private=False)), Reason.TOKEN_INVALID),
    ):
        assert await refusal_of(authenticator, forged) is reason


async def test_t24_fifty_unknown_keys_do_not_hammer_the_provider(forger: Forger, opened: Opened) -> None:
    authenticator = opened()
    await authenticator.identify(visit(f"Bearer {token(forger)}"), NOW)
    forged = [sign(claims(forger), key("stranger"), kid=f"k-{number}", typ="at+jwt") for number in range(50)]
    assert set(await asyncio.gather(*(refusal_of(authenticator, one) for one in forged))) == {Reason.TOKEN_KEY}
    assert forger.requests["/jwks"] == 2


@pytest.mark.parametrize("kind", [None, "JWT", "logout+jwt", "id+jwt", ""])
async def test_another_kind_of_token_is_refused(forger: Forger, opened: Opened, kind: str | None) -> None:
    assert await refusal_of(opened(), sign(claims(forger), typ=kind)) is Reason.TOKEN_INVALID


async def test_where_jwt_is_an_accepted_type_an_id_token_is_still_none(forger: Forger, opened: Opened) -> None:
    authenticator = opened(corp=Bearer(audience=(API,), types=("JWT",)))
    assert await authenticator.identify(visit(f"Bearer {sign(claims(forger), typ='JWT')}"), NOW) is not None
    marks: list[dict[str, object]] = [{"at_hash": half_hash("x")}, {"c_hash": "x"}, {"events": {}}, {"typ": "ID"}]
    for mark in marks:
        assert await refusal_of(authenticator, sign(claims(forger, **mark), typ="JWT")) is Reason.TOKEN_CLAIM


async def test_our_own_assertion_is_never_accepted_back(forger: Forger, opened: Opened) -> None:
    assert await refusal_of(opened(own_issuer=forger.issuer), token(forger)) is Reason.TOKEN_ISSUER


async def test_a_verified_token_is_remembered_until_it_expires_and_not_longer(forger: Forger, opened: Opened) -> None:
    authenticator = opened()
    sent = f"Bearer {token(forger, exp=int(NOW) + 100)}"
    first = await authenticator.identify(visit(sent), NOW)
    forger.keys = []
    assert await authenticator.identify(visit(sent), NOW + 99) is first
    assert await refusal_of(authenticator, sent.removeprefix("Bearer "), NOW + 131) is Reason.TOKEN_EXPIRED
    assert not authenticator._known


async def test_a_remembered_token_is_verified_again_before_long(forger: Forger, opened: Opened) -> None:
    authenticator = opened()
    sent = token(forger, exp=int(NOW) + 3000)
    await authenticator.identify(visit(f"Bearer {sent}"), NOW)
    forger.keys = [key("two").as_dict(private=False)]
    await authenticator._accepted[0].keys.fetch()
    assert await refusal_of(authenticator, sent, NOW + 301) is Reason.TOKEN_KEY


async def test_the_memory_of_tokens_is_bounded(forger: Forger, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.logins.bearer._CACHED_TOKENS", 3)
    authenticator = opened()
    for number in range(10):
        await authenticator.identify(visit(f"Bearer {token(forger, jti=str(number))}"), NOW)
        assert len(authenticator._known) <= 3


async def test_t34_tokens_that_differ_in_anything_are_remembered_apart(forger: Forger, opened: Opened) -> None:
    authenticator = opened()
    sessions: list[Session | None] = [
        await authenticator.identify(visit(f"Bearer {token(forger, **change)}"), NOW)
        for change in ({}, {"sub": "bob", "preferred_username": "bob"}, {"client_id": "other"}, {"jti": "j-2"})
    ]
    assert len({session.id for session in sessions if session is not None}) == 4
    assert [session.identity.subject for session in sessions if session is not None] == ["ada", "bob", "ada", "ada"]


async def test_two_logins_at_one_issuer_are_told_apart_by_audience(forger: Forger, opened: Opened) -> None:
    authenticator = opened(corp=Bearer(audience=(API,)), robots=Bearer(audience=("urn:robots",)))
    for audience, provider in ((API, "corp"), ("urn:robots", "robots")):
        session = await authenticator.identify(visit(f"Bearer {token(forger, aud=audience)}"), NOW)
        assert session is not None
        assert session.provider == provider


async def test_the_issuer_of_access_tokens_may_differ_from_the_logins(forger: Forger, opened: Opened) -> None:
    authenticator = opened(corp=Bearer(audience=(API,), issuer="https://sts.example.com"))
    session = await authenticator.identify(visit(f"Bearer {token(forger, iss='https://sts.example.com')}"), NOW)
    assert session is not None
    assert session.identity.issuer == "https://sts.example.com"
    assert await refusal_of(authenticator, token(forger)) is Reason.TOKEN_ISSUER


async def test_a_good_token_that_names_nobody_is_forbidden_rather_than_unauthorised(
    forger: Forger, opened: Opened
) -> None:
    with pytest.raises(Refused) as caught:
        await opened().identify(visit(f"Bearer {token(forger, preferred_username=None)}"), NOW)
    assert (caught.value.reason, caught.value.status) == (Reason.IDENTITY_INCOMPLETE, 403)


async def test_t25_an_audience_is_mandatory(opened: Opened) -> None:
    accepted = opened()._accepted[0]
    with pytest.raises(ValueError, match="audience"):
        BearerAuthenticator([replace(accepted, audience=frozenset())])
    with pytest.raises(ValueError, match="audience"):
        Bearer(audience=())


def test_nothing_recognises_tokens_unless_configured() -> None:
    sections = {"corp": section("https://id.example.com")}
    assert open_bearer(open_logins(sections, "https://w", "_", {"corp": plan()}), sections, "https://w") is None
    with pytest.raises(ValueError, match="at least one"):
        BearerAuthenticator(())

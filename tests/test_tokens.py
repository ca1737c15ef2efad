from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from hypothesis import given
from hypothesis import strategies as st
from joserfc.errors import UnsupportedAlgorithmError

from sidecar.core.claims import identity_from
from sidecar.core.template import Compiler
from sidecar.faults import Refused, Unavailable
from sidecar.logins.addresses import is_safe_address
from sidecar.logins.claim_sources import lacks_claims, merged, remembered
from sidecar.logins.discovery import Discovery, metadata_from
from sidecar.logins.http import ProviderHttp
from sidecar.logins.keys import Keys, signing_keys
from sidecar.logins.strict_json import parse_object
from sidecar.logins.token_claims import (
    ACCESS_TOKEN,
    ID_TOKEN,
    LOGOUT_EVENT,
    LOGOUT_TOKEN,
    Check,
    Expected,
    check,
    time_claim,
)
from sidecar.logins.tokens import TOKEN_LIMIT, SignedClaims, _Pinned, read_header, verify
from sidecar.reason import Reason
from tests.forger import Forger, encode, half_hash, hmac_with_public_key, key, plan, running_forger, sign

NOW = 1_750_000_000.0
CLAIMS: dict[str, Any] = {"sub": "ada"}


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def forger() -> AsyncIterator[Forger]:
    async with running_forger() as started:
        yield started


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keys(forger: Forger, clock: Clock) -> AsyncIterator[Keys]:
    http = ProviderHttp("corp", 5)
    discovery = Discovery(
        http, forger.issuer, f"{forger.issuer}/.well-known/openid-configuration", metadata_from, clock
    )
    opened = Keys(http, discovery, clock)
    yield opened
    await opened.close()
    await discovery.close()
    await http.close()


async def refusal_of(token: str, keys: Keys, algorithms: tuple[str, ...] = ("RS256",)) -> Reason:
    with pytest.raises(Refused) as caught:
        await verify(token, keys, algorithms)
    return caught.value.reason


# Signatures


@pytest.mark.parametrize(("kind", "algorithm"), [("RSA", "RS256"), ("RSA", "PS256"), ("EC", "ES256"), ("OKP", "EdDSA")])
async def test_a_token_that_the_provider_signed_is_verified(
    forger: Forger, keys: Keys, kind: str, algorithm: str
) -> None:
    signer = key(f"good-{kind}", kind)
    forger.keys.append(signer.as_dict(private=False))
    verified = await verify(sign(CLAIMS, signer, alg=algorithm, typ="JWT"), keys, (algorithm,))
    assert verified.claims == CLAIMS
    assert verified.header.type == "jwt"


async def test_t23_an_unsigned_token_is_refused(keys: Keys) -> None:
    for algorithm in ("none", "None", "nOnE"):
        token = f"{encode({'alg': algorithm})}.{encode(CLAIMS)}."
        assert await refusal_of(token, keys) is Reason.TOKEN_ALGORITHM
        assert await refusal_of(token, keys, ("RS256", algorithm)) is Reason.TOKEN_ALGORITHM


async def test_t23_a_token_without_algorithm_is_refused(keys: Keys) -> None:
    token = sign(CLAIMS)
    assert await refusal_of(f"{encode({'kid': 'one'})}.{token.split('.', 1)[1]}", keys) is Reason.TOKEN_ALGORITHM


async def test_t23_a_token_keyed_with_the_public_key_is_refused(keys: Keys) -> None:
    assert await refusal_of(hmac_with_public_key(CLAIMS), keys) is Reason.TOKEN_ALGORITHM
    # Even if somebody managed to configure it.
    assert await refusal_of(hmac_with_public_key(CLAIMS), keys, ("HS256",)) is Reason.TOKEN_ALGORITHM


async def test_t23_the_token_does_not_choose_among_algorithms_of_the_same_key(keys: Keys) -> None:
    assert await refusal_of(sign(CLAIMS, alg="PS256"), keys) is Reason.TOKEN_ALGORITHM


async def test_t23_a_key_for_one_algorithm_verifies_no_other(forger: Forger, keys: Keys) -> None:
    forger.keys = [{**key("one").as_dict(private=False), "alg": "PS256"}]
    assert await refusal_of(sign(CLAIMS), keys) is Reason.TOKEN_KEY


def test_t23_even_the_library_is_told_of_one_algorithm_only() -> None:
    with pytest.raises(UnsupportedAlgorithmError):
        _Pinned("RS256").get_alg("HS256")


async def test_a_signature_of_another_key_or_over_other_claims_is_refused(keys: Keys) -> None:
    assert await refusal_of(sign(CLAIMS, key("stranger"), kid="one"), keys) is Reason.TOKEN_INVALID
    head, _, signature = sign(CLAIMS).split(".")
    assert await refusal_of(f"{head}.{encode({'sub': 'root'})}.{signature}", keys) is Reason.TOKEN_INVALID
    assert await refusal_of(f"{head}.{encode(CLAIMS)}.", keys) is Reason.TOKEN_INVALID


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
async def test_t24_a_key_that_the_token_brings_along_is_refused(forger: Forger, keys: Keys, name: str) -> None:
    own = key("stranger")
    brought: dict[str, object] = {
        "jwk": own.as_dict(private=False),
        "jku": f"{forger.issuer}/stranger",
        "x5u": f"{forger.issuer}/stranger",
        "x5c": ["MIIB"],
    }
    assert await refusal_of(sign(CLAIMS, own, kid="one", **{name: brought[name]}), keys) is Reason.TOKEN_INVALID
    assert await refusal_of(sign(CLAIMS, **{name: brought[name]}), keys) is Reason.TOKEN_INVALID
    assert not forger.requests["/stranger"]


@pytest.mark.parametrize(
    "header", [{"crit": ["b64"], "b64": False}, {"b64": True}, {"crit": []}, {"enc": "A256GCM"}, {"zip": "DEF"}]
)
async def test_a_header_that_changes_the_rules_is_refused(keys: Keys, header: dict[str, object]) -> None:
    assert await refusal_of(sign(CLAIMS, **header), keys) is Reason.TOKEN_INVALID


async def test_a_header_field_that_nobody_knows_is_ignored(keys: Keys) -> None:
    assert (await verify(sign(CLAIMS, **{"pi.atm": "3", "x5t": "abc"}), keys, ("RS256",))).claims == CLAIMS


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "a.b",
        "a.b.c.d",
        "a.b.c.d.e",
        " a.b.c",
        "a.b.c\n",
        "ä.b.c",
        "\udcff.b.c",
        f"{encode(b'[]')}.e30.x",
        f"{encode(b'{')}.e30.x",
        f"{encode(b'[' * 40_000)}.e30.x",
        f"{encode({'alg': 5})}.e30.x",
        f"{encode({'alg': 'RS256', 'kid': ['one']})}.e30.x",
        f"{encode(bytes([255, 254]))}.e30.x",
        f'{encode(b"""{"alg":"RS256","alg":"none"}""")}.e30.x',
    ],
)
async def test_what_is_no_token_is_refused(keys: Keys, token: str) -> None:
    assert await refusal_of(token, keys) is Reason.TOKEN_INVALID


async def test_t32_a_token_of_ten_megabytes_is_refused_before_it_is_read(forger: Forger, keys: Keys) -> None:
    assert await refusal_of("a" * TOKEN_LIMIT + ".b.c", keys) is Reason.TOKEN_INVALID
    assert await refusal_of(sign({"x": "y" * (10 << 20)}), keys) is Reason.TOKEN_INVALID
    assert await refusal_of(f"{encode({'alg': 'RS256', 'x': 'y' * 5000})}.e30.x", keys) is Reason.TOKEN_INVALID
    assert not forger.requests


async def test_t32_an_encrypted_token_is_refused_without_being_unpacked(keys: Keys) -> None:
    header = {"alg": "dir", "enc": "A128GCM", "zip": "DEF"}
    assert await refusal_of(f"{encode(header)}..AAAA.{'A' * 1000}.AAAA", keys) is Reason.TOKEN_INVALID


async def test_claims_that_parsers_disagree_about_are_refused_though_signed(keys: Keys) -> None:
    for raw in (b'{"sub":"a","sub":"b"}', b'{"exp":NaN}', b'{"exp":1e999}', b'{"sub":"\\ud800"}', b'["sub"]', b"\xff"):
        assert await refusal_of(sign(raw), keys) is Reason.TOKEN_INVALID


@given(st.text(max_size=200))
def test_any_text_is_a_header_or_refused(token: str) -> None:
    try:
        read_header(token)
    except Refused as refusal:
        assert refusal.reason is Reason.TOKEN_INVALID  # noqa: PT017 - most examples raise, none needs to


# Keys


async def test_t24_fifty_unknown_keys_cause_one_refetch(forger: Forger, keys: Keys, clock: Clock) -> None:
    await verify(sign(CLAIMS), keys, ("RS256",))
    strangers = [sign(CLAIMS, key("stranger"), kid=f"unknown-{number}") for number in range(50)]
    reasons = await asyncio.gather(*(refusal_of(token, keys) for token in strangers))
    assert set(reasons) == {Reason.TOKEN_KEY}
    assert forger.requests["/jwks"] == 2
    for token in strangers:
        assert await refusal_of(token, keys) is Reason.TOKEN_KEY
    assert forger.requests["/jwks"] == 2
    clock.now += 11
    assert await refusal_of(strangers[0], keys) is Reason.TOKEN_KEY
    assert forger.requests["/jwks"] == 3


async def test_fifty_tokens_with_a_new_key_wait_for_one_refetch(forger: Forger, keys: Keys) -> None:
    await verify(sign(CLAIMS), keys, ("RS256",))
    forger.keys = [key("two").as_dict(private=False)]
    verified = await asyncio.gather(*(verify(sign(CLAIMS, key("two")), keys, ("RS256",)) for _ in range(50)))
    assert len(verified) == 50
    assert forger.requests["/jwks"] == 2
    assert await refusal_of(sign(CLAIMS), keys) is Reason.TOKEN_KEY


async def test_a_withdrawn_key_is_forgotten_in_the_background(forger: Forger, keys: Keys, clock: Clock) -> None:
    await verify(sign(CLAIMS), keys, ("RS256",))
    forger.keys = [key("two").as_dict(private=False)]
    clock.now += 3601
    await verify(sign(CLAIMS), keys, ("RS256",))
    assert keys._flight.is_under_way
    await keys.fetch()
    assert forger.requests["/jwks"] == 2
    assert await refusal_of(sign(CLAIMS), keys) is Reason.TOKEN_KEY


async def test_keys_of_yesterday_are_not_used(forger: Forger, keys: Keys, clock: Clock) -> None:
    await verify(sign(CLAIMS), keys, ("RS256",))
    forger.handlers["/jwks"] = _status_500
    clock.now += 25 * 3600
    with pytest.raises(Unavailable):
        await verify(sign(CLAIMS), keys, ("RS256",))


async def test_keys_that_cannot_be_fetched_are_no_refusal(forger: Forger, keys: Keys) -> None:
    await verify(sign(CLAIMS), keys, ("RS256",))
    forger.handlers["/jwks"] = _status_500
    for _ in range(2):
        with pytest.raises(Unavailable):
            await verify(sign(CLAIMS, key("two")), keys, ("RS256",))
    assert forger.requests["/jwks"] == 2
    # Known keys go on working.
    await verify(sign(CLAIMS), keys, ("RS256",))


async def _status_500(_: web.Request) -> web.Response:
    return web.Response(status=500)


async def test_a_token_without_key_id_needs_a_provider_with_one_key(forger: Forger, keys: Keys) -> None:
    await verify(sign(CLAIMS, kid=None), keys, ("RS256",))
    forger.keys.append(key("two").as_dict(private=False))
    await keys.fetch()
    assert await refusal_of(sign(CLAIMS, kid=None), keys) is Reason.TOKEN_KEY


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_keys_that_are_unfit_for_signatures_are_left_out() -> None:
    good = key("one").as_dict(private=False)
    weak = generate_private_key(65537, 1024).public_key().public_numbers().n  # noqa: S505 - a case
    unfit: list[Any] = [
        {**good, "use": "enc"},
        {**good, "use": ["sig"]},
        {**good, "key_ops": ["encrypt"]},
        {**good, "alg": "RSA-OAEP"},
        {**good, "alg": ["RS256"]},
        {**good, "kid": 5},
        {**good, "kty": "oct", "k": "c2VjcmV0"},
        {**good, "kty": "PQC"},
        {**good, "kty": ["RSA"]},
        {**good, "n": "!"},
        {**good, "n": 7},
        {**good, "n": encode(weak.to_bytes(128))},
        {**good, "n": "A" * 20_000},
        {**good, "n": encode((2**9000 + 1).to_bytes(1126))},
        {**good, "e": "A" * 500},
        {**good, "e": ""},
        {**good, "e": encode((2**72 + 1).to_bytes(10))},
        {"kty": "RSA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        key("private").as_dict(private=True),
        "text",
        None,
    ]
    assert signing_keys({"keys": unfit}) == ()
    assert [found.kid for found in signing_keys({"keys": [*unfit, good]})] == ["one"]


@pytest.mark.parametrize("document", [{}, {"keys": "x"}, {"keys": {"a": 1}}, {"keys": [{}] * 101}])
def test_a_key_set_that_is_none_makes_the_provider_unavailable(document: dict[str, Any]) -> None:
    with pytest.raises(Unavailable):
        signing_keys(document)


# Claims

EXPECTED = Expected(
    issuer="https://id.example.com",
    audience=frozenset({"wiki"}),
    now=NOW,
    leeway=30.0,
    algorithm="RS256",
    client_id="wiki",
    nonce="n-1",
    access_token="at-1",
    code="code-1",
    longest=3600.0,
)
GOOD_ID: dict[str, Any] = {
    "iss": "https://id.example.com",
    "aud": "wiki",
    "sub": "ada",
    "iat": int(NOW),
    "exp": int(NOW) + 300,
    "nonce": "n-1",
    "at_hash": half_hash("at-1"),
    "c_hash": half_hash("code-1"),
}
GOOD_LOGOUT: dict[str, Any] = {
    **{name: GOOD_ID[name] for name in ("iss", "aud", "sub", "iat", "exp")},
    "jti": "j-1",
    "events": {LOGOUT_EVENT: {}},
}
GOOD_ACCESS: dict[str, Any] = {
    **{name: GOOD_ID[name] for name in ("iss", "aud", "sub", "iat", "exp")},
    "client_id": "x",
}

TIME, CLAIM, AUDIENCE = Reason.TOKEN_TIME, Reason.TOKEN_CLAIM, Reason.TOKEN_AUDIENCE
BAD_TIMES = [True, "1750000300", 1e300, -1, 1e12, 2**70, [1], {}, NOW + 300.5]

BAD_ANYWHERE: list[tuple[dict[str, Any], Reason]] = [
    ({"iss": None}, Reason.TOKEN_ISSUER),
    ({"iss": "https://id.example.com/"}, Reason.TOKEN_ISSUER),
    ({"iss": ["https://id.example.com"]}, Reason.TOKEN_ISSUER),
    ({"aud": None}, AUDIENCE),
    ({"aud": "other"}, AUDIENCE),
    ({"aud": []}, AUDIENCE),
    ({"aud": {"wiki": 1}}, AUDIENCE),
    ({"aud": ["other", ["wiki"]]}, AUDIENCE),
    ({"exp": None}, TIME),
    *(({"exp": value}, TIME) for value in BAD_TIMES),
    ({"exp": int(NOW) - 31}, Reason.TOKEN_EXPIRED),
    ({"exp": 0}, Reason.TOKEN_EXPIRED),
    ({"iat": None}, TIME),
    *(({"iat": value}, TIME) for value in BAD_TIMES),
    ({"iat": int(NOW) + 31}, TIME),
    ({"nbf": int(NOW) + 31}, TIME),
    *(({"nbf": value}, TIME) for value in BAD_TIMES),
    ({"sub": 5}, CLAIM),
    ({"sub": "s" * 1025}, CLAIM),
]
BAD_ID: list[tuple[dict[str, Any], Reason]] = [
    ({"sub": None}, CLAIM),
    ({"sub": ""}, CLAIM),
    ({"aud": ["wiki", "other"]}, AUDIENCE),
    ({"aud": ["wiki", "other"], "azp": "other"}, AUDIENCE),
    ({"azp": "other"}, AUDIENCE),
    ({"nonce": None}, Reason.TOKEN_NONCE),
    ({"nonce": "n-2"}, Reason.TOKEN_NONCE),
    ({"nonce": ["n-1"]}, CLAIM),
    ({"at_hash": half_hash("at-2")}, CLAIM),
    ({"at_hash": 5}, CLAIM),
    ({"c_hash": half_hash("code-2")}, CLAIM),
    ({"auth_time": int(NOW) + 31}, TIME),
    ({"auth_time": "yesterday"}, TIME),
]
BAD_LOGOUT: list[tuple[dict[str, Any], Reason]] = [
    ({"jti": None}, CLAIM),
    ({"jti": ""}, CLAIM),
    ({"jti": 5}, CLAIM),
    ({"jti": "j" * 1025}, CLAIM),
    ({"events": None}, CLAIM),
    ({"events": [LOGOUT_EVENT]}, CLAIM),
    ({"events": {LOGOUT_EVENT: None}}, CLAIM),
    ({"events": {"http://other": {}}}, CLAIM),
    ({"nonce": "n-1"}, CLAIM),
    ({"nonce": ""}, CLAIM),
    ({"sub": None}, CLAIM),
    ({"sub": None, "sid": 7}, CLAIM),
    ({"iat": int(NOW) - 631}, TIME),
]
BAD_ACCESS: list[tuple[dict[str, Any], Reason]] = [
    ({"sub": None}, CLAIM),
    ({"client_id": None}, CLAIM),
    ({"client_id": 5}, CLAIM),
    ({"iat": int(NOW) - 3500}, TIME),
    ({"at_hash": half_hash("at-1")}, CLAIM),
    ({"events": {LOGOUT_EVENT: {}}}, CLAIM),
    ({"typ": "ID"}, CLAIM),
]


def changed(claims: dict[str, Any], change: dict[str, Any]) -> SignedClaims:
    return SignedClaims({name: value for name, value in {**claims, **change}.items() if value is not None})


@pytest.mark.parametrize(("change", "reason"), [*BAD_ANYWHERE, *BAD_ID])
def test_t25_t26_an_id_token_that_says_something_wrong_is_refused(change: dict[str, Any], reason: Reason) -> None:
    assert _refusal(GOOD_ID, change, ID_TOKEN) is reason


@pytest.mark.parametrize(("change", "reason"), [*BAD_ANYWHERE, *BAD_LOGOUT])
def test_t30_a_logout_token_that_says_something_wrong_is_refused(change: dict[str, Any], reason: Reason) -> None:
    assert _refusal(GOOD_LOGOUT, change, LOGOUT_TOKEN) is reason


@pytest.mark.parametrize(("change", "reason"), [*BAD_ANYWHERE, *BAD_ACCESS])
def test_t25_t26_an_access_token_that_says_something_wrong_is_refused(change: dict[str, Any], reason: Reason) -> None:
    assert _refusal(GOOD_ACCESS, change, ACCESS_TOKEN) is reason


def _refusal(good: dict[str, Any], change: dict[str, Any], table: tuple[Check, ...]) -> Reason:
    check(changed(good, {}), table, EXPECTED)
    with pytest.raises(Refused) as caught:
        check(changed(good, change), table, EXPECTED)
    return caught.value.reason


@pytest.mark.parametrize(
    "change",
    [
        {"aud": ["wiki"]},
        {"aud": ["wiki", "other"], "azp": "wiki"},
        {"exp": int(NOW) - 29},
        {"iat": int(NOW) + 29},
        {"exp": float(int(NOW) + 300)},
        {"at_hash": None, "c_hash": None},
        {"auth_time": int(NOW) - 10_000},
    ],
)
def test_an_id_token_within_the_rules_passes(change: dict[str, Any]) -> None:
    check(changed(GOOD_ID, change), ID_TOKEN, EXPECTED)


def test_a_sign_in_older_than_max_age_is_refused() -> None:
    recent = replace(EXPECTED, oldest_login=NOW - 60)
    check(changed(GOOD_ID, {"auth_time": int(NOW) - 60}), ID_TOKEN, recent)
    for change in ({}, {"auth_time": int(NOW) - 91}):
        with pytest.raises(Refused) as caught:
            check(changed(GOOD_ID, change), ID_TOKEN, recent)
        assert caught.value.reason is Reason.STEP_UP_UNMET
        assert ("compare the clocks" in caught.value.detail) is bool(change)


def test_a_sign_in_without_a_nonce_of_its_own_accepts_no_token() -> None:
    with pytest.raises(Refused):
        check(changed(GOOD_ID, {"nonce": ""}), ID_TOKEN, replace(EXPECTED, nonce=""))


def test_a_table_without_checks_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="without checks"):
        check(changed(GOOD_ID, {}), (), EXPECTED)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists))
def test_t26_any_value_for_a_time_is_a_time_missing_or_refused(value: Any) -> None:
    try:
        found = time_claim({"exp": value}, "exp", NOW)
    except Refused:
        return
    assert found is None or (0 <= found <= NOW + 367 * 86400 and found == int(found))


# Where claims come from


@pytest.mark.parametrize(
    ("weaker", "stronger", "expected"),
    [
        ({"name": "A", "x": 1}, {"name": "B"}, {"name": "B", "x": 1}),
        ({"email": "a@x", "email_verified": True}, {"email": "b@x"}, {"email": "b@x"}),
        ({"email": "a@x", "email_verified": True}, {"email": "a@x"}, {"email": "a@x", "email_verified": True}),
        ({"email_verified": True}, {"email": "b@x"}, {"email": "b@x"}),
        ({"email": "b@x"}, {"email_verified": True}, {"email": "b@x"}),
        (
            {"email": "a@x", "email_verified": True},
            {"email": "b@x", "email_verified": False},
            {"email": "b@x", "email_verified": False},
        ),
    ],
)
def test_t33_one_source_never_vouches_for_the_address_of_another(
    weaker: dict[str, Any], stronger: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert merged(weaker, stronger) == expected


@pytest.mark.parametrize("address", ["boss@example.com", "", "ada@example.com.evil.example"])
def test_t33_a_verified_address_does_not_vouch_for_what_another_claim_says(address: str) -> None:
    claims = {"sub": "ada", "preferred_username": "ada", "email": "ada@example.com", "email_verified": True}
    by_upn = plan(email=Compiler().compile("{{ claims.upn }}"))
    assert identity_from("corp", "i", {**claims, "upn": address}, by_upn).email == ""
    assert identity_from("corp", "i", {**claims, "upn": "Ada@Example.com"}, by_upn).email == "Ada@example.com"
    assert identity_from("corp", "i", {**claims, "email": None, "upn": address}, by_upn).email == ""
    believed = plan(email=Compiler().compile("{{ claims.upn }}"), trust_email=True)
    assert identity_from("corp", "i", {**claims, "upn": "boss@example.com"}, believed).email == "boss@example.com"


def test_userinfo_is_needed_only_when_something_is_missing() -> None:
    whole = {"preferred_username": "a", "email": "a@x", "email_verified": True, "name": "A", "groups": []}
    assert not lacks_claims(whole, plan())
    for name in whole:
        assert lacks_claims({other: value for other, value in whole.items() if other != name}, plan())
    assert lacks_claims(whole, plan(claims=frozenset({"department"})))


def test_an_earlier_token_lends_no_groups_when_a_new_one_came() -> None:
    earlier = {"sub": "ada", "nonce": "n", "groups": ["staff"], "name": "Ada"}
    assert remembered(earlier, plan(), with_groups=True) == {"sub": "ada", "groups": ["staff"], "name": "Ada"}
    assert remembered(earlier, plan(), with_groups=False) == {"sub": "ada", "name": "Ada"}


# Small parts


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("https://id.example.com/a?b=c", True),
        ("https://[2001:db8::1]:8443/", True),
        ("http://localhost:4000", True),
        ("http://127.0.0.9/", True),
        ("http://[::1]:1/", True),
        ("http://id.example.com", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1@evil.example", False),
        ("https://user@id.example.com", False),
        ("https://id.example.com/#x", False),
        ("https://id.example.com:port", False),
        ("https:///path", False),
        ("ftp://localhost/", False),
        ("file:///etc/passwd", False),
        ("//id.example.com", False),
        ("https://id.example.com/\n", False),
        ("https://id.example.com/a b", False),
        ("https://exämple.com", False),
        ("", False),
        (None, False),
    ],
)
def test_only_https_and_this_machine_are_safe_addresses(text: object, safe: bool) -> None:
    assert is_safe_address(text) is safe


@pytest.mark.parametrize(
    "text", ["[]", "1", "null", '{"a":1,"a":2}', '{"a":NaN}', '{"a":-Infinity}', '{"a":1e400}', "{"]
)
def test_what_is_not_plain_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any ValueError is the promise
        parse_object(text)


def test_deep_nesting_and_huge_numbers_are_refused_without_a_crash() -> None:
    for text in ('{"a":' + "[" * 200_000, '{"a":' + "9" * 100_000 + "}"):
        with pytest.raises(ValueError):  # noqa: PT011 - as above
            parse_object(text)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none()))
def test_plain_objects_are_read_as_python_reads_them(value: dict[str, Any]) -> None:
    assert parse_object(json.dumps(value)) == value


def test_refusals_never_quote_the_token() -> None:
    secret = sign({"sub": "very-secret"}, crit=["x"])
    with pytest.raises(Refused) as caught:
        read_header(secret)
    assert not any(part in str(caught.value) for part in secret.split("."))

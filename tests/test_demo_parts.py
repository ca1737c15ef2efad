"""The demo's identity provider and legacy application, spoken to over real sockets."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from html import unescape
from http import HTTPStatus
from pathlib import Path
from re import findall, search
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import yaml
from aiohttp import ClientSession, CookieJar
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.jwk import KeySet
from yarl import URL

from sidecar.config.models import Config
from sidecar.config.values import Surroundings
from sidecar.core.template import Compiler
from sidecar.demo import PEOPLE, Demo, DemoClient, DemoPerson, DemoProvider, LegacyApp, settings, start
from sidecar.demo.authorization import ACR_SIMPLE, ACR_STRONG
from sidecar.demo.register import Register

CALLBACK = "http://127.0.0.1:1/-/callback/demo"
SIGNED_OUT = "http://127.0.0.1:1/-/signed-out"
TOKEN = "users-token"
CLIENTS = {
    "wiki": DemoClient("wiki:secret %", [CALLBACK, f"{CALLBACK}?tab=1"], [SIGNED_OUT], "the wiki"),
    "other": DemoClient("other-secret", [CALLBACK], [SIGNED_OUT]),
}
VERIFIER = "v" * 43


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[Demo]:
    running = await start(database=tmp_path / "legacy.db", api_token=TOKEN, clients=CLIENTS)
    yield running
    await running.stop()


@pytest.fixture
async def browser() -> AsyncIterator[ClientSession]:
    async with ClientSession(cookie_jar=CookieJar(unsafe=True), auto_decompress=True) as session:
        yield session


@dataclass
class Answer:
    status: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def sent_back(self) -> dict[str, str]:
        """The parameters of the redirect."""
        query = parse_qs(urlsplit(self.headers["Location"]).query)
        assert all(len(values) == 1 for values in query.values())
        return {name: values[0] for name, values in query.items()}

    @property
    def form_token(self) -> str:
        found = search(r'name="form_token" value="([^"]+)"', self.text)
        assert found
        return found[1]


async def call(session: ClientSession, method: str, url: str | URL, **options: Any) -> Answer:
    async with session.request(method, url, allow_redirects=False, **options) as response:
        return Answer(response.status, await response.text(), dict(response.headers))


def question(**changes: str | None) -> dict[str, str]:
    asked = {
        "client_id": "wiki",
        "redirect_uri": CALLBACK,
        "response_type": "code",
        "scope": "openid profile email",
        "state": "a&b",
        "nonce": "n-1",
        "code_challenge": create_s256_code_challenge(VERIFIER),
        "code_challenge_method": "S256",
        **changes,
    }
    return {name: value for name, value in asked.items() if value is not None}


async def choose(browser: ClientSession, demo: Demo, login: str, **changes: str) -> Answer:
    """Open the sign-in page and press somebody's button."""
    fields = {"login": login, **({"confirmed": changes.pop("confirmed")} if "confirmed" in changes else {})}
    page = await call(browser, "GET", f"{demo.issuer}/authorize", params=question(**changes))
    assert page.status == HTTPStatus.OK, page.headers
    action = search(r'action="([^"]+)"', page.text)
    assert action
    target = URL(demo.issuer).join(URL(unescape(action[1]), encoded=True))
    return await call(browser, "POST", target, data={**fields, "form_token": page.form_token})


async def exchange(browser: ClientSession, demo: Demo, code: str, **changes: str | None) -> Answer:
    sent = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        "client_id": "wiki",
        "client_secret": CLIENTS["wiki"].secret,
        **changes,
    }
    given = {name: value for name, value in sent.items() if value is not None}
    return await call(browser, "POST", f"{demo.issuer}/token", data=given)


async def tokens_of(browser: ClientSession, demo: Demo, login: str, **changes: str) -> dict[str, Any]:
    answer = await choose(browser, demo, login, **changes)
    return await json_of(await exchange(browser, demo, answer.sent_back["code"]))


async def json_of(answer: Answer) -> dict[str, Any]:
    loaded = yaml.safe_load(answer.text)
    assert isinstance(loaded, dict)
    return loaded


async def claims_of(browser: ClientSession, demo: Demo, id_token: str) -> dict[str, Any]:
    """Verify a token with the published keys."""
    async with browser.get(f"{demo.issuer}/jwks") as response:
        keys = KeySet.import_key_set(await response.json())
    return jwt.decode(id_token, keys, ["RS256"]).claims


async def refresh(browser: ClientSession, demo: Demo, token: str, client: str = "wiki") -> Answer:
    fields = {"grant_type": "refresh_token", "refresh_token": token}
    fields |= {"client_id": client, "client_secret": CLIENTS[client].secret}
    return await call(browser, "POST", f"{demo.issuer}/token", data=fields)


# --- the provider


async def test_the_discovery_document_names_the_issuer_it_was_found_at(browser: ClientSession, demo: Demo) -> None:
    async with browser.get(f"{demo.issuer}/.well-known/openid-configuration") as response:
        document = await response.json()
    assert document["issuer"] == demo.issuer
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["authorization_response_iss_parameter_supported"] is True


async def test_a_full_sign_in_tells_who_somebody_is(browser: ClientSession, demo: Demo) -> None:
    answer = await choose(browser, demo, "grace")
    assert answer.status == HTTPStatus.SEE_OTHER
    assert answer.sent_back["state"] == "a&b"
    assert answer.sent_back["iss"] == demo.issuer  # RFC 9207

    tokens = await json_of(await exchange(browser, demo, answer.sent_back["code"]))
    claims = await claims_of(browser, demo, tokens["id_token"])
    assert claims["iss"] == demo.issuer
    assert claims["aud"] == "wiki"
    assert claims["nonce"] == "n-1"
    assert claims["preferred_username"] == "grace"
    assert claims["email"] == "grace@example.com"
    assert claims["email_verified"] is True
    assert claims["groups"] == ["wiki-editors"]
    assert claims["acr"] == ACR_SIMPLE
    assert claims["exp"] > claims["iat"] >= claims["auth_time"]

    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    said = await json_of(await call(browser, "GET", f"{demo.issuer}/userinfo", headers=bearer))
    assert said["sub"] == claims["sub"] != "grace"
    assert said["name"] == "Grace Hopper"


async def test_scopes_that_were_not_asked_for_tell_nothing(browser: ClientSession, demo: Demo) -> None:
    tokens = await tokens_of(browser, demo, "ada", scope="openid")
    claims = await claims_of(browser, demo, tokens["id_token"])
    assert not {"email", "email_verified", "name", "preferred_username"} & claims.keys()


async def test_a_client_may_authenticate_with_basic(browser: ClientSession, demo: Demo) -> None:
    code = (await choose(browser, demo, "ada")).sent_back["code"]
    # RFC 6749 section 2.3.1: form-encoded before base64.
    encoded = aiohttp.encode_basic_auth("wiki", "wiki%3Asecret+%25")
    fields = {"grant_type": "authorization_code", "code": code}
    fields |= {"redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    answer = await call(browser, "POST", f"{demo.issuer}/token", data=fields, headers={"Authorization": encoded})
    assert answer.status == HTTPStatus.OK, answer.text


async def test_a_code_works_once_and_its_replay_takes_everything_back(browser: ClientSession, demo: Demo) -> None:
    code = (await choose(browser, demo, "ada")).sent_back["code"]
    tokens = await json_of(await exchange(browser, demo, code))
    replay = await exchange(browser, demo, code)
    assert (replay.status, (await json_of(replay))["error"]) == (HTTPStatus.BAD_REQUEST, "invalid_grant")

    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    answer = await call(browser, "GET", f"{demo.issuer}/userinfo", headers=bearer)
    assert answer.status == HTTPStatus.UNAUTHORIZED
    assert (await refresh(browser, demo, tokens["refresh_token"])).status == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"code_verifier": "short"}, "invalid_grant"),
        ({"code_verifier": None}, "invalid_request"),
        ({"redirect_uri": f"{CALLBACK}?tab=1"}, "invalid_grant"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"client_id": "other", "client_secret": "other-secret"}, "invalid_grant"),
        ({"client_secret": "wrong"}, "invalid_client"),
        ({"client_secret": None}, "invalid_client"),
        ({"client_id": "nobody"}, "invalid_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"code": "guessed"}, "invalid_grant"),
    ],
)
async def test_a_code_is_worth_nothing_to_whoever_did_not_ask_for_it(
    browser: ClientSession, demo: Demo, changes: dict[str, str | None], error: str
) -> None:
    code = (await choose(browser, demo, "ada")).sent_back["code"]
    answer = await exchange(browser, demo, **{"code": code, **changes})  # type: ignore[arg-type]
    status = HTTPStatus.UNAUTHORIZED if error == "invalid_client" else HTTPStatus.BAD_REQUEST
    assert (answer.status, (await json_of(answer))["error"]) == (status, error)
    assert "id_token" not in answer.text


async def test_a_wrong_verifier_uses_the_code_up(browser: ClientSession, demo: Demo) -> None:
    code = (await choose(browser, demo, "ada")).sent_back["code"]
    await exchange(browser, demo, code, code_verifier="w" * 43)
    assert (await exchange(browser, demo, code)).status == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize(
    "redirect_uri",
    [
        f"{CALLBACK}/",
        f"{CALLBACK}?x=1",
        CALLBACK.upper(),
        CALLBACK[:-1],
        "https://evil.example/-/callback/demo",
        "javascript:alert(1)",
        None,
    ],
)
async def test_a_wrong_redirect_uri_never_redirects(
    browser: ClientSession, demo: Demo, redirect_uri: str | None
) -> None:
    for changes in ({}, {"response_type": "token"}, {"prompt": "none"}):
        asked = question(redirect_uri=redirect_uri, **changes)
        answer = await call(browser, "GET", f"{demo.issuer}/authorize", params=asked)
        assert answer.status == HTTPStatus.BAD_REQUEST
        assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "invalid_request"),
        ({"scope": "profile"}, "invalid_scope"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"request": "e30.e30."}, "request_not_supported"),
        ({"response_mode": "fragment"}, "invalid_request"),
    ],
)
async def test_a_wrong_question_is_answered_to_the_client(
    browser: ClientSession, demo: Demo, changes: dict[str, str | None], error: str
) -> None:
    answer = await call(browser, "GET", f"{demo.issuer}/authorize", params=question(**changes))
    assert answer.headers["Location"].startswith(CALLBACK + "?")
    assert answer.sent_back["error"] == error
    assert answer.sent_back["state"] == "a&b"
    assert answer.sent_back["iss"] == demo.issuer


async def test_a_repeated_parameter_is_refused(browser: ClientSession, demo: Demo) -> None:
    asked = [*question().items(), ("nonce", "n-2")]
    answer = await call(browser, "GET", f"{demo.issuer}/authorize", params=asked)
    assert answer.sent_back["error"] == "invalid_request"


async def test_a_cancelled_sign_in_is_access_denied(browser: ClientSession, demo: Demo) -> None:
    assert (await choose(browser, demo, "")).sent_back["error"] == "access_denied"


async def test_whoever_is_signed_in_is_not_asked_again_unless_the_client_wants_it(
    browser: ClientSession, demo: Demo
) -> None:
    await choose(browser, demo, "ada")
    url = f"{demo.issuer}/authorize"
    for changes in ({}, {"prompt": "none"}, {"max_age": "1000"}):
        assert "code" in (await call(browser, "GET", url, params=question(**changes))).sent_back
    for changes in ({"prompt": "login"}, {"prompt": "select_account"}, {"max_age": "0"}):
        answer = await call(browser, "GET", url, params=question(**changes))
        assert "Ada Lovelace" in answer.text


def test_a_sign_in_grows_too_old() -> None:
    now = 1_000_000.0
    register = Register.of("http://127.0.0.1:9", CLIENTS, PEOPLE, lambda: now)
    name = register.sign_ins.put(register.sign_in("ada", ACR_SIMPLE))
    assert register.sign_ins.get(name)
    now += 8 * 3600
    assert register.sign_ins.get(name) is None


async def test_a_second_factor_is_claimed_only_when_it_was_confirmed(browser: ClientSession, demo: Demo) -> None:
    await choose(browser, demo, "ada")  # A simple sign-in does not satisfy the next question.
    without = await choose(browser, demo, "ada", acr_values=f"urn:unknown {ACR_STRONG}")
    tokens = await json_of(await exchange(browser, demo, without.sent_back["code"]))
    assert (await claims_of(browser, demo, tokens["id_token"]))["acr"] == ACR_SIMPLE
    confirmed = await choose(browser, demo, "ada", acr_values=ACR_STRONG, confirmed="yes")
    tokens = await json_of(await exchange(browser, demo, confirmed.sent_back["code"]))
    assert (await claims_of(browser, demo, tokens["id_token"]))["acr"] == ACR_STRONG


async def test_a_refresh_token_works_once_and_its_theft_is_noticed(browser: ClientSession, demo: Demo) -> None:
    first = await tokens_of(browser, demo, "ada")
    second = await json_of(await refresh(browser, demo, first["refresh_token"]))
    assert second["refresh_token"] != first["refresh_token"]
    assert "nonce" not in await claims_of(browser, demo, second["id_token"])
    stolen = await refresh(browser, demo, first["refresh_token"])
    assert (await json_of(stolen))["error"] == "invalid_grant"
    assert (await refresh(browser, demo, second["refresh_token"])).status == HTTPStatus.BAD_REQUEST


async def test_a_refresh_token_belongs_to_its_client(browser: ClientSession, demo: Demo) -> None:
    tokens = await tokens_of(browser, demo, "ada")
    answer = await refresh(browser, demo, tokens["refresh_token"], client="other")
    assert (await json_of(answer))["error"] == "invalid_grant"


async def test_signing_out_with_a_hint_ends_the_sign_in_and_returns(browser: ClientSession, demo: Demo) -> None:
    tokens = await tokens_of(browser, demo, "ada")
    asked = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": SIGNED_OUT, "state": "s"}
    answer = await call(browser, "GET", f"{demo.issuer}/end-session", params=asked)
    assert answer.headers["Location"] == f"{SIGNED_OUT}?state=s"
    again = await call(browser, "GET", f"{demo.issuer}/authorize", params=question(prompt="none"))
    assert again.sent_back["error"] == "login_required"
    assert (await refresh(browser, demo, tokens["refresh_token"])).status == HTTPStatus.BAD_REQUEST


async def test_signing_out_returns_only_to_registered_places(browser: ClientSession, demo: Demo) -> None:
    tokens = await tokens_of(browser, demo, "ada")
    for hint, target, status in (
        (tokens["id_token"], "https://evil.example/", HTTPStatus.BAD_REQUEST),
        ("forged", SIGNED_OUT, HTTPStatus.OK),  # It asks first.
    ):
        asked = {"id_token_hint": hint, "post_logout_redirect_uri": target}
        answer = await call(browser, "GET", f"{demo.issuer}/end-session", params=asked)
        assert answer.status == status
        assert "Location" not in answer.headers
    again = await call(browser, "GET", f"{demo.issuer}/authorize", params=question(prompt="none"))
    assert "code" in again.sent_back


async def test_signing_out_without_a_hint_asks_first(browser: ClientSession, demo: Demo) -> None:
    await choose(browser, demo, "ada")
    page = await call(browser, "GET", f"{demo.issuer}/end-session")
    assert "Ada Lovelace" in page.text
    done = await call(browser, "POST", f"{demo.issuer}/sign-out", data={"form_token": page.form_token})
    assert "You are signed out" in done.text
    again = await call(browser, "GET", f"{demo.issuer}/authorize", params=question(prompt="none"))
    assert again.sent_back["error"] == "login_required"


async def test_a_foreign_form_changes_nothing(browser: ClientSession, demo: Demo) -> None:
    fields = {"login": "mallory", "group": "wiki-admins"}
    for path, token in (("people", ""), ("people", "guessed"), ("sign-in", "guessed"), ("sign-out", "x")):
        answer = await call(
            browser, "POST", f"{demo.issuer}/{path}", data={**fields, "form_token": token}, params=question()
        )
        assert answer.status == HTTPStatus.FORBIDDEN
    claims = await claims_of(browser, demo, (await tokens_of(browser, demo, "mallory"))["id_token"])
    assert claims["groups"] == []


async def test_changed_groups_show_at_the_next_sign_in_and_refresh(browser: ClientSession, demo: Demo) -> None:
    before = await tokens_of(browser, demo, "alan")
    page = await call(browser, "GET", f"{demo.issuer}/people")
    fields = [("login", "alan"), ("group", "wiki-admins"), ("group", "wiki-readers"), ("group", "made-up")]
    fields.append(("form_token", page.form_token))
    answer = await call(browser, "POST", f"{demo.issuer}/people", data=fields)
    assert answer.status == HTTPStatus.SEE_OTHER
    for tokens in (
        await json_of(await refresh(browser, demo, before["refresh_token"])),
        await tokens_of(browser, demo, "alan", prompt="login"),
    ):
        claims = await claims_of(browser, demo, tokens["id_token"])
        assert claims["groups"] == ["wiki-admins", "wiki-readers"]


async def test_tokens_of_the_key_before_a_rotation_still_verify(browser: ClientSession, demo: Demo) -> None:
    old = (await tokens_of(browser, demo, "ada"))["id_token"]
    demo.provider.rotate_key()
    assert await claims_of(browser, demo, old)
    new = (await tokens_of(browser, demo, "ada", prompt="login"))["id_token"]
    assert await claims_of(browser, demo, new)
    assert (
        jwt.decode(new, KeySet.import_key_set(await keys(browser, demo)), ["RS256"]).header["kid"]
        != (jwt.decode(old, KeySet.import_key_set(await keys(browser, demo)), ["RS256"]).header["kid"])
    )


async def keys(browser: ClientSession, demo: Demo) -> Any:
    async with browser.get(f"{demo.issuer}/jwks") as response:
        return await response.json()


@pytest.mark.parametrize(
    "issuer", ["http://192.0.2.1:9000", "https://id.example.com", "http://0.0.0.0:9000", "http://127.0.0.1:9/"]
)
def test_the_provider_without_passwords_refuses_to_be_anywhere_but_here(issuer: str) -> None:
    with pytest.raises(ValueError, match="issuer"):
        DemoProvider(issuer, CLIENTS)


async def test_another_host_name_that_points_here_is_refused(browser: ClientSession, demo: Demo) -> None:
    answer = await call(browser, "GET", f"{demo.issuer}/people", headers={"Host": "evil.example"})
    assert answer.status == HTTPStatus.MISDIRECTED_REQUEST


async def test_the_pages_of_the_provider_escape_and_forbid_scripts(browser: ClientSession, tmp_path: Path) -> None:
    marked = DemoPerson("x", '<b>"X"</b>', '"><script>@example.com', ["<i>"])
    database = tmp_path / "legacy.db"
    demo = await start(database=database, api_token=TOKEN, clients=CLIENTS, people=[marked])
    try:
        asked = question(state='"><script>alert(1)</script>')
        for url, params in ((f"{demo.issuer}/authorize", asked), (f"{demo.issuer}/people", {"changed": "x"})):
            answer = await call(browser, "GET", url, params=params)
            assert answer.status == HTTPStatus.OK
            assert not findall("<script|<b>|<i>", answer.text)
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert answer.headers["Cache-Control"] == "no-store"
    finally:
        await demo.stop()


async def test_the_sign_in_form_may_be_redirected_to_the_client_and_nowhere_else(
    browser: ClientSession, demo: Demo
) -> None:
    answer = await call(browser, "GET", f"{demo.issuer}/authorize", params=question())
    assert "form-action 'self' http://127.0.0.1:1" in answer.headers["Content-Security-Policy"]


# --- the legacy application

API = {"Authorization": f"Bearer {TOKEN}"}


async def add(browser: ClientSession, demo: Demo, **values: object) -> Answer:
    return await call(browser, "POST", f"{demo.application_url}/api/users", json=values, headers=API)


async def test_somebody_without_an_account_is_refused_whatever_the_headers_say(
    browser: ClientSession, demo: Demo
) -> None:
    headers = {"X-Remote-User": "<i>ada", "X-Remote-Roles": "admin"}
    for path in ("/", "/notes", "/admin", "/events", "/ws"):
        answer = await call(browser, "GET", demo.application_url + path, headers=headers)
        assert answer.status == HTTPStatus.FORBIDDEN
        assert "No such account" in answer.text
        assert "<i>" not in answer.text


async def test_nobody_and_two_people_at_once_are_refused(browser: ClientSession, demo: Demo) -> None:
    two = [("X-Remote-User", "root"), ("X-Remote-User", "root")]
    for headers in ([], two, [("X-Remote-User", "jsmith")]):  # The last one's account is not active.
        answer = await call(browser, "GET", demo.application_url, headers=headers)
        assert answer.status == HTTPStatus.FORBIDDEN


async def test_somebody_with_an_account_sees_row_and_headers_without_markup_or_secrets(
    browser: ClientSession, demo: Demo
) -> None:
    await add(browser, demo, login="ada", full_name="<b>Ada</b>", role="editor")
    headers = {"X-Remote-User": "ada", "X-Remote-Name": "<script>alert('x')</script>", "Cookie": "a=secret"}
    answer = await call(browser, "GET", demo.application_url, headers=headers)
    assert answer.status == HTTPStatus.OK
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in answer.text
    assert "&lt;b&gt;Ada&lt;/b&gt;" in answer.text
    assert not findall("<script|<b>Ada", answer.text)
    assert "Cookie" in answer.text
    assert "secret" not in answer.text
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")


async def test_a_header_that_is_not_utf8_is_shown_and_not_a_crash(demo: Demo) -> None:
    host, port = urlsplit(demo.application_url).netloc.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Remote-User: root\r\nX-Name: \xff\xfe\r\n")
    writer.write(b"Connection: close\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


async def test_administration_needs_the_role_in_the_header_and_in_the_row(browser: ClientSession, demo: Demo) -> None:
    await add(browser, demo, login="grace", role="editor")
    url = f"{demo.application_url}/admin"
    for login, roles, status in (("root", "admin", 200), ("root", "reader", 403), ("grace", "admin", 403)):
        headers = {"X-Remote-User": login, "X-Remote-Roles": roles}
        assert (await call(browser, "GET", url, headers=headers)).status == status


async def test_editors_write_notes_and_readers_do_not(browser: ClientSession, demo: Demo) -> None:
    await add(browser, demo, login="grace", role="editor")
    await add(browser, demo, login="alan", role="reader")
    url = f"{demo.application_url}/notes"
    fields = {"text": "<em>first</em>\nsecond"}
    written = await call(browser, "POST", url, data=fields, headers={"X-Remote-User": "grace"})
    assert (written.status, written.headers["Location"]) == (HTTPStatus.SEE_OTHER, "/notes")
    refused = await call(browser, "POST", url, data=fields, headers={"X-Remote-User": "alan"})
    assert refused.status == HTTPStatus.FORBIDDEN
    assert refused.text.count("&lt;em&gt;first") == 1
    empty = await call(browser, "POST", url, data={"text": " "}, headers={"X-Remote-User": "grace"})
    assert empty.status == HTTPStatus.UNPROCESSABLE_ENTITY


async def test_the_user_api_creates_changes_finds_and_deletes(browser: ClientSession, demo: Demo) -> None:
    created = await add(browser, demo, login="ada", email="ada@example.com", role="admin")
    assert created.status == HTTPStatus.CREATED
    user = await json_of(created)
    one = demo.application_url + created.headers["Location"]
    changed = await call(browser, "PATCH", one, json={"active": False, "role": "reader"}, headers=API)
    assert await json_of(changed) == {**user, "active": False, "role": "reader"}
    found = await call(browser, "GET", f"{demo.application_url}/api/users?login=ada", headers=API)
    assert yaml.safe_load(found.text) == [{**user, "active": False, "role": "reader"}]
    assert "password" not in found.text
    assert (await call(browser, "DELETE", one, headers=API)).status == HTTPStatus.NO_CONTENT
    for method in ("DELETE", "PATCH"):
        assert (await call(browser, method, one, json={}, headers=API)).status == HTTPStatus.NOT_FOUND
    found = await call(browser, "GET", f"{demo.application_url}/api/users?login=ada", headers=API)
    assert yaml.safe_load(found.text) == []


async def test_a_second_user_of_the_same_login_is_a_conflict(browser: ClientSession, demo: Demo) -> None:
    await add(browser, demo, login="ada")
    assert (await add(browser, demo, login="ada")).status == HTTPStatus.CONFLICT


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"login": ""},
        {"login": 1},
        {"login": "\ud800"},
        {"login": "x", "role": "king"},
        {"login": "x", "active": 1},
        {"login": "x", "password_hash": "y"},
    ],
)
async def test_the_user_api_refuses_what_it_does_not_understand(
    browser: ClientSession, demo: Demo, values: dict[str, object]
) -> None:
    assert (await add(browser, demo, **values)).status == HTTPStatus.UNPROCESSABLE_ENTITY


async def test_the_user_api_needs_its_token(browser: ClientSession, demo: Demo) -> None:
    url = f"{demo.application_url}/api/users"
    for headers in ({}, {"Authorization": "Bearer "}, {"X-Remote-User": "root", "X-Remote-Roles": "admin"}):
        for method in ("GET", "POST"):
            answer = await call(browser, method, url, json={"login": "x"}, headers=headers)
            assert answer.status == HTTPStatus.UNAUTHORIZED


async def test_a_row_written_by_sql_is_an_account_at_once(browser: ClientSession, demo: Demo, tmp_path: Path) -> None:
    headers = {"X-Remote-User": "ada"}
    assert (await call(browser, "GET", demo.application_url, headers=headers)).status == HTTPStatus.FORBIDDEN
    with closing(sqlite3.connect(tmp_path / "legacy.db")) as connection, connection:
        connection.execute("INSERT INTO users (login) VALUES ('ada')")
    assert (await call(browser, "GET", demo.application_url, headers=headers)).status == HTTPStatus.OK


async def test_the_socket_echoes_and_the_events_end(browser: ClientSession, demo: Demo) -> None:
    headers = {"X-Remote-User": "root"}
    async with browser.ws_connect(f"{demo.application_url}/ws", headers=headers) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"
        await socket.send_bytes(b"\x00")
        assert await socket.receive_bytes() == b"\x00"
    answer = await call(browser, "GET", f"{demo.application_url}/events?count=1", headers=headers)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.text.count("event: tick") == 1


async def test_health_needs_nobody_and_sign_out_leads_away(browser: ClientSession, demo: Demo) -> None:
    assert (await call(browser, "GET", f"{demo.application_url}/health")).status == HTTPStatus.OK
    answer = await call(browser, "GET", f"{demo.application_url}/logout")
    assert answer.headers["Location"] == "/-/logout"


async def test_the_users_survive_a_restart(browser: ClientSession, tmp_path: Path) -> None:
    for status in (HTTPStatus.CREATED, HTTPStatus.CONFLICT):
        demo = await start(database=tmp_path / "legacy.db", api_token=TOKEN, clients=CLIENTS)
        assert (await add(browser, demo, login="ada")).status == status
        await demo.stop()


def test_an_empty_token_or_an_odd_sign_out_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="token"):
        LegacyApp(tmp_path / "legacy.db", "")
    with pytest.raises(ValueError, match="sign_out"):
        LegacyApp(tmp_path / "legacy.db", TOKEN, "javascript:alert(1)")


# --- the demo's configuration


def test_the_configuration_is_valid_and_reads_exactly_the_variables_that_the_demo_sets(tmp_path: Path) -> None:
    text = settings.CONFIGURATION.read_text(encoding="utf-8")
    assert yaml.safe_load(text)["logins"]["demo"]["client_id"] == settings.CLIENT_ID
    given = settings.environment(
        listen="127.0.0.1:8080",
        public_url="http://127.0.0.1:8080",
        issuer="http://127.0.0.1:9000/id",
        application_url="http://127.0.0.1:9001",
        client_secret="s",
        database=tmp_path / "legacy.db",
        directory=tmp_path / "directory.db",
    )
    assert set(findall(r"env: ([A-Z_]+)", text)) == set(given)
    around = Surroundings(tmp_path, given, Compiler())
    # BaseLoader, because `on` is a boolean in YAML 1.1.
    config = Config.model_validate(yaml.load(text, yaml.BaseLoader), context=around)  # noqa: S506 - texts only
    assert config.provision
    assert config.provision.account.protected == ("root",)
    assert given["DEMO_DATABASE"] == f"sqlite:///{os.fspath(tmp_path.resolve())}/legacy.db"

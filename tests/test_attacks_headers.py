"""Attacks on identity headers (T01-T10), sent to a running sidecar; what counts is what the application saw."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import KeySet
from yarl import URL

from tests.forger import Forger, running_forger
from tests.world import Browser, Running, World

FORTY_KILOBYTES = ["wiki-readers", *(f"group-{number:034}" for number in range(1000))]
SPELLINGS = ["X-App-User", "x-app-user", "X_App_User", "x-app_user", "X.App.User", "X-APP-USER", "x_app_user"]


async def entered(running: Running, forger: Forger, **claims: object) -> aiohttp.ClientResponse:
    """Sign in in a fresh browser with what the forger says; the page that comes then."""
    async with running.browser() as browser:
        begun = URL((await browser.page("/-/login")).headers["Location"])
        forger.nonce, forger.claims = begun.query["nonce"], claims
        await browser.page(f"/-/callback/corp?state={begun.query['state']}&code=c")
        answer = await browser.page("/")
        await answer.read()
        return answer


async def asked_with(running: Running, browser: Browser, *lines: str, target: str = "/") -> None:
    """Send a raw request with *lines* and this browser's session."""
    head = [f"GET {target} HTTP/1.1", f"Host: localhost:{running.port}", f"Cookie: sidecar={browser.cookie()}"]
    answer = await running.raw("\r\n".join([*head, *lines, "Connection: close", "", ""]).encode())
    assert b"200 OK" in answer.split(b"\r\n", 1)[0]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_t01_a_spoofed_identity_header_dies_in_every_spelling(world: World, spelling: str) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.sign_in("alan")
        await asked_with(running, browser, f"{spelling}: admin", f"{spelling}: root")
        # The short way of ordinary requests strips as well.
        for _ in range(2):
            assert (await browser.fetch("/", headers={spelling: "admin"})).status == 200
    for seen in running.application.seen:
        assert seen.careless("X-App-User") == ["alan"]


async def test_t02_a_header_whose_claim_is_absent_is_still_removed(world: World) -> None:
    running = await world({"headers": {"X-App-Phone": "{{ claims.phone_number }}"}})
    async with running.browser() as browser:
        await browser.sign_in("alan")
        await asked_with(running, browser, "X-App-Phone: 112", "X_App_Phone: 112")
    assert running.application.seen[-1].careless("X-App-Phone") == []


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
async def test_t03_identity_headers_are_stripped_on_public_paths_too(world: World, method: str) -> None:
    running = await world()
    async with running.browser() as browser:
        headers = {"X-App-User": "admin", "X_App_Roles": "admin", "X-Forwarded-User": "admin", "Remote-User": "admin"}
        assert (await browser.fetch("/public/x", method, headers=headers)).status == 200
        await browser.sign_in("ada")
        assert (await browser.fetch("/public/x", method, headers=headers)).status == 200
    for seen in (running.application.seen[0], running.application.seen[-1]):
        for name in ("X-App-User", "X-App-Roles", "X-Forwarded-User", "Remote-User"):
            assert seen.careless(name) == []


async def test_t03_whoever_gets_in_as_anyone_may_is_nobody_to_the_application(world: World) -> None:
    rule = {"path": "/**", "allow": [{"role": "admin"}, {"who": "anyone", "network": "127.0.0.0/8"}]}
    running = await world({"access": [rule]})
    async with running.browser() as browser:
        begun = await browser.follow(await browser.page("/-/login?to=/"))
        await browser.page((await browser.choose(begun, "alan")).headers["Location"])
        await asked_with(running, browser, "X-App-User: admin")
        # Once more on the short way of ordinary requests.
        for _ in range(2):
            assert (await browser.fetch("/", headers={"X-App-User": "admin"})).status == 200
    assert [value for seen in running.application.seen for value in seen.careless("X-App-User")] == []


async def test_t04_connection_cannot_name_our_headers_away(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.sign_in("alan")
        await asked_with(running, browser, "Connection: close, X-App-User, x-app-roles, X-Forwarded-For")
    seen = running.application.seen[-1]
    assert seen.values("X-App-User") == ["alan"]
    assert seen.values("X-App-Roles") == ["reader"]
    assert len(seen.values("X-Forwarded-For")) == 1


@pytest.mark.parametrize("name", ["a\r\nX-Admin: 1", "a\nX-Admin: 1", "a\rX-Admin: 1", "a\x00b", "a\x0bb"])
async def test_t05_control_characters_in_a_claim_never_make_a_second_header(world: World, name: str) -> None:
    running = await world()
    running.provider.change_name("alan", name)
    async with running.browser() as browser:
        answer = await browser.sign_in("alan")
        assert answer.status == 403
        assert "header-value" in await answer.text() or "identity-incomplete" in await answer.text()
    assert running.application.seen == []


async def test_t05_control_characters_in_any_claim_that_a_header_shows_are_refused(world: World) -> None:
    async with running_forger() as forger:
        running = await world({"headers": {"X-App-Phone": "{{ claims.phone }}"}}, issuer=forger.issuer)
        for phone in ("1\r\nX-Admin: 1", "1\nX-Admin: 1", "1\rX-Admin: 1", "1\x00", "1\x0b", "1\x7f", "1\t2"):
            answer = await entered(running, forger, groups=["wiki-readers"], phone=phone)
            assert (answer.status, "header-value" in await answer.text()) == (403, True), phone
    assert running.application.seen == []


async def test_t06_names_beyond_ascii_arrive_as_configured(world: World) -> None:
    running = await world({"headers": {"X-App-Percent": {"value": "{{ user.name }}", "encoding": "percent"}}})
    running.provider.change_name("alan", "Zoë Łódź")
    async with running.browser() as browser:
        assert (await browser.sign_in("alan")).status == 200
    seen = running.application.seen[-1]
    assert seen.values("X-App-Name") == ["Zoë Łódź"]
    assert seen.values("X-App-Percent") == ["Zo%C3%AB %C5%81%C3%B3d%C5%BA"]


async def test_t06_a_huge_list_of_groups_is_refused_by_name_and_not_cut(world: World) -> None:
    async with running_forger() as forger:
        running = await world({"headers": {"X-App-Groups": "{{ groups | join(',') }}"}}, issuer=forger.issuer)
        fitting = ["wiki-readers", *(f"a-group-with-a-long-name-{number:05}" for number in range(200))]
        assert (await entered(running, forger, groups=fitting)).status == 200
        assert running.application.seen.pop().values("X-App-Groups") == [",".join(fitting)]
        answer = await entered(running, forger, groups=FORTY_KILOBYTES)
        assert (answer.status, "header-value" in await answer.text()) == (403, True)
    assert running.application.seen == []
    assert any("X-App-Groups: longer than 8192 bytes" in line.get("detail", "") for line in running.audit())


@pytest.mark.parametrize(
    ("line", "separator"), [("{{ groups | join(',') }}", ","), ("{{ user.groups | map('lower') | join('; ') }}", ";")]
)
async def test_t06_a_group_with_the_separator_in_its_name_is_not_two_groups(
    world: World, line: str, separator: str
) -> None:
    async with running_forger() as forger:
        running = await world({"headers": {"X-App-Groups": line}}, issuer=forger.issuer)
        for own in (f"my{separator}wiki-admins", " wiki-admins", "wiki-admins\u00a0"):
            answer = await entered(running, forger, preferred_username="eve", groups=["wiki-readers", own])
            assert (answer.status, running.application.seen) == (403, [])
        assert any(line.get("detail", "").startswith("X-App-Groups: a value has ") for line in running.audit())
        answer = await entered(running, forger, preferred_username="ben", groups=["wiki-readers", "my wiki admins"])
        assert answer.status == 200


async def test_t06_an_assertion_that_is_too_large_is_refused_by_name(world: World) -> None:
    section = {"audience": "wiki", "key": {"env": "KEY"}, "claims": {"groups": "{{ groups }}"}}
    async with running_forger() as forger:
        running = await world({"assertion": section}, environment={"KEY": assertion_key()}, issuer=forger.issuer)
        assert (await entered(running, forger, groups=["wiki-readers"])).status == 200
        running.application.seen.clear()
        answer = await entered(running, forger, groups=FORTY_KILOBYTES)
        assert (answer.status, "header-value" in await answer.text()) == (403, True)
    assert running.application.seen == []
    assert any("X-Sidecar-Assertion: longer than" in line.get("detail", "") for line in running.audit())


FORWARDED = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Port", "1"),
    ("X-Real-IP", "6.6.6.6"),
    ("Forwarded", "for=6.6.6.6;host=evil.example"),
]


async def test_t07_forwarding_headers_from_a_stranger_are_replaced(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.sign_in("alan")
        lines = [f"{name}: {value}" for name, value in FORWARDED]
        await asked_with(
            running, browser, *lines, "X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-Forwarded-Uri: /a"
        )
    seen = running.application.seen[-1]
    assert seen.values("X-Forwarded-For") == ["127.0.0.1"]
    assert seen.values("X-Forwarded-Proto") == ["http"]
    assert seen.values("X-Forwarded-Host") == [f"localhost:{running.port}"]
    assert seen.values("X-Forwarded-Port") == [str(running.port)]
    assert "evil.example" not in str(seen.headers)
    assert "6.6.6.6" not in str(seen.headers)
    for name in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri"):
        assert seen.careless(name) == []


async def test_t07_a_trusted_proxy_is_believed_about_the_address_alone(world: World) -> None:
    running = await world({"server": {"trusted_proxies": ["127.0.0.1/32", "10.0.0.0/8"]}})
    async with running.browser() as browser:
        await browser.sign_in("alan")
        await asked_with(
            running, browser, "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.1.1.1", "X-Forwarded-Host: evil.example"
        )
    seen = running.application.seen[-1]
    assert seen.values("X-Forwarded-For") == ["203.0.113.9"]
    assert seen.values("X-Forwarded-Host") == [f"localhost:{running.port}"]


@pytest.mark.parametrize("agent", ["GoogleHC/1.0", "kube-probe/1.31", "", "ELB-HealthChecker/2.0"])
async def test_t08_no_user_agent_opens_a_path(world: World, agent: str) -> None:
    running = await world()
    async with running.browser() as browser:
        assert (await browser.fetch("/", headers={"User-Agent": agent})).status == 401
    assert running.application.seen == []


async def test_t09_our_cookies_never_reach_the_application(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.sign_in("alan")
        browser.http.cookie_jar.update_cookies({"theirs": "kept"})
        await browser.fetch("/")
    cookies = " ".join(running.application.seen[-1].values("Cookie"))
    assert "theirs=kept" in cookies
    assert "sidecar" not in cookies


async def test_t09_the_application_cannot_set_our_cookies(world: World) -> None:
    running = await world()

    async def answer(request: object) -> object:
        response = web.Response(text="x")
        response.headers.add("Set-Cookie", "sidecar=forged; Path=/")
        response.headers.add("Set-Cookie", "=sidecar=forged; Path=/")
        response.headers.add("Set-Cookie", "theirs=1; Path=/")
        return response

    running.application.answer = answer
    async with running.browser() as browser:
        await browser.sign_in("alan")
        response = await browser.fetch("/")
    assert response.headers.getall("Set-Cookie") == ["theirs=1; Path=/"]


def assertion_key() -> str:
    """PEM of a fresh key to sign assertions with."""
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key.decode()


async def test_t10_the_assertion_is_signed_short_lived_and_not_taken_back(world: World) -> None:
    changes = {
        "assertion": {"audience": "wiki", "key": {"env": "ASSERTION_KEY"}},
        "logins": {"corp": {"bearer": {"audience": "wiki", "types": ["at+jwt", "JWT", "sidecar-assertion+jwt"]}}},
        "access": [{"path": "/api/**", "allow": {"bearer": "corp"}}, {"path": "/**", "allow": "signed_in"}],
    }
    running = await world(changes, environment={"ASSERTION_KEY": assertion_key()})
    async with running.browser() as browser:
        await browser.sign_in("ada")
        jwks = await (await browser.fetch("/-/jwks.json")).json()
        [token] = running.application.seen[-1].values("X-Sidecar-Assertion")
        decoded = jwt.decode(token, KeySet.import_key_set(jwks), algorithms=["ES256"])
        claims = decoded.claims
        assert (claims["iss"], claims["aud"], claims["preferred_username"]) == (running.url, "wiki", "ada")
        assert 0 < claims["exp"] - claims["iat"] <= 300
        assert claims["jti"]
        assert "d" not in jwks["keys"][0]
    async with running.browser() as stranger:
        before = len(running.application.seen)
        answer = await stranger.fetch("/api/x", headers={"Authorization": f"Bearer {token}"})
        assert answer.status == 401
        assert len(running.application.seen) == before


async def test_t61_what_one_person_gets_from_the_application_never_reaches_the_next(world: World) -> None:
    running = await world()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.json_response({"said": request.headers.get("Cookie", "")})
        response.headers.add("Set-Cookie", f"app={request.headers['X-App-User']}; Path=/")
        return response

    running.application.answer = answer
    async with running.browser() as ada, running.browser() as alan:
        for browser, login in ((ada, "ada"), (alan, "alan")):
            assert (await (await browser.sign_in(login)).json())["said"] == ""
        for browser, login in ((ada, "ada"), (alan, "alan"), (ada, "ada")):
            assert (await (await browser.fetch("/again")).json())["said"] == f"app={login}"
    # All that came over the sidecar's few connections.
    assert {seen.values("X-App-User")[0] for seen in running.application.seen} == {"ada", "alan"}

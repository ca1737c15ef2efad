"""Attacks on forward-auth: through real front proxies, and as questions that no front proxy would ask."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.forger import Forger, running_forger, sign
from tests.fronts_world import FETCH, KINDS, PAGE, RULES, TOLD, Answer, Case, a_site, ask, sections
from tests.world import Running, World, free_port

QUESTION = {
    "X-Original-Method": "GET",
    "X-Original-URI": "/public/x",
    "X-Forwarded-Host": "localhost",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-For": "192.0.2.9",
}
# Header lines → whether a request with them may still reach the application; none of them is ever believed there.
FORGED = [
    ({"X-Remote-User": "root", "x-remote-ROLES": "admin"}, True),
    ({"X_Remote_User": "root"}, False),
    ({"X-Remote_User": "root", "X.Remote.User": "root"}, False),
    ({"X-Remote-Groups": "wiki-admins", "Remote-User": "root"}, False),
    ({"X-Forwarded-User": "root", "X-Auth-Request-User": "root"}, False),
    ({"X-HTTP-Method-Override": "DELETE"}, False),
    ({"X-Original-URL": "/admin/x"}, False),
    ({"X-Rewrite-URL": "/admin/x"}, False),
    ({"Connection": "close, X-Remote-User, X-Remote-Roles"}, True),
]
SPELT = ["x_remote_user", "x_remote_email", "x_remote_roles", "x_remote_groups", "remote_user", "x_forwarded_user"]
SPELT += ["x_auth_request_user", "x_http_method_override", "x_original_url", "x_rewrite_url"]
STRANGE = [
    "/public/../admin/x", "/public/%2e%2e/admin/x", "/public/..;/admin/x", "/public/..;a=b/admin/x", "//admin/x",
    "/public//../admin/x", "/public/..%2fadmin/x", "/public/..%5cadmin/x", "/public\\..\\admin/x", "/admin;x=1/y",
    "/public/%252e%252e/admin/x", "/public/./../admin/x", "/public/%2e/%2e%2e/admin/x", "/admin/x%00", "/%61dmin/x",
    "/public/%0d%0aX-Remote-User:root", "/admin/x?/public/x", "/admin/x#/public/x", "/public;/../admin/x",
    "/-/../admin/x", "/-/%2e%2e/admin/x", "/-/auth", "/-/auth/answer", "/-/%61uth", "/-/auth/public/x", "/-//auth",
    "/-/auth?x=/public/x", "/-/auth;a", "/x/../-/auth", "/admin/x\xff", "*", "http://evil.example/admin/x",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
async def test_t01_t07_t13_t18_nothing_that_is_forged_gets_past_a_front_proxy(
    world: World, tmp_path: Path, kind: str
) -> None:
    async with a_site(world, tmp_path, kind, "grace", "alan") as site:
        application = site.running.application
        for who in ("", "grace"):
            for lines, may_pass in FORGED:
                before = len(application.seen)
                target = "/page" if who else "/public/x"
                answer = await site.ask(Case(target, who, headers={**FETCH, **lines}))
                seen = application.seen[before:]
                # nginx itself leaves out names with _ and . in them, so that such a request is an ordinary one there.
                assert bool(seen) == (answer.status == 200), (lines, answer)
                assert seen or not may_pass, (lines, answer)
                for one in seen:
                    found = {name: "".join(one.careless(name)) for name in SPELT}
                    expected = {"x_remote_user": who, "x_remote_email": f"{who}@example.com" if who else ""}
                    expected |= {"x_remote_roles": "editor" if who else ""}
                    assert found == {name: expected.get(name, "") for name in SPELT}, lines
        before = len(application.seen)
        for who in ("", "alan", "grace"):
            for target in STRANGE:
                answer = await site.ask(Case(target, who, headers=PAGE if who == "alan" else FETCH))
                assert answer.status >= 300, (who, target, answer)
                assert not [name for name in TOLD if answer.values(name)], target
            asked = {"X-Forwarded-Uri": "/public/x", "X-Original-URI": "/public/x", "X-Forwarded-Host": "other.example"}
            asked |= {"X-Forwarded-Method": "OPTIONS", "X-Original-Method": "OPTIONS", "X-Forwarded-Proto": "https"}
            for target in ("/admin/x", "/-/auth", "/-/auth/answer"):
                answer = await site.ask(Case(target, who, headers={**FETCH, **asked}))
                assert answer.status >= 400, (who, target, answer)
            answer = await site.ask(Case("/lan/x", who, headers={**FETCH, "X-Forwarded-For": "203.0.113.7"}))
            assert answer.status in (401, 403), answer
        for method in ("TRACE", "TRACK", "CONNECT", "PROPFIND", "FOO"):
            answer = await site.ask(Case("/public/x", "", method))
            assert answer.status >= 400, (method, answer)
        assert application.seen[before:] == []
        allowed = [line for line in site.running.audit() if line["event"] == "decision" and line["effect"] == "allow"]
        assert not [line for line in allowed if line["path"].startswith(("/admin", "/lan", "/-"))]


# Questions by whoever can reach the sidecar


async def sidecar_for(world: World, kind: str, **changes: Any) -> Running:
    found = sections(kind)
    found["forward_auth"] = {**found["forward_auth"], **changes.pop("forward_auth", {})}
    return await world({"access": RULES, "server": {"trusted_proxies": ["127.0.0.1"]}, **found, **changes})


async def question(running: Running, headers: dict[str, str], target: str = "/-/auth") -> Answer:
    return await ask(running.url, Case(target, headers=headers))


async def test_t07_only_those_who_may_ask_get_a_decision(world: World) -> None:
    running = await sidecar_for(world, "nginx", forward_auth={"from": ["192.0.2.1"]})
    for target in ("/-/auth", "/-/auth/answer"):
        answer = await question(running, {**FETCH, **QUESTION}, target)
        assert (answer.status, answer.values("X-Secret")) == (403, [])
    assert {(line["effect"], line["reason"]) for line in running.audit() if line["event"] == "decision"} == {
        ("deny", "front-proxy-unknown")
    }
    # Nor is there anything to ask where nothing is said of front proxies.
    plain = await world()
    answer = await question(plain, {**FETCH, **QUESTION})
    assert (answer.status, answer.reason) == (404, "not-found")


async def test_t15_a_malformed_question_is_never_a_yes(world: World) -> None:
    running = await sidecar_for(world, "nginx")
    assert (await question(running, {**FETCH, **QUESTION})).status == 200
    cases: list[tuple[dict[str, str | None], str]] = [
        *[({name: None}, "headers-invalid") for name in QUESTION if name != "X-Forwarded-Proto"],
        *[({name: ""}, "headers-invalid") for name in QUESTION if name != "X-Forwarded-Proto"],
        *[({"X-Original-Method": text}, "headers-invalid") for text in ("GET POST", "GET/", "ä", "G" * 33)],
        *[({"X-Original-Method": text}, "method-refused") for text in ("TRACE", "CONNECT", "TRACK")],
        *[({"X-Original-URI": text}, "target-invalid") for text in ("public", "*", "http:///", "/p\xe4", "/%zz", "?x")],
        ({"X-Original-URI": "http://localhost/public/x"}, "target-invalid"),
        ({"X-Original-URI": "/public/" + "x" * 17000}, "target-invalid"),
        *[
            ({"X-Original-URI": text}, "path-ambiguous")
            for text in ("//public/x", "/public/../public/x", "/public%2fx")
        ],
        *[({"X-Original-URI": text}, "not-found") for text in ("/-/login", "/-", "/-/auth")],
        *[({"X-Forwarded-Host": text}, "host-unknown") for text in ("evil.example", "localhost/", "a@localhost")],
        *[({"X-Forwarded-Proto": text}, "headers-invalid") for text in ("ftp", "https,http", "://")],
        *[({"X-Forwarded-For": text}, "headers-invalid") for text in ("unknown", "192.0.2.9, ", "localhost")],
    ]
    for changes, reason in cases:
        headers = {name: value for name, value in {**FETCH, **QUESTION, **changes}.items() if value is not None}
        short = await question(running, headers)
        whole = await question(running, headers, "/-/auth/answer")
        assert (short.status, whole.reason) == (403, reason), (changes, short, whole)
        assert 400 <= whole.status < 500, changes
    for name in ("X-Original-Method", "X-Original-URI", "X-Forwarded-Host"):
        # aiohttp's client would join them; this one writes what it is given.
        twice = await question(running, {**FETCH, **QUESTION, f"{name}: /public/y\r\nX-Other": "x"})
        assert twice.status == 403, name
    envoy = await sidecar_for(world, "envoy")
    about = {**FETCH, "X-Forwarded-For": "192.0.2.9", "X-Forwarded-Proto": "http"}
    assert (await question(envoy, about, "/-/auth/public/x?y")).status == 200
    for rest in ("/", "", "//public/x", "/../public/x", "public/x", "?/public/x"):
        assert (await question(envoy, about, f"/-/auth{rest}")).status >= 400, rest
    assert (await question(envoy, FETCH, "/-/auth/public/x")).status == 400


async def test_nobody_gets_a_yes_for_a_tunnel_of_http_2(world: World) -> None:
    for kind in KINDS:
        running = await sidecar_for(world, kind)
        about = {**FETCH, **QUESTION, "X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/public/x"}
        if kind != "nginx":
            del about["X-Original-Method"], about["X-Original-URI"]
        target = "/-/auth/public/x" if kind == "envoy" else "/-/auth"
        for _ in range(3):
            assert (await question(running, about, target)).status == 200
            answer = await question(running, {**about, "HTTP2-Settings": "AAMAAABkAAQAAP__"}, target)
            assert answer.status == (403 if kind == "nginx" else 400), (kind, answer)


async def test_t16_a_malformed_cookie_is_answered_without_identity(world: World) -> None:
    running = await sidecar_for(world, "traefik")
    told = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/page", "X-Forwarded-Host": "localhost"}
    for cookie in ("x", "a" * 43, "\xe9" * 43, "A" * 42 + "=", '"' + "a" * 41 + '"', "../../etc/passwd"):
        headers = {**FETCH, **told, "X-Forwarded-For": "192.0.2.9", "Cookie": f"sidecar={cookie}"}
        answer = await question(running, headers)
        assert answer.status in (400, 401), answer
        assert not [name for name in TOLD if answer.values(name)]


@pytest.fixture
async def forger() -> AsyncIterator[Forger]:
    async with running_forger() as started:
        yield started


async def test_t25_tokens_for_others_open_nothing_and_good_ones_stay_here(world: World, forger: Forger) -> None:
    rules = [{"path": "/api/**", "allow": {"bearer": "corp"}}, {"path": "/**", "allow": "nobody"}]
    issuer = {"issuer": forger.issuer}
    changes = {"access": rules, "logins": {"corp": {"bearer": {"audience": "https://api"}}}}
    found = sections("traefik")
    running = await world({**found, **changes, "limits": {"bad_tokens": "off"}}, **issuer)
    told = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/api/x", "X-Forwarded-Host": "localhost"}
    now = int(world.clock())
    for claims, status in (
        ({}, 200),
        ({"aud": "https://other"}, 401),
        ({"aud": None}, 401),
        ({"iss": "https://evil.example"}, 401),
        ({"exp": now - 1000}, 401),
    ):
        standard = {"aud": "https://api", "client_id": "script", "jti": "j", "iat": now, "exp": now + 300}
        token = sign(forger.standard_claims(**{**standard, **claims}), typ="at+jwt")
        headers = {**FETCH, **told, "X-Forwarded-For": "192.0.2.9", "Authorization": f"Bearer {token}"}
        answer = await question(running, headers)
        assert answer.status == status, (claims, answer)
        assert answer.values("Authorization") == []
        assert answer.values("X-Remote-User") == (["ada"] if status == 200 else [])
        assert bool(answer.values("WWW-Authenticate")) == (status == 401)


async def test_what_the_application_is_told_travels_in_the_answer(world: World, tmp_path: Path) -> None:
    path = Path("/tmp") / f"sidecar-{free_port()}.sock"
    headers = {**sections("traefik")["headers"], "X-Proof": {"secret": {"env": "OIDC_SECRET"}}}
    changes = {"server": {"listen": f"unix:{path}"}, "forward_auth": {"dialect": "traefik", "from": "unix"}}
    await world({"access": RULES, **changes, "headers": headers})
    told = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/public/x", "X-Forwarded-Host": "localhost"}
    cookies = "app=1; sidecar=x; sidecar-browser=y; other=2"
    lines = {
        **FETCH,
        **told,
        "X-Forwarded-For": "10.0.0.1, 192.0.2.9",
        "Cookie": cookies,
        "Authorization": "Basic eDp5",
    }
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http,
            http.get("http://sidecar/-/auth", headers=lines) as answer,
        ):
            assert answer.status == 200
            assert answer.headers["X-Proof"] == "a client secret"
            assert [part.strip() for part in answer.headers["Cookie"].split(";")] == ["app=1", "other=2"]
            assert answer.headers["Authorization"] == "Basic eDp5"
            assert "X-Remote-User" not in answer.headers
        lan = {**lines, "X-Forwarded-Uri": "/lan/x"}
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http,
            http.get("http://sidecar/-/auth", headers={**lan, "X-Forwarded-For": "192.0.2.9, 203.0.113.7"}) as near,
            http.get("http://sidecar/-/auth", headers={**lan, "X-Forwarded-For": "203.0.113.7, 192.0.2.9"}) as far,
        ):
            assert (near.status, far.status) == (200, 403)
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["10.0.0.5", "127.0.0.1"])
async def test_the_name_that_a_client_gives_its_unix_socket_is_no_address(
    world: World, tmp_path: Path, name: str
) -> None:
    path = Path("/tmp") / f"sidecar-{free_port()}.sock"
    rules = [{"path": "/near/**", "allow": {"who": "anyone", "network": ["10.0.0.0/8", "127.0.0.0/8"]}}, *RULES]
    running = await world({"access": rules, "server": {"listen": f"unix:{path}"}})
    with socket.socket(socket.AF_UNIX) as one:
        with contextlib.chdir(tmp_path):
            one.bind(name)
        one.connect(str(path))
        path.unlink()
        one.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=one)
        writer.write(b"GET /near/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 403 "), answer
    assert running.application.seen == []


@pytest.mark.parametrize("dialect", ["traefik", "caddy"])
async def test_cookies_that_the_application_set_for_somebody_else_are_not_given_back(
    world: World, dialect: str
) -> None:
    running = await world({"access": RULES, "server": {"trusted_proxies": ["127.0.0.1"]}, **sections(dialect)})
    kept = "app_session=of-ada; lang=de"
    async with running.browser() as browser:
        await browser.sign_in("ada", "/-/login?to=/public/x")
        browser.forget_provider()
        browser.http.cookie_jar.update_cookies({"app_session": "of-ada", "lang": "de"}, browser._url("/"))
        back = await browser.choose(await browser.at_provider("/-/login?to=/public/x&with=corp"), "grace")
        await browser.page(back.headers["Location"])
        token = browser.cookie()
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
            told = {"X-Forwarded-Method": "GET", "X-Forwarded-Host": "localhost", "X-Forwarded-For": "192.0.2.9"}
            for more, given in (("", ""), ("; lang=fr", "lang=fr"), ("; app_session=of-grace", "app_session=of-grace")):
                lines = {**told, "X-Forwarded-Uri": "/page", "Cookie": f"sidecar={token}; {kept}{more}"}
                for _ in range(3):
                    answer = await http.get(f"{running.url}/-/auth", headers=lines)
                    assert answer.status == 200
                    assert answer.headers["X-Remote-User"] == "grace"
                    assert answer.headers.get("Cookie", "") == given
            # Nobody else's cookies are cut.
            ada = {"X-Forwarded-Uri": "/public/x", "Cookie": f"{kept}; lang=fr"}
            answer = await http.get(f"{running.url}/-/auth", headers={**told, **ada})
            assert answer.headers["Cookie"] == f"{kept}; lang=fr"


async def test_a_websocket_over_http_2_is_for_pages_from_here_too(world: World) -> None:
    running = await sidecar_for(world, "haproxy")
    async with running.browser() as browser:
        await browser.sign_in("grace", "/page")
        # RFC 8441: neither a key nor Upgrade.
        told = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/page", "X-Forwarded-Host": "localhost"}
        told |= {"X-Forwarded-For": "192.0.2.9", "Cookie": f"sidecar={browser.cookie()}", "Sec-WebSocket-Version": "13"}
        for _ in range(3):
            ours = await question(running, {**told, "Origin": running.url})
            assert (ours.status, ours.reason) == (200, ""), ours
            strange = await question(running, {**told, "Origin": "https://evil.example"})
            assert (strange.status, strange.reason) == (403, "origin-foreign"), strange


async def test_both_questions_about_a_request_have_one_reference(world: World, tmp_path: Path) -> None:
    async with a_site(world, tmp_path, "nginx", "grace") as site:
        page = await site.ask(Case("/admin/x", "grace", headers=PAGE))
        assert page.status == 403
        lines = [line for line in site.running.audit() if line.get("path") == "/admin/x"]
        assert len(lines) == 2
        assert {line["reference"] for line in lines} == {lines[0]["reference"]}
        assert lines[0]["reference"] in page.text
        # Asked for a refusal of what may pass, it lets nothing pass either.
        about = {**FETCH, **QUESTION}
        assert (await question(site.running, about)).status == 200
        assert (await question(site.running, about, "/-/auth/answer")).status == 503


async def test_nobody_gets_a_yes_that_cannot_be_written_down(world: World) -> None:
    running = await sidecar_for(world, "nginx", audit={"on_failure": "refuse"})
    about = {**FETCH, **QUESTION}
    assert (await question(running, about)).status == 200
    async with running.full_disk():
        assert (await question(running, about)).status == 403
        whole = await question(running, about, "/-/auth/answer")
        assert (whole.status, whole.reason) == (503, "audit-unavailable")


async def test_t59_a_line_names_the_method_that_was_asked_for_whatever_came_before(world: World) -> None:
    running = await sidecar_for(world, "nginx")
    methods = ["GET", "DELETE", "POST", "GET", "PUT"]
    async with running.browser() as browser:
        await browser.sign_in("grace", "/page")
        cookie = browser.cookie()
        before = len(running.audit())
        for method in methods:
            asked = {**QUESTION, "X-Original-Method": method, "X-Original-URI": "/page", "Cookie": f"sidecar={cookie}"}
            assert (await question(running, {**FETCH, **asked})).status == 200
    told = [line["method"] for line in running.audit()[before:] if line["event"] == "decision"]
    assert told == methods

"""Front proxies that ask get the gate's decision: the same requests through each of them, and through the gate."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest

from tests import test_engines_cedar
from tests.fronts_world import FETCH, KINDS, PAGE, TOLD, Case, a_site, ask
from tests.services.fronts import Places, front
from tests.test_journey import users_of
from tests.world import World, free_port

SAME = [
    *[Case(target) for target in ("/health", "/public/x?y=/admin", "/page", "/admin/x", "/closed/x", "/strong/x")],
    *[Case(target, headers=PAGE) for target in ("/page?a=b&c=%2F%20", "/admin/x", "/closed/x", "/strong/x", "/lan/x")],
    *[Case(target, "ada", headers=PAGE) for target in ("/page", "/admin/x?y=1", "/strong/x", "/closed/x", "/save/1")],
    *[Case(target, "ada") for target in ("/", "/page", "/admin/x", "/strong/x", "/public/x", "/here/x", "/lan/x")],
    *[Case(target, "grace", headers=PAGE) for target in ("/page", "/admin/x", "/%61dmin/x", "/admin", "/ADMIN/x")],
    *[Case(target, "grace") for target in ("/admin/x", "/admin;a=b/x", "/caf%C3%A9", "/page;v=1?q=a+b", "/x%20y")],
    *[Case("/page", who, headers=PAGE) for who in ("mallory", "alan")],
    *[Case("/save/1", who, method) for who in ("", "grace") for method in ("HEAD", "OPTIONS", "PUT", "DELETE")],
    *[Case("/page", who, method) for who in ("", "grace") for method in ("HEAD", "OPTIONS", "PATCH", "PROPFIND")],
    *[Case("/public/x", method=method) for method in ("HEAD", "OPTIONS", "PROPFIND")],
    Case("/save/1", "grace", "POST", body=b"text=hello"),
    Case("/save/1", "", "POST", body=b"text=hello"),
    Case("/save/1", "", "POST", PAGE, b"text=hello"),
    Case("/save/1", "mallory", "POST", PAGE, b"text=hello"),
    Case("/page", "ada", headers={**FETCH, "Upgrade-Insecure-Requests": "1", "X-Requested-With": "XMLHttpRequest"}),
    Case("/page?x=" + "y" * 3000, "ada"),
]


@pytest.mark.parametrize("kind", KINDS)
async def test_each_front_proxy_lets_pass_and_says_what_the_gate_does(world: World, tmp_path: Path, kind: str) -> None:
    async with a_site(world, tmp_path, kind, "ada", "grace", "mallory", "alan") as site:
        kinds = set()
        for case in SAME:
            there, seen = await site.seen(site.front, case)
            here, expected = await site.seen(site.running.url, case)
            if case.method != "HEAD":
                assert there.told == here.told, case
            assert there.status == here.status or there.told == ("sign in first",), case
            kinds.add((there.status, there.reason))
            assert len(seen) == len(expected) <= 1, (str(case), there)
            for one, other in zip(seen, expected, strict=True):
                assert (one.method, one.target, one.body) == (other.method, other.target, other.body), str(case)
                for name in TOLD:
                    assert "".join(one.careless(name)) == "".join(other.careless(name)), (str(case), name)
                assert "sidecar" not in "".join(one.values("Cookie")), str(case)
        assert len(kinds) >= 6, kinds
        assert {"ada", "grace"} <= {line.get("person") for line in site.running.audit()}


@pytest.mark.parametrize("kind", KINDS)
async def test_people_sign_in_step_up_and_sign_out_through_each_front_proxy(
    world: World, tmp_path: Path, kind: str
) -> None:
    async with a_site(world, tmp_path, kind, "ada", "mallory") as site:
        # Whoever may not enter gets no account; the others have theirs before the application sees them.
        assert [row[0] for row in users_of(tmp_path / f"{kind}.db")] == ["ada", "root"]
        browser = site.browsers[0]
        stronger = await browser.page("/strong/x")
        assert stronger.status == 302
        assert stronger.headers["Location"].startswith(f"{site.front}/-/login?to=/strong/x")
        assert (await browser.page("/-/me")).status == 200
        refused = await browser.page("/closed/x")
        assert (refused.status, "rule-denies" in await refused.text()) == (403, True)
        style = await browser.fetch("/-/style.css")
        assert style.status == 200
        out = await browser.follow(await browser.page("/-/logout"))
        assert (out.status, "signed-out" in str(out.url)) == (200, True)
        assert (await browser.fetch("/page")).status == 401


@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_says_what_is_down_through_each_front_proxy(world: World, tmp_path: Path, kind: str) -> None:
    async with a_site(world, tmp_path, kind, "ada", changes={"limits": {"requests": "40/1h"}}) as site:
        before = len(site.running.application.seen)
        # Somebody whose account was never made.
        (tmp_path / f"{kind}.db").write_bytes(b"no database")
        await site.sign_in("grace")
        down = await site.ask(Case("/page", "grace", headers=PAGE))
        # Envoy has no page for what the sidecar answers with 5xx.
        assert (down.status, down.reason) == (503, "provisioning-unavailable" if kind != "envoy" else ""), down
        assert len(site.running.application.seen) == before
        statuses = [(await site.ask(Case("/page"))).status for _ in range(45)]
        assert (statuses[0], statuses[-1]) == (401, 429)
        assert len(site.running.application.seen) == before


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_passes_while_the_sidecar_is_gone(world: World, kind: str) -> None:
    application = await world.application()
    port = free_port()
    started = await front(kind, Places(port, free_port(), application.port)).start()
    try:
        for target in ("/page", "/-/login"):
            assert (await ask(f"http://localhost:{port}", Case(target, headers=PAGE))).status >= 500
    finally:
        await started.stop()
    assert not application.seen


# Traefik waits for 30 seconds, whatever is configured.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "traefik"])
async def test_nothing_passes_while_the_sidecar_does_not_answer(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_is = Places.example
    monkeypatch.setattr(
        Places, "example", lambda self, name: as_it_is(self, name).replace("10s", "1s").replace("10000", "1000")
    )
    application = await world.application()
    places = Places(free_port(), free_port(), application.port)
    started = await front(kind, places).start()
    try:
        # Connections come about, and nobody takes them.
        with socket.create_server(("127.0.0.1", places.sidecar)):
            answer = await ask(f"http://localhost:{places.front}", Case("/page", headers=PAGE))
        assert answer.status in (503, 504), answer
    finally:
        await started.stop()
    assert not application.seen


def handshake(origin: str) -> dict[str, str]:
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
    return {"Origin": origin, "Upgrade": "websocket", **key}


@pytest.mark.parametrize("kind", KINDS)
async def test_web_sockets_are_for_people_and_pages_from_here(world: World, tmp_path: Path, kind: str) -> None:
    async with a_site(world, tmp_path, kind, "ada") as site:
        before = len(site.running.application.seen)
        foreign = await site.ask(Case("/page", "ada", headers=handshake("https://evil.example")))
        assert (foreign.status, foreign.reason) == (403, "origin-foreign")
        stranger = await site.ask(Case("/page", headers=handshake(site.front)))
        assert (stranger.status, stranger.reason) == (401, "not-signed-in")
        assert len(site.running.application.seen) == before
        headers = {"Cookie": site.cookies["ada"], "Origin": site.front}
        async with (
            aiohttp.ClientSession() as http,
            asyncio.timeout(10),
            http.ws_connect(f"{site.front}/page", headers=headers) as connection,
        ):
            await connection.send_str("hello")
            assert await connection.receive_str() == "echo hello"
        assert site.running.application.seen[-1].values("X-Remote-User") == ["ada"]


async def test_an_engine_that_a_rule_names_is_asked_for_front_proxies_too(world: World, tmp_path: Path) -> None:
    changes = {"access": test_engines_cedar.RULES, "engines": {"it": test_engines_cedar.files(tmp_path)}}
    async with a_site(world, tmp_path, "caddy", "grace", "mallory", changes=changes) as site:
        for case, status in (
            (Case("/folders/new", "grace"), 200),
            (Case("/folders/2019", "grace", "POST"), 403),
            (Case("/folders/new", "mallory"), 403),
        ):
            there, seen = await site.seen(site.front, case)
            here, expected = await site.seen(site.running.url, case)
            assert (there.status, len(seen)) == (status, int(status == 200)), case
            assert (there.told, len(seen)) == (here.told, len(expected)), case

"""Attacks on what a front proxy passes on by itself: what the application believes, whose host it is, and tunnels."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sidecar.core import dialects, headers
from tests.fronts_world import FETCH, KINDS, PAGE, TOLD, Case, a_site
from tests.world import World

FORGED = "203.0.113.66"
# All that the sidecar takes out where it carries the requests itself, and may not refuse: it may be of another proxy.
OF_PROXIES = sorted(dialects._OF_PROXIES - {name.replace("_", "-") for name in headers._HOP_BY_HOP} - {"host"})
OF_QUESTIONS = ["X-Original-Method", "X-Original-URI"]
UPGRADE = {"HTTP2-Settings": "AAMAAABkAAQAAP__", "Connection": "Upgrade, HTTP2-Settings"}


@pytest.mark.parametrize("kind", KINDS)
async def test_t07_the_application_hears_nothing_of_a_connection_that_a_stranger_wrote(
    world: World, tmp_path: Path, kind: str
) -> None:
    async with a_site(world, tmp_path, kind, "grace") as site:
        names = [*OF_PROXIES, *(OF_QUESTIONS if kind == "nginx" else [])]
        for who, target in (("", "/public/x"), ("grace", "/page")):
            _, seen = await site.seen(site.front, Case(target, who, headers=dict.fromkeys(names, FORGED)))
            assert [line for line in seen[0].headers if FORGED in line[1]] == []
            assert seen[0].values("X-Forwarded-For") == ["127.0.0.1"]
            assert seen[0].values("X-Forwarded-Proto") == ["http"]
            # nginx leaves out the port.
            assert seen[0].values("X-Forwarded-Host")[0] in (urlsplit(site.front).netloc, "localhost")


@pytest.mark.parametrize("kind", KINDS)
async def test_t04_no_header_is_taken_out_further_on_because_a_browser_says_so(
    world: World, tmp_path: Path, kind: str
) -> None:
    async with a_site(world, tmp_path, kind, "grace") as site:
        named = ", ".join(["close", *TOLD, "X-Forwarded-For", "Cookie"])
        answer, seen = await site.seen(site.front, Case("/page", "grace", headers={**FETCH, "Connection": named}))
        # Envoy refuses it whole, and Traefik takes out the cookie, before anybody is asked.
        assert answer.status == {"envoy": 400, "traefik": 401}.get(kind, 200), answer
        assert bool(seen) == (answer.status == 200)
        for one in seen:
            assert "".join(one.values("Connection")).lower() in ("", "close", "keep-alive")
            assert one.values("X-Remote-User") == ["grace"]


@pytest.mark.parametrize("kind", KINDS)
async def test_no_tunnel_begins_but_a_websocket(world: World, tmp_path: Path, kind: str) -> None:
    async with a_site(world, tmp_path, kind, "grace") as site:
        twice = ("h2c\r\nUpgrade: websocket", "websocket\r\nUpgrade: h2c")
        for protocol in ("h2c", "H2C", "h2c, websocket", "websocket, h2c", *twice):
            for more in (UPGRADE, {"Connection": "Upgrade"}):
                lines = {**FETCH, "Upgrade": protocol, **more}
                answer, seen = await site.seen(site.front, Case("/public/x", headers=lines))
                assert answer.status in (200, 400, 403), (protocol, answer)
                assert all(one.values("Upgrade") in ([], ["websocket"]) for one in seen), (protocol, seen)
                assert not any(one.values("HTTP2-Settings") for one in seen), (protocol, seen)


@pytest.mark.parametrize("kind", KINDS)
async def test_t20_no_front_proxy_is_asked_for_another_host(world: World, tmp_path: Path, kind: str) -> None:
    async with a_site(world, tmp_path, kind) as site:
        ours, strange = urlsplit(site.front).netloc, "evil.example"
        hosts = [strange, f"localhost.{strange}", f"localhost@{strange}", f"{strange}#localhost", ""]
        hosts += [f"{strange}, {ours}", f"{ours}, {strange}", f"{strange},{ours}", f"{ours}\r\n {strange}", f"x@{ours}"]
        hosts += [f"{ours}\r\nHost: {strange}", f"{strange}\r\nHost: {ours}", f"{ours}/{strange}", f"{strange}:80"]
        for target in ("/page", "/public/x"):
            for host in hosts:
                answer = await site.ask(Case(target, headers=PAGE, host=host))
                # Traefik and Envoy know by themselves which host they serve.
                assert answer.status in (400, 404, 421), (host, answer)
                assert not answer.values("Location"), host
        for target in ("/page?to=//evil.example", "/page;@evil.example", "/@evil.example/x"):
            answer = await site.ask(Case(target, headers=PAGE))
            assert answer.one("Location").startswith(f"{site.front}/-/login?to=/")
        assert site.running.application.seen == []
        # A dot at the end, capitals, and an address in the place of the path: it is ours, or it is refused.
        for target, host in (
            ("/public/x", "localhost."),
            ("/public/x", ours.upper()),
            (f"http://{ours}/public/x", ours),
        ):
            answer, seen = await site.seen(site.front, Case(target, host=host))
            assert answer.status in (200, 400, 404, 421), (target, host, answer)
            assert [(one.target, urlsplit(f"//{one.values('Host')[0]}").hostname) for one in seen] in (
                [],
                [("/public/x", "localhost")],
                [("/public/x", "localhost.")],
            )


@pytest.mark.parametrize("kind", KINDS)
async def test_cookies_in_two_lines_arrive_all(world: World, tmp_path: Path, kind: str) -> None:
    async with a_site(world, tmp_path, kind) as site:
        lines = {**FETCH, "Cookie": "a=1\r\nCookie: b=2; sidecar=x; c=3"}
        for _ in range(3):
            _, seen = await site.seen(site.front, Case("/public/x", headers=lines))
            # What Envoy asks about is joined with a comma.
            joined = "a=1,b=2; c=3" if kind == "envoy" else "a=1; b=2; c=3"
            assert [one.values("Cookie") for one in seen] == [[joined]]


@pytest.mark.parametrize("kind", KINDS)
async def test_large_and_slow_to_begin_bodies_and_long_lines_pass_whole(
    world: World, tmp_path: Path, kind: str
) -> None:
    async with a_site(world, tmp_path, kind, "grace") as site:
        whole = b"0123456789abcdef" * 40_000
        for lines in ({}, {"Expect": "100-continue"}):
            answer, seen = await site.seen(
                site.front, Case("/save/1", "grace", "POST", headers={**FETCH, **lines}, body=whole)
            )
            assert (answer.status, [one.body == whole for one in seen]) == (200, [True]), (lines, answer)
        long = Case("/page?x=" + "y" * 4000, "grace", headers={**FETCH, "X-Long": "z" * 4000})
        answer, seen = await site.seen(site.front, long)
        assert (answer.status, [one.target for one in seen]) == (200, [long.target])
        assert seen[0].values("X-Long") == ["z" * 4000]
        # The sidecar's answer has these, too: what it gives back, and where to sign in.
        for name, value in (("Cookie", "app=" + "c" * 7000), ("Authorization", "Basic " + "c" * 7000)):
            answer, seen = await site.seen(site.front, Case("/public/x", headers={**FETCH, name: value}))
            assert (answer.status, [one.values(name) for one in seen]) == (200, [[value]]), (name, answer)
        stranger = await site.ask(Case("/page?x=" + "y" * 7000, headers=PAGE))
        assert stranger.one("Location").endswith("y" * 7000), stranger.status
        refused = await site.ask(Case("/admin/x?x=" + "y" * 4000, "grace", headers=PAGE))
        assert (refused.status, refused.reason) == (403, "role-missing"), refused

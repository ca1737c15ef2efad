"""Emergency accounts: they let in whom they should, loudly, and give nobody else anything to work with."""

from __future__ import annotations

import asyncio
import re
import statistics
import subprocess
import sys
import time
from html import unescape
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import aiohttp
import pytest
from aiohttp import web

from sidecar.core.totp import totp_code, totp_key
from sidecar.faults import Unavailable
from sidecar.portal.vetting import Vetting, hashed
from tests.services.process import free_port
from tests.services.redis import RedisServers
from tests.test_outages import switched
from tests.world import Browser, Running, World, until

PASSWORD = "correct horse battery staple 42"
HASH = hashed(PASSWORD)
TOTP = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


def glass(account: dict[str, Any] | None = None, **section: Any) -> dict[str, Any]:
    """Configuration with the emergency account ``ops``."""
    ops = {"hash": HASH, "groups": ["wiki-admins"], "email": "ops@example.com", **(account or {})}
    return {"break_glass": {"accounts": {"ops": ops}, "networks": ["127.0.0.0/8"], **section}}


async def form(browser: Browser, to: str = "/") -> dict[str, str]:
    """Hidden fields of the form."""
    page = await browser.page(f"/-/break-glass?to={quote(to)}")
    assert page.status == 200, await page.text()
    return fields(await page.text())


def fields(text: str) -> dict[str, str]:
    found = re.search(r'name="state" value="([^"]+)"', text)
    assert found is not None
    return {"state": found[1]}


async def send(
    browser: Browser, hidden: dict[str, str], password: str = PASSWORD, name: str = "ops", **more: Any
) -> aiohttp.ClientResponse:
    data = {**hidden, "username": name, "password": password, **more.pop("fields", {})}
    return await browser.page("/-/break-glass", "POST", data=data, **more)


async def enter(browser: Browser, to: str = "/", **more: Any) -> aiohttp.ClientResponse:
    return await send(browser, await form(browser, to), **more)


def events(running: Running, name: str) -> list[dict[str, Any]]:
    return [line for line in running.audit() if line["event"] == name]


async def test_without_the_section_there_is_nothing(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        assert (await browser.page("/-/break-glass")).status == 404
        assert (await browser.page("/-/break-glass", "POST", data={"username": "ops"})).status == 404


async def test_an_emergency_account_gets_in_with_the_roles_of_its_groups_and_loudly(world: World) -> None:
    running = await world(glass())
    async with running.browser() as browser:
        answer = await enter(browser, "/admin/x")
        assert (answer.status, answer.headers["Location"]) == (303, "/admin/x")
        assert (await browser.page("/admin/x")).status == 200
        seen = running.application.seen[-1]
        assert (seen.values("X-App-User"), seen.values("X-App-Roles")) == (["ops"], ["admin"])
        me = await (await browser.fetch("/-/me")).json()
        assert me["provider"] == "break-glass"
    used = events(running, "break-glass-used")
    assert [(line["person"], line["client"]) for line in used] == [("ops", "127.0.0.1")]
    assert b'sidecar_break_glass_total{result="ok"} 1.0' in running.sidecar.metrics.render()
    assert "break_glass" in await running.sidecar.condition.readiness()
    assert PASSWORD not in running.audit_file.read_text()


async def test_rules_hold_for_it_as_for_everybody(world: World) -> None:
    running = await world(glass({"groups": ["wiki-readers"]}))
    async with running.browser() as browser:
        await enter(browser)
        assert (await browser.page("/admin/x")).status == 403
        assert (await browser.page("/x")).status == 200


async def test_t56_its_session_ends_after_the_stated_time_and_by_signing_out(world: World) -> None:
    running = await world(glass(lifetime="10m"))
    async with running.browser() as browser:
        await enter(browser)
        assert (await browser.page("/x")).status == 200
        world.clock.ahead = 601
        assert (await browser.page("/x")).status == 302
        world.clock.ahead = 0
        await enter(browser)
        await browser.page("/-/logout", "POST")
        assert (await browser.page("/x")).status == 302


async def test_a_session_does_not_outlive_a_change_of_its_account(world: World) -> None:
    redis_free = await world(glass())
    emergency = redis_free.sidecar.front.gate.known.__self__  # type: ignore[attr-defined]
    async with redis_free.browser() as browser:
        await enter(browser)
        assert (await browser.page("/x")).status == 200
        emergency._identities = {}
        assert (await browser.page("/x")).status == 401
        assert (await browser.page("/x")).status == 302


async def test_t27_a_form_from_elsewhere_signs_nobody_in(world: World) -> None:
    running = await world(glass())
    async with running.browser() as browser, running.browser() as other:
        hidden = await form(browser)
        for site in ("cross-site", "same-site", "none"):
            answer = await send(browser, hidden, headers={"Sec-Fetch-Site": site})
            assert answer.status == 403
        # Somebody else's form, with the very password: another browser, without its cookie.
        assert (await send(other, hidden)).status == 400
        assert (await send(browser, {"state": "x" * 43})).status == 400
        assert (await send(browser, {})).status == 400
        assert not browser.cookie()
        assert not other.cookie()
        # It was not used up by any of that, and works once.
        assert (await send(browser, hidden)).status == 303
        assert (await send(browser, hidden)).status == 400


async def test_t27_the_session_gets_a_new_id_and_the_one_before_ends(world: World) -> None:
    running = await world(glass())
    async with running.browser() as browser:
        await browser.sign_in("alan", "/x")
        before = browser.cookie()
        await enter(browser)
        assert browser.cookie() not in ("", before)
        browser.http.cookie_jar.update_cookies({"sidecar": before}, browser._url("/"))
        assert (await browser.page("/x")).status == 302


@pytest.mark.parametrize(
    "to", ["https://evil.example/", "//evil.example", "/\\evil.example", "/-/logout", "/%2e%2e//x"]
)
async def test_only_own_paths_are_gone_to(world: World, to: str) -> None:
    running = await world(glass())
    async with running.browser() as browser:
        assert (await enter(browser, to)).headers["Location"] == "/"


async def test_unknown_names_and_wrong_passwords_get_the_same_answer(world: World) -> None:
    running = await world(glass(tries="100/1m"))
    async with running.browser() as browser:
        texts = []
        for name, password in (("ops", "wrong"), ("nobody", PASSWORD), ("", ""), ("ops", "")):
            answer = await enter(browser, name=name, password=password)
            assert answer.status == 403
            texts.append(re.sub(r'value="[^"]+"', "", await answer.text()))
        assert len(set(texts)) == 1
        assert not browser.cookie()
    failed = events(running, "break-glass-failed")
    assert [line["subject"] for line in failed] == ["ops", "unknown", "unknown", "ops"]


async def test_unknown_names_take_as_long_as_known_ones(world: World) -> None:
    running = await world(glass(tries="1000/1m"))
    async with running.browser() as browser:
        took: dict[str, list[float]] = {"ops": [], "nobody": []}
        for _ in range(7):
            for name, times in took.items():
                hidden = await form(browser)
                began = time.perf_counter()
                await send(browser, hidden, "wrong", name)
                times.append(time.perf_counter() - began)
    known, unknown = (statistics.median(times) for times in took.values())
    assert min(known, unknown) > 0.6 * max(known, unknown)


async def test_the_name_that_was_typed_is_not_written_down_unless_it_is_one(world: World) -> None:
    running = await world(glass())
    async with running.browser() as browser:
        await enter(browser, name=PASSWORD, password="x")
    assert [line["subject"] for line in events(running, "break-glass-failed")] == ["unknown"]
    assert PASSWORD not in running.audit_file.read_text()


async def test_tries_are_limited_by_client_even_with_the_right_password(world: World) -> None:
    running = await world(glass(tries="3/15m"))
    async with running.browser() as browser:
        for _ in range(3):
            assert (await enter(browser, password="wrong")).status == 403
        answer = await enter(browser)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "900")
        assert not browser.cookie()


async def forget_looks(running: Running) -> None:
    """Let whoever asks next look anew, as after some seconds."""
    page = running.sidecar.front.portal.break_glass
    lookout = running.sidecar.front.portal.sign_in.lookout
    assert page is not None
    assert lookout is not None
    page.reach._asked = float("-inf")
    lookout._seen.clear()


PROXIES = {"server": {"trusted_proxies": ["127.0.0.1/32"]}}


async def test_tries_are_limited_by_account_and_together(world: World) -> None:
    running = await world({**glass(tries="1/15m", networks=["10.0.0.0/8"]), **PROXIES})

    async def tried(client: int, name: str) -> int:
        async with running.browser() as browser:
            browser.http.headers["X-Forwarded-For"] = f"10.0.0.{client}"
            return (await enter(browser, name=name, password="wrong")).status

    assert [await tried(number, "ops") for number in range(5)] == [403] * 4 + [429]
    # Unknown names are counted as known ones are.
    assert [await tried(10 + number, "nobody") for number in range(5)] == [403] * 4 + [429]
    assert [await tried(20 + number, f"n{number}") for number in range(3)] == [403, 403, 429]


async def test_outside_its_networks_the_page_is_not_there(world: World) -> None:
    running = await world({**glass(networks=["10.0.0.0/8"], offered="true"), **PROXIES})
    async with running.browser() as browser:
        browser.http.headers["X-Forwarded-For"] = "192.0.2.1"
        assert (await browser.page("/-/break-glass")).status == 404
        assert (await send(browser, {"state": "x" * 43})).status == 404


async def test_no_more_than_a_few_passwords_are_checked_at_once(world: World) -> None:
    running = await world(glass())
    vetting: Vetting = running.sidecar.front.portal.break_glass.vetting  # type: ignore[union-attr]
    answers = await asyncio.gather(
        *(vetting.vetted("ops", "wrong", "", 0.0) for _ in range(40)), return_exceptions=True
    )
    assert sum(isinstance(one, Unavailable) for one in answers) == 30
    assert (await vetting.vetted("ops", PASSWORD, "", 0.0))[0] is not None


async def test_what_is_too_long_is_not_even_hashed(world: World) -> None:
    running = await world(glass())
    async with running.browser() as browser:
        assert (await enter(browser, password="x" * 1025)).status == 413
        assert (await enter(browser, name="x" * 129)).status == 413


def test_codes_are_those_of_rfc_6238() -> None:
    key = totp_key(TOTP)
    assert [totp_code(key, at // 30) for at in (59, 1111111109, 20000000000)] == ["287082", "081804", "353130"]


async def test_with_totp_a_code_is_needed_and_counts_once(world: World) -> None:
    running = await world(glass({"totp": {"env": "TOTP"}}, tries="100/1m"), environment={"TOTP": TOTP})
    async with running.browser() as browser:
        assert (await enter(browser)).status == 403
        assert (await enter(browser, fields={"code": "000000"})).status == 403
        code = totp_code(totp_key(TOTP), int(time.time()) // 30)
        assert (await enter(browser, password="wrong", fields={"code": code})).status == 403
        assert (await enter(browser, fields={"code": code})).status == 303
        assert (await enter(browser, fields={"code": code})).status == 403
        late = totp_code(totp_key(TOTP), int(time.time() + 600) // 30)
        assert (await enter(browser, fields={"code": late})).status == 403
    told = [line.get("detail", "") for line in events(running, "break-glass-failed")]
    right = "the password is right, but"
    wrong = f"{right} the code is not one of about now: if it was typed well, compare this machine's clock"
    assert told == [wrong, wrong, "", f"{right} the code was used before", wrong]


async def test_while_outage_it_opens_only_when_the_provider_is_away(world: World) -> None:
    running = await world(glass(**{"while": "outage"}))
    async with running.browser() as browser:
        assert (await browser.page("/-/break-glass")).status == 403
    port = free_port()
    switch = await switched(world, port)
    away = await world(glass(**{"while": "outage"}), provider=switch.provider, port=port)
    async with away.browser() as browser:
        assert (await browser.page("/-/break-glass")).status == 403
        await switch.off()
        await forget_looks(away)
        assert (await enter(browser)).status == 303
        assert (await browser.page("/x")).status == 200


async def test_it_opens_as_well_when_the_provider_only_hangs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.portal.lookout._PATIENCE", 0.3)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    port = free_port()
    switch = await switched(world, port)
    running = await world(glass(**{"while": "outage"}), provider=switch.provider, port=port)
    async with running.browser() as browser:
        assert (await browser.page("/-/break-glass")).status == 403
        await switch.off()
        server = await asyncio.start_server(silent, "127.0.0.1", urlsplit(switch.provider.issuer).port)
        await forget_looks(running)
        assert (await enter(browser)).status == 303
    server.close()
    await server.wait_closed()


async def test_a_provider_that_is_down_leads_to_the_page_only_where_it_is_offered(world: World) -> None:
    for offered in ("true", "false"):
        running = await world(glass(offered=offered), issuer="http://localhost:9/id")
        async with running.browser() as browser:
            page = await browser.page("/-/login")
            assert (page.status, "Retry-After" in page.headers) == (503, True)
            assert ("/-/break-glass" in await page.text()) is (offered == "true")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 301])
async def test_an_answer_that_is_wrong_is_no_outage(world: World, status: int) -> None:
    port = free_port()
    switch = await switched(world, port)
    running = await world(glass(**{"while": "outage"}), provider=switch.provider, port=port)

    async def wrong(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": "https://elsewhere.example/"} if status < 400 else {})

    async with running.browser() as browser:
        assert (await browser.page("/-/break-glass")).status == 403
        await switch.off()
        switch.trouble = wrong
        await switch.on()
        await forget_looks(running)
        assert (await browser.page("/-/break-glass")).status == 403


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_server_that_says_that_it_cannot_is_one(world: World, status: int) -> None:
    port = free_port()
    switch = await switched(world, port)
    running = await world(glass(**{"while": "outage"}), provider=switch.provider, port=port)

    async def down(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    async with running.browser() as browser:
        assert (await browser.page("/-/break-glass")).status == 403
        await switch.off()
        switch.trouble = down
        await switch.on()
        await forget_looks(running)
        assert (await browser.page("/-/break-glass")).status == 200


async def test_a_provider_that_was_never_reached_is_a_mistake_and_no_outage(world: World) -> None:
    for issuer in ("http://localhost:9/id", "https://nowhere.invalid"):
        running = await world(glass(**{"while": "outage"}), issuer=issuer)
        async with running.browser() as browser:
            assert (await browser.page("/-/break-glass")).status == 403
            assert (await browser.page("/-/login")).status == 503


async def test_a_mistaken_login_keeps_the_door_closed_for_no_outage_of_another(world: World) -> None:
    port = free_port()
    switch = await switched(world, port)
    other = {
        "type": "oidc",
        "issuer": "http://localhost:9/id",
        "client_id": "wiki",
        "client_secret": {"env": "OIDC_SECRET"},
    }
    running = await world(
        {**glass(**{"while": "outage"}), "logins": {"other": other}}, provider=switch.provider, port=port
    )
    async with running.browser() as browser:
        assert (await browser.page("/-/break-glass")).status == 403
        await switch.off()
        await forget_looks(running)
        assert (await browser.page("/-/break-glass")).status == 200


async def test_what_was_reached_is_remembered_by_the_store_for_that_address_alone(world: World, redis_url: str) -> None:
    ports = free_port(), free_port()
    switch = await switched(world, *ports)
    changes = {**glass(**{"while": "outage"}), "sessions": {"redis": redis_url}}
    running = await world(changes, provider=switch.provider, port=ports[0])
    async with running.browser() as browser:
        assert (await browser.page("/-/break-glass")).status == 403
    await switch.off()
    # Somebody restarts it in the middle of the outage, as somebody always does.
    again = await world(changes, provider=switch.provider, port=ports[1])
    async with again.browser() as browser:
        assert (await browser.page("/-/break-glass")).status == 200
    await again.sidecar.stop()

    async def lost(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    switch.trouble = lost
    await switch.on()
    anew = await world(changes, provider=switch.provider, port=ports[1])
    async with anew.browser() as browser:
        assert (await browser.page("/-/break-glass")).status == 403
    elsewhere = await world(changes, issuer="http://localhost:9/id")
    async with elsewhere.browser() as browser:
        assert (await browser.page("/-/break-glass")).status == 403


async def test_bad_callbacks_open_no_door(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.portal.lookout._HOLDS", 0.05)
    monkeypatch.setattr("sidecar.portal.reach._PROBE_HOLDS", 0.05)
    port = free_port()
    switch = await switched(world, port)

    async def stumbles(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=500) if request.path.endswith("/token") and request.method == "POST" else None

    switch.trouble = stumbles
    await switch.off()
    await switch.on()
    running = await world(glass(offered="true", **{"while": "outage"}), provider=switch.provider, port=port)
    async with running.browser() as mallory:
        for _ in range(5):
            sent = await mallory.page("/-/login?to=/x")
            state = parse_qs(urlsplit(sent.headers["Location"]).query)["state"][0]
            answer = {"state": state, "code": "strange", "iss": switch.provider.issuer}
            page = await mallory.page(f"/-/callback/corp?{urlencode(answer)}")
            assert page.status == 503
            assert "/-/break-glass" not in await page.text()
            assert (await mallory.page("/-/break-glass")).status == 403
            await asyncio.sleep(0.06)


async def test_t19_the_link_to_the_door_keeps_where_one_wanted_to_go(world: World) -> None:
    running = await world(glass(offered="true", tries="100/1m"), issuer="http://localhost:9/id")
    async with running.browser() as browser:
        for to, kept in (
            ("/notes?a=1&b=2", "/notes?a=1&b=2"),
            ("https://evil.example/", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("/%2e%2e//evil.example", "/"),
            ("/-/logout", "/"),
        ):
            page = await browser.page(f"/-/login?to={quote(to, safe='')}")
            assert page.status == 503
            link = re.search(r'href="(/-/break-glass[^"]*)"', await page.text())
            assert link is not None
            query = parse_qs(urlsplit(unescape(link[1])).query)
            assert query == {"to": [kept]}
            shown = await browser.page(unescape(link[1]))
            answer = await send(browser, fields(await shown.text()))
            assert (answer.status, answer.headers["Location"]) == (303, kept)
            await browser.page("/-/logout", "POST")


async def test_who_is_kept_out_by_a_long_outage_is_shown_the_door_and_comes_back_to_the_page(world: World) -> None:
    port = free_port()
    switch = await switched(world, port)
    changes = {**glass(offered="true", **{"while": "outage"}), "sessions": {"outage": "1m"}}
    running = await world(changes, provider=switch.provider, port=port)
    async with running.browser() as browser:
        await browser.sign_in("ada", "/x")
        assert (await browser.page("/-/break-glass")).status == 403
        await switch.off()
        world.clock.ahead = 400
        await forget_looks(running)

        async def is_shown() -> bool:
            page = await browser.page("/notes?a=1&b=2")
            assert page.status == 503
            text = await page.text()
            assert "Company account cannot be reached" in text
            found = re.search(r'href="(/-/break-glass[^"]*)"', text)
            return found is not None and parse_qs(urlsplit(unescape(found[1])).query) == {"to": ["/notes?a=1&b=2"]}

        await until(is_shown)


async def test_the_link_is_shown_to_those_alone_who_find_the_door_open(world: World) -> None:
    port = free_port()
    switch = await switched(world, port)
    running = await world(
        {**glass(offered="true", networks=["10.0.0.0/8"], **{"while": "outage"}), **PROXIES},
        provider=switch.provider,
        port=port,
    )
    async with running.browser() as browser:
        browser.http.headers["X-Forwarded-For"] = "10.0.0.1"
        assert (await browser.page("/-/break-glass")).status == 403
        await switch.off()
        await forget_looks(running)
        async with running.browser() as stranger:
            stranger.http.headers["X-Forwarded-For"] = "192.0.2.1"
            for who, sees in ((browser, True), (stranger, False)):
                assert (await who.page("/-/break-glass")).status == (200 if sees else 404)
                page = await who.page("/-/login?to=/x")
                assert page.status == 503
                assert ("/-/break-glass" in await page.text()) is sees


async def test_hooks_and_directory_are_left_alone_unless_it_is_said(world: World) -> None:
    running = await world(
        {**glass({"account": "root"}), "headers": {"X-Account": "{{ account.key }}"}},
        provision=True,
        environment={"USERS_DB": "sqlite:////nonexistent/users.db"},
    )
    async with running.browser() as browser:
        await enter(browser)
        assert (await browser.page("/x")).status == 200
    assert running.application.seen[-1].values("X-Account") == ["root"]


async def test_with_provision_it_goes_the_way_of_everybody(world: World) -> None:
    running = await world(
        glass(provision="true"), provision=True, environment={"USERS_DB": "sqlite:////nonexistent/users.db"}
    )
    async with running.browser() as browser:
        await enter(browser)
        assert (await browser.page("/x")).status == 503


async def test_while_the_session_store_is_down_nobody_gets_in(world: World, redis_servers: RedisServers) -> None:
    redis = redis_servers()
    running = await world({**glass(), "sessions": {"redis": redis.url}})
    async with running.browser() as browser:
        hidden = await form(browser)
        redis.stop()
        assert (await send(browser, hidden)).status == 503
        assert not browser.cookie()


def command(text: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "sidecar", "break-glass", "hash"]
    return subprocess.run(words, input=text, capture_output=True, text=True, check=False)


def test_the_command_makes_a_hash_that_holds_and_refuses_weak_passwords() -> None:
    done = command(PASSWORD + "\n")
    assert done.returncode == 0
    assert done.stdout.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert PASSWORD not in done.stdout + done.stderr
    for weak in ("short", "aaaaaaaaaaaaaaaaaaaaaaa", "x" * 2000, ""):
        refused = command(weak + "\n")
        assert (refused.returncode != 0, refused.stdout) == (True, ""), weak

"""Who is asked what before a sign-in: home realms, stale cookies, and callers that no page helps."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from yarl import URL

from tests.world import Browser, Running, World


async def with_partners(world: World) -> Running:
    """A sidecar with two logins; the second one is for partner.example."""
    partners = {"type": "oidc", "title": "Partners", "issuer": {"env": "ISSUER"}, "client_id": "partners"}
    logins = {
        "corp": {"domains": ["example.com", "Example.ORG"]},
        "other": {**partners, "client_secret": {"env": "OIDC_SECRET"}, "domains": ["partner.example"]},
    }
    return await world({"logins": logins})


@pytest.mark.parametrize(
    ("email", "client"),
    [
        ("ada@example.com", "wiki"),
        ("ADA@EXAMPLE.COM", "wiki"),
        ("ada@example.org", "wiki"),
        (" bob@partner.example ", "partners"),
        ("bob@sub.partner.example", None),
        ("bob@evil-partner.example", None),
        ("bob@partner.example.evil.example", None),
        ("bob", None),
        ("", None),
    ],
)
async def test_an_address_leads_to_the_login_of_its_domain(world: World, email: str, client: str | None) -> None:
    running = await with_partners(world)
    async with running.browser() as browser:
        answer = await browser.page(str(URL("/-/login").with_query(to="/page?x=1", email=email)))
        if client is None:
            page = await answer.text()
            assert (answer.status, "Company account" in page, "Partners" in page) == (200, True, True)
            return
        asked = URL(answer.headers["Location"]).query
        assert (asked["client_id"], asked["login_hint"]) == (client, email.strip())
        # The way back is not forgotten over it.
        if client == "wiki":
            landed = await browser.page((await browser.choose(await browser.follow(answer), "ada")).headers["Location"])
            assert landed.headers["Location"] == "/page?x=1"


async def test_with_one_login_nobody_is_asked_and_with_two_everybody_is(world: World) -> None:
    alone, both = await world(), await with_partners(world)
    async with alone.browser() as browser:
        begun = await browser.page((await browser.page("/page")).headers["Location"])
        assert URL(begun.headers["Location"]).query["client_id"] == "wiki"
    async with both.browser() as browser:
        chooser = await browser.page((await browser.page("/page?x=1")).headers["Location"])
        assert chooser.status == 200
        for link in ("/-/login?to=/page%3Fx%3D1&amp;with=corp", "/-/login?to=/page%3Fx%3D1&amp;with=other"):
            assert link in await chooser.text()


@pytest.mark.parametrize("stale", ["A" * 43, "x", "", "%00", "é" * 43, "A" * 4000])
async def test_stale_cookies_lock_nobody_out_and_do_not_pile_up(world: World, stale: str) -> None:
    running = await world()
    async with running.browser() as browser:
        old = dict.fromkeys(("sidecar", "sidecar-browser", "sidecar-form"), stale)
        browser.http.cookie_jar.update_cookies(old, URL(running.url))
        for _ in range(8):
            # Sign-ins that nobody finishes.
            await browser.at_provider("/page")
        assert (await browser.sign_in("ada", "/page")).status == 200
        ours = [cookie.key for cookie in browser.http.cookie_jar if cookie.key.startswith("sidecar")]
        assert sorted(ours) == ["sidecar", "sidecar-browser", "sidecar-form"]


PROGRAMS: tuple[Mapping[str, str], ...] = (
    {"Accept": "application/json"},
    {"Accept": "*/*"},
    {},
    {"Accept": "text/html", "X-Requested-With": "XMLHttpRequest"},
    {"Accept": "text/html", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    {"Accept": "text/html", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "object"},
    {"Accept": "text/html", "Authorization": "Basic YTpi"},
    {"Accept": "text/html", "Connection": "Upgrade", "Upgrade": "websocket"},
)
PAGES: tuple[Mapping[str, str], ...] = (
    {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"},
    {"Accept": "*/*", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    {"Accept": "*/*", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
)


async def asked(browser: Browser, headers: Mapping[str, str], method: str = "GET") -> tuple[int, str]:
    async with browser.http.request(
        method, f"{browser.url}/page?x=1", headers=headers, skip_auto_headers=["Accept"], allow_redirects=False
    ) as answer:
        if answer.status == 401:
            body = await answer.json()
            assert body["error"] == "not-signed-in"
            assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
            return 401, body["login_url"]
        return answer.status, answer.headers.get("Location", "")


async def test_programs_get_401_with_json_and_people_get_a_way_in(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        way_in = "/-/login?to=/page%3Fx%3D1"
        for headers in PROGRAMS:
            assert await asked(browser, headers) == (401, running.url + way_in), headers
        for headers in PAGES:
            assert await asked(browser, headers) == (302, way_in), headers
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
            # No page can send them: they are a script's, and its page is come back to, not what it asked for.
            assert await asked(browser, {"Accept": "text/html"}, method) == (401, f"{running.url}/-/login?to=/")
    assert running.application.seen == []

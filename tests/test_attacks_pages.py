"""Markup that strangers send (T74), to every page of a running sidecar that could show it again."""

from __future__ import annotations

import json
import re

import pytest
from yarl import URL

from sidecar.demo.people import DemoPerson
from tests import world as world_module
from tests.world import Browser, World

MARK = "xs5"
ATTACKS = (
    f"<script>{MARK}()</script>",
    f"\"'><img src=x onerror={MARK}()>",
    f"</title></style><svg onload={MARK}()>",
    f"javascript:{MARK}()",
    f"//{MARK}.evil.example/",
    f"0;url=javascript:{MARK}()",
)
# What would run, or lead elsewhere: an element or attribute of theirs, an address that begins with theirs.
LIVE = re.compile(
    rf"<(script|img|svg)[^>]*{MARK}|<script>{MARK}|(href|src|action)=\"?(javascript:|//)[^>]*{MARK}", re.IGNORECASE
)


async def check(browser: Browser, target: str, method: str = "GET", **options: object) -> str:
    """Ask for *target*; fails when something in the answer would run. What it says."""
    answer = await browser.page(target, method, **options)
    text = await answer.text()
    assert not LIVE.search(text), (target, text)
    assert not re.search(r"content=\"0;url=(?!/)", text), target
    assert MARK not in answer.headers.get("Location", "").partition("?")[0], target
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy
    if "text/html" not in answer.content_type:
        assert answer.content_type in ("application/json", "application/octet-stream")
    return text


async def test_t74_what_strangers_send_is_shown_as_text_or_not_at_all(world: World) -> None:
    other = {"type": "oidc", "title": ATTACKS[0], "issuer": {"env": "ISSUER"}, "client_id": "wiki"}
    logins = {
        "corp": {"domains": ["example.com"]},
        "other": {**other, "client_secret": {"env": "OIDC_SECRET"}, "domains": ["example.org"]},
    }
    running = await world({"logins": logins, "limits": {"sign_in": "off", "answers": "off"}})
    async with running.browser() as browser:
        reflected = 0
        for attack in ATTACKS:
            pages = [
                URL("/-/login").with_query(to=attack, email=attack),
                URL("/-/login").with_query({"with": attack}),
                URL("/-/callback/corp").with_query(error=attack, error_description=attack, error_uri=attack),
                URL("/-/callback/corp").with_query(error="access_denied", error_description=attack, state="A" * 43),
                URL("/-/callback/corp").with_query(code=attack, state=attack, iss=attack),
                URL("/-/callback/corp").with_query(answer=attack, RelayState=attack, SAMLResponse=attack),
                URL("/-/signed-out").with_query(state=attack, error=attack),
                URL("/-/logout").with_query(to=attack, state=attack),
                URL("/").with_query(q=attack),
                URL(f"/-/callback/{attack.replace('/', '')}").with_query(code="x"),
            ]
            for page in pages:
                reflected += MARK in await check(browser, str(page), headers={"Referer": attack, "User-Agent": attack})
            await check(browser, "/-/login", headers={"Cookie": f"sidecar-browser={attack}; sidecar={attack}"})
            form = {"logout_token": attack, "SAMLResponse": attack, "RelayState": attack, "state": attack}
            for page in ("/-/callback/corp", "/-/backchannel/corp", "/-/logout", "/notes?x=" + URL(attack).raw_path):
                await check(browser, page, "POST", data=form, headers={"Origin": running.url})
        # The chooser does show what was typed: otherwise nothing was tested.
        assert reflected >= len(ATTACKS)
    assert running.application.seen == []


async def test_t74_what_a_provider_says_of_an_error_is_not_shown(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        for attack in ATTACKS:
            browser.http.cookie_jar.clear()
            begun = URL((await browser.page("/-/login?to=/page")).headers["Location"])
            said = {"error": "access_denied", "error_description": attack, "state": begun.query["state"]}
            text = await check(
                browser, str(URL("/-/callback/corp").with_query({**said, "iss": running.provider.issuer}))
            )
            assert MARK not in text
            assert "login-provider-error" in text


@pytest.mark.parametrize("groups", [("wiki-readers",), ()])
async def test_t74_names_of_people_are_text_wherever_they_appear(
    world: World, monkeypatch: pytest.MonkeyPatch, groups: tuple[str, ...]
) -> None:
    people = tuple(
        DemoPerson(attack, attack, f"x{number}@example.com", groups) for number, attack in enumerate(ATTACKS)
    )
    monkeypatch.setattr(world_module, "PEOPLE", people)
    running = await world()
    for person in people:
        async with running.browser() as browser:
            assert (await browser.sign_in(person.login)).status == (200 if groups else 403)
            if not groups:
                await check(browser, "/")
            told = await browser.page("/-/me")
            assert told.content_type == "application/json"
            assert told.headers["X-Content-Type-Options"] == "nosniff"
            assert json.loads(await told.text())["username"] == person.login

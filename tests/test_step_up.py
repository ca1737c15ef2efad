"""A rule may ask for a fresher or stronger sign-in: people are sent for it once, and told when it did not help."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape

import pytest
from yarl import URL

from sidecar.model import NOTHING_NEEDED, Decision, Effect, Reason, Requirement, Visit
from sidecar.pages.answers import Answers
from tests.forger import Forger, running_forger, sign
from tests.services.oidc import OidcProvider
from tests.test_bearer import API, claims
from tests.world import Browser, Running, World

STRONG = {
    "access": [
        {"path": "/mfa/**", "allow": "signed_in", "require": {"acr": "urn:test:mfa"}},
        {"path": "/otp/**", "allow": "signed_in", "require": {"amr": ["otp", "pwd"]}},
        {"path": "/fresh/**", "allow": "signed_in", "require": {"max_age": "60s"}},
        {"path": "/never/**", "allow": "signed_in", "require": {"amr": "iris"}},
        {"path": "/**", "allow": "signed_in"},
    ]
}


async def real(world: World, provider: OidcProvider) -> Running:
    running = await world(STRONG, issuer=provider.issuer)
    provider.client(
        [f"{running.url}/-/callback/corp"],
        client_id="wiki",
        secret="a client secret",
        auth_method="client_secret_basic",
    )
    return running


async def round_trip(browser: Browser, provider: OidcProvider, target: str) -> tuple[int, str, dict[str, str]]:
    """Go to *target*, through the provider if it sends there; status and text at the end, and what was asked there."""
    answer = await browser.page(target)
    if answer.status == 200 and "application" in await answer.text():
        return answer.status, await answer.text(), {}
    begun = await browser.page(answer.headers["Location"])
    asked = dict(URL(begun.headers["Location"]).query)
    back = await provider.sign_in(browser.http, begun.headers["Location"], "ada")
    answer = await browser.page(str(back))
    if answer.status == 302:
        answer = await browser.page(answer.headers["Location"])
    return answer.status, await answer.text(), asked


async def test_a_class_that_is_asked_for_is_brought_by_the_provider(world: World, oidc_provider: OidcProvider) -> None:
    running = await real(world, oidc_provider)
    async with running.browser() as browser:
        assert (await round_trip(browser, oidc_provider, "/page"))[0] == 200
        status, _, asked = await round_trip(browser, oidc_provider, "/mfa/x")
        assert (status, asked["acr_values"]) == (200, "urn:test:mfa")
        # The stronger sign-in holds on.
        assert (await round_trip(browser, oidc_provider, "/otp/x"))[::2] == (200, {})


async def test_t50_a_step_up_gets_a_new_session_and_the_one_before_ends(
    world: World, oidc_provider: OidcProvider
) -> None:
    running = await real(world, oidc_provider)
    async with running.browser() as browser, running.browser() as thief:
        await round_trip(browser, oidc_provider, "/page")
        weak = browser.cookie()
        assert (await round_trip(browser, oidc_provider, "/mfa/x"))[0] == 200
        assert browser.cookie() != weak
        for path in ("/page", "/mfa/x"):
            assert (await thief.fetch(path, headers={"Cookie": f"sidecar={weak}"})).status == 401


async def test_methods_that_were_not_used_are_asked_for_by_a_new_sign_in_and_not_again_and_again(
    world: World, oidc_provider: OidcProvider
) -> None:
    running = await real(world, oidc_provider)
    async with running.browser() as browser:
        await round_trip(browser, oidc_provider, "/page")
        status, text, asked = await round_trip(browser, oidc_provider, "/never/x")
        assert asked["prompt"] == "login"
        assert (status, "step-up-unmet" in text) == (403, True)
        # Signed in all the same: other pages are open, and nothing goes round in circles.
        assert (await browser.page("/page")).status == 200
    failed = [line for line in running.audit() if line["event"] == "login-failed"]
    assert [line["reason"] for line in failed] == ["step-up-unmet"]
    assert "amr" in failed[0]["detail"]


async def test_a_first_sign_in_that_is_too_weak_is_told_so_and_opens_the_other_pages(
    world: World, oidc_provider: OidcProvider
) -> None:
    running = await real(world, oidc_provider)
    async with running.browser() as browser:
        status, text, _ = await round_trip(browser, oidc_provider, "/never/x")
        assert (status, "step-up-unmet" in text) == (403, True)
        assert "/-/login?to=" in text
        assert (await browser.page("/page")).status == 200


async def test_a_provider_that_ignores_the_class_ends_at_a_page(world: World) -> None:
    running = await world({"access": [{"path": "/**", "allow": "signed_in", "require": {"acr": "urn:unknown"}}]})
    async with running.browser() as browser:
        answer = await browser.sign_in("ada")
        assert (answer.status, "step-up-unmet" in await answer.text()) == (403, True)
        assert running.application.seen == []
        # Trying again asks for a new sign-in, not for the one that was not enough.
        again = re.search(r'href="(/-/login[^"]+)"', await answer.text())
        assert again is not None
        begun = await browser.page(unescape(again[1]))
        assert URL(begun.headers["Location"]).query["prompt"] == "login"


async def test_a_form_is_kept_while_the_person_signs_in_again(world: World) -> None:
    running = await world({"access": [{"path": "/**", "allow": "signed_in", "require": {"max_age": "60s"}}]})
    async with running.browser() as browser:
        await browser.sign_in("ada")
        world.clock.ahead = 61
        before = len(running.application.seen)
        browser.forget_provider()
        answer = await browser.page("/save", "POST", data={"text": "kept"}, headers={"Origin": running.url})
        page = await browser.follow(answer)
        world.clock.ahead = 0
        await browser.follow(await browser.choose(page, "ada"))
    sent = running.application.seen[before:]
    assert [(one.method, one.target, one.body) for one in sent] == [("POST", "/save", b"text=kept")]


@pytest.fixture
async def forger() -> AsyncIterator[Forger]:
    async with running_forger() as started:
        yield started


async def test_a_token_that_is_too_weak_is_told_what_it_must_be(world: World, forger: Forger) -> None:
    rule = {"path": "/**", "allow": {"bearer": "corp"}, "require": {"acr": ["mfa", "gold"], "max_age": "5m"}}
    bearer = {"audience": API}
    running = await world({"access": [rule], "logins": {"corp": {"bearer": bearer}}}, issuer=forger.issuer)
    now = int(world.clock())
    times = {"iat": now, "exp": now + 300}
    async with running.browser() as browser:
        for changes, status in (
            ({"acr": "mfa", "auth_time": now - 10}, 200),
            ({"acr": "low", "auth_time": now - 10}, 401),
            ({"acr": "mfa", "auth_time": now - 400}, 401),
            ({"acr": "mfa"}, 401),
        ):
            token = sign(claims(forger, **times, **changes), typ="at+jwt")
            answer = await browser.fetch("/x", headers={"Authorization": f"Bearer {token}"})
            assert answer.status == status, await answer.text()
            if status == 401:
                challenge = answer.headers["WWW-Authenticate"]
                assert challenge.endswith(
                    'error="insufficient_user_authentication", acr_values="mfa gold", max_age=300'
                )
    assert len(running.application.seen) == 1


def test_a_challenge_cannot_be_broken_out_of() -> None:
    answers = Answers(app_name="a", prefix="/-", support="", overrides=None)
    needs = Requirement(acr=('a", x="', "b\\\r\n"))
    decision = Decision(Effect.STEP_UP, Reason.REAUTHENTICATION, "r", needs)
    answer = answers.challenge(Visit("GET", "/", "h", ""), "/-/login", decision)
    assert answer.headers["WWW-Authenticate"].endswith('acr_values="a, x= b"')


@pytest.mark.parametrize(
    ("needed", "met"),
    [
        (NOTHING_NEEDED, True),
        (Requirement(max_age=10), True),
        (Requirement(max_age=9), False),
        (Requirement(acr=("a", "b")), True),
        (Requirement(acr=("a",)), False),
        (Requirement(amr=("pwd", "otp")), True),
        (Requirement(amr=("pwd", "hwk")), False),
    ],
)
def test_what_a_sign_in_must_be(needed: Requirement, *, met: bool) -> None:
    assert needed.is_met_by(90.0, "b", ("otp", "pwd"), 100.0) is met

"""The application's own session: its sign-out ends ours, ours ends its, and nobody inherits its cookies."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sidecar.core.cookies import cookie_mark, without_marked
from tests.world import Browser, Running, World

THEIRS = "app_session=of-ada; Path=/; HttpOnly"


async def application_of(request: web.BaseRequest) -> web.StreamResponse:
    """An application with sessions of its own."""
    if request.path == "/enter":
        answer = web.Response(text="in")
        answer.headers.add("Set-Cookie", THEIRS)
        answer.headers.add("Set-Cookie", "lang=de; Path=/")
        return answer
    if request.path == "/logout" or "action=logout" in request.path_qs:
        left = web.Response(status=302, headers={"Location": "/bye"})
        left.headers.add("Set-Cookie", "app_session=; Path=/; Max-Age=0")
        # Nobody but the sidecar signs people out of the sidecar.
        left.headers.add("Set-Cookie", "sidecar=; Path=/; Max-Age=0")
        return left
    return web.Response(text="page")


async def started(world: World, **app: Any) -> Running:
    running = await world({"app": app})
    running.application.answer = application_of
    return running


def cookies_at(running: Running, path: str) -> str:
    """Cookies of the last request for *path* that the application saw."""
    return "; ".join([one for one in running.application.seen if one.target == path][-1].values("Cookie"))


async def enter(browser: Browser, login: str) -> None:
    await browser.sign_in(login)
    await browser.page("/enter")
    await browser.page("/")


async def test_the_applications_own_sign_out_passes_and_ends_our_session_and_the_providers(world: World) -> None:
    running = await started(world, logout={"path": ["/logout", "/index.php?action=logout"]})
    for target in ("/logout", "/index.php?x=1&action=logout"):
        async with running.browser() as browser:
            await enter(browser, "ada")
            assert (await browser.page("/index.php?action=look")).status == 200
            assert (await browser.page("/")).status == 200
            token = browser.cookie()
            left = await browser.page(target)
            # The application saw it, and its cookies go by its own word; then on to the provider.
            assert "app_session=of-ada" in cookies_at(running, target)
            assert left.headers["Location"].startswith(f"{running.provider.issuer}/")
            assert browser.cookie("app_session") == browser.cookie() == ""
            again = await browser.fetch("/", headers={"Cookie": f"sidecar={token}"})
            assert again.status == 401
    assert [line["way"] for line in running.audit() if line["event"] == "signed-out"] == ["application"] * 2


async def test_a_script_that_signs_out_ends_our_session_too(world: World) -> None:
    running = await started(world, logout={"path": "/logout", "methods": "POST"})
    async with running.browser() as browser:
        await enter(browser, "ada")
        assert (await browser.page("/logout")).headers["Location"] == "/bye"
        assert (await browser.fetch("/")).status == 200
        left = await browser.fetch("/logout", "POST", headers={"Sec-Fetch-Site": "same-origin"})
        assert left.headers["Location"] == "/bye"
        assert (await browser.fetch("/")).status == 401


async def test_a_sign_out_that_another_site_asked_for_is_the_applications_own_business(world: World) -> None:
    for then in ("pass", "take_over"):
        running = await started(world, logout={"path": "/logout", "then": then})
        async with running.browser() as browser:
            await enter(browser, "ada")
            left = await browser.page("/logout", headers={"Sec-Fetch-Site": "cross-site"})
            assert left.headers["Location"] == "/bye"
            assert (await browser.page("/")).status == 200


async def test_a_sign_out_that_is_taken_over_never_reaches_the_application(world: World) -> None:
    running = await started(
        world, logout={"path": "/logout", "then": "take_over"}, sign_out_cookies=["app_*", "never_seen"]
    )
    async with running.browser() as browser:
        await enter(browser, "ada")
        left = await browser.page("/logout")
        assert left.headers["Location"].startswith(f"{running.provider.issuer}/")
        assert "/logout" not in [one.target for one in running.application.seen]
        dropped = sorted(line.partition("=")[0] for line in left.headers.getall("Set-Cookie"))
        assert dropped == ["app_session", "never_seen", "sidecar", "sidecar-form"]
        assert browser.cookie("lang") == "de"
        assert (await browser.fetch("/")).status == 401


async def test_signing_out_here_calls_the_applications_sign_out_with_the_persons_cookies(world: World) -> None:
    running = await started(world, logout={"call": {"path": "/logout?all=1"}})
    async with running.browser() as browser:
        await enter(browser, "ada")
        left = await browser.page("/-/logout")
        assert left.status in (302, 303)
        [call] = [one for one in running.application.seen if one.target == "/logout?all=1"]
        assert (call.method, call.values("Cookie")) == ("POST", ["app_session=of-ada; lang=de"])
        assert browser.cookie("app_session") == ""
        # Whoever is not signed in makes nobody call anything.
        await browser.page("/-/logout")
        assert len([one for one in running.application.seen if one.target == "/logout?all=1"]) == 1


async def test_an_application_that_is_down_keeps_nobody_from_signing_out(world: World) -> None:
    running = await started(world, logout={"call": {"path": "/logout"}}, sign_out_cookies="app_session")
    async with running.browser() as browser:
        await enter(browser, "ada")
        await running.application.stop()
        assert (await browser.page("/-/logout")).status in (302, 303)
        assert browser.cookie("app_session") == browser.cookie() == ""


@pytest.mark.parametrize("has_expired", [False, True])
async def test_another_person_in_the_same_browser_inherits_no_cookie_of_the_application(
    world: World, *, has_expired: bool
) -> None:
    running = await started(world)
    keeper = running.sidecar.front.portal.keeper
    async with running.browser() as browser:
        await enter(browser, "ada")
        assert "app_session=of-ada" in cookies_at(running, "/")
        if has_expired:
            await keeper.end(browser.cookie())
        clean = {cookie.key: cookie.value for cookie in browser.http.cookie_jar if cookie.key in OURS_AND_THEIRS}
        browser.http.cookie_jar.clear()
        browser.http.cookie_jar.update_cookies(clean, browser._url("/"))
        back = await browser.choose(await browser.at_provider("/-/login?to=/&with=corp"), "grace")
        opened = await browser.page(back.headers["Location"])
        assert browser.cookie("app_session") == browser.cookie("lang") == ""
        dropped = {line.partition("=")[0] for line in opened.headers.getall("Set-Cookie")}
        assert dropped == {"sidecar", "app_session", "lang"}
        # Although a browser keeps it, as it does where it was set for another path or domain.
        for _ in range(2):
            kept = {"Cookie": f"sidecar={browser.cookie()}; app_session=of-ada; lang=fr"}
            async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
                answer = await http.get(f"{running.url}/kept", headers=kept)
                assert answer.status == 200
            assert cookies_at(running, "/kept") == "lang=fr"


OURS_AND_THEIRS = ("sidecar", "sidecar-browser", "app_session", "lang")


async def test_the_same_person_keeps_the_applications_session_across_sign_ins(world: World) -> None:
    running = await started(world, sign_out_cookies="app_session")
    async with running.browser() as browser:
        await enter(browser, "ada")
        await running.sidecar.front.portal.keeper.end(browser.cookie())
        assert (await browser.follow(await browser.page("/"))).status == 200
        assert "app_session=of-ada" in cookies_at(running, "/")


def test_marked_cookies_are_cut_out_of_a_header() -> None:
    marks = {cookie_mark("a", "1"), cookie_mark("c", "3")}
    assert without_marked("a=1; b=2;c=3 ; a=2", marks) == "b=2; a=2"
    assert without_marked("a=1", marks) == ""

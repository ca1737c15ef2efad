"""What pages of a sibling can make a browser do: another name below the same domain, or another port of this host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import Page

from tests.console_world import a_console
from tests.world import Application, Running, World, free_port

_FORM = '<form id="f" method="post" action="{0}"></form><script>document.getElementById("f").submit()</script>'
# What a page of somebody else tries with an address of ours.
WAYS = {
    "image": '<img src="{0}">',
    "form": _FORM,
    "visit": '<script>location = "{0}"</script>',
    "frame": '<iframe src="{0}"></iframe>',
    "fetch": '<script>fetch("{0}", {{mode: "no-cors", credentials: "include"}})</script>',
    "beacon": '<script>navigator.sendBeacon("{0}")</script>',
}


@dataclass
class Sibling:
    """A server of somebody else; ``attack`` is what its page tries."""

    url: str
    attack: str = ""


@pytest.fixture
async def sibling() -> AsyncIterator[Sibling]:
    found = Sibling("")

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=f"<!doctype html><title>0</title>{found.attack}", content_type="text/html")

    application = Application(answer=answer)
    await application.start()
    found.url = f"http://evil.corp.localhost:{application.port}"
    yield found
    await application.stop()


async def at_wiki(world: World, application: Application | None = None, **changes: object) -> Running:
    """A sidecar at a name that has siblings; Chromium finds all of localhost on this machine."""
    port = free_port()
    url = f"http://wiki.corp.localhost:{port}"
    changes |= {"server": {"public_url": url}}
    running = await world(changes, port=port, provider=await world.provider(url), application=application)
    running.url = url
    return running


async def sign_in(page: Page, url: str) -> None:
    await page.goto(url)
    await page.get_by_role("button", name="Ada Lovelace").click()
    await page.wait_for_url(url)


async def is_signed_in(page: Page, url: str) -> bool:
    await page.goto(url)
    return page.url == url


async def tried(page: Page, way: str, where: str, target: str, sibling: Sibling) -> None:
    """Open a page at *where* that tries *target*, and wait until it has."""
    sibling.attack = WAYS[way].format(target)
    async with page.expect_request(lambda request: request.url.startswith(target)):
        await page.goto(where)
    await page.wait_for_load_state("networkidle")


async def test_a_sibling_signs_nobody_out(world: World, page: Page, sibling: Sibling) -> None:
    running = await at_wiki(world)
    await sign_in(page, f"{running.url}/x")
    for way in WAYS:
        await tried(page, way, sibling.url, f"{running.url}/-/logout", sibling)
        assert await is_signed_in(page, f"{running.url}/x"), way
    assert [line for line in running.audit() if line["event"] == "signed-out"] == []


async def test_whoever_comes_from_a_sibling_to_sign_out_is_asked(world: World, page: Page, sibling: Sibling) -> None:
    running = await at_wiki(world)
    await sign_in(page, f"{running.url}/x")
    await tried(page, "visit", sibling.url, f"{running.url}/-/logout", sibling)
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url("**/-/signed-out**")
    assert not await is_signed_in(page, f"{running.url}/x")


async def test_siblings_that_have_the_same_session_may_end_it(world: World, page: Page, sibling: Sibling) -> None:
    running = await at_wiki(world, sessions={"cookie": {"domain": "corp.localhost"}})
    await sign_in(page, f"{running.url}/x")
    await tried(page, "visit", sibling.url, f"{running.url}/-/logout", sibling)
    await page.wait_for_url("**/-/signed-out**")
    assert not await is_signed_in(page, f"{running.url}/x")


RULES = '<script type="speculationrules">{{"prefetch": [{{"urls": ["{0}"], "eagerness": "immediate"}}]}}</script>'


@pytest.mark.parametrize("content", ['<img src="{0}">', '<link rel="stylesheet" href="{0}">', RULES])
@pytest.mark.parametrize("way_out", ["/-/logout", "/leave"])
async def test_what_a_page_of_the_application_embeds_or_fetches_ahead_signs_nobody_out(
    world: World, page: Page, content: str, way_out: str
) -> None:
    """Many applications let people write pictures into pages: the picture of one would sign out all the others."""

    async def wiki(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=f"<!doctype html>{content.format(way_out)}", content_type="text/html")

    application = Application(answer=wiki)
    await application.start()
    logout = {"path": "/leave", "then": "take_over"}
    running = await at_wiki(world, application=application, app={"logout": logout})
    await sign_in(page, f"{running.url}/x")
    async with page.expect_request(lambda request: request.url.endswith(way_out)):
        await page.goto(f"{running.url}/x")
    await page.wait_for_load_state("networkidle")
    assert await is_signed_in(page, f"{running.url}/x")
    # Whoever then really goes there is signed out, whatever was fetched ahead.
    await page.evaluate(f"location = {way_out!r}")
    await page.wait_for_url("**/-/signed-out**")
    await application.stop()


async def test_a_page_of_the_application_does_nothing_at_a_console_on_another_port(
    world: World, page: Page, sibling: Sibling, tmp_path: Path
) -> None:
    console = await a_console(world, tmp_path)
    await sign_in(page, f"{console.url}/")
    here = sibling.url.replace("evil.corp.localhost", "localhost")
    for target in ("/-/logout", "/act?act=reload"):
        for way in WAYS:
            await tried(page, way, here, f"{console.url}{target}", sibling)
            assert await is_signed_in(page, f"{console.url}/people"), (way, target)
    assert console.audited("signed-out") == console.audited("console-act") == []


async def test_what_a_sibling_posts_is_not_sent_on_after_the_sign_in(
    world: World, page: Page, sibling: Sibling
) -> None:
    running = await at_wiki(world)
    sibling.attack = (
        WAYS["form"].format(f"{running.url}/save").replace("></form>", '><input name="text" value="x"></form>')
    )
    async with page.expect_request(lambda request: request.url == f"{running.url}/save"):
        await page.goto(sibling.url)
    await page.wait_for_load_state("networkidle")
    await sign_in(page, f"{running.url}/save")
    assert [one.method for one in running.application.seen if one.target == "/save"] == ["GET"]


async def test_nobody_shows_our_pages_in_a_frame(world: World, page: Page, sibling: Sibling, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    wiki = console.running.url
    await sign_in(page, f"{console.url}/")
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    here = sibling.url.replace("evil.corp.localhost", "localhost")
    ours = [f"{wiki}/-/logout", f"{wiki}/-/signed-out", f"{wiki}/-/callback/corp?state=x", f"{console.url}/people"]
    for target in [*ours, f"{console.url}/audit"]:
        refused.clear()
        await tried(page, "frame", here, target, sibling)
        assert any("frame-ancestors 'none'" in text for text in refused), (target, refused)

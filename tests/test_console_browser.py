"""An operator's morning in a real browser: by keyboard, light and dark, on a telephone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from sidecar.directory import Owed
from sidecar.insights.present import Present
from sidecar.model import Duty
from sidecar.sync.lease import alone
from tests.console_world import a_console
from tests.sync_world import person
from tests.test_break_glass import PASSWORD, glass
from tests.test_console import PAGES
from tests.test_console_drift import ENVIRONMENT as DRIFT_ENVIRONMENT
from tests.test_console_drift import TWO as DRIFT_OF_TWO
from tests.test_console_drift import change, directory_of, roles, with_accounts
from tests.test_console_drift import newest as drift_newest
from tests.test_console_sync import a_world as a_world_with_sync
from tests.test_console_sync import act, listed, newest
from tests.test_console_tokens import a_world as a_world_with_tokens
from tests.test_console_tokens import issued
from tests.world import World, until


async def test_an_operator_finds_somebody_and_ends_their_session_and_switches_them_off(
    world: World, page: Page, tmp_path: Path
) -> None:
    console = await a_console(world, tmp_path)
    async with console.running.browser() as person:
        await person.sign_in("grace")
        faults: list[str] = []
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        await page.goto(f"{console.url}/people")
        await page.get_by_role("button", name="Ada Lovelace").click()
        await page.wait_for_url(f"{console.url}/people")
        await page.get_by_label("User name or e-mail").fill("gra")
        await page.keyboard.press("Enter")
        await page.get_by_role("link", name="grace").click()
        await page.get_by_role("button", name="End", exact=True).click()
        await expect(page.get_by_role("status")).to_have_text("The session has ended.")
        assert (await person.page("/x")).status == 302

        await page.get_by_text("Switch this person off").click()
        await page.get_by_role("button", name="Switch grace off").click()
        await expect(page.get_by_role("status")).to_contain_text("switched off")
        await expect(page.locator("h1")).to_contain_text("off")
        assert (await person.follow(await person.page("/x"))).status == 403
        (line,) = [
            line for line in console.running.audit() if line.get("reason") == "person-disabled" and "reference" in line
        ][:1]

        # Why it was, by the reference that the page showed.
        await page.goto(f"{console.url}/why")
        await page.get_by_label("Reference").fill(line["reference"])
        await page.keyboard.press("Enter")
        await expect(page.locator(".lines .reason").first).to_have_text("person-disabled")

        await page.get_by_role("link", name="Sign out").click()
        await page.wait_for_url(re.compile("signed-out"))
        await page.goto(f"{console.url}/people")
        assert not page.url.startswith(f"{console.url}/people")
        assert [fault for fault in faults if "Content Security Policy" in fault] == []


@pytest.mark.parametrize("width", [390, 1200])
async def test_no_page_is_wider_than_the_window_and_the_keyboard_reaches_the_content(
    world: World, browser: Browser, tmp_path: Path, width: int
) -> None:
    far = {"a_directory_of_people_whose_name_is_wider_than_telephones": {"rest": {"base_url": "http://127.0.0.1:9"}}}
    console = await a_world_with_sync(world, tmp_path, tokens={}, provision={"connections": far})
    login = "maximiliane-theodora.von-hohenstein-waldenburg-zu-lichtenfels"
    listed(tmp_path, person(1, login=login, mail=f"{login}@example.com", name="Maximiliane Theodora von Hohenstein"))
    async with await console.operator("grace") as grace:
        await act(grace, "sync-plan", "hr")
        await act(grace, "sync-apply", f"hr/{(await newest(console)).id}")
    context = await browser.new_context(viewport={"width": width, "height": 800})
    page = await context.new_page()
    await page.goto(console.url)
    await page.get_by_role("button", name="Ada Lovelace").click()
    await page.wait_for_url(f"{console.url}/")
    for path in (*PAGES, "/sync", "/sync/hr", "/tokens"):
        await page.goto(console.url + path)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        # A date stays in one line.
        boxes = "e => { const r = document.createRange(); r.selectNodeContents(e); return [...r.getClientRects()] }"
        tops = f"[...document.querySelectorAll('.when')].map({boxes}).map(all => all.map(box => box.top))"
        assert await page.evaluate(f"{tops}.every(all => Math.max(...all) - Math.min(...all) < 12)"), path
        await page.keyboard.press("Tab")
        await expect(page.get_by_text("Skip to the content")).to_be_focused()
        assert await page.locator("nav [aria-current=page]").count() == 1
    await context.close()


async def test_a_second_person_lets_a_quarantined_plan_pass_by_keyboard(
    world: World, page: Page, tmp_path: Path
) -> None:
    console = await a_world_with_sync(world, tmp_path)
    async with await console.operator("grace") as grace:
        await act(grace, "sync-plan", "hr")
        await act(grace, "sync-apply", f"hr/{(await newest(console)).id}")
        listed(tmp_path, person(1, status="gone"), person(3, status="gone"))
    await page.goto(f"{console.url}/sync/hr")
    await page.get_by_role("button", name="Ada Lovelace").click()
    await page.wait_for_url(f"{console.url}/sync/hr")
    await page.get_by_role("button", name="Make a plan now").press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("plan was made")
    await page.locator("tbody a").first.press("Enter")
    await expect(page.get_by_text("2, and 1 are allowed")).to_be_visible()
    await expect(page.get_by_text("somebody else has to approve it")).to_be_visible()
    run = await newest(console)
    async with await console.operator("grace") as grace:
        assert (await act(grace, "sync-approve", f"hr/{run.id}")).status == 303
    await page.reload()
    await page.get_by_text("Apply", exact=True).press("Enter")
    await page.get_by_role("button", name="Apply this plan now").press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("applied")
    await expect(page.locator("h1 .tag")).to_have_text("done")


async def test_what_was_before_stands_before_the_arrow_also_in_scripts_from_right_to_left(
    world: World, page: Page, tmp_path: Path
) -> None:
    console = await a_world_with_sync(world, tmp_path)
    async with await console.operator("grace") as grace:
        listed(tmp_path, person(1, name="محمد بن موسى"))
        await act(grace, "sync-plan", "hr")
        await act(grace, "sync-apply", f"hr/{(await newest(console)).id}")
        listed(tmp_path, person(1, name="عمر الخيام"))
        await act(grace, "sync-plan", "hr")
    await page.goto(f"{console.url}/sync/hr/{(await newest(console)).id}")
    await page.get_by_role("button", name="Ada Lovelace").click()
    before, after = await page.locator("del").bounding_box(), await page.locator("ins").bounding_box()
    assert before is not None
    assert after is not None
    assert before["x"] + before["width"] < after["x"]


async def test_an_administrator_revokes_a_token_after_a_second_thought(
    world: World, page: Page, tmp_path: Path
) -> None:
    console = await a_world_with_tokens(world, tmp_path)
    secret, _ = await issued(console, subject="robot", roles=("editor",))
    await page.goto(f"{console.url}/tokens")
    await page.get_by_role("button", name="Ada Lovelace").click()
    await page.wait_for_url(f"{console.url}/tokens")
    await page.get_by_label("User name, service").fill("rob")
    await page.keyboard.press("Enter")
    await page.get_by_role("link", name="nightly").press("Enter")
    assert secret not in await page.content()
    await page.get_by_text("Revoke this token").press("Enter")
    await page.get_by_role("button", name="Revoke nightly for good").press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("opens nothing")
    await expect(page.locator("h1 .tag")).to_have_text("revoked")


async def test_a_second_person_lets_a_repair_pass_and_another_one_rejects(
    world: World, page: Page, tmp_path: Path
) -> None:
    console = await a_console(world, tmp_path, DRIFT_OF_TWO, environment=DRIFT_ENVIRONMENT)
    async with await console.operator("grace") as grace:
        await with_accounts(console, "alan", "grace")
        change(console, "UPDATE users SET role = 'admin' WHERE login IN ('alan', 'grace')")
        await page.goto(f"{console.url}/drift")
        await page.get_by_role("button", name="Ada Lovelace").click()
        await page.wait_for_url(f"{console.url}/drift")
        await page.get_by_role("button", name="Look now").press("Enter")
        await expect(page.get_by_role("status")).to_contain_text("looked at")
        await page.locator("summary", has_text="Put right").press("Enter")
        await page.get_by_role("button", name="Put it right now").press("Enter")
        await expect(page.get_by_role("listitem").get_by_text("change: 2, and 1 are allowed")).to_be_visible()
        await expect(page.get_by_text("You asked for this repair: somebody else has to approve it.")).to_be_visible()
        run = await drift_newest(console)
        assert (await act(grace, "drift-approve", run.id)).status == 303
        await page.reload()
        await page.locator("summary", has_text="Put right").press("Enter")
        await page.get_by_role("button", name="Put it right now").press("Enter")
        await expect(page.get_by_text("2 settle")).to_be_visible()

        async def are_right() -> bool:
            return (roles(console)["alan"], roles(console)["grace"]) == ("reader", "editor")

        await until(are_right)
        change(console, "UPDATE users SET role = 'editor' WHERE login IN ('alan', 'root')")
        change(console, "UPDATE users SET role = 'admin' WHERE login = 'grace'")
        assert (await act(grace, "drift-fix", "drift")).status == 303
        await page.goto(f"{console.url}/drift/{(await drift_newest(console)).id}")
        await page.get_by_text("Reject", exact=True).press("Enter")
        await page.get_by_role("button", name="Reject this repair").press("Enter")
        await expect(page.get_by_role("status")).to_contain_text("rejected")
        await expect(page.locator("h1 .tag")).to_have_text("rejected")
        # From a page that somebody left open.
        answer = await act(grace, "drift-approve", run.id)
        assert "only a quarantined one can be approved" in await answer.text()
        async with alone(directory_of(console).sync, "drift", console.clock, "busy"):
            await page.goto(f"{console.url}/drift")
            await page.get_by_role("button", name="Look now").press("Enter")
            await expect(page.get_by_role("alert")).to_contain_text("being looked at already")
            await page.get_by_role("link", name="Back").click()
            await page.wait_for_url(f"{console.url}/drift")


async def test_what_is_owed_is_tried_again_and_cancelled_and_a_plan_is_rejected(
    world: World, page: Page, tmp_path: Path
) -> None:
    console = await a_world_with_sync(world, tmp_path)
    await with_accounts(console, "alan", "grace")
    directory = directory_of(console)
    for login, once in (("alan", "a"), ("grace", "b")):
        (someone,) = await directory.find(login)
        await directory.outbox.enqueue(Owed(someone.id, Duty.DEACTIVATE, 9e9, once))
    await page.goto(f"{console.url}/owed")
    await page.get_by_role("button", name="Ada Lovelace").click()
    await page.wait_for_url(f"{console.url}/owed")
    alan = page.locator("tr", has_text="alan")
    await alan.get_by_role("button", name="Try now").press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("tried again")
    grace = page.locator("tr", has_text="grace")
    await grace.locator("summary").press("Enter")
    await grace.get_by_role("button", name="Owe it no longer").press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("owed no longer")

    await page.goto(f"{console.url}/sync/hr")
    await page.get_by_role("button", name="Make a plan now").press("Enter")
    await page.locator("tbody a").first.press("Enter")
    await page.get_by_text("Reject", exact=True).press("Enter")
    await page.get_by_role("button", name="Reject this plan").press("Enter")
    await expect(page.locator("h1 .tag")).to_have_text("rejected")


async def test_the_emergency_page_signs_somebody_in_after_a_wrong_password(world: World, page: Page) -> None:
    running = await world(glass())
    await page.goto(f"{running.url}/-/break-glass?to=/x")
    await page.get_by_label("Account").fill("ops")
    await page.get_by_label("Password").fill("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Name, password or code is wrong.")).to_be_visible()
    await page.get_by_label("Account").fill("ops")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{running.url}/x")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("wide", [1200, 360])
async def test_what_goes_on_is_drawn_and_fits(
    world: World,
    browser: Browser,
    tmp_path: Path,
    scheme: str,
    wide: int,
) -> None:
    console = await a_console(world, tmp_path, {"insights": {}})
    running = console.running.sidecar
    assert running.console is not None
    running.console.history.sessions.extend([120, 150, None, 90, 130])
    counts = Present(world.clock)
    for order in ("create", "deactivate", "set_roles"):
        counts.took(order, 12.25, is_slow=True)
    for _ in range(12):
        counts.refused()
    await counts.post(running.lasting.lender.lend())
    context = await browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = await context.new_page()
    await page.set_viewport_size({"width": wide, "height": 800})
    await page.goto(f"{console.url}/")
    await page.get_by_role("button", name="Ada Lovelace").click()
    plot = page.get_by_role("img", name=re.compile("Sessions by the minute, between"))
    await expect(plot).to_be_visible()
    assert await plot.locator("polyline").count() == 2
    # Drawn in the page's colours, not in black for want of a style.
    stroke, ink = await plot.locator("polyline").first.evaluate(
        "e => [getComputedStyle(e).stroke, getComputedStyle(e).fill]"
    )
    assert (stroke != "rgb(0, 0, 0)", ink) == (True, "none")
    for path in ("/", "/insights"):
        await page.goto(f"{console.url}{path}")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        spills = "[...document.querySelectorAll('.card')].filter(e => e.scrollWidth > e.clientWidth).length"
        assert await page.evaluate(spills) == 0, path
    await expect(page.get_by_role("img", name="Refusals by the minute, at most 12")).to_be_visible()
    await context.close()

"""The whole journey in a real browser: an application nobody signed in to before, and out again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from aiohttp import web
from playwright.async_api import Page

from tests.services.redis import RedisServer
from tests.test_journey import users_table
from tests.world import Application, World

FORM = """<!doctype html><title>Wiki</title><form method="post" action="/save"><input name="text" value="a long text">
<button>Save</button></form><a href="/-/logout">Sign out</a>"""


async def wiki(request: web.BaseRequest) -> web.StreamResponse:
    """A page with a form, as applications have them; what is posted is shown."""
    if request.method == "POST":
        fields = await request.post()
        return web.Response(text=f"saved: {fields['text']} by {request.headers['X-App-User']}")
    return web.Response(text=FORM, content_type="text/html")


async def test_a_person_signs_in_gets_an_account_works_on_and_signs_out(
    world: World, page: Page, tmp_path: Path, redis_server: RedisServer
) -> None:
    redis_server.renew()
    users = tmp_path / "users.db"
    application = Application(answer=wiki)
    await application.start()
    running = await world(
        {"sessions": {"redis": {"env": "REDIS_URL"}}},
        application=application,
        environment={"USERS_DB": users_table(users), "REDIS_URL": redis_server.url},
        provision=True,
    )
    try:
        await page.goto(f"{running.url}/page?x=1")
        await page.get_by_role("button", name="Ada Lovelace").click()
        await page.wait_for_url(f"{running.url}/page?x=1")
        with closing(sqlite3.connect(users)) as database, database:
            rows = database.execute("SELECT login, email, role FROM users WHERE login <> 'root'").fetchall()
        assert rows == [("ada", "ada@example.com", "admin")]
        assert application.seen[-1].values("X-App-Roles") == ["admin,reader"]

        # The session ends while a form is open; what was written is not lost.
        with redis_server.client() as client:
            client.flushall()
        await page.get_by_role("button", name="Save").click()
        await page.get_by_text("saved: a long text by ada").wait_for()
        assert sum(seen.method == "POST" for seen in application.seen) == 1

        await page.goto(f"{running.url}/")
        await page.get_by_role("link", name="Sign out").click()
        await page.wait_for_url("**/-/signed-out**")
        await page.get_by_text("signed out", exact=False).first.wait_for()
    finally:
        await application.stop()


async def test_somebody_who_may_not_enter_reads_why_and_finds_the_reference(
    world: World, page: Page, tmp_path: Path
) -> None:
    users = tmp_path / "users.db"
    running = await world(environment={"USERS_DB": users_table(users)}, provision=True)
    await page.goto(running.url)
    await page.get_by_role("button", name="Mallory").click()
    await page.get_by_role("heading", name="You do not have access").wait_for()
    shown = await page.locator("main").inner_text()
    (line,) = [line for line in running.audit() if line.get("effect") == "deny"]
    assert line["reference"] in shown
    with closing(sqlite3.connect(users)) as database, database:
        assert database.execute("SELECT login FROM users").fetchall() == [("root",)]

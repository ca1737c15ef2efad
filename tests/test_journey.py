"""The main job: sign in, get an account, reach the application."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from sidecar.config.loader import ConfigError
from tests.world import USERS, Running, World


def users_of(path: Path) -> list[tuple[str, str, str, int]]:
    """Rows of the application's users table."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return list(connection.execute("SELECT login, email, role, active FROM users ORDER BY login"))


def users_table(path: Path) -> str:
    """Make the application's users table; its address."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(USERS)
        connection.execute("INSERT INTO users (login, email, role) VALUES ('root', 'root@example.com', 'admin')")
    return f"sqlite:///{path}"


async def started(world: World, tmp_path: Path, **options: object) -> tuple[Running, Path]:
    """A sidecar with an application whose users are in SQLite."""
    path = tmp_path / "users.db"
    running = await world(provision=True, environment={"USERS_DB": users_table(path)}, **options)  # type: ignore[arg-type]
    return running, path


async def test_the_first_sign_in_creates_the_account_and_arrives_with_headers(world: World, tmp_path: Path) -> None:
    running, users = await started(world, tmp_path)
    async with running.browser() as browser:
        answer = await browser.sign_in("ada", "/wiki/page?x=1")
        assert answer.status == 200
        assert (await answer.json())["path"] == "/wiki/page?x=1"
    seen = running.application.seen[-1]
    assert seen.values("X-App-User") == ["ada"]
    assert seen.values("X-App-Email") == ["ada@example.com"]
    assert seen.values("X-App-Roles") == ["admin,reader"]
    assert ("ada", "ada@example.com", "admin", 1) in users_of(users)


async def test_a_second_sign_in_changes_nothing_downstream(world: World, tmp_path: Path) -> None:
    running, users = await started(world, tmp_path)
    async with running.browser() as browser:
        await browser.sign_in("ada")
    before = users_of(users)
    stamp = users.stat().st_mtime_ns
    async with running.browser() as browser:
        assert (await browser.sign_in("ada")).status == 200
    assert users_of(users) == before
    assert users.stat().st_mtime_ns == stamp


async def test_a_changed_group_changes_the_role_in_the_application(world: World, tmp_path: Path) -> None:
    running, users = await started(world, tmp_path)
    async with running.browser() as browser:
        await browser.sign_in("ada")
    running.provider.change_groups("ada", ("wiki-readers",))
    async with running.browser() as browser:
        assert (await browser.sign_in("ada")).status == 200
    assert ("ada", "ada@example.com", "reader", 1) in users_of(users)
    assert running.application.seen[-1].values("X-App-Roles") == ["reader"]


async def test_t66_someone_who_may_not_enter_gets_no_account(world: World, tmp_path: Path) -> None:
    running, users = await started(world, tmp_path)
    async with running.browser() as browser:
        answer = await browser.sign_in("mallory")
        assert answer.status == 403
        text = await answer.text()
    assert "role-missing" in text
    assert [row[0] for row in users_of(users)] == ["root"]
    assert running.application.seen == []
    line = next(line for line in running.audit() if line["event"] == "decision" and line["effect"] == "deny")
    assert line["reference"] in text
    assert line["person"] == "mallory"


async def test_t70_fifty_first_requests_make_one_account(world: World, tmp_path: Path) -> None:
    running, users = await started(world, tmp_path)
    async with running.browser() as browser:
        back = await browser.choose(await browser.at_provider("/"), "grace")
        signed_in = await browser.page(str(back.headers["Location"]))
        assert signed_in.status == 302
        answers = await asyncio.gather(*(browser.fetch(f"/{number}") for number in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert [row[0] for row in users_of(users)].count("grace") == 1


async def test_signing_out_ends_the_session_here_and_at_the_provider(world: World, tmp_path: Path) -> None:
    running, _ = await started(world, tmp_path)
    async with running.browser() as browser:
        await browser.sign_in("ada")
        token = browser.cookie()
        answer = await browser.follow(await browser.page("/-/logout"))
        assert answer.status == 200
        assert answer.url.path == "/-/signed-out"
        stale = await browser.fetch("/", headers={"Cookie": f"sidecar={token}"})
        assert stale.status == 401


async def test_a_program_gets_401_with_the_login_address_and_never_a_redirect(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        answer = await browser.fetch("/api/x?y=1")
        assert answer.status == 401
        body = await answer.json()
    assert body["error"] == "not-signed-in"
    assert body["login_url"].startswith(f"{running.url}/-/login?to=")


async def test_websockets_work_and_close_when_the_session_ends(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        async with browser.http.get(
            running.url + "/ws", headers={"Upgrade": "websocket", "Connection": "Upgrade"}
        ) as no:
            assert no.status == 401
        await browser.sign_in("ada")
        async with browser.http.ws_connect(running.url + "/ws", headers={"Origin": running.url}) as socket:
            await socket.send_str("hello")
            assert (await socket.receive()).data == "echo hello"
            await browser.page("/-/logout")
            message = await asyncio.wait_for(socket.receive(), 3)
            assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)


async def test_a_form_that_met_an_expired_session_is_replayed_after_the_sign_in(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        answer = await browser.page("/notes?x=1", "POST", data={"text": "a & b"}, headers={"Origin": running.url})
        assert answer.status == 200
        assert "kept until you have signed in" in await answer.text()
        back = await browser.choose(await browser.follow(answer), "ada")
        answer = await browser.follow(back)
        assert answer.status == 200
    seen = running.application.seen[-1]
    assert (seen.method, seen.target, seen.body) == ("POST", "/notes?x=1", b"text=a+%26+b")
    assert seen.values("Content-Type") == ["application/x-www-form-urlencoded"]
    assert len(running.application.seen) == 1


async def test_a_form_sent_from_another_site_is_not_replayed(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
        answer = await browser.page("/notes", "POST", data={"text": "x"}, headers=headers)
        await browser.follow(await browser.choose(await browser.follow(answer), "ada"))
        await browser.page("/notes")
    assert {seen.method for seen in running.application.seen} == {"GET"}


async def test_t17_a_secret_or_rule_that_cannot_be_resolved_starts_nothing(world: World) -> None:
    for changes in (
        {"logins": {"corp": {"client_secret": {"env": "NOT_SET"}}}},
        {"access": [{"path": "^/public", "allow": "anyone"}]},
        {"roles": {"admin": "{{ 'wiki-admins' in grupps }}"}},
    ):
        with pytest.raises(ConfigError):
            await world(changes)

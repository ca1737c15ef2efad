"""The same journey, whatever the application keeps its users in: SQLite, PostgreSQL, MariaDB, or behind a REST API."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sidecar.demo import LegacyApp
from tests.world import PROVISION, Running, World

ROWS = "SELECT login, email, role FROM users ORDER BY login"
COLUMNS = "login VARCHAR(99), email VARCHAR(99), role VARCHAR(99), active INTEGER DEFAULT 1"
TABLES = {
    "sqlite": f"CREATE TABLE users (id INTEGER PRIMARY KEY, {COLUMNS})",
    "postgres": f"CREATE TABLE users (id SERIAL PRIMARY KEY, {COLUMNS})",
    "mariadb": f"CREATE TABLE users (id INT AUTO_INCREMENT PRIMARY KEY, {COLUMNS})",
}
REST = """
account: {key: "{{ user.username }}", protected: [root]}
attributes: {email: {from: "{{ user.email }}"}, full_name: {from: "{{ user.name }}"}}
roles: {mode: authoritative, managed: [admin, editor, reader], default: reader}
connections: {api: {rest: {base_url: {env: USERS_API}, bearer: {env: API_TOKEN}}}}
lookup:
  rest:
    on: api
    path: /users
    query: {login: "{{ account.key }}"}
    outcomes: {not_found: {status: 200, when: "{{ body | length == 0 }}"}, found: {status: 200}}
    save: {id: "{{ body[0].id }}", role: "{{ body[0].role }}"}
create:
  rest:
    on: api
    method: POST
    path: /users
    json: {login: "{{ account.key }}", email: "{{ attributes.email }}", full_name: "{{ attributes.full_name }}",
           role: "{{ role }}"}
    outcomes: {created: {status: 201}, conflict: {status: 409}}
    save: {id: "{{ body.id }}"}
update:
  rest: {on: api, method: PATCH, path: "/users/{{ account.id }}", json: {email: "{{ attributes.email }}"}}
set_roles:
  rest: {on: api, method: PATCH, path: "/users/{{ account.id }}", json: {role: "{{ role }}"}}
deactivate:
  rest: {on: api, method: PATCH, path: "/users/{{ account.id }}", json: {active: false}}
"""


@dataclass
class Users:
    """Where an application keeps its users: how to act on it, and how to read it from outside."""

    provision: str
    environment: dict[str, str]
    url: str = ""
    api: str = ""
    token: str = ""

    async def rows(self) -> list[tuple[str, str, str]]:
        """(login, email, role) of each user but the one that was there before."""
        if self.api:
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.token}"}) as http:
                answer = await http.get(f"{self.api}/users")
                rows = [(row["login"], row["email"], row["role"]) for row in await answer.json()]
        else:
            engine = create_async_engine(self.url)
            async with engine.connect() as connection:
                rows = [tuple(row) for row in await connection.execute(text(ROWS))]
            await engine.dispose()
        return [row for row in rows if row[0] not in ("root", "jsmith")]  # type: ignore[return-value]


@pytest.fixture(params=["sqlite", "postgres", "mariadb", "rest"])
async def users(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Users]:
    """Each kind in turn."""
    if request.param == "rest":
        token = secrets.token_urlsafe(16)
        runner = web.AppRunner(LegacyApp(tmp_path / "legacy.db", token).app(), access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api = f"http://127.0.0.1:{runner.addresses[0][1]}/api"
        yield Users(REST, {"USERS_API": api, "API_TOKEN": token}, api=api, token=token)
        await runner.cleanup()
        return
    url: str = request.getfixturevalue(f"{request.param}_url")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text(TABLES[request.param]))
    await engine.dispose()
    yield Users(PROVISION, {"USERS_DB": url}, url=url)


async def started(world: World, users: Users, **options: Any) -> Any:
    """A sidecar that keeps these users true."""
    changes = {"provision": yaml.load(users.provision, Loader=yaml.BaseLoader), **options.pop("changes", {})}  # noqa: S506
    return await world(changes, environment=users.environment, **options)


def changes_in(running: Running) -> list[str]:
    """Everything that was done to accounts so far."""
    changes = {"account-created", "account-updated", "account-linked", "roles-changed", "account-deactivated"}
    return [line["event"] for line in running.audit() if line["event"] in changes]


async def test_the_whole_story_of_one_person(world: World, users: Users) -> None:
    running = await started(world, users)
    async with running.browser() as browser:
        assert (await browser.sign_in("ada", "/page")).status == 200
    assert await users.rows() == [("ada", "ada@example.com", "admin")]
    made = changes_in(running)
    assert made.count("account-created") == 1

    async with running.browser() as browser:
        assert (await browser.sign_in("ada")).status == 200
    assert changes_in(running) == made

    running.provider.change_groups("ada", ("wiki-editors",))
    async with running.browser() as browser:
        assert (await browser.sign_in("ada")).status == 200
    assert await users.rows() == [("ada", "ada@example.com", "editor")]
    assert running.application.seen[-1].values("X-App-Roles") == ["editor"]

    async with running.browser() as browser:
        assert (await browser.sign_in("mallory")).status == 403
    assert [row[0] for row in await users.rows()] == ["ada"]


async def test_t70_fifty_first_requests_at_two_replicas_make_one_account(
    world: World, users: Users, redis_url: str, tmp_path: Path
) -> None:
    shared = {
        # How busy the machine is shall not decide; what slow servers cause has tests of its own.
        "sessions": {"redis": {"env": "REDIS_URL"}, "timeout": "20s"},
        "directory": {"url": f"sqlite:///{tmp_path}/shared.db", "timeout": "30s"},
        "app": {"name": "wiki"},
    }
    users.environment["REDIS_URL"] = redis_url
    one = await started(world, users, changes=shared)
    other = await started(world, users, changes={**shared, "server": {"public_url": one.url}})
    async with one.browser() as browser:
        back = await browser.choose(await browser.at_provider("/"), "grace")
        await browser.page(back.headers["Location"])
        headers = {"Cookie": f"sidecar={browser.cookie()}", "Host": f"localhost:{one.port}"}

        async def ask(number: int) -> int:
            port = (one, other)[number % 2].port
            async with browser.http.get(f"http://127.0.0.1:{port}/{number}", headers=headers) as answer:
                return answer.status

        statuses = await asyncio.gather(*(ask(number) for number in range(50)))
    assert set(statuses) == {200}
    assert [row[0] for row in await users.rows()] == ["grace"]

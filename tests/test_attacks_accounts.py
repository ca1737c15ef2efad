"""Attacks by way of accounts (T09, T63, T65, T67, T70, T71), through a running sidecar to the application's users."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from sidecar.demo.people import DemoPerson
from tests import world as world_module
from tests.services.upstream import Caller, raw_application
from tests.test_journey import users_of, users_table
from tests.test_journey_kinds import REST
from tests.world import Running, World


@dataclass
class UsersApi:
    """An application's API for its users that misbehaves when it is told to."""

    users: list[dict[str, Any]] = field(default_factory=list)
    seen: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    answer: Mapping[str, Any] = field(default_factory=dict)
    url: str = ""
    runner: web.ServerRunner | None = None

    async def start(self, port: int = 0) -> None:
        self.runner = web.ServerRunner(web.Server(self.handle, access_log=None), shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append((request.method, request.raw_path, dict(request.headers)))
        if request.method == "GET":
            login = request.query["login"]
            answer = web.json_response([user for user in self.users if user["login"] == login])
        elif request.method == "PATCH":
            self.users[int(request.path.rpartition("/")[2]) - 1] |= await request.json()
            answer = web.json_response({})
        else:
            self.users.append({**await request.json(), "id": len(self.users) + 1})
            answer = web.json_response(self.users[-1], status=201)
        misbehaves = self.answer.get(request.method)
        return answer if misbehaves is None else await misbehaves(request)


Beside = Callable[[], Awaitable[UsersApi]]


@pytest.fixture
async def beside() -> AsyncIterator[Beside]:
    """Start APIs."""
    made: list[UsersApi] = []

    async def start() -> UsersApi:
        made.append(UsersApi())
        await made[-1].start()
        return made[-1]

    yield start
    for one in made:
        await one.stop()


@pytest.fixture
async def api(beside: Beside) -> UsersApi:
    return await beside()


async def started(world: World, api: UsersApi, *, patience: str = "10s", **changes: Any) -> Running:
    """A sidecar that makes accounts through *api*, and gives it that long."""
    provision = yaml.load(REST, Loader=yaml.BaseLoader)  # noqa: S506 - our own text
    provision["connections"]["api"]["rest"]["timeout"] = patience
    environment = {"USERS_API": api.url, "API_TOKEN": "the-token-of-the-service"}
    return await world({"provision": {**provision, **changes}}, environment=environment)


async def test_t70_a_create_whose_answer_comes_too_late_makes_one_account(world: World, api: UsersApi) -> None:
    async def late(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(20)
        return web.Response()

    api.answer = {"POST": late}
    running = await started(world, api, patience="1s")
    async with running.browser() as browser:
        assert (await browser.sign_in("ada")).status == 200
        api.answer = {}
        assert (await browser.fetch("/again")).status == 200
    assert [user["login"] for user in api.users] == ["ada"]
    assert [method for method, _, _ in api.seen].count("POST") == 1


async def test_t70_while_the_users_api_is_down_a_page_says_so_and_nothing_is_forwarded(
    world: World, api: UsersApi
) -> None:
    running = await started(world, api)
    port = int(api.url.rpartition(":")[2])
    await api.stop()
    async with running.browser() as browser:
        answer = await browser.sign_in("ada", "/page")
        text = await answer.text()
        assert (answer.status, "provisioning-unavailable" in text) == (503, True)
        assert (await browser.fetch("/x")).status == 503
        assert running.application.seen == []
        await api.start(port)
        assert (await browser.page("/page")).status == 200
    assert [user["login"] for user in api.users] == ["ada"]


async def flood(caller: Caller) -> None:
    """Answer anything without an end."""
    await caller.head()
    await caller.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    while True:
        await caller.say(b" " * 65536)


async def drip(caller: Caller) -> None:
    """Answer anything, a byte at a time."""
    await caller.head()
    await caller.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    while True:
        await caller.say(b" ")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("script", [flood, drip])
async def test_t63_an_endless_answer_of_the_users_api_lets_nobody_in_and_has_an_end(world: World, script: Any) -> None:
    async with raw_application(script) as endless:
        running = await started(world, UsersApi(url=endless.url), patience="500ms")
        async with running.browser() as browser, asyncio.timeout(20):
            answer = await browser.sign_in("ada")
            assert (answer.status, "provisioning-unavailable" in await answer.text()) == (503, True)
    assert running.application.seen == []


async def test_t65_a_redirect_of_the_users_api_is_not_followed(world: World, api: UsersApi, beside: Beside) -> None:
    elsewhere = await beside()

    async def away(request: web.BaseRequest) -> web.StreamResponse:
        api.users.clear()
        return web.Response(status=307, headers={"Location": f"{elsewhere.url}{request.raw_path}"})

    running = await started(world, api)
    async with running.browser() as browser:
        for method in ("GET", "POST"):
            api.answer = {method: away}
            assert (await browser.sign_in("ada")).status == 503
            browser.http.cookie_jar.clear()
    assert elsewhere.seen == []
    assert running.application.seen == []


HOSTILE = (
    "../../admin",
    "x@evil.example/",
    "//evil.example/users",
    "ada?login=root#",
    "'; DROP TABLE users; --",
    "{{ 7 * 7 }}{% for x in y %}",
    "*)(uid=*))(|(uid=*",
    '","role":"admin","x":"',
    "ada' OR '1'='1",
    "1e5",
)


@pytest.fixture
def hostile_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider knows people whose names mean something to somebody."""
    people = [
        DemoPerson(login, login, f"h{number}@example.com", ("wiki-readers",)) for number, login in enumerate(HOSTILE)
    ]
    monkeypatch.setattr(world_module, "PEOPLE", (*world_module.PEOPLE, *people))


@pytest.mark.usefixtures("hostile_people")
async def test_t09_t65_t71_a_hostile_name_is_only_a_value_of_the_api_and_no_secret_goes_there(
    world: World, api: UsersApi
) -> None:
    running = await started(world, api)
    tokens = []
    for login in HOSTILE:
        async with running.browser() as browser:
            assert (await browser.sign_in(login)).status == 200, login
            tokens += [browser.cookie(), browser.cookie("sidecar-browser")]
    assert [(user["login"], user["full_name"], user["role"]) for user in api.users] == [
        (login, login, "reader") for login in HOSTILE
    ]
    for _, path, headers in api.seen:
        assert re.fullmatch(r"/users(/\d+)?", path.partition("?")[0])
        assert headers["Host"] == api.url.removeprefix("http://")
        assert headers["Authorization"] == "Bearer the-token-of-the-service"
        assert "Cookie" not in headers
        assert not any(token in str(headers) or token in path for token in tokens)


@pytest.mark.usefixtures("hostile_people")
async def test_t71_a_hostile_name_is_only_a_value_of_the_statements(world: World, tmp_path: Path) -> None:
    users = tmp_path / "users.db"
    running = await world(provision=True, environment={"USERS_DB": users_table(users)})
    for login in HOSTILE:
        async with running.browser() as browser:
            assert (await browser.sign_in(login)).status == 200, login
        assert running.application.seen[-1].values("X-App-User") == [login]
    rows = users_of(users)
    assert {row[0] for row in rows} == {*HOSTILE, "root"}
    assert {row[2] for row in rows if row[0] != "root"} == {"reader"}


@pytest.mark.parametrize(
    ("existing", "login", "status", "reason"),
    [
        ("deny", "ada", 403, "account-exists"),
        ("link_verified", "unverified", 403, "account-exists"),
        ("link_verified", "elsewhere", 403, "account-exists"),
        ("link_verified", "root", 403, "account-protected"),
        ("link_verified", "ada", 200, ""),
    ],
)
async def test_t67_an_account_that_was_there_is_taken_over_by_a_verified_address_alone(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    existing: str,
    login: str,
    status: int,
    reason: str,
) -> None:
    ada = world_module.PEOPLE[0]
    people = (
        ada,
        replace(ada, login="unverified", email="unverified@example.com", email_verified=False),
        replace(ada, login="elsewhere", email="elsewhere@evil.example"),
        replace(ada, login="root", email="root@example.com"),
    )
    monkeypatch.setattr(world_module, "PEOPLE", people)
    path = tmp_path / "users.db"
    address = users_table(path)
    with closing(sqlite3.connect(path)) as database, database:
        for person in people[:-1]:
            database.execute(
                "INSERT INTO users (login, email, role) VALUES (?, ?, 'reader')", (person.login, person.email)
            )
    before = users_of(path)
    lookup = {
        "sql": {
            "on": "db",
            "query": "SELECT id, role, active, email FROM users WHERE login = :login",
            "params": {"login": "{{ account.key }}"},
        }
    }
    changes = {
        "provision": {"account": {"existing": existing}, "lookup": lookup},
        "logins": {"corp": {"domains": ["example.com"]}},
    }
    running = await world(changes, provision=True, environment={"USERS_DB": address})
    async with running.browser() as browser:
        answer = await browser.sign_in(login)
        assert answer.status == status
        assert reason in await answer.text()
    if status == 200:
        assert len(users_of(path)) == len(before)
        assert [line["event"] for line in running.audit()].count("account-linked") == 1
    else:
        assert users_of(path) == before
        assert running.application.seen == []

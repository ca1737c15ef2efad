"""API tokens of ours: what they open, for how long, and that nothing keeps one alive that has ended."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cli import main
from sidecar.config.callers import SERVICE_ISSUER
from sidecar.core.api_tokens import PREFIX, digest_of, is_intact, is_ours, written
from sidecar.core.scopes import scope_of
from sidecar.directory import Directory
from sidecar.directory.merging import merge
from sidecar.directory.tokens import ApiToken, Kind
from sidecar.model import Identity, Visit, identity_key
from sidecar.reason import Reason
from tests.scim_world import TOKEN, ScimClient, with_scim
from tests.test_journey import users_table
from tests.world import PEOPLE, SECRET, Running, World, until

RULES = [
    {"path": "/health", "allow": "anyone"},
    {"path": "/api/admin/**", "allow": {"bearer": "tokens", "role": "admin"}, "name": "administration"},
    {"path": "/api/strong/**", "allow": {"bearer": "tokens"}, "require": {"max_age": "1h"}},
    {"path": "/api/**", "allow": {"bearer": "tokens", "role": ["admin", "editor", "reader"]}, "name": "api"},
    {"path": "/**", "allow": {"role": ["admin", "editor", "reader"]}},
]
SUBJECTS = {person.login: person.subject for person in PEOPLE}
CHANGES: dict[str, Any] = {"tokens": {"max_lifetime": "60d"}, "access": RULES, "limits": {"bad_tokens": "off"}}


# What a token looks like


@given(st.binary(min_size=32, max_size=32))
def test_a_token_has_the_prefix_the_length_and_the_checksum_that_scanners_look_for(entropy: bytes) -> None:
    token = written(entropy)
    assert re.fullmatch(r"sidecar_[0-9A-Za-z]{49}", token)
    assert is_ours(token)
    assert is_intact(token)


@given(st.binary(min_size=32, max_size=32), st.integers(len(PREFIX), 56), st.sampled_from("0aZ_-é "))
def test_a_token_with_another_letter_in_it_is_none(entropy: bytes, place: int, letter: str) -> None:
    token = written(entropy)
    changed = token[:place] + letter + token[place + 1 :]
    assert is_intact(changed) == (changed == token)


@pytest.mark.parametrize("text", ["", PREFIX, PREFIX + "0" * 49, "sidecar_\udcff", PREFIX + "0" * 100_000])
def test_what_is_no_token_is_none(text: str) -> None:
    assert not is_intact(text)
    assert digest_of(text)


def test_a_token_holds_256_random_bits_and_nothing_less() -> None:
    assert written(bytes(32)) != written(bytes(31) + b"\1")
    for size in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="32 random bytes"):
            written(bytes(size))


# Scopes


@pytest.mark.parametrize(
    ("scope", "method", "path", "literal", "rule", "covers"),
    [
        (["/api/**"], "POST", "/api/x", "/api/x", "r", True),
        (["/api/**"], "GET", "/apix", "/apix", "r", False),
        (["/api/**"], "GET", "/API/x", "/API/x", "r", False),
        (["/api/*/x"], "GET", "/api/1/x", "/api/1;a=b/x", "r", True),
        (["/api/x"], "GET", "/api/x", "/api/x;a=b", "r", False),
        (["GET /api/**"], "HEAD", "/api/x", "/api/x", "r", True),
        (["GET,PUT /api/**"], "PUT", "/api/x", "/api/x", "r", True),
        (["GET /api/**"], "POST", "/api/x", "/api/x", "r", False),
        (["HEAD /api/**"], "GET", "/api/x", "/api/x", "r", True),
        (["r"], "DELETE", "/anything", "/anything", "r", True),
        (["r"], "GET", "/x", "/x", "R", False),
        (["3: /api/**"], "GET", "/api/x", "/api/x", "4: /api/**", False),
        (["3: /api/**"], "GET", "/x", "/x", "3: /api/**", True),
        ([], "GET", "/x", "/x", "r", False),
    ],
)
def test_a_scope_covers_what_it_says(
    scope: list[str], method: str, path: str, literal: str, rule: str, covers: bool
) -> None:
    visit = Visit(method, path, "h", "192.0.2.1", literal=literal)
    assert scope_of(scope).covers(rule, visit) is covers


# A running sidecar and a terminal beside it


class Terminal:
    """Runs ``sidecar tokens`` with the configuration of a running sidecar."""

    def __init__(self, running: Running, **environment: str) -> None:
        self.file = str(running.folder / "config.yaml")
        self.environment = {
            "ISSUER": running.provider.issuer,
            "OIDC_SECRET": "a client secret",
            "SESSION_SECRET": SECRET,
            "SCIM_TOKEN": TOKEN,
            "USERS_DB": "sqlite:///unused.db",
            **environment,
        }

    async def run(self, *words: str, sent: str = "") -> Result:
        """Run one command."""
        arguments = ["tokens", words[0], *words[1:]]
        arguments.insert(3 if words[0] in ("show", "revoke") else 2, self.file)
        runner = CliRunner()
        return await asyncio.to_thread(runner.invoke, main, arguments, input=sent, env=self.environment)

    async def json(self, *words: str, sent: str = "") -> Any:
        """What it prints as JSON, when it ends well."""
        done = await self.run(*words, "--json", sent=sent)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    async def issue(self, *words: str) -> dict[str, Any]:
        """Issue a token."""
        made: dict[str, Any] = await self.json("create", "--name", "a test", *words)
        return made


class Caller:
    """A program that comes with a token."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def ask(self, token: str, path: str = "/api/x", method: str = "GET", **headers: str) -> tuple[int, str]:
        """(status, reason code) of one request."""
        sent = {"Authorization": f"Bearer {token}", **headers}
        async with self.http.request(method, self.running.url + path, headers=sent, allow_redirects=False) as answer:
            body = await answer.json(content_type=None) if method != "HEAD" else {}
            return answer.status, body.get("error", "")


@asynccontextmanager
async def started(world: World, tmp_path: Path, **changes: Any) -> AsyncIterator[tuple[Running, Terminal, Caller]]:
    running = await with_scim(world, tmp_path, changes={**CHANGES, **changes})
    caller = Caller(running)
    try:
        yield running, Terminal(running), caller
    finally:
        await caller.http.close()


async def sign_in(running: Running, *people: str) -> None:
    for person in people:
        async with running.browser() as browser:
            assert (await browser.sign_in(person)).status == 200


def last(running: Running) -> tuple[str, str]:
    seen = running.application.seen[-1]
    assert not seen.careless("Authorization")
    return seen.values("X-App-User")[0], "".join(seen.values("X-App-Roles"))


async def test_a_personal_token_is_its_owner_and_never_more(world: World, tmp_path: Path) -> None:
    async with started(world, tmp_path) as (running, terminal, caller):
        await sign_in(running, "ada", "grace")
        ada = await terminal.issue("--person", "ada")
        grace = await terminal.issue("--person", "grace@example.com", "--scope", "api")
        assert await caller.ask(ada["token"]) == (200, "")
        assert last(running) == ("ada", "admin,reader")
        assert await caller.ask(ada["token"], "/api/admin/x") == (200, "")
        assert await caller.ask(grace["token"]) == (200, "")
        assert last(running) == ("grace", "editor")
        assert await caller.ask(grace["token"], "/api/admin/x") == (403, "role-missing")
        # Where no rule names tokens, none opens anything; what a sign-in must be it never is.
        assert await caller.ask(ada["token"], "/x") == (403, "role-missing")
        assert await caller.ask(ada["token"], "/api/strong/x") == (401, "reauthentication-needed")
        assert await caller.ask(ada["token"], method="HEAD") == (200, "")
        # A session goes before: the token that comes with it is not passed on either.
        async with running.browser() as browser:
            await browser.sign_in("grace")
            assert (await browser.fetch("/x", headers={"Authorization": f"Bearer {ada['token']}"})).status == 200
            assert last(running) == ("grace", "editor")


async def test_a_scope_only_narrows(world: World, tmp_path: Path) -> None:
    async with started(world, tmp_path) as (running, terminal, caller):
        await sign_in(running, "ada", "grace")
        reading = (await terminal.issue("--person", "ada", "--scope", "GET /api/pages/**"))["token"]
        assert await caller.ask(reading, "/api/pages/1") == (200, "")
        assert await caller.ask(reading, "/api/pages/1", "POST") == (403, "token-scope")
        assert await caller.ask(reading, "/api/other") == (403, "token-scope")
        assert await caller.ask(reading, "/api/pages/..;/other") == (400, "path-ambiguous")
        assert await caller.ask(reading, "/health") == (200, "")
        wide = (await terminal.issue("--person", "grace", "--scope", "/**", "--scope", "administration"))["token"]
        assert await caller.ask(wide, "/api/admin/x") == (403, "role-missing")
        assert await caller.ask(wide, "/x") == (403, "role-missing")


async def test_a_service_has_the_roles_that_it_was_given_and_an_account(world: World, tmp_path: Path) -> None:
    async with started(world, tmp_path) as (running, terminal, caller):
        await sign_in(running, "ada")
        made = await terminal.issue("--service", "backup", "--role", "reader", "--expires", "1h")
        assert (made["kind"], made["service"], made["roles"]) == ("service", "backup", ["reader"])
        assert await caller.ask(made["token"]) == (200, "")
        assert last(running) == ("backup", "reader")
        assert await caller.ask(made["token"], "/api/admin/x") == (403, "role-missing")
        with closing(sqlite3.connect(tmp_path / "users.db")) as users, users:
            assert users.execute("SELECT role FROM users WHERE login = 'backup'").fetchall() == [("reader",)]
        # Another token of the same service, and one of a service that would pass for a person.
        assert await caller.ask((await terminal.issue("--service", "backup", "--role", "admin"))["token"]) == (200, "")
        directory = running.sidecar.condition.accounts.directory
        assert directory is not None
        for number in range(60):
            # However many there are whose names begin like that.
            await directory.admit(Identity("corp", "i", f"a{number}", f"a{number}", f"ada{number}@example.com"), 1.0)
        for name in ("ada", "ADA"):
            refused = await terminal.run("create", "--name", "x", "--service", name, "--role", "reader")
            assert (refused.exit_code, "a person is called" in refused.stderr) == (1, True)
        assert (await terminal.run("create", "--name", "x", "--service", "s", "--role", "no")).exit_code == 1


async def test_a_revoked_token_ends_within_a_second_and_with_it_what_streams(world: World, tmp_path: Path) -> None:
    async with started(world, tmp_path) as (running, terminal, caller):
        await sign_in(running, "ada")
        made, other = [await terminal.issue("--person", "ada") for _ in range(2)]
        token = made["token"]
        assert await caller.ask(token) == (200, "")
        sent = {"Authorization": f"Bearer {token}"}
        async with caller.http.ws_connect(running.url + "/api/socket", headers=sent) as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "echo hello"
            # The store of sessions, which is asked after a loss, knows nothing of it.
            running.sidecar.front.gate.keeper.losses += 1
            await asyncio.sleep(1.2)
            await socket.send_str("still here")
            assert await socket.receive_str() == "echo still here"
            dry = await terminal.json("revoke", made["id"], "--dry-run")
            assert dry["revoked"] is False
            assert await caller.ask(token) == (200, "")
            assert (await terminal.json("revoke", "-", sent=token + "\n"))["id"] == made["id"]
            assert (await socket.receive(10)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)

        async def is_refused() -> bool:
            return await caller.ask(token) == (401, "token-revoked")

        await until(is_refused, 2)
        assert await caller.ask(other["token"]) == (200, "")
        assert (await terminal.run("revoke", made["id"])).exit_code == 1
        shown = await terminal.json("show", made["id"])
        assert (shown["state"], shown["revoked_by"][:3], shown["username"]) == ("revoked", "cli", "ada")
        assert [one["id"] for one in await terminal.json("list")] == [other["id"]]
        assert {one["id"] for one in await terminal.json("list", "--all", "--person", "ada")} == {
            made["id"],
            other["id"],
        }
        events = [line for line in running.audit() if line["event"].startswith("token-")]
        assert [line["event"] for line in events][:3] == ["token-created", "token-created", "token-revoked"]
        refused = events[-1]
        assert (refused["event"], refused["token"], refused["reason"]) == ("token-refused", made["id"], "token-revoked")


async def test_t68_a_token_of_somebody_who_was_switched_off_is_refused_at_once(world: World, tmp_path: Path) -> None:
    changes = {"tokens": {"basic": "any_user"}}
    async with started(world, tmp_path, **changes) as (running, terminal, caller), ScimClient(running) as scim:
        ada, grace = [await scim.make(name, externalId=SUBJECTS[name]) for name in ("ada", "grace")]
        await sign_in(running, "ada", "grace")
        token, gone = [(await terminal.issue("--person", name))["token"] for name in ("ada", "grace")]
        service = (await terminal.issue("--service", "backup", "--role", "reader"))["token"]
        assert [(await caller.ask(one))[0] for one in (token, gone, service)] == [200, 200, 200]
        sent = {"Authorization": f"Bearer {token}"}
        async with caller.http.ws_connect(running.url + "/api/socket", headers=sent) as socket:
            await scim.patch(f"/Users/{ada['id']}", {"op": "replace", "path": "active", "value": False})
            assert await caller.ask(token) == (403, "person-disabled")
            assert await caller.ask("", Authorization=basic("ada", token)) == (403, "person-disabled")
            assert (await socket.receive(10)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        assert (await terminal.run("create", "--name", "x", "--person", "ada")).exit_code == 1
        await scim.patch(f"/Users/{ada['id']}", {"op": "replace", "path": "active", "value": True})
        assert await caller.ask(token) == (200, "")
        assert (await scim("DELETE", f"/Users/{grace['id']}")).status == 204
        assert (await caller.ask(gone))[0] == 403
        # A service is somebody in the directory, too, and can be switched off as anybody.
        directory = await Directory.open(f"sqlite:///{tmp_path}/directory.db", "application")
        person = await directory.person_by_identity(identity_key(SERVICE_ISSUER, "backup"))
        assert person is not None
        await directory.disable(person.id, "manual", time.time())
        await directory.close()
        world.clock.ahead += 2
        assert await caller.ask(service) == (403, "person-disabled")


async def test_t56_a_token_loses_a_role_as_soon_as_its_owner_loses_the_group(world: World, tmp_path: Path) -> None:
    async with started(world, tmp_path) as (running, terminal, caller), ScimClient(running) as scim:
        mallory = await scim.make("mallory", externalId=SUBJECTS["mallory"])
        group = await scim.group("wiki-admins", mallory["id"])
        await sign_in(running, "mallory")
        token = (await terminal.issue("--person", "mallory"))["token"]
        assert await caller.ask(token, "/api/admin/x") == (200, "")
        await scim.patch(f"/Groups/{group['id']}", {"op": "remove", "path": "members"})
        assert await caller.ask(token, "/api/admin/x") == (403, "role-missing")


async def test_tokens_end_and_a_maximum_that_was_made_shorter_holds_for_those_of_before(
    world: World, tmp_path: Path
) -> None:
    async with started(world, tmp_path) as (running, terminal, caller):
        await sign_in(running, "ada")
        short = (await terminal.issue("--person", "ada", "--expires", "1h"))["token"]
        long = await terminal.issue("--person", "ada", "--expires", "60d")
        assert long["expires"] - long["created"] == 60 * 86400
        too_long = await terminal.run("create", "--name", "x", "--person", "ada", "--expires", "61d")
        assert (too_long.exit_code, "max_lifetime" in too_long.stderr) == (2, True)
        world.clock.ahead += 3601
        assert await caller.ask(short) == (401, "token-expired")
        assert await caller.ask(long["token"]) == (200, "")
        authenticator = running.sidecar.front.gate.authenticators[0]
        authenticator._longest = 600.0  # type: ignore[attr-defined]
        world.clock.ahead += 2
        assert await caller.ask(long["token"]) == (401, "token-expired")


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def test_t59_no_token_is_kept_or_logged_and_only_its_hash_is_stored(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with started(world, tmp_path) as (running, terminal, caller):
        await sign_in(running, "ada")
        made = await terminal.issue("--person", "ada")
        token = made["token"]
        wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
        assert await caller.ask(token) == (200, "")
        assert await caller.ask(wrong) == (401, "token-invalid")
        assert await caller.ask(written(bytes(32))) == (401, "token-invalid")
        await terminal.json("revoke", made["id"])
        running.sidecar.audit.flush()
        kept = contents(tmp_path)
        body = token.removeprefix(PREFIX)[:40].encode()
        assert not any(body in text for text in kept)
        assert any(digest_of(token).encode() in text for text in kept)
        assert body.decode() not in "".join(capfd.readouterr())


async def test_the_last_use_is_noted_at_most_once_a_minute(world: World, tmp_path: Path) -> None:
    async with started(world, tmp_path) as (running, terminal, caller):
        await sign_in(running, "ada")
        made = await terminal.issue("--person", "ada")

        async def used() -> float:
            return float((await terminal.json("show", made["id"]))["last_used"] or 0.0)

        assert await used() == 0.0
        await caller.ask(made["token"])
        await until(used)
        first = await used()
        for _ in range(3):
            world.clock.ahead += 15
            await caller.ask(made["token"])
        assert await used() == first
        world.clock.ahead += 20

        async def is_noted() -> bool:
            return await used() > first

        await caller.ask(made["token"])
        await until(is_noted)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_basic_is_off_by_default_and_a_token_in_it_is_never_passed_on(world: World, tmp_path: Path) -> None:
    rules = [{"path": "/public/**", "allow": "anyone"}, *RULES]
    async with started(world, tmp_path, access=rules) as (running, terminal, caller):
        await sign_in(running, "ada")
        token = (await terminal.issue("--person", "ada"))["token"]
        async with caller.http.get(running.url + "/api/x", headers={"Authorization": basic("ada", token)}) as answer:
            assert answer.status == 401
            assert [one.split()[0] for one in answer.headers.getall("WWW-Authenticate")] == ["Bearer"]
        spelt = [f"Bearer\t{token}", "bearer\tstrange", "Bearer,strange", "Basic\tYTpi", f"Token {token}", token]
        spelt += [
            basic("ada", token),
            basic("own", "password"),
            "basic ?",
            f"Bearer {token}",
            "Bearer strange",
            "Bearer",
        ]
        for sent in spelt:
            async with caller.http.get(running.url + "/public/x", headers={"Authorization": sent}) as answer:
                assert answer.status == 200
            assert not running.application.seen[-1].careless("Authorization")


@pytest.mark.parametrize("mode", ["any_user", "same_user"])
async def test_basic_with_a_token_as_the_password(world: World, tmp_path: Path, mode: str) -> None:
    section = {"basic": mode, "forward_basic": "true"}
    rules = [{"path": "/public/**", "allow": "anyone"}, *RULES]
    async with started(world, tmp_path, tokens=section, access=rules) as (running, terminal, caller):
        await sign_in(running, "ada")
        token = (await terminal.issue("--person", "ada"))["token"]

        async def ask(user: str, password: str, path: str = "/api/x", **headers: str) -> aiohttp.ClientResponse:
            sent = {"Authorization": basic(user, password), **headers}
            async with caller.http.get(running.url + path, headers=sent) as answer:
                await answer.read()
                return answer

        assert (await ask("ada", token)).status == 200
        assert last(running) == ("ada", "admin,reader")
        assert (await ask("bob", token)).status == (200 if mode == "any_user" else 401)
        assert (await ask("", token)).status == (200 if mode == "any_user" else 401)
        refused = await ask("ada", written(bytes(32)))
        assert refused.status == 401
        assert refused.headers.getall("WWW-Authenticate")[1] == 'Basic realm="localhost", charset="UTF-8"'
        unknown = await ask("ada", "another password")
        assert unknown.status == 401
        assert unknown.headers.getall("WWW-Authenticate")[1].startswith("Basic ")
        script = await ask("ada", "another password", **{"Sec-Fetch-Mode": "cors"})
        assert [one.split()[0] for one in script.headers.getall("WWW-Authenticate")] == ["Bearer"]
        # What is the application's own passes, ours never.
        await ask("own", "password", "/public/x")
        assert running.application.seen[-1].values("Authorization") == [basic("own", "password")]
        for pair in (("ada", token), (token, "x-oauth-basic")):
            await ask(*pair, "/public/x")
            assert not running.application.seen[-1].careless("Authorization")
        # Nor where it is we who would not take it, and others may: they skip what does not belong into Base64.
        known = basic("ada", token)
        parted = [known.replace(" ", "\t"), f"{known[:20]} {known[20:]}", f"{known}, x"]
        for sent in (f"{known}==", known.rstrip("="), *parted):
            async with caller.http.get(running.url + "/public/x", headers={"Authorization": sent}) as answer:
                assert answer.status == 200
            assert not running.application.seen[-1].careless("Authorization"), sent[:30]
        foreign = "Digest username=own, uri=/public/x, response=abcdef"
        async with caller.http.get(running.url + "/public/x", headers={"Authorization": foreign}):
            assert running.application.seen[-1].values("Authorization") == [foreign]


async def test_bad_tokens_are_limited(world: World, tmp_path: Path) -> None:
    async with started(world, tmp_path, limits={"bad_tokens": "3/1h"}) as (_, _, caller):
        answers = [await caller.ask(written(bytes([number]) * 32)) for number in range(4)]
        assert [status for status, _ in answers] == [401, 401, 401, 429]


async def test_the_commands_say_what_is_wrong_and_change_nothing_in_a_dry_run(world: World, tmp_path: Path) -> None:
    async with started(world, tmp_path) as (running, terminal, _):
        await sign_in(running, "ada")
        create = ["create", "--name", "x"]
        for words, code in (
            ([*create], 2),
            ([*create, "--person", "ada", "--service", "s"], 2),
            ([*create, "--person", "ada", "--role", "admin"], 2),
            ([*create, "--person", "ada", "--expires", "soon"], 2),
            ([*create, "--person", "ada", "--expires", "0s"], 2),
            ([*create, "--service", "a:b"], 2),
            ([*create, "--person", "nobody"], 1),
            ([*create, "--person", "ada", "--scope", "no such rule"], 1),
            (["show", "nothing"], 1),
            (["revoke", "nothing"], 1),
            (["revoke", written(bytes(32))], 1),
        ):
            done = await terminal.run(*words)
            assert (done.exit_code, bool(done.stderr)) == (code, True), words
        planned = await terminal.json(*create, "--person", "ada", "--dry-run")
        assert (planned["dry_run"], "token" in planned) == (True, False)
        assert await terminal.json("list", "--all") == []
        said = await terminal.run(*create, "--person", "ada", "--scope", "GET /api/**")
        assert re.search(r"^sidecar_\w{49}$", said.stdout, re.MULTILINE)
        assert "GET /api/**" in said.stdout
        listed = await terminal.run("list")
        assert "personal" in listed.stdout
        assert PREFIX not in listed.stdout


async def test_without_provision_services_have_tokens_and_nobody_else(world: World, tmp_path: Path) -> None:
    rules = [{"path": "/api/**", "allow": {"bearer": "tokens", "role": "reader"}}, *RULES[-1:]]
    running = await world({"tokens": {}, "access": rules})
    terminal, caller = Terminal(running), Caller(running)
    try:
        await sign_in(running, "ada")
        token = (await terminal.issue("--service", "backup", "--role", "reader"))["token"]
        assert await caller.ask(token) == (200, "")
        assert last(running) == ("backup", "reader")
        assert (await terminal.run("create", "--name", "x", "--person", "ada")).exit_code == 1
        # Another start finds it again.
        again = await world({"tokens": {}, "access": rules, "directory": f"sqlite:///{running.folder}/directory.db"})
        assert (await again.sidecar.condition.readiness())["directory"].startswith("sqlite")
        other = Caller(again)
        assert await other.ask(token) == (200, "")
        await other.http.close()
    finally:
        await caller.http.close()


async def test_a_token_is_remembered_and_the_directory_is_not_asked_for_each_request(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(world, tmp_path) as (running, terminal, caller):
        await sign_in(running, "ada")
        token = (await terminal.issue("--person", "ada"))["token"]
        authenticator: Any = running.sidecar.front.gate.authenticators[0]
        asked: list[str] = []
        really = authenticator._tokens.shown

        async def shown(secret_hash: str) -> Any:
            asked.append(secret_hash)
            return await really(secret_hash)

        noted: list[str] = []

        async def used(token_id: str, *_: float) -> None:
            noted.append(token_id)

        monkeypatch.setattr(authenticator._tokens, "shown", shown)
        monkeypatch.setattr(authenticator._tokens, "used", used)
        # Changes come from other processes only where the store is shared: here it must ask again each second.
        assert authenticator._patience == 1.0
        monkeypatch.setattr("sidecar.tokens.authenticator._UNHEARD", 60.0)
        for _ in range(5):
            await caller.ask(token)
        assert len(asked) == 1
        assert len(noted) == 1
        # Nobody is asked about what was never issued.
        assert await caller.ask(token[:-1] + ("0" if token[-1] != "0" else "1")) == (401, "token-invalid")
        assert len(asked) == 1
        monkeypatch.setattr("sidecar.tokens.authenticator._MOST", 1)
        await caller.ask((await terminal.issue("--person", "ada"))["token"])
        assert len(authenticator._entries) <= 1


# Replicas


async def test_a_revocation_reaches_other_replicas_by_word_of_the_store(
    world: World, tmp_path: Path, redis_url: str
) -> None:
    shared = {**CHANGES, "sessions": {"redis": redis_url}, "directory": f"sqlite:///{tmp_path}/directory.db"}
    users = users_table(tmp_path / "users.db")
    running = [await world(shared, environment={"USERS_DB": users}, provision=True) for _ in range(2)]
    terminal, callers = Terminal(running[0]), [Caller(one) for one in running]
    try:
        await sign_in(running[0], "ada")
        made = await terminal.issue("--person", "ada")
        for caller in callers:
            assert await caller.ask(made["token"]) == (200, "")
        authenticators: list[Any] = [one.sidecar.front.gate.authenticators[0] for one in running]
        # It is remembered for long only because word of its end is sure to come.
        assert [one._patience for one in authenticators] == [60.0, 60.0]
        await terminal.json("revoke", made["id"])
        for caller in callers:
            await until(refused_by(caller, made["token"]), 1)
    finally:
        for caller in callers:
            await caller.http.close()


def refused_by(caller: Caller, token: str) -> Callable[[], Any]:
    async def is_refused() -> bool:
        return await caller.ask(token) == (401, Reason.TOKEN_REVOKED.value)

    return is_refused


# The directory


def a_token(**changes: Any) -> ApiToken:
    values: dict[str, Any] = {
        "id": "t1",
        "kind": Kind.SERVICE,
        "name": "nightly",
        "person_id": None,
        "subject": "backup",
        "roles": ("reader",),
        "scope": ("/api/**", "GET /x"),
        "created": 100.0,
        "created_by": "cli:ada",
        "expires": 200.0,
        **changes,
    }
    return ApiToken(**values)


async def test_the_directory_keeps_tokens_of_one_application_apart_from_those_of_another(database_url: str) -> None:
    wiki, blog = [await Directory.open(database_url, name, 15) for name in ("wiki", "blog")]
    ada = await wiki.admit(Identity("corp", "https://id", "1", "ada"), 1.0)
    service, personal = (
        a_token(),
        a_token(id="t2", kind=Kind.PERSONAL, person_id=ada.id, subject="", roles=(), created=150.0),
    )
    await wiki.tokens.add(service, "a" * 64)
    await wiki.tokens.add(personal, "b" * 64)
    assert await wiki.tokens.shown("a" * 64) == (service, None)
    assert await wiki.tokens.shown("b" * 64) == (personal, ada)
    for unknown in ("A" * 64, "c" * 64, ""):
        assert await wiki.tokens.shown(unknown) is None
    assert await blog.tokens.shown("a" * 64) is None
    assert await blog.tokens.get("t1") is None
    assert await blog.tokens.revoke("t1", "x", 2.0) is False
    assert await wiki.tokens.find() == (personal, service)
    assert await wiki.tokens.find(person_id=ada.id) == (personal,)
    assert await wiki.tokens.find(subject="backup") == (service,)
    await wiki.tokens.used("t1", 110.0, 60.0)
    await wiki.tokens.used("t1", 160.0, 60.0)
    assert (await wiki.tokens.find(subject="backup"))[0].last_used == 110.0
    assert await wiki.tokens.revoke("t1", "cli", 120.0) is True
    assert await wiki.tokens.revoke("t1", "later", 121.0) is False
    found = await wiki.tokens.get("t1")
    assert found is not None
    assert (found[0].revoked, found[0].revoked_by) == (120.0, "cli")
    # A service that has been here has a record, which may be switched off.
    robot = await wiki.admit(Identity("tokens", SERVICE_ISSUER, "backup", "backup"), 130.0)
    shown = await wiki.tokens.shown("a" * 64)
    assert shown is not None
    assert shown[1] == robot
    for directory in (wiki, blog):
        await directory.close()


async def test_the_tokens_of_two_people_who_are_one_stay_good(sqlite_url: str) -> None:
    directory = await Directory.open(sqlite_url.replace("+aiosqlite", ""), "wiki", 15)
    gone = await directory.admit(Identity("corp", "https://id", "1", "ada"), 1.0)
    kept = await directory.admit(Identity("scim:okta", "scim:okta", "9", "ada"), 1.0)
    await directory.tokens.add(a_token(kind=Kind.PERSONAL, person_id=gone.id, subject=""), "a" * 64)
    await directory._database.write(lambda connection: merge(connection, "wiki", gone.id, kept.id, 2.0))
    found = await directory.tokens.get("t1")
    assert found is not None
    assert found[1] is not None
    assert (found[1].id, found[1].active) == (kept.id, True)
    await directory.close()

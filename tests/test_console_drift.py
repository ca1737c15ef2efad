"""The console's page about drift: looked for, put right, and let pass by somebody else only."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from sidecar.console.acts import NEEDS, Act
from sidecar.console.operators import Level
from sidecar.core.audit import Event
from sidecar.directory import Directory
from sidecar.directory.sync_runs import RunRecord
from sidecar.directory.tables import digest, identity, person
from sidecar.model import Identity, identity_key
from sidecar.sync.lease import alone
from tests.console_world import Consoled, a_console, act
from tests.scim_world import TOKEN, client_section
from tests.test_console import HOSTILE
from tests.test_console_sync import OPERATORS
from tests.world import Browser, World, free_port, until

DRIFT = {
    "list": {
        "sql": {
            "url": {"env": "USERS_DB"},
            "query": "SELECT * FROM users WHERE id > :after ORDER BY id LIMIT :limit",
            "key": "id",
        }
    },
    "account": {"key": "{{ row.login }}", "active": "{{ row.active == 1 }}", "roles": "{{ row.role }}"},
    "limits": {"change": {"count": 1}},
}
# With a source of people it is known who somebody is who is not here, and so is which roles they have.
KNOWN = {"drift": DRIFT, "scim": {"clients": {"okta": client_section()}}}
TWO = {"console": {"operators": OPERATORS}, **KNOWN}
ENVIRONMENT = {"SCIM_TOKEN": TOKEN}


def directory_of(console: Consoled) -> Directory:
    directory = console.running.sidecar.condition.accounts.directory
    assert directory is not None
    return directory


async def newest(console: Consoled) -> RunRecord:
    return (await directory_of(console).sync.runs("drift", 1))[0]


async def with_accounts(console: Consoled, *logins: str) -> None:
    """Let people sign in at the application, so that they have accounts."""
    for login in logins:
        async with console.running.browser() as browser:
            assert (await browser.sign_in(login)).status == 200


def change(console: Consoled, statement: str, *values: object) -> None:
    """Do something in the application behind everybody's back."""
    with closing(sqlite3.connect(console.users)) as users, users:
        users.execute(statement, values)


def roles(console: Consoled) -> dict[str, str]:
    with closing(sqlite3.connect(console.users)) as users, users:
        return dict(users.execute("SELECT login, role FROM users").fetchall())


async def a_waiting_repair(console: Consoled, asker: Browser) -> RunRecord:
    """A repair that *asker* asked for, and that is more than one may do."""
    await with_accounts(console, "alan", "grace")
    change(console, "UPDATE users SET role = 'admin' WHERE login IN ('alan', 'grace')")
    assert (await act(asker, "drift-fix", "drift")).status == 303
    run = await newest(console)
    assert run.state == "quarantined"
    return run


async def test_drift_is_shown_by_kind_and_page_and_names_are_text(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path, {"drift": DRIFT})
    with closing(sqlite3.connect(console.users)) as users, users:
        users.executemany(
            "INSERT INTO users (login, email, role) VALUES (?, 'x@x', 'admin')",
            [(HOSTILE,), *((f"orphan{number:03}",) for number in range(60))],
        )
    async with await console.operator("alan") as viewer, await console.operator("grace") as operator:
        text = await (await viewer.page("/drift")).text()
        assert "Nobody has looked yet" in text
        assert 'href="/drift"' in text
        assert "by hand" in text
        assert (await act(operator, "drift-look", "drift")).status == 303
        first = await newest(console)
        text = await (await viewer.page("/drift")).text()
        assert re.search(r"\d+ there, 0 known here", text)
        assert "Orphan <span>61</span>" in text
        assert HOSTILE not in text
        assert "&lt;" in text
        for button in ("Look now", "Put it right now", "<form"):
            assert button not in text
        more = await (await viewer.page("/drift?show=orphan&after=49")).text()
        assert "orphan059" in more
        assert "Next page" not in more
        change(console, "DELETE FROM users WHERE login LIKE 'orphan%'")
        assert (await act(operator, "drift-look", "drift")).status == 303
        assert "orphan059" not in await (await viewer.page("/drift?after=49")).text()
        before = await (await viewer.page(f"/drift/{first.id}?show=orphan&after=49")).text()
        assert "orphan059" in before
        assert "Nothing differs" in await (await viewer.page("/drift?show=missing")).text()
        for missing in ("/drift?show=nothing", "/drift?after=x", "/drift/x", f"/drift/{'0' * 32}"):
            assert (await viewer.page(missing)).status == 404, missing
    targets = [line["target"] for line in console.audited(Event.CONSOLE_READ.value)]
    assert f"drift {first.id}" in targets


async def test_the_page_is_not_there_without_its_section(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with await console.operator("ada") as admin:
        assert (await admin.page("/drift")).status == 404
        for one in ("drift-look", "drift-fix", "drift-approve", "drift-reject"):
            assert (await act(admin, one, "0" * 32)).status == 404, one


async def test_what_differs_is_put_right_within_the_limits(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path, KNOWN, environment=ENVIRONMENT)
    await with_accounts(console, "alan")
    change(console, "UPDATE users SET role = 'admin' WHERE login = 'alan'")
    async with await console.operator("grace") as operator, await console.operator("alan") as viewer:
        assert (await act(operator, "drift-look", "drift")).status == 303
        assert roles(console)["alan"] == "admin"
        assert "Can be put right <span>1</span>" in await (await viewer.page("/drift")).text()
        assert "alan" in await (await viewer.page("/drift?show=fixable")).text()
        assert (await act(viewer, "drift-fix", "drift")).status == 403
        assert (await act(operator, "drift-fix", "drift")).status == 303

        async def is_right() -> bool:
            return roles(console)["alan"] == "reader"

        await until(is_right)
        assert "1 settle" in await (await viewer.page("/drift")).text()
    run = await newest(console)
    lines = [(one["act"], one["result"], one["state"]) for one in console.audited("console-act")]
    assert lines == [("drift-look", "done", "done"), ("drift-fix", "done", "done")]
    assert console.audited("console-act")[1]["run"] == run.id
    [refused] = console.audited("console-refused")
    assert (refused["act"], refused["person"]) == ("drift-fix", "alan")


async def test_nobody_lets_their_own_repair_pass_and_somebody_else_does_once(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path, TWO, environment=ENVIRONMENT)
    ada, grace, alan = [await console.operator(login) for login in ("ada", "grace", "alan")]
    async with ada, grace, alan:
        run = await a_waiting_repair(console, ada)
        assert roles(console)["alan"] == "admin"
        shown = await (await ada.page("/drift")).text()
        assert "change: 2, and 1 are allowed" in shown
        assert "somebody else has to approve it" in shown
        own = await act(ada, "drift-approve", run.id)
        assert own.status == 409
        assert "Ada asked for this repair: somebody else has to approve it" in await own.text()
        assert NEEDS[Act.DRIFT_APPROVE] is Level.ADMINISTER
        for viewer, name in ((alan, "drift-approve"), (alan, "drift-reject"), (alan, "drift-look")):
            assert (await act(viewer, name, run.id)).status == 403, name
        assert "Approve this repair" not in await (await alan.page("/drift")).text()
        # Not by the beginning of an id, the plan, or the newest.
        for wrong in (run.id[:12], run.hash, "drift", run.id.upper(), f"{run.id}\n"):
            assert (await act(grace, "drift-approve", wrong)).status == 404, wrong
        assert "Approve this repair" in await (await grace.page("/drift")).text()
        assert (await act(grace, "drift-approve", run.id)).status == 303
        assert (await act(grace, "drift-approve", run.id)).status == 409
        assert "approved" in await (await alan.page(f"/drift/{run.id}")).text()
        assert (await act(ada, "drift-fix", "drift")).status == 303
        done = await newest(console)
        assert (done.state, done.asked_by, done.approved_by) == ("done", "ada", "grace")

        async def are_right() -> bool:
            return (roles(console)["alan"], roles(console)["grace"]) == ("reader", "editor")

        await until(are_right)
        # Once.
        change(console, "UPDATE users SET role = 'admin' WHERE login IN ('alan', 'grace')")
        assert (await act(ada, "drift-fix", "drift")).status == 303
        assert (await newest(console)).state == "quarantined"
    [line] = console.audited("drift-approved")
    assert (line["by"], line["asked_by"], line["run"]) == ("grace", "ada", run.id)


async def test_what_was_rejected_is_never_done(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path, TWO, environment=ENVIRONMENT)
    async with await console.operator("ada") as ada, await console.operator("grace") as grace:
        run = await a_waiting_repair(console, ada)
        assert (await act(grace, "drift-approve", run.id)).status == 303
        assert "The repair of" not in await (await ada.page("/drift")).text()
        assert (await act(ada, "drift-look", "drift")).status == 303
        # A look in between leaves the approval alone, and says that there is one.
        assert f'href="/drift/{run.id}">The repair of' in await (await ada.page("/drift")).text()
        assert (await act(ada, "drift-reject", run.id)).status == 303
        for name in ("drift-approve", "drift-reject"):
            assert (await act(grace, name, run.id)).status == 409, name
        assert (await act(ada, "drift-fix", "drift")).status == 303
        assert (await newest(console)).state == "quarantined"
        assert roles(console)["alan"] == "admin"
    [line] = console.audited("drift-rejected")
    assert (line["by"], line["asked_by"]) == ("ada", "ada")


async def with_another_login(world: World, tmp_path: Path) -> Consoled:
    """A console at which people may also sign in with another account of theirs, at another provider."""
    second = free_port()
    other = {"type": "oidc", "title": "Other", "issuer": f"http://localhost:{second}/id", "client_id": "wiki"}
    logins = {"logins": {"other": {**other, "client_secret": {"env": "OIDC_SECRET"}}}}
    console = await a_console(world, tmp_path, {**TWO, **logins}, environment=ENVIRONMENT)
    await world.provider(console.running.url, console.url, port=second)
    return console


async def sign_in_with(console: Consoled, name: str, login: str) -> Browser:
    browser = console.browser()
    answer = await browser.sign_in(login, f"/-/login?to=/&with={name}")
    assert answer.status == 200
    return browser


async def belongs_to(console: Consoled, login: str, owner: str) -> None:
    """Let the sign-in of *login* at the other provider be *owner*'s."""
    directory = directory_of(console)
    (own,) = await directory.find(owner)
    opened = [one for one in console.audited("login-succeeded") if one["provider"] == "other"]
    (line,) = [one for one in opened if one["person"] == login][:1]
    key = identity_key(line["issuer"], line["subject"])
    stray = await directory.person_by_identity(key)
    if stray is None:
        stray = await directory.admit(Identity("other", line["issuer"], line["subject"], login), 1.0)
    moved = update(identity).where(identity.c.key_hash == digest(key)).values(person_id=own.id)
    await directory.sync.transact(lambda connection: connection.execute(moved))


async def is_called(console: Consoled, before: str, after: str) -> None:
    """Let somebody be called otherwise from now on."""
    renamed = update(person).where(person.c.username == before).values(username=after)
    await directory_of(console).sync.transact(lambda connection: connection.execute(renamed))


@pytest.mark.parametrize("is_known_before", [True, False])
async def test_another_login_of_the_same_person_is_no_second_person(
    world: World, tmp_path: Path, *, is_known_before: bool
) -> None:
    console = await with_another_login(world, tmp_path)
    async with (
        await sign_in_with(console, "corp", "ada") as ada,
        await sign_in_with(console, "other", "grace") as theirs,
        await sign_in_with(console, "corp", "grace") as grace,
    ):
        if is_known_before:
            await with_accounts_by(console, "corp", "ada")
            await belongs_to(console, "grace", "ada")
        await with_accounts_by(console, "corp", "alan", "grace")
        change(console, "UPDATE users SET role = 'admin' WHERE login IN ('alan', 'grace')")
        assert (await act(ada, "drift-fix", "drift")).status == 303
        run = await newest(console)
        assert (run.state, run.asked_by) == ("quarantined", "ada")
        if not is_known_before:
            # Who asked was known by their sign-in alone; that both are one turns out before the approval.
            await with_accounts_by(console, "corp", "ada")
            await belongs_to(console, "grace", "ada")
        await is_called(console, "ada", "countess")
        answer = await act(theirs, "drift-approve", run.id)
        assert answer.status == 409
        assert "Countess asked for this repair" in await answer.text()
        assert (await newest(console)).state == "quarantined"
        assert "Approve this repair" not in await (await theirs.page(f"/drift/{run.id}")).text()
        assert (await act(grace, "drift-approve", run.id)).status == 303
    assert console.audited("console-act")[-2]["reason"] == "conflict"


async def with_accounts_by(console: Consoled, name: str, *logins: str) -> None:
    for login in logins:
        async with console.running.browser() as browser:
            assert (await browser.sign_in(login, f"/-/login?to=/&with={name}")).status == 200


async def test_while_somebody_else_looks_it_is_said_and_decisions_are_still_taken(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path, TWO, environment=ENVIRONMENT)
    book = directory_of(console).sync
    async with await console.operator("ada") as ada, await console.operator("grace") as grace:
        run = await a_waiting_repair(console, ada)
        async with alone(book, "drift", console.clock, "busy"):
            for name in ("drift-look", "drift-fix"):
                answer = await act(grace, name, "drift")
                assert answer.status == 503, name
                text = await answer.text()
                assert "are being looked at already" in text
                assert "sync-busy" in text
                assert 'href="/"' in text
            page = await (await grace.page("/drift")).text()
            assert "which holds it until" in page
            assert (await act(grace, "drift-approve", run.id)).status == 303
        assert (await act(grace, "drift-fix", "drift")).status == 303
        assert (await newest(console)).state == "done"
    lines = [one["reason"] for one in console.audited("console-act") if "reason" in one]
    assert lines == ["sync-busy", "sync-busy"]


async def test_of_two_who_decide_at_once_one_is_refused(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path, TWO, environment=ENVIRONMENT)
    async with await console.operator("ada") as ada, await console.operator("grace") as grace:
        run = await a_waiting_repair(console, ada)
        answers = await asyncio.gather(act(grace, "drift-approve", run.id), act(grace, "drift-approve", run.id))
        assert sorted(answer.status for answer in answers) == [303, 409]
    assert len(console.audited("drift-approved")) == 1


async def test_a_listing_that_is_not_complete_is_said_and_nothing_is_put_right(world: World, tmp_path: Path) -> None:
    listing: dict[str, Any] = {"sql": {**DRIFT["list"]["sql"], "count": "SELECT 99 FROM users"}}  # type: ignore[dict-item]
    console = await a_console(world, tmp_path, {"drift": {**DRIFT, "list": listing}})
    async with await console.operator("grace") as operator:
        assert (await act(operator, "drift-look", "drift")).status == 303
        assert "The listing is not complete" in await (await operator.page("/drift")).text()
        answer = await act(operator, "drift-fix", "drift")
        assert answer.status == 409
        assert "The listing is not complete" in await answer.text()
        change(console, "ALTER TABLE users RENAME TO elsewhere")
        assert (await act(operator, "drift-look", "drift")).status == 503
        assert "failed" in await (await operator.page("/drift")).text()


async def test_work_that_takes_long_goes_on_while_its_page_is_answered(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.console.errands._PATIENCE", 0.0)
    console = await a_console(world, tmp_path, {"drift": DRIFT})
    async with await console.operator("grace") as operator:
        assert (await act(operator, "drift-look", "drift")).status == 303

        async def is_noted() -> bool:
            return len(console.audited("console-act")) == 2

        await until(is_noted)
        assert [line["result"] for line in console.audited("console-act")] == ["begun", "done"]
        assert "What grace asked for ended: done" in await (await operator.page("/drift")).text()


async def test_without_a_source_of_people_roles_are_put_right_with_the_next_request(
    world: World, tmp_path: Path
) -> None:
    console = await a_console(world, tmp_path, {"drift": DRIFT})
    async with console.running.browser() as browser, await console.operator("grace") as operator:
        await browser.sign_in("alan")
        change(console, "UPDATE users SET role = 'admin' WHERE login = 'alan'")
        assert (await act(operator, "drift-fix", "drift")).status == 303
        world.clock.ahead = 120.0
        assert (await browser.page("/x")).status == 200
        assert roles(console)["alan"] == "reader"

"""Accounts in the application that are not what they should be: found, shown, and put right where they are ours."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from sidecar.cli import main
from sidecar.core.drift import Comparison, Finding, Held, Listed, Reader, Standards
from sidecar.core.template import Compiler, TemplateError
from sidecar.directory.sync_runs import RunRecord
from sidecar.drift.schedule import DriftSchedule
from sidecar.drift.watch import Report
from sidecar.faults import Refused, Unavailable
from sidecar.reason import Reason
from tests.sync_world import Company, person
from tests.world import merged

DRIFT = {
    "list": {
        "sql": {
            "url": {"env": "APP_DB"},
            "query": "SELECT * FROM users WHERE id > :after ORDER BY id LIMIT :limit",
            "key": "id",
            "page": "3",
            "count": "SELECT count(*) FROM users",
        }
    },
    "account": {
        "key": "{{ row.login }}",
        "active": "{{ row.active == 1 }}",
        "roles": "{{ row.role }}",
        "email": "{{ row.email }}",
        "seen": "{{ row.seen }}",
    },
    "ignore": ["svc-backup"],
}


@pytest.fixture
async def company(tmp_path: Path) -> Company:
    """Ten people with accounts; p00001 to p00003 are admins."""
    made = Company(tmp_path, {"drift": DRIFT})
    act(made, "ALTER TABLE users ADD COLUMN seen TEXT")
    made.list(person(number, teams="admins" if number < 4 else "") for number in range(1, 11))
    assert (await made.run()).state == "done"
    assert made.users()["p00001"] == ("p00001@example.com", "admin", 1)
    return made


def act(company: Company, *statements: str) -> None:
    """Do something in the application behind everybody's back."""
    with closing(sqlite3.connect(company.folder / "app.db")) as database, database:
        for statement in statements:
            database.execute(statement)


async def let_the_last_leave(company: Company) -> None:
    company.list(
        person(number, teams="admins" if number < 4 else "", status="gone" if number == 10 else "active")
        for number in range(1, 11)
    )
    await company.run()


async def look(company: Company, **options: Any) -> Report:
    async with company.opened() as syncing:
        assert syncing.drift is not None
        return await syncing.drift.look("ada", **options)


async def fix(company: Company, by: str = "ada") -> Report:
    async with company.opened() as syncing:
        assert syncing.drift is not None
        report = await syncing.drift.fix(by)
        await syncing.settle(lambda _done: None)
        return report


def told(report: Report) -> list[tuple[str, str, str, str]]:
    return [(one.finding.value, one.account, one.there, one.here) for one in report.found]


async def test_nothing_is_found_where_nothing_differs(company: Company) -> None:
    report = await look(company)
    assert (report.is_complete, told(report), report.run.head["accounts"]) == (True, [], 10)


async def test_each_kind_of_difference_is_found_and_said(company: Company) -> None:
    await let_the_last_leave(company)
    act(
        company,
        "UPDATE users SET active = 1 WHERE login = 'p00010'",
        "UPDATE users SET active = 0 WHERE login = 'p00009'",
        "UPDATE users SET role = 'admin' WHERE login = 'p00008'",
        "UPDATE users SET role = 'viewer' WHERE login = 'p00001'",
        "DELETE FROM users WHERE login = 'p00007'",
        "INSERT INTO users (login, email, role) VALUES ('intern', 'intern@x', 'admin')",
        "INSERT INTO users (login, email, role, active) VALUES ('old', 'old@x', 'admin', 0)",
        "INSERT INTO users (login, email, role) VALUES ('root', 'root@x', 'admin')",
        "INSERT INTO users (login, email, role) VALUES ('Svc-Backup', 'b@x', 'admin')",
        "UPDATE users SET seen = '2020-01-01T00:00:00Z' WHERE login = 'p00002'",
    )
    report = await look(company, idle=90 * 86400.0)
    days = int((company.now - 1577836800) / 86400)
    assert told(report) == [
        ("lingering", "p00010", "active", "switched off"),
        ("disabled", "p00009", "switched off", "active"),
        ("roles", "p00001", "", "admin"),
        ("roles", "p00008", "admin", ""),
        ("orphan", "intern", "active", ""),
        ("missing", "p00007", "", "p00007"),
        ("dormant", "p00002", f"{days} days", ""),
    ]
    assert report.is_complete


async def test_an_account_under_the_same_name_with_another_id_is_another(company: Company) -> None:
    account = {**DRIFT["account"], "id": "{{ row.id }}"}  # type: ignore[dict-item]
    company.configure({"drift": {**DRIFT, "account": account}})
    assert told(await look(company)) == []
    act(
        company,
        "DELETE FROM users WHERE login IN ('p00002', 'p00003')",
        "INSERT INTO users (id, login, email, role) VALUES (777, 'p00002', 'x@x', 'admin')",
        "UPDATE users SET login = 'p3', id = 3 WHERE login = 'p00004'",
    )
    found = told(await look(company))
    assert ("replaced", "p00002", "id 777", "id 2") in found
    # What was the id of somebody else's account is theirs.
    assert ("renamed", "p3", "p3", "p00003") in found
    assert ("missing", "p00004", "", "p00004") in found


async def test_an_account_that_looks_like_somebodys_is_only_suggested(company: Company) -> None:
    act(company, "DELETE FROM users WHERE login = 'p00004'")
    company.list([*(person(n, teams="admins" if n < 4 else "") for n in range(1, 11)), person(11)])
    await company.run(settle=False)
    act(company, "INSERT INTO users (login, email, role) VALUES ('eleven', 'P00011@example.com', 'admin')")
    report = await look(company)
    [similar] = [one for one in report.found if one.finding is Finding.SIMILAR]
    assert (similar.account, similar.username) == ("eleven", "p00011")
    assert similar not in report.fixable()


async def test_what_is_ours_is_put_right_and_nothing_else(company: Company) -> None:
    await let_the_last_leave(company)
    act(
        company,
        "UPDATE users SET active = 1 WHERE login = 'p00010'",
        "UPDATE users SET active = 0 WHERE login = 'p00009'",
        "UPDATE users SET role = 'admin' WHERE login = 'p00008'",
        "INSERT INTO users (login, email, role) VALUES ('intern', 'intern@x', 'admin')",
        "INSERT INTO users (login, email, role) VALUES ('root', 'root@x', 'admin')",
    )
    report = await fix(company)
    assert report.run.head["owed"] == {"deactivate": 1, "settle": 1}
    users = company.users()
    assert users["p00010"][2] == 0
    # Whoever was locked out there was so for some reason.
    assert users["p00009"][2] == 0
    assert users["p00008"][1] != "admin"
    assert users["intern"] == ("intern@x", "admin", 1)
    assert users["root"] == ("root@x", "admin", 1)
    assert told(await look(company)) == [
        ("disabled", "p00009", "switched off", "active"),
        ("orphan", "intern", "active", ""),
    ]
    # Again and again: what was put right once can be put right once more.
    act(company, "UPDATE users SET active = 1 WHERE login = 'p00010'")
    await fix(company)
    assert company.users()["p00010"][2] == 0


def broken(company: Company, count: int) -> None:
    """Make *count* of those who are no admins ones."""
    with closing(sqlite3.connect(company.folder / "app.db")) as database, database:
        logins = [(f"p{number:05}",) for number in range(4, 4 + count)]
        database.executemany("UPDATE users SET role = 'admin' WHERE login = ?", logins)


def admins(company: Company) -> int:
    return sum(role == "admin" for _, role, _ in company.users().values())


async def test_a_repair_beyond_its_limit_waits_for_somebody_else(company: Company) -> None:
    company.configure({"drift": {**DRIFT, "limits": {"change": {"count": "2"}}}})
    broken(company, 2)
    assert (await fix(company)).run.state == "done"
    broken(company, 3)
    held = await fix(company)
    assert held.run.state == "quarantined"
    assert held.run.head["breaches"] == ["change: 3, and 2 are allowed"]
    assert admins(company) == 6
    async with company.opened() as syncing:
        assert syncing.drift is not None
        with pytest.raises(Refused, match="somebody else has to approve"):
            await syncing.drift.approve(held.run.hash[:12], "ada")
        with pytest.raises(Refused, match="there is no repair"):
            await syncing.drift.approve(held.run.hash[:7], "grace")
        with pytest.raises(Refused, match="there is no repair"):
            await syncing.drift.approve("nothing", "grace")
        await syncing.drift.approve(held.run.hash[:12], "grace")
        with pytest.raises(Refused, match="only a quarantined one"):
            await syncing.drift.approve(held.run.hash[:12], "alan")
    done = await fix(company)
    assert (done.run.state, done.run.approved_by) == ("done", "grace")
    assert admins(company) == 3
    # It was let pass once.
    company.pass_time(1)
    broken(company, 3)
    assert (await fix(company)).run.state == "quarantined"


async def waiting(company: Company, keys: tuple[str, ...] = ()) -> RunRecord:
    """A repair that ada asked for, and that is more than one may do."""
    company.configure({"drift": {**DRIFT, "limits": {"change": {"count": "2"}}}})
    broken(company, 3)
    async with company.opened() as syncing:
        assert syncing.drift is not None
        held = await syncing.drift.fix("ada", keys=keys)
    assert held.run.state == "quarantined"
    return held.run


async def test_one_human_with_two_sign_ins_is_not_a_second_person(company: Company) -> None:
    held = await waiting(company, ("person-1", "corp|ada"))
    async with company.opened() as syncing:
        assert syncing.drift is not None
        for by, keys in (("ADA ", ()), ("ａｄａ", ()), ("countess", ("person-1",)), ("lovelace", ("x", "corp|ada"))):
            with pytest.raises(Refused, match="somebody else has to approve"):
                await syncing.drift.approve(held.id, by, keys)
        approved = await syncing.drift.approve(held.id, "grace", ("person-2", "corp|grace"))
    assert (approved.state, approved.approved_by) == ("approved", "grace")
    lines = [json.loads(line) for line in (company.folder / "audit.jsonl").read_text().splitlines()]
    [line] = [line for line in lines if line["event"] == "drift-approved"]
    assert (line["by"], line["asked_by"], line["run"], line["plan"]) == ("grace", "ada", held.id, held.hash)


async def test_a_repair_that_was_rejected_is_never_done(company: Company) -> None:
    held = await waiting(company)
    async with company.opened() as syncing:
        assert syncing.drift is not None
        # An approval can be taken back by anybody.
        await syncing.drift.approve(held.id, "grace")
        assert (await syncing.drift.reject(held.id, "ada")).state == "rejected"
        for decide in (syncing.drift.approve, syncing.drift.reject):
            with pytest.raises(Refused, match="the repair is rejected"):
                await decide(held.id, "grace")
        with pytest.raises(Refused, match="there is no repair"):
            await syncing.drift.reject(held.id[:7], "grace")
    company.pass_time(1)
    assert (await fix(company)).run.state == "quarantined"
    assert admins(company) == 6


async def test_an_approval_does_not_outlive_what_it_was_for(company: Company) -> None:
    held = await waiting(company)
    async with company.opened() as syncing:
        assert syncing.drift is not None
        await syncing.drift.approve(held.id, "grace")
    act(company, "UPDATE users SET role = NULL WHERE login > 'p00003'")
    company.pass_time(1)
    assert (await fix(company)).found == []
    broken(company, 3)
    company.pass_time(1)
    assert (await fix(company)).run.state == "quarantined"
    assert admins(company) == 6


async def test_whoever_was_killed_while_looking_is_noted_by_the_next(company: Company) -> None:
    async with company.opened() as syncing:
        assert syncing.drift is not None
        killed = RunRecord("0" * 32, "drift", "", "reading", company.now, company.now, "ada", "", {})
        await syncing.drift._book.begin(killed)
        company.pass_time(1)
        await syncing.drift.look("ada")
        assert [run.state for run in await syncing.drift.runs()] == ["done", "failed"]


async def test_an_approval_is_for_what_was_seen(company: Company) -> None:
    company.configure({"drift": {**DRIFT, "limits": {"change": {"count": "2"}}}})
    broken(company, 3)
    held = await fix(company)
    async with company.opened() as syncing:
        assert syncing.drift is not None
        await syncing.drift.approve(held.run.hash, "grace")
    broken(company, 5)
    assert (await fix(company)).run.state == "quarantined"
    assert admins(company) == 8


async def test_few_are_never_too_many_for_percent_and_leaving_has_a_limit_of_its_own(company: Company) -> None:
    limits = {"change": {"percent": "10"}, "deactivate": {"count": "0"}}
    company.configure({"drift": {**DRIFT, "limits": limits}})
    broken(company, 1)
    assert (await fix(company)).run.state == "done"
    broken(company, 2)
    assert (await fix(company)).run.head["breaches"] == ["change: 2, and 1 are allowed"]
    act(company, "UPDATE users SET role = NULL WHERE login > 'p00003'")
    await let_the_last_leave(company)
    act(company, "UPDATE users SET active = 1 WHERE login = 'p00010'")
    assert (await fix(company)).run.head["breaches"] == ["deactivate: 1, and 0 are allowed"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"list": {"sql": {"count": "SELECT count(*) + 1 FROM users"}}}, "11"),
        ({"account": {"active": "{{ row.active }}"}}, "10 accounts cannot be read"),
        ({"most": "4"}, "there are more than 4 accounts"),
        ({"list": {"sql": {"query": "SELECT id, login FROM users WHERE id > :after AND id < 0 LIMIT :limit"}}}, ""),
    ],
)
async def test_t72_an_incomplete_listing_misses_nobody_and_puts_nothing_right(
    company: Company, change: dict[str, Any], why: str
) -> None:
    broken(company, 1)
    company.configure({"drift": merged(DRIFT, change)})
    report = await look(company)
    assert (report.is_complete, report.run.state) == (False, "incomplete")
    assert why in report.run.head["why"]
    assert Finding.MISSING not in {one.finding for one in report.found}
    with pytest.raises(Refused, match="not complete"):
        await fix(company)
    assert admins(company) == 4


async def test_an_application_that_is_away_is_a_fault_and_is_kept_as_one(company: Company) -> None:
    act(company, "ALTER TABLE users RENAME TO elsewhere")
    async with company.opened() as syncing:
        assert syncing.drift is not None
        with pytest.raises(Unavailable) as fault:
            await syncing.drift.look("ada")
        assert fault.value.reason is Reason.SOURCE_DOWN
        newest = await syncing.drift.newest()
        assert newest is not None
        assert newest.state == "failed"
        assert await syncing.drift.last() is None


async def test_only_one_looks_at_a_time(company: Company) -> None:
    async with company.opened() as one, company.opened() as other:
        assert one.drift is not None
        assert other.drift is not None
        async with one.drift._alone():
            with pytest.raises(Unavailable) as fault:
                await other.drift.look("ada")
            assert fault.value.reason is Reason.SYNC_BUSY
        assert (await other.drift.look("ada")).is_complete


async def test_what_was_found_can_be_read_again(company: Company) -> None:
    broken(company, 3)
    report = await look(company)
    async with company.opened() as syncing:
        assert syncing.drift is not None
        last = await syncing.drift.last()
        assert last is not None
        assert last.head["counts"] == {"roles": 3}
        assert [one async for one in syncing.drift.findings(last)] == list(report.found)


async def test_it_works_with_every_kind_of_directory(tmp_path: Path, database_url: str) -> None:
    made = Company(tmp_path, {"drift": DRIFT, "directory": database_url})
    act(made, "ALTER TABLE users ADD COLUMN seen TEXT")
    # More than one page of the directory.
    made.list(person(number, teams="admins" if number < 4 else "") for number in range(1, 41))
    await made.run()
    broken(made, 1)
    act(made, "DELETE FROM users WHERE login = 'p00030'")
    assert [line[:2] for line in told(await look(made))] == [("roles", "p00004"), ("missing", "p00030")]
    await fix(made)
    assert [line[:2] for line in told(await look(made))] == [("missing", "p00030")]


async def test_an_api_may_list_the_accounts_too(company: Company) -> None:
    async def users(request: web.Request) -> web.Response:
        start, rows = int(request.query.get("offset", 0)), sorted(company.users().items())
        some = [{"name": login, "locked": not user[2], "groups": [user[1]]} for login, user in rows[start : start + 4]]
        more = {"Link": f'<{request.path}?offset={start + 4}>; rel="next"'} if start + 4 < len(rows) else {}
        return web.json_response({"users": some, "total": len(rows)}, headers=more)

    app = web.Application()
    app.router.add_get("/api/users", users)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rest = {
        "base_url": f"http://127.0.0.1:{runner.addresses[0][1]}/api",
        "path": "/users",
        "people": "{{ body.users }}",
        "total": "{{ body.total }}",
    }
    account = {
        "key": "{{ row.name }}",
        "active": "{{ not row.locked }}",
        "roles": "{{ row.groups | reject('none') | list }}",
    }
    company.configure({"drift": {"list": {"rest": rest}, "account": account}})
    broken(company, 1)
    try:
        report = await look(company)
    finally:
        await runner.cleanup()
    assert report.is_complete
    assert told(report) == [("roles", "p00004", "admin", "")]
    with pytest.raises(Unavailable):
        await look(company)


async def test_it_is_looked_for_when_it_is_time_by_one_replica(company: Company) -> None:
    company.configure({"drift": {**DRIFT, "every": "1h", "repair": "true"}})
    told_counts: list[list[Mapping[str, int]]] = [[], []]
    broken(company, 1)
    async with company.opened() as one, company.opened() as other:
        assert one.drift is not None
        assert other.drift is not None
        replicas = [
            DriftSchedule(watch, lambda: 0.5, counts.append, repairs=True)
            for watch, counts in zip((one.drift, other.drift), told_counts, strict=True)
        ]
        assert [await replica.look() for replica in replicas] == [True, False]
        await one.settle(lambda _done: None)
        assert admins(company) == 3
        company.pass_time(0.9)
        assert [await replica.look() for replica in replicas] == [False, False]
        company.pass_time(0.2)
        assert [await replica.look() for replica in reversed(replicas)] == [True, False]
        # A look by hand counts as well, and each replica tells each look once.
        company.pass_time(0.1)
        await one.drift.look("ada")
        broken(company, 2)
        company.pass_time(0.1)
        await other.drift.look("ada")
        for replica in replicas * 2:
            assert not await replica.look()
    assert [[counts["roles"] for counts in told] for told in told_counts] == [[1, 0, 2], [1, 0, 2]]


async def test_what_waits_or_went_wrong_is_complained_of(company: Company) -> None:
    company.configure({"drift": {**DRIFT, "every": "1h", "limits": {"change": {"count": "0"}}}})
    broken(company, 1)
    async with company.opened() as syncing:
        assert syncing.drift is not None
        schedule = DriftSchedule(syncing.drift, lambda: 0.0, lambda _counts: None, repairs=True)
        assert schedule.complaints() == {}
        await schedule.look()
        assert "waits for approval" in schedule.complaints()["drift"]
        act(company, "ALTER TABLE users RENAME TO elsewhere")
        company.pass_time(2)
        with pytest.raises(Unavailable):
            await schedule.look()
        assert "could not be read" in schedule.complaints()["drift"]
        act(company, "ALTER TABLE elsewhere RENAME TO users")
        company.pass_time(0.1)
        held = await syncing.drift.fix("ada")
        assert not await schedule.look()
        assert "waits for approval" in schedule.complaints()["drift"]
        await syncing.drift.reject(held.run.id, "ada")
        await schedule.look()
        assert schedule.complaints() == {}


# What a row says


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_700_000_000, 1_700_000_000.0),
        (1_700_000_000_000, 1_700_000_000.0),
        ("1700000000", 1_700_000_000.0),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14 22:13:20", 1_700_000_000.0),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000.0),
        ("yesterday", None),
        (None, None),
        (True, None),
        (float("nan"), None),
        (0, None),
        ([], None),
        # Nothing that could not be shown again.
        (1e300, None),
        (10**400, None),
        ("9" * 400, None),
        ("1e17", None),
        ("0001-01-01T00:00:00+23:59", None),
        (253_402_300_799_000, 253_402_300_799.0),
        (253_402_300_800_000, None),
    ],
)
def test_times_are_read_as_they_come(value: Any, seconds: float | None) -> None:
    compiled = Compiler().compile
    reader = Reader(compiled("{{ row.key }}"), seen=compiled("{{ row.seen }}"))
    assert reader.read({"key": "ada", "seen": value}).seen == seconds


@pytest.mark.parametrize(
    ("value", "names"),
    [("admin, editor,,admin", ("admin", "editor")), (["admin", 7], ("admin", "7")), (None, ()), ("", ())],
)
def test_roles_are_a_list_or_text(value: Any, names: tuple[str, ...]) -> None:
    compiled = Compiler().compile
    assert Reader(compiled("k"), roles=compiled("{{ row.roles }}")).read({"roles": value}).roles == names
    with pytest.raises(TemplateError):
        Reader(compiled("k"), roles=compiled("{{ row.roles }}")).read({"roles": {"admin": True}})


@pytest.mark.parametrize("key", ["", " ", "a\nb", "x" * 256])
def test_what_is_called_nothing_that_can_be_shown_is_not_read(key: str) -> None:
    with pytest.raises(ValueError, match="no usable key"):
        Reader(Compiler().compile("{{ row.key }}")).read({"key": key})


@pytest.mark.parametrize(
    ("mode", "there", "found"),
    [
        ("authoritative", ("admin", "own"), [("admin", "editor")]),
        ("additive", ("admin",), [("admin", "admin, editor")]),
        ("additive", ("admin", "editor"), []),
        ("create_only", ("admin",), []),
        ("authoritative", ("editor", "own"), []),
    ],
)
def test_roles_differ_by_how_they_are_looked_after(mode: str, there: tuple[str, ...], found: list[Any]) -> None:
    standards = Standards(managed=frozenset(["admin", "editor"]), mode=mode)
    held = [Held("1", "ada", "", is_on=True, key="ada", roles=("editor",))]
    comparison = Comparison(standards, held)
    assert [(one.there, one.here) for one in comparison.take(Listed("Ada", roles=there))] == found
    assert list(comparison.rest()) == []


def test_what_is_there_twice_is_said() -> None:
    held = [Held("1", "ada", "", is_on=True, key="ada", id="7")]
    comparison = Comparison(Standards(), held)
    rows = [
        Listed("ada", "7"),
        Listed("ADA", "7"),
        Listed("other", "7"),
        Listed("x", active=False),
        Listed("x", active=False),
    ]
    found = [one for row in rows for one in comparison.take(row)]
    assert [(one.finding, one.account) for one in found] == [
        (Finding.TWICE, "ADA"),
        (Finding.TWICE, "other"),
        (Finding.TWICE, "x"),
    ]


# The command


def command(company: Company, *words: str) -> Result:
    return CliRunner(env=company.environment).invoke(main, ["drift", str(company.file), *words])


def test_the_command_says_what_differs_and_leaves_with_5(company: Company) -> None:
    assert command(company).exit_code == 0
    act(company, "INSERT INTO users (login, email, role) VALUES ('intern', 'intern@x', 'admin')")
    broken(company, 1)
    said = command(company)
    assert said.exit_code == 5
    lines = said.stdout.splitlines()
    assert lines[0].split() == ["FINDING", "ACCOUNT", "USERNAME", "THERE", "HERE", "SEEN"]
    assert lines[1].split() == ["roles", "p00004", "p00004", "admin"]
    assert lines[2].split() == ["orphan", "intern", "active"]
    assert "11 accounts there, 10 known here" in said.stdout
    data = json.loads(command(company, "--json").stdout)
    assert [one["finding"] for one in data["findings"]] == ["roles", "orphan"]
    assert command(company, "--fix", "--dry-run").exit_code == 5
    assert admins(company) == 5
    done = command(company, "--fix")
    assert done.exit_code == 5
    assert "put right: 1 accounts" in done.stdout
    assert admins(company) == 4


def test_the_command_leaves_with_other_codes(company: Company) -> None:
    assert command(company, "--dry-run").exit_code == 2
    assert command(company, "--idle", "soon").exit_code == 2
    company.configure({"drift": {**DRIFT, "limits": {"change": {"count": "0"}}}})
    broken(company, 1)
    held = command(company, "--fix", "--by", "ada")
    assert held.exit_code == 4
    name = json.loads(command(company, "--fix", "--by", "ada", "--json").stdout)["plan"]
    assert command(company, "--approve", name, "--by", "ada").exit_code == 1
    assert command(company, "--approve", name, "--reject", name).exit_code == 2
    assert command(company, "--fix", "--reject", name).exit_code == 2
    assert command(company, "--reject", name, "--by", "ada").exit_code == 0
    assert command(company, "--approve", name, "--by", "grace").exit_code == 1
    name = json.loads(command(company, "--fix", "--by", "ada", "--json").stdout)["run"]
    assert command(company, "--approve", name, "--by", "grace").exit_code == 0
    assert command(company, "--fix", "--by", "ada").exit_code == 0
    company.configure({"drift": {**DRIFT, "most": "1"}})
    assert command(company).exit_code == 1
    act(company, "DROP TABLE users")
    assert command(company).exit_code == 3
    company.configure({})
    assert command(company).exit_code == 2


def hostile(company: Company, names: Iterable[str]) -> None:
    with closing(sqlite3.connect(company.folder / "app.db")) as database, database:
        database.executemany(
            "INSERT INTO users (login, email, role) VALUES (?, 'x', 'admin')", [(one,) for one in names]
        )


def test_t57_a_name_is_no_formula_in_the_table_and_no_markup_on_the_page(company: Company, tmp_path: Path) -> None:
    names = ["=1+1", "+1", "-1", "@x", "<script>alert(1)</script>", '"><img src=x>']
    hostile(company, names)
    table, page = tmp_path / "drift.csv", tmp_path / "drift.html"
    assert command(company, "--csv", str(table), "--html", str(page)).exit_code == 5
    with table.open(newline="") as stream:
        cells = [row[1] for row in csv.reader(stream)][1:]
    assert sorted(cells) == sorted(f"'{name}" if name[0] in "=+-@" else name for name in names)
    text = page.read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text
    assert command(company, "--csv", "-").stdout.startswith("finding,account")


def test_t63_an_account_that_lies_hides_neither_itself_nor_others(company: Company, tmp_path: Path) -> None:
    account = {**DRIFT["account"], "id": "{{ row.email }}"}  # type: ignore[dict-item]
    company.configure({"drift": {**DRIFT, "account": account}})
    act(
        company,
        "INSERT INTO users (login, email, role, seen) VALUES ('liar', 'id-of-nobody', 'admin', '1e300')",
        "UPDATE users SET email = char(27) || ']0;owned' || char(7) || char(10) || 'nothing differs' WHERE id = 2",
        "UPDATE users SET seen = '0001-01-01T00:00:00+23:59' WHERE id = 3",
    )
    for options in ([], ["--json"], ["--csv", "-"], ["--html", str(tmp_path / "page.html")]):
        said = command(company, *options)
        assert said.exit_code == 5, said.output
        assert "liar" in said.stdout
        assert "\x1b" not in said.stdout
        assert not any(line.startswith("nothing differs") for line in said.stdout.splitlines())

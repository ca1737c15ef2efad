"""``sidecar sync`` for people and for programs: what it prints, and what it leaves with."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import click.testing
import pytest

from sidecar.cli import main
from tests.sync_world import Company, person

Sync = Callable[..., click.testing.Result]


@pytest.fixture
def company(tmp_path: Path) -> Company:
    made = Company(tmp_path)
    made.list(person(number) for number in range(1, 11))
    return made


@pytest.fixture
def sync(company: Company) -> Sync:
    def run(*words: str) -> click.testing.Result:
        runner = click.testing.CliRunner()
        command = ["sync", *words, str(company.file)]
        return runner.invoke(main, command, env={**company.environment, "NO_COLOR": "1"})

    return run


def told(result: click.testing.Result, code: int = 0) -> Any:
    """The JSON that a command printed."""
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_a_plan_as_json_says_everything_and_changes_nothing(sync: Sync, company: Company) -> None:
    plan = told(sync("plan", "hr", "--json", "--by", "ada"))
    assert plan["source"] == "hr"
    assert (plan["state"], plan["reading"], plan["is_complete"], plan["asked_by"]) == ("planned", "full", True, "ada")
    assert (plan["people"], plan["unchanged"], plan["counts"], plan["breaches"]) == (10, 0, {"create": 10}, [])
    assert len(plan["plan"]) == 64
    assert "items" not in plan
    assert company.users() == {}
    assert told(sync("run", "hr", "--dry-run", "--json"))["plan"] == plan["plan"]
    assert company.users() == {}


def test_a_plan_is_shown_person_by_person_with_before_after_and_why(sync: Sync, company: Company) -> None:
    told(sync("run", "hr", "--json"))
    company.list([person(1, mail="new@example.com", teams="editors"), *(person(number) for number in range(2, 11))])
    plan = told(sync("plan", "hr", "--json"))
    for what in ("hr", plan["plan"][:12]):
        shown = told(sync("show", what, "--json"))
        assert shown["plan"] == plan["plan"]
        (item,) = shown["items"]
        assert (item["change"], item["id"], item["username"], item["state"]) == ("update", "1", "p00001", "due")
        assert item["changes"]["email"] == {"before": "p00001@example.com", "after": "new@example.com"}
        assert item["changes"]["groups"] == {"before": [], "after": ["editors"]}
        assert item["roles"] == {"before": [], "after": ["editor"]}
        assert item["reason"].startswith("changed: email, groups")
    text = sync("show", "hr").output
    assert "email: p00001@example.com → new@example.com" in text
    assert "roles:  → editor" in text


def test_a_run_is_applied_with_the_accounts_or_leaves_them_to_the_sidecar(sync: Sync, company: Company) -> None:
    assert told(sync("run", "hr", "--leave", "--json"))["state"] == "done"
    assert company.users() == {}
    company.list([*(person(number) for number in range(1, 11)), person(11)])
    assert told(sync("run", "hr", "--json"))["counts"] == {"create": 1}
    assert len(company.active()) == 11, "with what was left before"


def test_a_stored_plan_is_applied_once(sync: Sync, company: Company) -> None:
    plan = told(sync("plan", "hr", "--json"))
    done = told(sync("apply", "--plan", plan["plan"][:12], "--by", "grace", "--json"))
    assert (done["state"], done["run"], done["dead"], done["left"]) == ("done", plan["run"], 0, 0)
    assert len(company.active()) == 10
    again = sync("apply", "--plan", plan["plan"][:12])
    assert (again.exit_code, "the plan is done" in again.stderr) == (1, True)


def test_a_plan_is_refused_when_the_source_has_changed(sync: Sync, company: Company) -> None:
    plan = told(sync("plan", "hr", "--json"))
    company.list([person(1)])
    result = sync("apply", "--plan", plan["plan"])
    assert (result.exit_code, "the source has changed" in result.stderr) == (1, True)
    assert company.users() == {}


def test_beyond_a_limit_it_leaves_with_four_until_somebody_else_approves(sync: Sync, company: Company) -> None:
    told(sync("run", "hr", "--json"))
    company.list([person(1)])
    run = told(sync("run", "hr", "--by", "ada", "--json"), 4)
    assert run["state"] == "quarantined"
    assert run["breaches"] == ["shrink (people fewer than before): 9, and 1 are allowed"]
    assert sync("plan", "hr").exit_code == 4, "a plan is judged in the same way"
    plan = run["plan"][:12]
    assert sync("apply", "--plan", plan).exit_code == 1
    run = told(sync("run", "hr", "--by", "ada", "--json"), 4)
    for same in ("ada", " Ada"):
        own = sync("approve", "--plan", run["run"], "--by", same)
        assert (own.exit_code, "somebody else" in own.stderr) == (1, True)
    approved = told(sync("approve", "--plan", run["run"], "--by", "grace", "--json"))
    assert (approved["state"], approved["approved_by"]) == ("approved", "grace")
    assert sync("approve", "--plan", run["run"], "--by", "alan").exit_code == 1, "once"
    assert told(sync("apply", "--plan", run["run"], "--json"))["state"] == "done"


def test_an_incomplete_source_leaves_with_one(sync: Sync, company: Company) -> None:
    company.configure({"sync": {"hr": {"source": {"csv": {"path": "people.csv", "trailer": "END"}}}}})
    run = told(sync("run", "hr", "--json"), 1)
    assert (run["state"], run["is_complete"]) == ("incomplete", False)
    assert "the last line is missing" in run["why"]
    assert company.users() == {}
    with (company.folder / "people.csv").open("a") as stream:
        stream.write("END,11\n")
    assert "says '11' people" in told(sync("run", "hr", "--json"), 1)["why"]


def test_a_source_that_is_not_there_leaves_with_three(sync: Sync, company: Company) -> None:
    (company.folder / "people.csv").unlink()
    result = sync("run", "hr", "--json")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "people.csv" in result.stderr
    status = told(sync("status", "--json"))
    assert status[0]["runs"][0]["state"] == "failed"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("plan", "nobody"), 2),
        (("run", "--person"), 2),
        (("show", "abcdef"), 1),
        (("apply", "--plan", "abcdef"), 1),
        (("approve", "--plan", "abcdef"), 1),
    ],
)
def test_what_is_used_wrongly_and_what_is_not_there(sync: Sync, words: tuple[str, ...], code: int) -> None:
    assert sync(*words).exit_code == code


def test_a_configuration_without_sources_is_used_wrongly(sync: Sync, company: Company) -> None:
    text = company.file.read_text()
    start, end = text.index("sync:"), text.index("audit:")
    company.file.write_text(text[:start] + text[end:])
    assert sync("status").exit_code == 2


def test_one_person_is_looked_at_on_demand(sync: Sync, company: Company) -> None:
    run = told(sync("run", "hr", "--person", "7", "--json"))
    assert run["counts"] == {"create": 1}
    assert company.active() == {"p00007"}
    assert told(sync("run", "hr", "--person", "99", "--json"))["counts"] == {}
    assert company.active() == {"p00007"}


def test_how_a_source_stands(sync: Sync, company: Company) -> None:
    (before,) = told(sync("status", "--json"))
    assert (before["source"], before["people"], before["last_good"], before["runs"]) == ("hr", None, "", [])
    assert "never read in full" in sync("status").output
    told(sync("run", "hr", "--json", "--by", "ada"))
    (after,) = told(sync("status", "--json"))
    assert (after["people"], after["is_busy"], [run["state"] for run in after["runs"]]) == (10, False, ["done"])
    assert after["last_good"]
    text = sync("status").output
    assert "10 people" in text
    assert "10 changes  by ada" in text
    assert company.active()


def test_what_could_not_be_done_is_set_aside_said_and_shown(sync: Sync, company: Company) -> None:
    told(sync("run", "hr", "--json"))
    company.list([person(1, mail="x@example.com"), person(2, mail="y@example.com"), *map(person, range(3, 11))])
    plan = told(sync("plan", "hr", "--json"))
    with closing(sqlite3.connect(company.folder / "directory.db")) as database, database:
        # A run that was killed goes on; meanwhile another source has taken somebody over.
        database.execute("UPDATE sidecar_sync_run SET state = 'applying' WHERE id = ?", (plan["run"],))
        database.execute("UPDATE sidecar_person SET source = 'scim:x' WHERE username = 'p00001'")
    done = told(sync("apply", "--plan", plan["plan"], "--json"), 1)
    assert (done["state"], done["dead"], done["left"]) == ("done", 1, 0)
    items = {item["id"]: item for item in told(sync("show", plan["run"], "--json"))["items"]}
    assert (items["1"]["state"], items["2"]["state"]) == ("dead", "done")
    assert "scim:x" in items["1"]["error"]
    assert "[dead]" in sync("show", plan["run"]).output
    assert company.users()["p00002"][0] == "y@example.com"


def test_a_run_that_keeps_failing_leaves_with_one(sync: Sync, company: Company) -> None:
    company.configure({"sync": {"hr": {"errors": {"count": 2, "percent": 10}}}})
    told(sync("run", "hr", "--json"))
    company.list(person(number, name="X") for number in range(1, 11))
    plan = told(sync("plan", "hr", "--json"))
    with closing(sqlite3.connect(company.folder / "directory.db")) as database, database:
        database.execute("UPDATE sidecar_sync_run SET state = 'applying' WHERE id = ?", (plan["run"],))
        database.execute("UPDATE sidecar_person SET source = 'scim:x'")
    failed = told(sync("apply", "--plan", plan["plan"], "--json"), 1)
    assert (failed["state"], failed["dead"]) == ("failed", 10)
    assert "stopped" in failed["why"]

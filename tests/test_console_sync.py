"""The console's pages about synchronisations: what a run would change, and that nobody lets their own pass."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.console.acts import NEEDS, Act
from sidecar.console.operators import Level
from sidecar.directory.sync_runs import RunRecord
from sidecar.faults import Refused
from sidecar.sync.consent import is_asker
from sidecar.sync.runs import Wish
from tests.console_world import Consoled, a_console, act
from tests.sync_world import COLUMNS, Company, person
from tests.test_console import HOSTILE
from tests.world import World, until

OPERATORS = {
    "view": {"group": "wiki-readers"},
    "operate": {"group": "none"},
    "administer": {"role": ["editor", "admin"]},
}


def listed(folder: Path, *people: dict[str, str]) -> None:
    with (folder / "people.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(people)


async def a_world(world: World, folder: Path, **sections: Any) -> Consoled:
    """A console whose administrators are ada and grace, and a source that is read by hand."""
    listed(folder, person(1), person(2, login=HOSTILE, name=HOSTILE), person(3))
    source = {
        "source": {"csv": str(folder / "people.csv")},
        "id": "number",
        "active": "{{ claims.status == 'active' }}",
        "identity": {
            "username": "{{ claims.login }}",
            "email": "{{ claims.mail }}",
            "name": "{{ claims.name }}",
            "groups": "{{ claims.teams.split(';') }}",
        },
        "join": {"corp": "{{ claims.number }}"},
        "limits": {"deactivate": {"count": 1}},
    }
    changes = {"console": {"operators": OPERATORS}, "sync": {"hr": source}}
    return await a_console(world, folder, {**changes, **sections})


async def newest(console: Consoled) -> RunRecord:
    directory = console.running.sidecar.condition.accounts.directory
    assert directory is not None
    return (await directory.sync.runs("sync:hr", 1))[0]


async def test_a_plan_is_made_shown_person_by_person_and_applied(world: World, tmp_path: Path) -> None:
    console = await a_world(world, tmp_path)
    async with await console.operator("ada") as admin, await console.operator("alan") as viewer:
        assert "none yet" in await (await viewer.page("/sync")).text()
        assert (await act(viewer, "sync-plan", "hr")).status == 403
        assert (await act(admin, "sync-plan", "hr")).status == 303
        run = await newest(console)
        assert (run.state, run.asked_by) == ("planned", "ada")
        page = await (await viewer.page(f"/sync/hr/{run.id}")).text()
        assert "new in the source" in page
        assert "p00001@example.com" in page
        assert "&lt;script&gt;" in page
        assert "<script" not in page
        assert "Apply" not in page
        assert "p00001" in await (await viewer.page(f"/sync/hr/{run.id}?q=1")).text()
        assert "says nothing" in await (await viewer.page(f"/sync/hr/{run.id}?q=77")).text()
        assert (await act(viewer, "sync-apply", f"hr/{run.id}")).status == 403
        assert (await act(admin, "sync-apply", f"hr/{run.id}")).status == 303
        assert (await newest(console)).state == "done"
        assert (await act(admin, "sync-apply", f"hr/{run.id}")).status == 409
        listing = await (await viewer.page("/sync/hr")).text()
        assert "done" in listing
        assert "by hand" in listing
    lines = [(one["act"], one.get("result") or one["reason"]) for one in console.audited("console-act")]
    assert lines == [("sync-plan", "done"), ("sync-apply", "done"), ("sync-apply", "conflict")]
    assert {one["act"] for one in console.audited("console-refused")} == {"sync-plan", "sync-apply"}


async def test_nobody_approves_what_they_asked_for_and_somebody_else_does(world: World, tmp_path: Path) -> None:
    console = await a_world(world, tmp_path)
    ada, grace, alan = [await console.operator(login) for login in ("ada", "grace", "alan")]
    async with ada, grace, alan:
        await act(ada, "sync-plan", "hr")
        await act(ada, "sync-apply", f"hr/{(await newest(console)).id}")
        gone = {"status": "gone"}
        listed(tmp_path, person(1, **gone), person(2, **gone), person(3))
        await act(ada, "sync-plan", "hr")
        run = await newest(console)
        target = f"hr/{run.id}"
        assert run.state == "quarantined"
        shown = await (await ada.page(f"/sync/{target}")).text()
        assert "deactivate: 2, and 1 are allowed" in shown
        assert "somebody else has to approve it" in shown
        assert (await act(ada, "sync-approve", target)).status == 409
        assert (await act(ada, "sync-apply", target)).status == 409
        assert (await act(grace, "sync-apply", target)).status == 409
        assert NEEDS[Act.APPROVE] is Level.ADMINISTER
        assert (await act(alan, "sync-approve", target)).status == 403
        assert "Approve this plan" not in await (await alan.page(f"/sync/{target}")).text()
        # Not by the beginning of an id, nor the newest, nor another source's.
        for wrong in ("hr/", "hr", f"hr/{run.id[:8]}", f"x/{run.id}", f"hr/{run.hash}"):
            assert (await act(grace, "sync-approve", wrong)).status == 404, wrong
        assert "Approve this plan" in await (await grace.page(f"/sync/{target}")).text()
        assert (await act(grace, "sync-approve", target)).status == 303
        assert ((await newest(console)).state, (await newest(console)).approved_by) == ("approved", "grace")
        assert (await act(ada, "sync-apply", target)).status == 303
        assert (await newest(console)).state == "done"
    (line,) = console.audited("sync-approved")
    assert (line["by"], line["asked_by"]) == ("grace", "ada")


async def test_what_was_rejected_is_never_applied(world: World, tmp_path: Path) -> None:
    console = await a_world(world, tmp_path)
    async with await console.operator("ada") as admin, await console.operator("alan") as viewer:
        await act(admin, "sync-plan", "hr")
        target = f"hr/{(await newest(console)).id}"
        assert (await act(viewer, "sync-reject", target)).status == 403
        assert (await act(admin, "sync-reject", target)).status == 303
        for name in ("sync-apply", "sync-approve", "sync-reject"):
            assert (await act(admin, name, target)).status == 409, name
        assert "rejected" in await (await admin.page("/sync")).text()
    assert len(console.audited("sync-rejected")) == 1


async def test_a_plan_is_not_applied_when_the_source_has_changed_since(world: World, tmp_path: Path) -> None:
    console = await a_world(world, tmp_path)
    async with await console.operator("ada") as admin:
        await act(admin, "sync-plan", "hr")
        listed(tmp_path, person(9))
        assert (await act(admin, "sync-apply", f"hr/{(await newest(console)).id}")).status == 409
        (tmp_path / "people.csv").unlink()
        assert (await act(admin, "sync-plan", "hr")).status == 503
        assert "failed" in await (await admin.page("/sync/hr")).text()
        for missing in ("/sync/x", f"/sync/hr/{'0' * 32}", "/sync/hr/x", "/sync/hr/x/y"):
            assert (await admin.page(missing)).status == 404, missing
        run = await newest(console)
        for wrong in ("?show=x", "?after=x", "?after=99999999999"):
            assert (await admin.page(f"/sync/hr/{run.id}{wrong}")).status == 404, wrong


async def test_work_that_takes_long_goes_on_while_its_page_is_answered(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.console.errands._PATIENCE", 0.0)
    console = await a_world(world, tmp_path)
    async with await console.operator("ada") as admin:
        assert (await act(admin, "sync-plan", "hr")).status == 303

        async def is_noted() -> bool:
            return len(console.audited("console-act")) == 2

        await until(is_noted)
        results = [line["result"] for line in console.audited("console-act")]
        assert results == ["begun", "done"]
        assert "What ada asked for ended: planned" in await (await admin.page("/sync/hr")).text()


async def test_one_human_with_two_sign_ins_or_another_spelling_is_one(tmp_path: Path) -> None:
    run = RunRecord("i", "sync:hr", "h", "quarantined", 1.0, 1.0, "Ada", "", {"asked_keys": ["person-1"]})
    assert is_asker(run, "ada", ())
    assert is_asker(run, "somebody", ["other", "person-1"])
    assert not is_asker(run, "grace", ["person-2"])
    assert not is_asker(RunRecord("i", "s", "h", "q", 1.0, 1.0, "Ada", "", {}), "grace", [""])
    company = Company(tmp_path, {"sync": {"hr": {"limits": {"invalid": {"count": 0}}}}})
    company.list([person(1, login=""), person(2)])
    made = await company.do(lambda one: one.plan(Wish("ada", keys=("person-1",))))
    assert made.state == "quarantined"
    with pytest.raises(Refused):
        await company.do(lambda one: one.approve(made.id, "Countess", ["person-1"]))
    with pytest.raises(Refused):
        await company.do(lambda one: one.approve(made.id, "ADA"))
    approved = await company.do(lambda one: one.approve(made.id, "grace", ["person-2"]))
    assert approved.state == "approved"


def test_the_command_rejects_a_plan_as_the_console_does(tmp_path: Path) -> None:
    company = Company(tmp_path)
    company.list([person(1)])
    run = CliRunner(env={**company.environment, "NO_COLOR": "1"})
    plan = [str(company.file)]
    made = json.loads(run.invoke(main, ["sync", "plan", "hr", *plan, "--json"]).stdout)
    said = json.loads(run.invoke(main, ["sync", "reject", *plan, "--plan", made["plan"], "--json"]).stdout)
    assert said["state"] == "rejected"
    again = run.invoke(main, ["sync", "apply", *plan, "--plan", made["plan"]])
    assert (again.exit_code, "rejected" in again.output) == (1, True)

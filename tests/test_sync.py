"""A list of people becomes people and accounts, and a broken list changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.directory import Directory
from sidecar.faults import Refused, Unavailable
from sidecar.model import Identity, Person
from sidecar.provision import Provisioner
from sidecar.reason import Reason
from sidecar.sync import lease
from sidecar.sync.lease import is_dead, new_token
from sidecar.sync.runs import Wish
from tests.sync_world import Company, person


@pytest.fixture
def company(tmp_path: Path) -> Company:
    made = Company(tmp_path)
    made.list(person(number) for number in range(1, 11))
    return made


def logins(*numbers: int) -> set[str]:
    return {f"p{number:05}" for number in numbers}


def everybody(but: tuple[int, ...] = (), upto: int = 10) -> list[dict[str, str]]:
    return [person(number) for number in range(1, upto + 1) if number not in but]


def audit(company: Company, event: str) -> list[dict[str, Any]]:
    lines = (company.folder / "audit.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == event]


# The ordinary way


async def test_people_come_change_and_go(company: Company) -> None:
    company.list([person(1, teams="admins;editors"), person(2, teams="editors"), person(3, status="left"), person(4)])
    first = await company.run()
    assert (first.state, dict(first.head["counts"])) == ("done", {"create": 4, "grant_privileged": 1})
    assert company.users() == {
        "p00001": ("p00001@example.com", "admin", 1),
        "p00002": ("p00002@example.com", "editor", 1),
        "p00004": ("p00004@example.com", "", 1),
    }
    company.list([person(1, mail="new@example.com"), person(3), person(4, status="left"), person(5)])
    assert (await company.run()).head["counts"] == {
        "update": 1, "create": 1, "reactivate": 1, "deactivate": 1, "wait": 1, "remove_roles": 1,
    }  # fmt: skip
    assert company.users()["p00001"] == ("new@example.com", "", 1)
    assert company.active() == logins(1, 2, 3, 5)
    company.list([person(1, mail="new@example.com"), person(3), person(4), person(5)])
    await company.run()
    assert company.active() == logins(1, 2, 3, 4, 5), "back again; and the other one is not missing for long enough"
    company.pass_time(2)
    assert (await company.run()).head["counts"] == {"deactivate": 1}
    assert company.active() == logins(1, 3, 4, 5)


async def test_a_second_run_of_the_same_changes_nothing(company: Company) -> None:
    await company.run()
    again = await company.run(full=True)
    assert (again.head["unchanged"], again.head["items"], again.head["reading"]) == (10, 0, "full")
    assert (await company.run()).head["reading"] == "same"


async def test_whoever_comes_back_in_time_is_not_missing_any_more(company: Company) -> None:
    await company.run()
    company.list(everybody(but=(7,)))
    await company.run()
    company.list(everybody())
    assert (await company.run()).head["counts"] == {"note": 1}
    company.pass_time(5)
    company.list(everybody(but=(7,)))
    assert (await company.run()).head["counts"] == {"wait": 1}
    assert company.active() == logins(*range(1, 11))


async def test_grace_needs_runs_and_time(company: Company) -> None:
    company.configure({"sync": {"hr": {"grace": {"runs": 3, "time": "10h"}}}})
    await company.run()
    company.list(everybody(but=(7,)))
    seen = []
    for hours in (1, 1, 1, 5, 5):
        seen.append((await company.run()).head["counts"])
        company.pass_time(hours)
    assert seen == [{"wait": 1}] * 5
    assert (await company.run()).head["counts"] == {"deactivate": 1}


async def test_deletion_is_wanted_and_late(company: Company) -> None:
    company.configure({"sync": {"hr": {"grace": {"runs": 1, "time": "0s"}, "delete": "2d"}}})
    await company.run()
    company.list(everybody(but=(7,)))
    assert (await company.run()).head["counts"] == {"deactivate": 1}
    company.pass_time(47)
    assert (await company.run()).head["counts"] == {}
    company.pass_time(1)
    assert (await company.run()).head["counts"] == {"delete": 1}
    assert "p00007" not in company.users()
    # The one who comes with that number next is somebody new.
    company.list(everybody())
    assert (await company.run()).head["counts"] == {"create": 1}
    assert "p00007" in company.active()


async def test_one_person_on_demand(company: Company) -> None:
    await company.run(only="7")
    assert company.active() == logins(7)
    await company.run()
    company.list([person(7, mail="x@example.com"), person(8, mail="y@example.com")])
    assert (await company.run(only="7")).head["counts"] == {"update": 1}
    assert company.users()["p00007"][0] == "x@example.com"
    assert company.users()["p00008"][0] == "p00008@example.com"
    assert company.active() == logins(*range(1, 11))


async def test_what_was_done_to_whom_is_in_the_audit_log_and_no_value(company: Company) -> None:
    await company.run()
    company.list([*everybody(but=(1,)), person(1, mail="secret@example.com", teams="editors")])
    await company.run()
    line = audit(company, "sync-changed")[-1]
    assert (line["change"], line["external"], line["source"]) == ("update", "1", "sync:hr")
    assert (line["attributes"], line["after"]) == (["email", "groups", "mail", "teams"], ["editor"])
    assert "secret@" not in json.dumps(audit(company, "sync-changed"))
    assert audit(company, "sync-ended")[-1]["counts"]["update"] == 1


# Whoever signs in is the same person


async def test_whoever_signed_in_before_is_joined_and_may_be_switched_off(company: Company) -> None:
    async with company.opened() as syncing:
        directory = syncing.accounts.directory
        assert directory is not None
        for subject in ("1", "2"):
            signed_in = Identity("corp", "http://127.0.0.1:9", subject, f"p0000{subject}")
            known = await directory.admit(signed_in, company.now)
            await directory.profiles.signed_in(known, signed_in, {"sync:hr": subject}, company.now)
    company.list([person(1), person(2, status="left"), person(3)])
    plan = await company.plan()
    assert plan.head["counts"] == {"update": 1, "deactivate": 1, "create": 1}
    await company.run()
    async with company.opened() as syncing:
        directory = syncing.accounts.directory
        assert directory is not None
        for subject, active in (("1", True), ("2", False)):
            signed_in = Identity("corp", "http://127.0.0.1:9", subject, "")
            known = await directory.person_by_identity(signed_in.key)  # type: ignore[assignment]
            assert (known.active, known.source, len(known.identities)) == (active, "sync:hr", 2)


# What is left alone


async def test_protected_accounts_are_never_touched(company: Company) -> None:
    section = {"grace": {"runs": 1, "time": "0s"}, "limits": {"create": {"count": 9}, "deactivate": {"count": 9}}}
    protecting = {"sync": {"hr": {**section, "protect": ["p00002", "3"]}}}
    company.configure(protecting)
    company.list([person(1, login="root"), person(2), person(3), person(4)])
    assert (await company.run()).head["counts"] == {"skip": 3, "create": 1}
    assert company.active() == logins(4)
    company.configure({"sync": {"hr": section}})
    company.list([person(2), person(3), person(4)])
    await company.run()
    company.configure(protecting)
    company.list([person(3, status="left"), person(4)])
    await company.run()
    assert company.active() == logins(2, 3, 4)


async def test_people_of_another_source_are_left_alone(company: Company) -> None:
    company.configure({"sync": {"hr": {"grace": {"runs": 1, "time": "0s"}}}})
    await company.run()
    async with company.opened() as syncing:
        directory = syncing.accounts.directory
        assert directory is not None
        await directory._database.write(  # what a merge of two sources leaves
            lambda connection: connection.exec_driver_sql(
                "UPDATE sidecar_person SET source = 'scim:x' WHERE username = 'p00007'"
            )
        )
    company.list(everybody(but=(7,)))
    assert (await company.run()).head["counts"] == {}
    company.list([*everybody(but=(7,)), person(7, status="left")])
    assert (await company.run()).head["counts"] == {"skip": 1}
    assert "p00007" in company.active()


async def accounts_with(syncing: Any, external: str) -> tuple[Directory, Provisioner, Person]:
    """The accounts of *syncing*, and whom the source calls *external*."""
    directory, provisioner = syncing.accounts.directory, syncing.accounts.provisioner
    assert directory is not None
    assert provisioner is not None
    known = await directory.person_by_identity(Identity("", "sync:hr", external, "").key)
    assert known is not None
    return directory, provisioner, known


async def test_whom_an_operator_switched_off_stays_off(company: Company) -> None:
    await company.run()
    async with company.opened() as syncing:
        _, provisioner, known = await accounts_with(syncing, "7")
        await provisioner.disable(known.id, "manual", company.now)
        await syncing.settle(lambda _done: None)
    company.list([*everybody(but=(7,)), person(7, mail="x@example.com")])
    assert (await company.run()).head["counts"] == {"update": 1}
    assert "p00007" not in company.active()


async def test_each_of_an_operator_and_the_source_lifts_their_own_word_alone(company: Company) -> None:
    await company.run()
    async with company.opened() as syncing:
        directory, provisioner, known = await accounts_with(syncing, "7")

        async def turned(by: str, *, on: bool) -> bool:
            if by == "hr":
                company.list([*everybody(but=(7,)), person(7, status="active" if on else "left")])
                await company.run()
            else:
                await (provisioner.enable if on else provisioner.disable)(known.id, by, company.now)
            now = await directory.person(known.id)
            assert now is not None
            return now.active

        for first, second in (("manual", "hr"), ("hr", "manual"), ("hr", "signals:corp")):
            for by in (first, second, second, first):
                await turned(by, on=False)
            assert not await turned(first, on=True), f"{first} lifted what {second} said"
            assert await turned(second, on=True)
            await turned(first, on=False)
            await turned(second, on=False)
            assert not await turned(second, on=True), f"{second} lifted what {first} said"
            assert await turned(first, on=True)


# Broken sources


async def test_an_incomplete_source_changes_nothing(company: Company) -> None:
    company.configure({"sync": {"hr": {"source": {"csv": {"path": "people.csv", "trailer": "END"}}}}})
    text = (company.folder / "people.csv").read_text()
    (company.folder / "people.csv").write_text(f"{text}END,10\n")
    await company.run()
    (company.folder / "people.csv").write_text("".join(f"{text}END,10\n".splitlines(keepends=True)[:6]))
    for _ in range(5):
        company.pass_time(10)
        run = await company.run()
        assert (run.state, run.head["is_complete"]) == ("incomplete", False)
    assert company.active() == logins(*range(1, 11))


async def test_an_incomplete_source_may_add_but_never_takes_away(company: Company) -> None:
    # The limits are out of the way: this guard holds by itself.
    wide = {name: {"percent": 100, "count": 1000} for name in ("deactivate", "remove_roles", "create")}
    section = {"incomplete": "additive", "grace": {"runs": 1, "time": "0s"}, "limits": {"shrink": 100, **wide}}
    company.configure({"sync": {"hr": section}})
    company.list([*everybody(but=(1, 2)), person(1, teams="editors"), person(2)])
    await company.run()
    broken = [person(1), person(2, status="left"), person(3, teams="editors"), person(11)]
    company.list(broken)
    with (company.folder / "people.csv").open("a") as stream:
        stream.write("5,p000")
    run = await company.run()
    assert (run.state, run.head["is_complete"]) == ("done", False)
    assert company.active() == logins(*range(1, 12))
    assert company.users()["p00001"][1] == "editor", "a role is not taken away"
    assert company.users()["p00003"][1] == "editor", "and one is given"


@pytest.mark.parametrize("percent", [30, 100])
async def test_a_source_that_loses_people_overnight_changes_nothing(company: Company, percent: int) -> None:
    company.configure({"sync": {"hr": {"grace": {"runs": 1, "time": "0s"}}}})
    company.list(everybody(upto=20))
    await company.run()
    company.list(everybody(upto=20 - percent * 20 // 100))
    for _ in range(4):
        company.pass_time(10)
        run = await company.run()
        assert run.state == ("quarantined" if percent < 100 else "incomplete")
    assert len(company.active()) == 20


async def test_a_row_without_an_id_makes_the_reading_incomplete(company: Company) -> None:
    await company.run()
    company.list([*everybody(but=(7,)), {**person(7), "number": ""}])
    run = await company.run()
    assert (run.state, run.head["why"]) == ("incomplete", "1 without a usable number")


async def test_people_who_cannot_be_read_are_neither_changed_nor_missing(company: Company) -> None:
    company.configure({"sync": {"hr": {"grace": {"runs": 1, "time": "0s"}}}})
    await company.run()
    company.list([*everybody(but=(7, 8)), person(7, login=""), person(8, mail="a@example.com"), person(8)])
    run = await company.run()
    assert run.head["counts"] == {"invalid": 2}
    assert company.active() == logins(*range(1, 11))


async def test_nobody_stays_because_of_what_they_are_called(company: Company) -> None:
    await company.run()
    # A picture of several signs that show nothing by themselves: no name that could be used.
    family = "\U0001f468\u200d\U0001f467"
    known = [person(7, name=family, status="left"), person(8, name=family)]
    company.list([*everybody(but=(7, 8)), *known])
    run = await company.run()
    assert run.head["counts"] == {"deactivate": 1, "invalid": 1}
    assert company.active() == logins(*range(1, 7), 8, 9, 10)
    # It is done once.
    company.list([*everybody(but=(7, 8, 9)), *known, person(9, mail="other@example.com")])
    assert (await company.run()).head["counts"] == {"update": 1, "invalid": 1}
    company.list(everybody())
    await company.run()
    assert company.active() == logins(*range(1, 11))
    # Whom nobody knew before, nobody has to switch off.
    company.list([*everybody(), person(11, name=family, status="left")])
    assert (await company.run()).head["counts"] == {"invalid": 1}


async def test_too_many_who_cannot_be_read_are_a_reason_to_stop(company: Company) -> None:
    company.list([*everybody(upto=7), *(person(number, login="") for number in range(8, 11))])
    assert (await company.run()).state == "quarantined"
    assert company.users() == {}


async def test_two_people_with_one_sign_in_are_ambiguous(company: Company) -> None:
    company.configure({"sync": {"hr": {"on": "mail"}}})
    async with company.opened() as syncing:
        directory = syncing.accounts.directory
        assert directory is not None
        signed_in = Identity("corp", "http://127.0.0.1:9", "s", "ada")
        known = await directory.admit(signed_in, company.now)
        await directory.profiles.signed_in(known, signed_in, {"sync:hr": "both@example.com"}, company.now)
    company.list([person(1, mail="both@example.com"), person(2, mail="both@example.com")])
    run = await company.run()
    assert run.head["counts"] == {"update": 1, "invalid": 1}


# Limits, quarantine and approval


LIMITS: list[tuple[str, dict[str, Any], list[dict[str, str]]]] = [
    ("deactivate", {"deactivate": {"count": 1}}, [person(1, status="left"), person(2, status="left")]),
    ("rename", {"rename": {"count": 1}}, [person(1, login="a"), person(2, login="b")]),
    ("remove_roles", {"remove_roles": {"count": 1}}, [person(3), person(4)]),
    ("grant_privileged", {"grant_privileged": {"count": 1}}, [person(1, teams="admins"), person(2, teams="admins")]),
    (
        "grant_privileged",
        {"privileged": ["editor"], "grant_privileged": {"count": 2}},
        [person(number, teams="editors") for number in (1, 2, 5)],
    ),
    ("create", {"create": {"count": 1}}, [person(11), person(12)]),
    ("group_members", {"group_members": {"count": 1}}, [person(1, teams="x"), person(2, teams="x")]),
    ("invalid", {"invalid": {"count": 1}}, [person(1, login=""), person(2, login="")]),
]


@pytest.mark.parametrize(("name", "limits", "changes"), LIMITS, ids=[f"{case[0]}-{n}" for n, case in enumerate(LIMITS)])
async def test_beyond_a_limit_nothing_at_all_is_done(
    company: Company, name: str, limits: dict[str, Any], changes: list[dict[str, str]]
) -> None:
    def people(changed: list[dict[str, str]]) -> list[dict[str, str]]:
        base = {one["number"]: one for one in [*everybody(), person(3, teams="editors"), person(4, teams="editors")]}
        return list({**base, **{one["number"]: one for one in changed}}.values())

    company.configure({"sync": {"hr": {"limits": limits}}})
    company.list(people([]))
    await company.run()
    before = company.users()
    company.list(people([*changes, person(10, mail="harmless@example.com")]))
    run = await company.run()
    assert run.state == "quarantined"
    assert [line.partition(" ")[0].rstrip(":") for line in run.head["breaches"]] == [name]
    assert company.users() == before
    # Within the limit it is done.
    company.list(people(changes[:1]))
    assert (await company.run()).state == "done"


async def test_a_plan_says_what_the_run_would_and_changes_nothing(company: Company) -> None:
    await company.run()
    company.list(everybody(upto=5))
    before = company.users()
    plan = await company.plan()
    assert plan.state == "quarantined"
    assert plan.head["breaches"] == ["shrink (people fewer than before): 5, and 1 are allowed"]
    assert company.users() == before


async def test_somebody_else_approves_and_only_once(company: Company) -> None:
    company.configure({"sync": {"hr": {"limits": {"create": {"count": 1}}}}})
    await company.run()
    company.list(everybody(upto=13))
    run = await company.run(by="ada")
    assert run.state == "quarantined"
    with pytest.raises(Refused, match="quarantined"):
        await company.do(lambda one: one.apply(run.hash, "grace"))
    with pytest.raises(Refused, match="somebody else"):
        await company.do(lambda one: one.approve(run.hash, "ada"))
    assert (await company.do(lambda one: one.approve(run.hash[:12], "grace"))).state == "approved"
    with pytest.raises(Refused, match="approved"):
        await company.do(lambda one: one.approve(run.hash, "alan"))
    assert (await company.do(lambda one: one.apply(run.hash, "grace"))).state == "done"
    assert len(company.active()) == 13
    with pytest.raises(Refused, match="done"):
        await company.do(lambda one: one.apply(run.hash, "grace"))
    company.list(everybody(upto=15))
    assert (await company.run(by="ada")).state == "quarantined", "the next time it is asked again"
    assert [line["by"] for line in audit(company, "sync-approved")] == ["grace"]


async def test_an_approved_run_is_applied_by_the_next_one(company: Company) -> None:
    company.configure({"sync": {"hr": {"limits": {"create": {"count": 1}}}}})
    await company.run()
    company.list(everybody(upto=13))
    run = await company.run()
    again = await company.run()
    assert (again.state, again.hash) == ("quarantined", run.hash)
    assert len(audit(company, "sync-quarantined")) == 1, "the same thing is said once"
    await company.do(lambda one: one.approve(run.hash, "grace"))
    done = await company.run()
    assert (done.state, done.approved_by, len(company.active())) == ("done", "grace", 13)


async def test_an_approval_is_for_what_was_seen(company: Company) -> None:
    company.configure({"sync": {"hr": {"limits": {"create": {"count": 1}}}}})
    await company.run()
    company.list(everybody(upto=13))
    run = await company.run()
    await company.do(lambda one: one.approve(run.hash, "grace"))
    company.list(everybody(upto=16))
    assert (await company.run()).state == "quarantined"
    assert len(company.active()) == 10


# Stored plans


async def test_a_plan_is_applied_as_long_as_nothing_has_changed(company: Company) -> None:
    plan = await company.plan()
    assert company.users() == {}
    assert (await company.do(lambda one: one.apply(plan.hash[:10], "ada"))).state == "done"
    assert len(company.active()) == 10


@pytest.mark.parametrize("what", ["source", "configuration", "people"])
async def test_a_plan_is_refused_when_something_has_changed(company: Company, what: str) -> None:
    await company.run()
    company.list([*everybody(but=(7,)), person(7, mail="x@example.com")])
    plan = await company.plan()
    if what == "source":
        company.list([*everybody(but=(7,)), person(7, mail="y@example.com")])
    elif what == "configuration":
        company.configure({"sync": {"hr": {"grace": {"runs": 9}}}})
    else:
        async with company.opened() as syncing:
            directory = syncing.accounts.directory
            assert directory is not None
            known = await directory.person_by_identity(Identity("", "sync:hr", "7", "").key)
            assert known is not None
            await directory.disable(known.id, "manual", company.now)
    with pytest.raises(Refused, match=f"{what} ha") as refusal:
        await company.do(lambda one: one.apply(plan.hash, "ada"))
    assert refusal.value.reason is Reason.CHANGED_MEANWHILE
    assert company.users()["p00007"][0] == "p00007@example.com"


async def test_a_plan_is_refused_when_somebody_is_protected_meanwhile(company: Company) -> None:
    await company.run()
    company.list([*everybody(but=(7,)), person(7, mail="x@example.com")])
    plan = await company.plan()
    company.configure({"provision": {"account": {"protected": ["root", "p00007"]}}})
    with pytest.raises(Refused, match="configuration has changed"):
        await company.do(lambda one: one.apply(plan.hash, "ada"))
    assert company.users()["p00007"][0] == "p00007@example.com"


async def test_a_run_that_was_stopped_to_change_the_rules_does_not_go_on(company: Company) -> None:
    await company.run()
    company.list([*everybody(but=(7,)), person(7, mail="x@example.com")])
    for ask in ("apply", "run"):
        plan = await company.plan()
        async with company.opened() as syncing:
            directory = syncing.accounts.directory
            assert directory is not None
            await directory.sync.change(plan.id, ["planned"], state="applying")
        company.configure({"sync": {"hr": {"protect": ["7", ask]}}})
        if ask == "apply":
            with pytest.raises(Refused, match="configuration has changed"):
                await company.do(lambda one, plan=plan: one.apply(plan.hash, "ada"))  # type: ignore[misc]
        else:
            assert (await company.run()).head["counts"] == {"skip": 1}
        assert (await company.do(lambda one, plan=plan: one.find(plan.id))).state == "failed"  # type: ignore[misc]
    assert company.users()["p00007"][0] == "p00007@example.com"


async def test_the_same_plan_has_the_same_hash_whatever_the_order_of_the_list(company: Company) -> None:
    first = await company.plan()
    company.list(reversed(everybody()))
    assert (await company.plan()).hash == first.hash
    company.list([*everybody(but=(7,)), person(7, mail="x@example.com")])
    assert (await company.plan()).hash != first.hash


# Failures, and never two at once


async def test_one_who_cannot_be_done_holds_nobody_else_up(company: Company) -> None:
    await company.run()
    company.list([*everybody(but=(7, 8)), person(7, mail="x@example.com"), person(8, mail="y@example.com")])
    plan = await company.plan()
    async with company.opened() as syncing:
        directory = syncing.accounts.directory
        assert directory is not None
        await directory._database.write(  # another source takes somebody over while the plan is carried out
            lambda connection: connection.exec_driver_sql(
                "UPDATE sidecar_person SET source = 'scim:x' WHERE username = 'p00007'"
            )
        )
        one = syncing.sources["hr"]
        async with one._alone():
            run = await one._carry_out(await one.find(plan.id), lambda *_: None)
        await syncing.settle(lambda _done: None)
        dead = [row async for row, _ in one.items(run) if row.state == "dead"]
    assert (run.state, run.head["dead"], len(dead)) == ("done", 1, 1)
    assert "scim:x" in dead[0].error
    assert company.users()["p00008"][0] == "y@example.com"
    assert company.users()["p00007"][0] == "p00007@example.com"
    assert (await company.run()).head["reading"] == "full", "what failed is read again"


async def test_a_run_that_keeps_failing_stops(company: Company) -> None:
    company.configure({"sync": {"hr": {"errors": {"count": 3, "percent": 10}}}})
    company.list(everybody(upto=30))
    await company.run(settle=False)
    company.list(person(number, name="X") for number in range(1, 31))
    plan = await company.plan()
    async with company.opened() as syncing:
        directory = syncing.accounts.directory
        assert directory is not None
        await directory._database.write(
            lambda connection: connection.exec_driver_sql("UPDATE sidecar_person SET source = 'scim:x'")
        )
        one = syncing.sources["hr"]
        async with one._alone():
            run = await one._carry_out(await one.find(plan.id), lambda *_: None)
    assert (run.state, run.head["dead"], run.head["left"]) == ("failed", 25, 5)
    assert "stopped" in run.head["why"]


async def test_two_runs_never_overlap(company: Company) -> None:
    async with company.opened() as one, company.opened() as other, one.sources["hr"]._alone():
        with pytest.raises(Unavailable) as refusal:
            await other.sources["hr"].run(Wish("x"))
        assert refusal.value.reason is Reason.SYNC_BUSY
    assert (await company.run()).state == "done"


async def test_whoever_lost_the_lease_changes_nothing_more(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "is_dead", lambda _token: False)
    plan = await company.plan()
    async with company.opened() as slow, company.opened() as quick:
        first = slow.sources["hr"]
        async with first._alone():
            # It sleeps, its lease ends, and another one takes over.
            company.now += 61
            async with quick.sources["hr"]._alone():
                with pytest.raises(Unavailable, match="taken over"):
                    await first._carry_out(await first.find(plan.id), lambda *_: None)
    assert company.users() == {}


def test_a_token_is_dead_when_its_process_is() -> None:
    token = new_token()
    place, pid, began, end = token.split("|")
    assert not is_dead(token)
    assert is_dead(f"{place}|{pid}|{int(began) + 1}|{end}"), "the number of a process that ended is used again"
    assert is_dead(f"{place}|4194999|{began}|{end}")
    assert not is_dead(f"elsewhere|4194999|{began}|{end}")
    assert not is_dead("nonsense")

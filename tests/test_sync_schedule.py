"""A running sidecar synchronises when it is time, on one replica only, and says what waits for somebody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.app import build
from sidecar.config.loader import load
from sidecar.hooks.passwords import FILTERS
from sidecar.sync.schedule import Schedule
from tests.sync_world import Company, person
from tests.world import until


@pytest.fixture
def company(tmp_path: Path) -> Company:
    made = Company(tmp_path, {"sync": {"hr": {"every": "1h"}}})
    made.list(person(number) for number in range(1, 11))
    return made


def schedule(company: Company, sources: object, told: list[str], *, watched: bool = False) -> Schedule:
    files = {"hr": company.folder / "people.csv"} if watched else {}
    return Schedule(sources, files, lambda: company.now, lambda: 0.5, lambda _name, run: told.append(run.state))  # type: ignore[arg-type]


async def test_it_runs_when_it_is_due_and_only_on_one_replica(company: Company) -> None:
    told: list[str] = []
    async with company.opened() as one, company.opened() as other:
        replicas = [schedule(company, syncing.sources, told) for syncing in (one, other)]
        for hours in (0, 0.5, 0.4):
            company.pass_time(hours)
            ran = [await replica.look("hr") for replica in replicas]
            assert ran == [hours == 0, False]
        company.pass_time(0.2)
        assert [await replica.look("hr") for replica in reversed(replicas)] == [True, False]
    assert told == ["done", "done"]


async def test_cron_begins_with_its_next_time(company: Company) -> None:
    company.configure({"sync": {"hr": {"cron": "0 * * * *", "jitter": "10m"}}})
    company.now = 1_800_000_000.0 - 60
    async with company.opened() as syncing:
        one = schedule(company, syncing.sources, [])
        assert not await one.look("hr")
        company.now = 1_800_000_000.0 + 299
        assert not await one.look("hr"), "late by chance"
        company.now = 1_800_000_000.0 + 300
        assert await one.look("hr")
        assert not await one.look("hr")


async def test_what_waits_for_somebody_is_said_and_an_approval_is_acted_on(company: Company) -> None:
    told: list[str] = []
    async with company.opened() as syncing:
        one = schedule(company, syncing.sources, told)
        await one.look("hr")
        assert one.complaints() == {}
        company.list(person(number) for number in range(1, 31))
        company.pass_time(2)
        await one.look("hr")
        assert one.complaints() == {"sync.hr": "a run would change more than it may and waits for approval"}
        source = syncing.sources["hr"]
        await source.approve((await source.find("")).hash, "grace")
        assert await one.look("hr"), "before it is due again"
        assert one.complaints() == {}
    assert told == ["done", "quarantined", "done"]


async def test_a_new_file_is_read_at_once(company: Company) -> None:
    company.configure({"sync": {"hr": {"watch": True}}})
    path = company.folder / "people.csv"
    async with company.opened() as syncing:
        one = schedule(company, syncing.sources, [], watched=True)
        for age, runs in ((1, False), (60, True), (60, False), (50, True)):
            os.utime(path, (company.now - age, company.now - age))
            assert await one.look("hr") is runs


async def test_a_watched_folder_is_read_when_another_file_is_put_there(company: Company) -> None:
    company.configure({"sync": {"hr": {"watch": True, "source": {"csv": "people-*.csv"}}}})
    told: list[str] = []

    def put(name: str, people: range, age: float) -> None:
        company.list((person(number) for number in people), name)
        os.utime(company.folder / name, (company.now - age, company.now - age))

    async with company.opened() as syncing:
        files = {"hr": company.folder / "people-*.csv"}
        one = Schedule(
            syncing.sources, files, lambda: company.now, lambda: 0.5, lambda _name, run: told.append(run.state)
        )
        put("people-1.csv", range(1, 11), 100)
        assert [await one.look("hr"), await one.look("hr")] == [True, False]
        put("people-2.csv", range(1, 12), 1)
        assert not await one.look("hr"), "it may still be being written"
        company.pass_time(1)
        assert [await one.look("hr"), await one.look("hr")] == [True, False]
        await syncing.settle(lambda _done: None)
        assert len(company.active()) == 11
        # Nothing is left of it: that is a fault, and nobody is switched off.
        put("people-3.csv", range(0), 60)
        assert await one.look("hr")
        for name in ("people-1.csv", "people-2.csv", "people-3.csv"):
            (company.folder / name).unlink()
        assert not await one.look("hr")
        await syncing.settle(lambda _done: None)
    assert told == ["done", "done", "incomplete"]
    assert len(company.active()) == 11


async def test_a_run_that_somebody_was_killed_over_is_finished(company: Company) -> None:
    plan = await company.plan()
    async with company.opened() as syncing:
        directory = syncing.accounts.directory
        assert directory is not None
        await directory.sync.change(plan.id, ["planned"], state="applying")
        one = schedule(company, syncing.sources, [])
        assert await one.look("hr")
        assert (await syncing.sources["hr"].find(plan.id)).state == "done"


async def test_a_running_sidecar_does_all_that_and_tells(company: Company, tmp_path: Path) -> None:
    company.configure({"sync": {"hr": {"every": "1h", "limits": {"grant_privileged": {"count": 0}}}}})
    company.list([person(1), person(2, teams="admins")])
    config = load(company.file, environment=company.environment, filters=FILTERS).config
    sidecar = await build(config)
    await sidecar.start()
    try:

        async def is_said() -> bool:
            return "sync.hr" in await sidecar.condition.readiness()

        await until(is_said, 30)
        assert b'sidecar_sync_runs_total{result="quarantined",source="hr"} 1.0' in sidecar.metrics.render()
        assert company.users() == {}
        company.list([person(1), person(2)])
        sidecar_sources = await company.plan(by="ada")
        await company.do(lambda one: one.apply(sidecar_sources.hash, "ada"), settle=False)

        async def are_there() -> bool:
            return len(company.active()) == 2

        await until(are_there, 30)
    finally:
        await sidecar.stop()

"""``sidecar outbox``: what is owed to the application, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.loading import CONFIG
from sidecar.cli.officing import DRY_RUN, JSON, YES, answer, confirm, in_office, moment
from sidecar.cli.saying import say, say_json
from sidecar.core.audit import Event
from sidecar.faults import Refused
from sidecar.model import Duty
from sidecar.reason import Reason

if TYPE_CHECKING:
    from sidecar.directory import Debt
    from sidecar.office import Office

_MOST = 10_000
ITEM = click.argument("item")


@click.group()
def outbox() -> None:
    """Look at what is owed to the application, try it again, or let it go.

    ITEM is an id as `sidecar outbox list` shows it, or `dead` for all that was put aside. The sidecars that run do the
    work. Exit code 0: done. 1: there is no such item. 2: cannot be asked so. 3: the directory is not there.
    """


@outbox.command("list")
@CONFIG
@click.option("--person", default="", help="Theirs alone: a user name, an address or an id.")
@click.option("--dead", is_flag=True, help="Only what was put aside after too many failures.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, _MOST), help="Most of them.")
@JSON
def list_(config: Path, person: str, limit: int, *, dead: bool, as_json: bool) -> None:
    """List what is owed, the longest due first."""

    async def work(office: Office) -> tuple[Any, Sequence[Debt]]:
        who = (await office.desk.find(person)).id if person else ""
        states = ("dead",) if dead else ("due", "dead")
        debts = office.directory.debts
        return await debts.backlog(), await debts.page(time.time(), states=states, person_id=who, limit=limit)

    backlog, found = in_office(config, work)
    if as_json:
        say_json({"waiting": backlog.waiting, "dead": backlog.dead, "items": [_plain(one) for one in found]})
        return
    for one in found:
        state = "under way" if one.is_under_way else one.state
        say(
            f"{one.id}  {one.duty.value:10} {state:9} {one.username}  tries {one.tries}  {moment(one.due)}  {one.error}"
        )
    say(f"{backlog.waiting} wait, {backlog.dead} put aside")


@outbox.command()
@ITEM
@CONFIG
@JSON
def show(item: str, config: Path, *, as_json: bool) -> None:
    """Show one item."""
    debt = in_office(config, lambda office: _one(office, item))
    if as_json:
        say_json(_plain(debt))
        return
    for name, value in _plain(debt).items():
        say(f"{name:12} {value}")


@outbox.command()
@ITEM
@CONFIG
@DRY_RUN
@JSON
def retry(item: str, config: Path, *, dry_run: bool, as_json: bool) -> None:
    """Try an item again now, as if it had never failed."""

    async def work(office: Office) -> int:
        chosen = await _chosen(office, item)
        if dry_run:
            return len(chosen)
        number = await office.directory.debts.retry([one.id for one in chosen], time.time())
        _record(office, Event.DUTY_RETRIED, chosen)
        return number

    _say(in_office(config, work), "tried again", dry_run=dry_run, as_json=as_json)


@outbox.command()
@ITEM
@CONFIG
@YES
@DRY_RUN
@JSON
def drop(item: str, config: Path, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Owe an item no longer. A deactivation that is dropped leaves an account open in the application."""
    if not dry_run:
        confirm(f"Drop {item}?", yes=yes)

    async def work(office: Office) -> tuple[int, int]:
        chosen = await _chosen(office, item)
        leaving = sum(one.duty is not Duty.SETTLE for one in chosen)
        if dry_run:
            return len(chosen), leaving
        number = await office.directory.debts.drop([one.id for one in chosen], "command")
        _record(office, Event.DUTY_DROPPED, chosen)
        return number, leaving

    number, leaving = in_office(config, work)
    tail = f"; {leaving} of them leave an account as it is" if leaving else ""
    _say(number, "dropped", tail, dry_run=dry_run, as_json=as_json)


def _say(number: int, done: str, tail: str = "", *, dry_run: bool, as_json: bool) -> None:
    text = f"{number} {'would be ' if dry_run else ''}{done}{tail}"
    answer({done.replace(" ", "_"): number, "dry_run": dry_run}, text, as_json=as_json)


async def _chosen(office: Office, item: str) -> Sequence[Debt]:
    if item == "dead":
        return await office.directory.debts.page(time.time(), states=("dead",), limit=_MOST)
    found = await _one(office, item)
    if found.state == "done":
        raise Refused(Reason.NOT_FOUND, 404, f"{item} is done")
    return [found]


async def _one(office: Office, item: str) -> Debt:
    found = await office.directory.debts.one(item, time.time())
    if found is None:
        raise Refused(Reason.NOT_FOUND, 404, f"nothing of the id {item} is owed")
    return found


def _record(office: Office, event: Event, chosen: Sequence[Debt]) -> None:
    for one in chosen:
        fields = {"item": one.id, "person": one.person_id, "username": one.username, "change": one.duty.value}
        office.audit.record(event, {**fields, "tries": one.tries, "by": "command"})


def _plain(debt: Debt) -> dict[str, Any]:
    return {
        **asdict(debt),
        "duty": debt.duty.value,
        "due": moment(debt.due),
        "created": moment(debt.created),
    }

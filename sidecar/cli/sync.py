"""``sidecar sync``: plan, show, apply, run and approve what a source of people asks for."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli.loading import CONFIG, load_or_leave
from sidecar.cli.progress import Bar
from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_UNAVAILABLE, EXIT_USAGE, complain, give_up, say, say_json
from sidecar.cli.sync_showing import EXIT_QUARANTINED, as_data, exit_code, standing, tell, tell_items, tell_state
from sidecar.faults import Refused, Unavailable

if TYPE_CHECKING:
    from sidecar.config.models import Config
    from sidecar.directory.sync_runs import RunRecord
    from sidecar.sync import Synchroniser
    from sidecar.syncing import Syncing

_NAME = click.argument("name")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
BY = click.option("--by", default="", help="Who asks, for the books; the machine's account when left out.")
_PERSON = click.option("--person", default="", metavar="ID", help="Only this person, by their id in the source.")
_FULL = click.option("--full", is_flag=True, help="Read everything, not only what changed.")
_LEAVE = click.option("--leave", is_flag=True, help="Leave the accounts to the running sidecar.")
_PLAN = click.option("--plan", "plan_hash", required=True, metavar="HASH", help="The plan, by the start of its hash.")


@click.group()
def sync() -> None:
    """Synchronise people with a file, a database, a directory or a program.

    Exit code 0: done, or nothing to do. 1: refused, failed or incomplete. 3: something needed is not there.
    4: beyond a limit, so that somebody has to approve it.
    """


@sync.command("plan")
@_NAME
@CONFIG
@_PERSON
@_FULL
@BY
@_JSON
def sync_plan(name: str, config: Path, person: str, by: str, *, full: bool, as_json: bool) -> None:
    """Read the source NAME and say what would change. Changes nothing."""
    from sidecar.sync.runs import Wish

    wish = Wish(who(by), full=full, only=person)

    async def work(syncing: Syncing, bar: Bar) -> None:
        one = _source(syncing, name)
        await _answer(one, await one.plan(wish, bar), as_json=as_json)

    _work(config, work)


@sync.command("run")
@_NAME
@CONFIG
@_PERSON
@_FULL
@BY
@_LEAVE
@click.option("--dry-run", is_flag=True, help="The same as plan: change nothing.")
@_JSON
def sync_run(
    name: str, config: Path, person: str, by: str, *, full: bool, leave: bool, dry_run: bool, as_json: bool
) -> None:
    """Plan and apply, unless there is more of it than one run may change."""
    from sidecar.sync.runs import Wish

    wish = Wish(who(by), full=full, only=person)

    async def work(syncing: Syncing, bar: Bar) -> None:
        one = _source(syncing, name)
        run = await (one.plan(wish, bar) if dry_run else one.run(wish, bar))
        await _settled(syncing, run, bar, leave=leave or dry_run)
        await _answer(one, run, as_json=as_json)

    _work(config, work)


@sync.command("show")
@click.argument("what")
@CONFIG
@click.option("--all", "show_all", is_flag=True, help="Also those for whom nothing happens.")
@_JSON
def sync_show(what: str, config: Path, *, show_all: bool, as_json: bool) -> None:
    """Show a stored plan person by person: the newest of the source WHAT, or the one whose hash begins with WHAT."""

    async def work(syncing: Syncing, _bar: Bar) -> None:
        one, run = await _run(syncing, what)
        if as_json:
            say_json(await as_data(one, run, items=True))
        else:
            tell(run)
            await tell_items(one, run, show_all=show_all)

    _work(config, work)


@sync.command("apply")
@CONFIG
@_PLAN
@BY
@_LEAVE
@_JSON
def sync_apply(config: Path, plan_hash: str, by: str, *, leave: bool, as_json: bool) -> None:
    """Apply a stored plan. Refused when source, people or configuration have changed since it was made."""

    async def work(syncing: Syncing, bar: Bar) -> None:
        one, run = await _run(syncing, plan_hash)
        done = await one.apply(run.id, who(by), bar)
        await _settled(syncing, done, bar, leave=leave)
        await _answer(one, done, as_json=as_json)

    _work(config, work)


@sync.command("approve")
@CONFIG
@_PLAN
@BY
@_JSON
def sync_approve(config: Path, plan_hash: str, by: str, *, as_json: bool) -> None:
    """Let a plan that is beyond a limit be applied, once. Somebody else must have asked for it."""

    async def work(syncing: Syncing, _bar: Bar) -> None:
        one, run = await _run(syncing, plan_hash)
        approved = await one.approve(run.id, who(by))
        if as_json:
            say_json(await as_data(one, approved))
        else:
            say(f"Approved by {approved.approved_by}. The next run applies it, or at once:")
            say(f"  sidecar sync apply --plan {run.hash[:12]}")

    _work(config, work)


@sync.command("reject")
@CONFIG
@_PLAN
@BY
@_JSON
def sync_reject(config: Path, plan_hash: str, by: str, *, as_json: bool) -> None:
    """Make sure that a plan that waits is never applied. The next run makes a new one."""

    async def work(syncing: Syncing, _bar: Bar) -> None:
        one, run = await _run(syncing, plan_hash)
        rejected = await one.reject(run.id, who(by))
        if as_json:
            say_json(await as_data(one, rejected))
        else:
            tell(rejected)

    _work(config, work)


@sync.command("status")
@CONFIG
@_JSON
def sync_status(config: Path, *, as_json: bool) -> None:
    """Say how each source stands, and what its newest runs came to."""

    async def work(syncing: Syncing, _bar: Bar) -> None:
        data = []
        for one in syncing.sources.values():
            runs = await one.runs()
            if as_json:
                shown = [await as_data(one, run) for run in runs]
                data.append({"source": one.rules.name, **standing(await one.state()), "runs": shown})
            else:
                tell_state(one, standing(await one.state()), runs)
        if as_json:
            say_json(data)

    _work(config, work)


def who(by: str) -> str:
    """Name of whoever asks: what they say, or the account that they work under."""
    return by or os.environ.get("SUDO_USER") or getpass.getuser()


def _work(config: Path, work: Callable[[Syncing, Bar], Awaitable[None]]) -> None:
    """Open everything for *work*; leave with the code that its end means."""
    settings = load_or_leave(config, quiet=True).config
    if not settings.sync:
        give_up(f"{config}: there is no sync section", EXIT_USAGE)
    try:
        asyncio.run(_opened(settings, work))
    except Refused as refused:
        give_up(f"refused: {refused.detail or refused.reason.value}", EXIT_PROBLEMS)
    except Unavailable as fault:
        give_up(f"unavailable: {fault.detail or fault.reason.value}", EXIT_UNAVAILABLE)
    except (OSError, ValueError) as error:
        give_up(str(error), EXIT_PROBLEMS)


async def _opened(settings: Config, work: Callable[[Syncing, Bar], Awaitable[None]]) -> None:
    from sidecar.syncing import open_syncing

    async with open_syncing(settings) as syncing:
        with Bar() as bar:
            await work(syncing, bar)


def _source(syncing: Syncing, name: str) -> Synchroniser:
    if name not in syncing.sources:
        give_up(f"there is no source {name}; there are: {', '.join(syncing.sources)}", EXIT_USAGE)
    return syncing.sources[name]


async def _run(syncing: Syncing, what: str) -> tuple[Synchroniser, RunRecord]:
    """The source and the run that *what* means: a source's name, or the start of a hash."""
    if what in syncing.sources:
        one = syncing.sources[what]
        return one, await one.find("")
    for one in syncing.sources.values():
        try:
            return one, await one.find(what)
        except Refused:
            continue
    return give_up(f"there is no plan {what}", EXIT_PROBLEMS)


async def _settled(syncing: Syncing, run: RunRecord, bar: Bar, *, leave: bool) -> None:
    if not leave and run.state == "done":
        await syncing.settle(lambda done: bar("accounts", done, 0))


async def _answer(one: Synchroniser, run: RunRecord, *, as_json: bool) -> None:
    if as_json:
        say_json(await as_data(one, run))
    else:
        tell(run)
    code = exit_code(run)
    if code == EXIT_QUARANTINED and not as_json:
        complain(f"Look at it:  sidecar sync show {run.hash[:12]}", "yellow")
        complain(
            f"Let it pass, somebody else than {run.asked_by}:  sidecar sync approve --plan {run.hash[:12]}", "yellow"
        )
    if code:
        raise SystemExit(code)

"""``sidecar sessions``: list sessions and end them, while the sidecar runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.loading import CONFIG
from sidecar.cli.officing import DRY_RUN, JSON, YES, answer, called, confirm, in_office
from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_USAGE, give_up, say, say_json

if TYPE_CHECKING:
    from sidecar.office import Office


@click.group()
def sessions() -> None:
    """List sessions and end them in every replica. Sessions must be in Redis: nobody else reaches a process's memory.

    Exit code 0: done. 1: there is none. 2: cannot be asked so. 3: Redis or the directory is not there.
    """


@sessions.command("list")
@CONFIG
@click.option("--person", default="", help="Theirs alone: a user name, an address or an id.")
@JSON
def list_(config: Path, person: str, *, as_json: bool) -> None:
    """List the ids of open sessions, which open nothing. Whose they are is known only the other way round: --person."""

    async def work(office: Office) -> tuple[str, ...]:
        if person:
            return await office.desk.sessions(await office.desk.find(person))
        return await office.desk.all_sessions()

    found = in_office(config, work, needs_sessions=True)
    if as_json:
        say_json({"sessions": list(found)})
        return
    for one in found:
        say(one)
    say(f"{len(found)} open")


@sessions.command()
@CONFIG
@click.option("--person", default="", help="Theirs: a user name, an address or an id.")
@click.option("--id", "session_id", default="", help="This one, as audit lines and the list name it.")
@click.option("--all", "is_all", is_flag=True, help="Everybody's.")
@YES
@DRY_RUN
@JSON
def end(config: Path, person: str, session_id: str, *, is_all: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    """End sessions: the next request has to sign in again, and open streams and WebSockets are closed."""
    if sum([bool(person), bool(session_id), is_all]) != 1:
        give_up("say one of --person, --id and --all", EXIT_USAGE)
    if is_all and not dry_run:
        confirm("End every session of everybody?", yes=yes)

    async def work(office: Office) -> tuple[str, int]:
        desk = office.desk
        if is_all:
            return "everybody", len(await desk.all_sessions()) if dry_run else await desk.end_all_sessions()
        if session_id:
            return session_id, int(await desk.is_open(session_id)) if dry_run else await desk.end_session(session_id)
        who = await desk.find(person)
        return called(who), len(await desk.sessions(who)) if dry_run else await desk.end_sessions(who)

    whose, number = in_office(config, work, needs_sessions=True)
    value: dict[str, Any] = {"of": whose, "ended": number, "dry_run": dry_run}
    answer(value, f"sessions of {whose} {'that would end' if dry_run else 'ended'}: {number}", as_json=as_json)
    if session_id and not number:
        raise SystemExit(EXIT_PROBLEMS)

"""``sidecar users import``: many people out of a file, all of them or none."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import track

from sidecar.cli.loading import CONFIG
from sidecar.cli.officing import DRY_RUN, JSON, in_office
from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_USAGE, complain, console, give_up, say, say_json
from sidecar.core.roster import Entry, Flaw, Roster, read_roster
from sidecar.faults import Refused

if TYPE_CHECKING:
    from sidecar.office import Office

_LARGEST = 64 * 1024 * 1024


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@CONFIG
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), help="By the file's name when left out.")
@click.option("--skip-invalid", is_flag=True, help="Take what is fine, although other lines are not.")
@DRY_RUN
@JSON
def import_(file: Path, config: Path, form: str | None, *, skip_invalid: bool, dry_run: bool, as_json: bool) -> None:
    """Add or change everybody in FILE. Every line is looked at first; when one is wrong, nothing is done.

    CSV begins with a line of column names: username, and as you need id, email, name, groups (a;b), active; every other
    column is a claim. JSONL has an object of the same names on each line. Imported twice it changes nothing, and who is
    not in the file stays as they are. Exit code 1: a line was wrong or refused.
    """
    form = form or {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}.get(file.suffix.lower())
    if form is None:
        give_up("say --format csv or --format jsonl", EXIT_USAGE)
    roster = read_roster(_content(file), form)
    if roster.flaws and not skip_invalid:
        _report(roster, Counter(), [], as_json=as_json, dry_run=dry_run)
        raise SystemExit(EXIT_PROBLEMS)

    async def work(office: Office) -> tuple[Counter[str], list[Flaw]]:
        return await _take_all(office, roster.entries, dry_run=dry_run)

    counted, refused = in_office(config, work)
    _report(roster, counted, refused, as_json=as_json, dry_run=dry_run)
    if roster.flaws or refused:
        raise SystemExit(EXIT_PROBLEMS)


def _content(file: Path) -> bytes:
    if str(file) == "-":
        content = sys.stdin.buffer.read(_LARGEST + 1)
    else:
        with file.open("rb") as source:
            content = source.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        give_up(f"the file is larger than {_LARGEST >> 20} MiB; split it", EXIT_USAGE)
    return content


async def _take_all(office: Office, entries: Any, *, dry_run: bool) -> tuple[Counter[str], list[Flaw]]:
    if office.config.people is None:
        give_up("add a `people` section to the configuration: it says how they are found when they sign in", EXIT_USAGE)
    counted: Counter[str] = Counter()
    refused: list[Flaw] = []
    terminal = console(error=True)
    for line, entry in track(entries, "Importing", console=terminal, disable=not terminal.is_terminal, transient=True):
        try:
            counted[await _taken(office, entry, dry_run=dry_run)] += 1
        except Refused as error:
            refused.append(Flaw(line, f"{error.reason.value}: {error.detail}"))
    return counted, refused


async def _taken(office: Office, entry: Entry, *, dry_run: bool) -> str:
    register = office.register
    return (await (register.foresee(entry) if dry_run else register.take(entry, time.time()))).change


def _report(roster: Roster, counted: Counter[str], refused: list[Flaw], *, as_json: bool, dry_run: bool) -> None:
    numbers = {name: counted[name] for name in ("added", "changed", "unchanged")}
    if as_json:
        flaws = [{"line": one.line, "problem": one.problem} for one in (*roster.flaws, *refused)]
        say_json({**numbers, "problems": flaws, "dry_run": dry_run})
        return
    for one in (*roster.flaws, *refused):
        complain(str(one))
    if not counted and roster.flaws:
        complain(f"nothing was done: {len(roster.flaws)} wrong lines; correct them, or add --skip-invalid")
        return
    said = ", ".join(f"{number} {name}" for name, number in numbers.items())
    say(f"{'would be: ' if dry_run else ''}{said}")

"""``sidecar drift``: find accounts in the application that are not what they should be, and put right what is ours."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.drift_page import page
from sidecar.cli.loading import CONFIG, load_or_leave
from sidecar.cli.progress import Bar
from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_UNAVAILABLE, EXIT_USAGE, complain, give_up, say, say_json
from sidecar.cli.sync import BY, who
from sidecar.cli.sync_showing import EXIT_QUARANTINED, moment
from sidecar.config.values import parse_duration
from sidecar.core.audit_export import harmless, on_one_line
from sidecar.core.drift import FIXABLE, WORDS, Finding, Found
from sidecar.faults import Refused, Unavailable

if TYPE_CHECKING:
    from sidecar.config.models import Config
    from sidecar.drift import DriftWatch
    from sidecar.drift.watch import Report
    from sidecar.syncing import Syncing

# As diff does: there is a difference.
EXIT_DRIFT = 5
COLUMNS = ("finding", "account", "username", "there", "here", "seen", "person")
_STYLES = {Finding.LINGERING: "red", Finding.REPLACED: "red", Finding.ORPHAN: "yellow"}
_WIDEST = 32


class _Period(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            return parse_duration(value)
        except ValueError as error:
            return self.fail(str(error), param, ctx)


@click.command("drift")
@CONFIG
@click.option("--idle", type=_Period(), help="Without a sign-in for so long an account is dormant, such as 90d.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), help="Write a table; - prints it.")
@click.option("--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), help="Write a page to look at.")
@click.option("--fix", is_flag=True, help="Put right what may be put right: lingering and roles.")
@click.option("--dry-run", is_flag=True, help="With --fix: say what would be put right.")
@click.option("--approve", metavar="HASH", default="", help="Let a repair that is beyond a limit be done, once.")
@click.option(
    "--reject", metavar="HASH", default="", help="Never do a repair that waits. The next one may want the same."
)
@click.option("--leave", is_flag=True, help="With --fix: leave the accounts to the running sidecar.")
@BY
def drift(  # noqa: PLR0913 - the options of a command
    config: Path,
    *,
    idle: timedelta | None,
    as_json: bool,
    csv_file: Path | None,
    html_file: Path | None,
    fix: bool,
    dry_run: bool,
    approve: str,
    reject: str,
    leave: bool,
    by: str,
) -> None:
    """Compare the accounts that the application lists with those that are known here.

    Exit code 0: nothing differs, or it was put right. 1: refused, or the listing was not complete. 2: cannot be asked
    so. 3: something needed is not there. 4: beyond a limit, so that somebody has to approve it. 5: something differs.
    """
    settings = load_or_leave(config, quiet=True).config
    if settings.drift is None:
        give_up(f"{config}: there is no drift section", EXIT_USAGE)
    if dry_run and not fix:
        give_up("--dry-run is for --fix; without it nothing is changed anyway", EXIT_USAGE)

    if sum(map(bool, (approve, reject, fix))) > 1:
        give_up("--approve, --reject and --fix are one at a time", EXIT_USAGE)

    async def work(syncing: Syncing, watch: DriftWatch, bar: Bar) -> int:
        if approve or reject:
            return await _decide(watch, approve, reject, who(by))
        seconds = idle.total_seconds() if idle is not None else None
        if fix and not dry_run:
            report = await watch.fix(who(by), bar)
            if "owed" in report.run.head and not leave:
                await syncing.settle(lambda done: bar("accounts", done, 0))
        else:
            report = await watch.look(who(by), bar, seconds)
        _write(report, csv_file, html_file)
        if as_json:
            say_json(_data(report))
        elif csv_file != Path("-"):
            _tell(report.fixable() if dry_run else report.found, report)
        return _code(report, fix=fix)

    raise SystemExit(_run(settings, work))


async def _decide(watch: DriftWatch, approve: str, reject: str, by: str) -> int:
    if approve:
        run = await watch.approve(approve, by)
        say(f"Approved by {run.approved_by}. The next repair does it:  sidecar drift --fix", "green")
    else:
        run = await watch.reject(reject, by)
        say(f"Rejected: the repair {run.hash[:12]} is never done.")
    return 0


def _run(settings: Config, work: Callable[[Syncing, DriftWatch, Bar], Awaitable[int]]) -> int:
    from sidecar.syncing import open_syncing

    async def opened() -> int:
        async with open_syncing(settings) as syncing:
            if syncing.drift is None:
                return give_up("there are no accounts to compare with", EXIT_USAGE)
            with Bar() as bar:
                return await work(syncing, syncing.drift, bar)

    try:
        return asyncio.run(opened())
    except Refused as refused:
        return give_up(f"refused: {refused.detail or refused.reason.value}", EXIT_PROBLEMS)
    except Unavailable as fault:
        return give_up(f"unavailable: {fault.detail or fault.reason.value}", EXIT_UNAVAILABLE)
    except (OSError, ValueError) as error:
        return give_up(str(error), EXIT_PROBLEMS)


def _code(report: Report, *, fix: bool) -> int:
    if report.run.state == "quarantined":
        return EXIT_QUARANTINED
    if not report.is_complete:
        return EXIT_PROBLEMS
    left = [one for one in report.found if not (fix and "owed" in report.run.head and one.finding in FIXABLE)]
    return EXIT_DRIFT if left else 0


def _tell(found: Sequence[Found], report: Report) -> None:
    if found:
        _table(found)
    _sum_up(report)
    head = report.run.head
    for breach in head.get("breaches", ()):
        complain(f"beyond the limit for {breach}", "yellow")
    if report.run.state == "quarantined":
        name = report.run.hash[:12]
        complain(f"Let it pass, somebody else than {report.run.asked_by}:  sidecar drift --approve {name}", "yellow")
    if "owed" in head:
        say(f"  put right: {sum(head['owed'].values())} accounts", "green")


def _table(found: Sequence[Found]) -> None:
    widths = [min(_WIDEST, max([len(text), *(len(_cells(one)[number]) for one in found)])) for number, text in _HEAD]
    say("  ".join(text.upper().ljust(width) for (_, text), width in zip(_HEAD, widths, strict=True)).rstrip(), "bold")
    for one in found:
        cells = _cells(one)
        line = "  ".join(cells[number].ljust(width) for (number, _), width in zip(_HEAD, widths, strict=True))
        say(line.rstrip(), _STYLES.get(one.finding, ""))
    say()


def _sum_up(report: Report) -> None:
    head = report.run.head
    say(f"{head['accounts']} accounts there, {head['known']} known here", "bold")
    for kind in Finding:
        if number := head["counts"].get(kind.value):
            say(f"  {number:>6} {kind.value}: {WORDS[kind]}")
    if not head["counts"]:
        say("  nothing differs", "green")
    if head["why"]:
        complain(f"The listing is not complete: {head['why']}. What is missing there cannot be told.")


_HEAD = tuple(enumerate(COLUMNS[:6]))


def _cells(one: Found) -> tuple[str, ...]:
    return tuple(cell if len(cell) <= _WIDEST else f"{cell[: _WIDEST - 1]}…" for cell in _rows([one])[0])


def _rows(found: Iterable[Found]) -> list[tuple[str, ...]]:
    """The cells of the table, the CSV and the page. They are the application's words, and may go to a terminal."""
    rows = (
        (one.finding.value, one.account, one.username, one.there, one.here, moment(one.seen or 0.0), one.person_id)
        for one in found
    )
    return [tuple(map(on_one_line, row)) for row in rows]


def _write(report: Report, csv_file: Path | None, html_file: Path | None) -> None:
    if csv_file is not None:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows([harmless(cell) for cell in row] for row in _rows(report.found))
        if csv_file == Path("-"):
            click.echo(text.getvalue(), nl=False)
        else:
            csv_file.write_text(text.getvalue(), encoding="utf-8", newline="")
    if html_file is not None:
        html_file.write_text(page(report, COLUMNS, _rows(report.found), WORDS), encoding="utf-8")


def _data(report: Report) -> dict[str, Any]:
    head, run = report.run.head, report.run
    found = [{**asdict(one), "finding": one.finding.value, "seen": moment(one.seen or 0.0)} for one in report.found]
    names = ("is_complete", "why", "accounts", "known", "counts", "breaches", "owed")
    data = {"run": run.id, "state": run.state, "plan": run.hash, "at": moment(run.created), "findings": found}
    return {**data, **{name: head[name] for name in names if name in head}}

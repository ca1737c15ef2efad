"""``sidecar doctor``: examine a whole deployment, and say what to change and why."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.loading import CONFIG
from sidecar.cli.progress import Bar
from sidecar.cli.saying import EXIT_PROBLEMS, say, say_json
from sidecar.doctor.finding import Finding, Severity, worst

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from sidecar.config.problem import Problem

_STYLES = {Severity.OK: "green", Severity.SKIPPED: "dim", Severity.WARNING: "yellow", Severity.FAILURE: "red"}
_COUNTED = {
    Severity.OK: "well",
    Severity.SKIPPED: "not seen",
    Severity.WARNING: "to look at",
    Severity.FAILURE: "failed",
}


def _choice() -> click.Choice[str]:
    """Names of checks, and of findings."""
    from sidecar.doctor.examination import NAMES

    return click.Choice(NAMES)


def _known(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    choice = _choice() if value else None
    return tuple(choice.convert(name, param, ctx) for name in value) if choice is not None else ()


def _offered(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _choice().shell_complete(ctx, param, incomplete)


_NAME: Mapping[str, Any] = {"multiple": True, "metavar": "NAME", "callback": _known, "shell_complete": _offered}


@click.command()
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--only", **_NAME, help="Carry out only this check; may be repeated.")
@click.option("--skip", **_NAME, help="Leave this check out; may be repeated.")
@click.option("--strict", is_flag=True, help="Treat warnings as failures.")
@click.option("--all", "show_all", is_flag=True, help="Also print at length what is well.")
def doctor(
    config: Path, *, as_json: bool, only: tuple[str, ...], skip: tuple[str, ...], strict: bool, show_all: bool
) -> None:
    """Examine the deployment that CONFIG describes: clocks, names, certificates, providers, stores, files, ways around.

    Changes nothing: keys in Redis end after seconds, a lookup is for somebody who cannot exist, and each provider sees
    one sign-in without anybody and codes that it refuses.

    Exit code 0: nothing failed (perhaps with warnings). 1: something failed, or with --strict there are warnings.
    """
    from sidecar.telemetry.log import set_up

    # What is found is said here; a log between would only say it twice.
    set_up("error", "auto")
    with Bar() as bar:
        findings = _examined(config, only, skip, bar)
    severity = worst(findings)
    is_ok = severity is not Severity.FAILURE and not (strict and severity is Severity.WARNING)
    if as_json:
        say_json({"findings": [finding.as_data() for finding in findings], "ok": is_ok})
    else:
        _tell(findings, show_all=show_all)
    if any(finding.name == "examination" for finding in findings):
        # A thread that hangs in the operating system cannot be ended, and must not keep the answer.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if is_ok else EXIT_PROBLEMS)
    if not is_ok:
        raise SystemExit(EXIT_PROBLEMS)


def _examined(config: Path, only: Sequence[str], skip: Sequence[str], bar: Bar) -> list[Finding]:
    from sidecar.config.document import read_document
    from sidecar.config.loader import ConfigError, load
    from sidecar.doctor.examination import examine
    from sidecar.doctor.patient import Patient
    from sidecar.hooks.passwords import FILTERS

    try:
        loaded = load(config, environment=os.environ, filters=FILTERS)
    except ConfigError as error:
        found = [_problem(one) for one in error.problems]
        unseen = "nothing else can be looked at before what is wrong in the configuration is corrected"
        return [*found, Finding("configuration", Severity.SKIPPED, "", unseen, found[0].why)]
    patient = Patient(loaded.config, read_document(config), loaded.warnings)
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(examine(patient, only=only, skip=skip, tell=bar))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.stop()


def _problem(one: Problem) -> Finding:
    from sidecar.doctor.catalogue import CATALOGUE

    severity = Severity.FAILURE if one.severity == "error" else Severity.WARNING
    subject = CATALOGUE["configuration"]
    return Finding("configuration", severity, "", one.message, subject.why, one.fix, one.file, one.line, one.path)


def _tell(findings: Sequence[Finding], *, show_all: bool) -> None:
    order = list(Severity)
    alike: dict[tuple[str, ...], list[Finding]] = {}
    for finding in sorted(findings, key=lambda one: order.index(one.severity)):
        alike.setdefault((finding.severity.value, finding.name, finding.change), []).append(finding)
    for group in alike.values():
        if group[0].severity in (Severity.WARNING, Severity.FAILURE):
            _tell_at_length(group)
        else:
            _tell_in_short(group, at_length=show_all)
    counts = [(sum(one.severity is kind for one in findings), kind) for kind in reversed(Severity)]
    say()
    say(", ".join(f"{count} {_COUNTED[kind]}" for count, kind in counts if count), _STYLES[worst(findings)])


def _tell_in_short(group: Sequence[Finding], *, at_length: bool) -> None:
    for finding in group:
        part = f" {finding.part}" if finding.part else ""
        say(f"{finding.severity.value:>7}  {finding.name}{part}: {finding.seen}", _STYLES[finding.severity])
    if at_length:
        say(f"         {group[0].why}")


def _tell_at_length(group: Sequence[Finding]) -> None:
    """Many that are alike say once why that matters and what to do."""
    say()
    say(f"{group[0].severity.value:>7}  {group[0].name}", _STYLES[group[0].severity])
    for finding in group:
        say(f"         {f'{finding.part}: ' if finding.part else ''}{finding.seen}")
        if finding.file:
            place = f"{finding.file}:{finding.line}" if finding.line else finding.file
            say(f"           {place}: {finding.path}".removesuffix(": "), "dim")
    say(f"         Why: {group[0].why}")
    if group[0].change:
        say(f"         Do:  {group[0].change}")

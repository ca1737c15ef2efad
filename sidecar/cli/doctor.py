"""``sidecar doctor``: examine a whole deployment, and say what to change and why."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from sidecar.cli.loading import CONFIG
from sidecar.cli.progress import Bar
from sidecar.cli.saying import EXIT_PROBLEMS, say, say_json
from sidecar.config.document import read_document
from sidecar.config.loader import ConfigError, load
from sidecar.config.problem import Problem
from sidecar.doctor.catalogue import CATALOGUE
from sidecar.doctor.examination import NAMES, examine
from sidecar.doctor.finding import Finding, Severity, worst
from sidecar.doctor.patient import Patient
from sidecar.hooks.passwords import FILTERS

_STYLES = {Severity.OK: "green", Severity.SKIPPED: "dim", Severity.WARNING: "yellow", Severity.FAILURE: "red"}
_NAME = click.Choice(NAMES)


@click.command()
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--only", multiple=True, type=_NAME, metavar="NAME", help="Carry out only this check; may be repeated.")
@click.option("--skip", multiple=True, type=_NAME, metavar="NAME", help="Leave this check out; may be repeated.")
@click.option("--strict", is_flag=True, help="Treat warnings as failures.")
@click.option("--all", "show_all", is_flag=True, help="Also print at length what is well.")
def doctor(
    config: Path, *, as_json: bool, only: tuple[str, ...], skip: tuple[str, ...], strict: bool, show_all: bool
) -> None:
    """Examine the deployment that CONFIG describes: clocks, names, certificates, providers, stores, files, ways around.

    Changes nothing: keys in Redis end after seconds, a lookup is for somebody who cannot exist, and each provider sees
    one sign-in and one code that it refuses.

    Exit code 0: nothing failed (perhaps with warnings). 1: something failed, or with --strict there are warnings.
    """
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
    try:
        loaded = load(config, environment=os.environ, filters=FILTERS)
    except ConfigError as error:
        return [_problem(one) for one in error.problems]
    patient = Patient(loaded.config, read_document(config), loaded.warnings)
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(examine(patient, only=only, skip=skip, tell=bar))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.stop()


def _problem(one: Problem) -> Finding:
    severity = Severity.FAILURE if one.severity == "error" else Severity.WARNING
    subject = CATALOGUE["configuration"]
    return Finding("configuration", severity, "", one.message, subject.why, one.fix, one.file, one.line, one.path)


def _tell(findings: Sequence[Finding], *, show_all: bool) -> None:
    for finding in sorted(findings, key=lambda one: list(Severity).index(one.severity)):
        _tell_one(finding, at_length=show_all)
    counts = [(sum(one.severity is kind for one in findings), kind) for kind in reversed(Severity)]
    words = {
        Severity.FAILURE: "failed",
        Severity.WARNING: "to look at",
        Severity.SKIPPED: "not seen",
        Severity.OK: "well",
    }
    say()
    say(", ".join(f"{count} {words[kind]}" for count, kind in counts if count), _STYLES[worst(findings)])


def _tell_one(finding: Finding, *, at_length: bool) -> None:
    where = f" {finding.part}" if finding.part else ""
    say(f"{finding.severity.value:>7}  {finding.name}{where}: {finding.seen}", _STYLES[finding.severity])
    is_bad = finding.severity in (Severity.WARNING, Severity.FAILURE)
    if is_bad or at_length:
        say(f"         {finding.why}")
    if is_bad and finding.change:
        say(f"         {finding.change}")
    if finding.file:
        place = f"{finding.file}:{finding.line}" if finding.line else finding.file
        say(f"         {place}: {finding.path}".removesuffix(": "), "dim")

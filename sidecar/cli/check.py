"""``sidecar check`` and ``sidecar schema``: find every problem before it finds somebody."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli.loading import CONFIG, show
from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_UNAVAILABLE, complain, say, say_json

if TYPE_CHECKING:
    from sidecar.config.loader import Problem
    from sidecar.config.models import Config
    from sidecar.probing import Finding


@click.command()
@CONFIG
@click.option("--connect", is_flag=True, help="Also reach the providers, store, directory, application and hooks.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
def check(config: Path, *, connect: bool, as_json: bool, strict: bool) -> None:
    """Report every problem of CONFIG at once: file, line, place, and the way out.

    Exit code 0: fine (perhaps with warnings). 1: errors. 3: something could not be reached with --connect.
    """
    from sidecar.config.loader import ConfigError, load
    from sidecar.hooks.passwords import FILTERS

    problems: tuple[Problem, ...]
    settings: Config | None = None
    try:
        loaded = load(config, environment=os.environ, filters=FILTERS)
        problems, settings = loaded.warnings, loaded.config
    except ConfigError as error:
        problems = error.problems
    parts: dict[str, Finding] = {}
    if connect and settings is not None:
        # Whatever can be reached speaks some protocol: two thirds of the start.
        from sidecar.probing import probed

        parts = probed(settings)
    is_bad = settings is None or (strict and bool(problems))
    is_cut_off = any(not part["ok"] for part in parts.values())
    if as_json:
        is_ok = not is_bad and not is_cut_off
        say_json({"problems": [asdict(problem) for problem in problems], "connections": parts, "ok": is_ok})
    else:
        _tell(config, problems, parts, is_fine=not is_bad)
    if is_bad:
        raise SystemExit(EXIT_PROBLEMS)
    if is_cut_off:
        raise SystemExit(EXIT_UNAVAILABLE)


def _tell(config: Path, problems: tuple[Problem, ...], parts: dict[str, Finding], *, is_fine: bool) -> None:
    show(problems)
    for name, part in parts.items():
        if part["ok"]:
            say(f"{name}: {part['says']}", "green")
        else:
            complain(f"{name}: {part['says']}")
    errors = sum(problem.severity == "error" for problem in problems)
    summary = f"{config}: {errors} error(s), {len(problems) - errors} warning(s)"
    if is_fine:
        say(summary, "green")
    else:
        complain(summary)


@click.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors.

    \b
    sidecar schema > sidecar.schema.json
    and in the first line of the configuration:
    # yaml-language-server: $schema=sidecar.schema.json
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from sidecar.config.schema import schema as schema_of

    say_json(schema_of())

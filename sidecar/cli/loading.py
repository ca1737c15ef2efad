"""Load the configuration for a command, and say what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli.saying import EXIT_PROBLEMS, complain

if TYPE_CHECKING:
    from sidecar.config.loader import Loaded, Problem

CONFIG = click.argument(
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SIDECAR_CONFIG",
    default="config.yaml",
)


def load_or_leave(path: Path, *, quiet: bool = False) -> Loaded:
    """Load *path*; print every problem and leave with code 1 when it has errors; warnings too, unless *quiet*."""
    # Help, and completion in the shell, shall not wait for what reads configurations.
    from sidecar.config.loader import ConfigError, load
    from sidecar.hooks.passwords import FILTERS

    try:
        loaded = load(path, environment=os.environ, filters=FILTERS)
    except ConfigError as error:
        show(error.problems)
        raise SystemExit(EXIT_PROBLEMS) from None
    if not quiet:
        show(loaded.warnings)
    return loaded


def show(problems: tuple[Problem, ...]) -> None:
    """Print problems in the order of the file."""
    for problem in problems:
        complain(str(problem), "red" if problem.severity == "error" else "yellow")

"""``sidecar log-level``: change what the sidecar that runs writes to its log, for a while."""

from __future__ import annotations

from pathlib import Path

import click

from sidecar.cli.controlling import SOCKET, asked, control_of
from sidecar.cli.loading import CONFIG
from sidecar.cli.saying import EXIT_USAGE, give_up, say
from sidecar.config.values import parse_duration
from sidecar.telemetry.log import LEVELS, LOGGERS

_PATIENCE = 30.0


@click.command()
@click.argument("level", type=click.Choice([*LEVELS, "reset"]))
@CONFIG
@SOCKET
@click.option(
    "--for", "how_long", default="10m", show_default=True, help="Then it is as configured again; 24h at most."
)
@click.option("--logger", type=click.Choice(LOGGERS), help="Only lines of this part; all when left out.")
def log_level(level: str, config: Path, socket: Path | None, how_long: str, logger: str | None) -> None:
    """Set the LEVEL of the log of the sidecar that serves CONFIG, in all workers; reset ends it at once.

    No level makes secrets appear, and libraries' own lines stay at warnings.

    Exit code 0: done. 2: wrong usage. 3: the sidecar does not answer.
    """
    try:
        seconds = parse_duration(how_long).total_seconds()
    except ValueError as error:
        give_up(f"--for: {error}", EXIT_USAGE)
    where = control_of(config, socket)
    problem = asked(where, _PATIENCE, do="log-level", level=level, logger=logger or "", seconds=seconds).get("problem")
    if problem:
        give_up(str(problem), EXIT_USAGE)
    say("as configured" if level == "reset" else f"{level} for {how_long}")

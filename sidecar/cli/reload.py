"""``sidecar reload``: have the sidecar that runs read its configuration again, and say what came of it."""

from __future__ import annotations

from pathlib import Path

import click

from sidecar.cli.controlling import SOCKET, asked, control_of
from sidecar.cli.loading import CONFIG
from sidecar.cli.outcomes import outcome_of
from sidecar.cli.saying import EXIT_PROBLEMS, complain, say, say_json

# As long as workers may take, and some more.
_PATIENCE = 120.0


@click.command()
@CONFIG
@SOCKET
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON.")
def reload(config: Path, socket: Path | None, *, as_json: bool) -> None:
    """Have the sidecar that serves CONFIG read it again, and put it in force: whole or not at all.

    It is asked at the Unix socket that CONFIG names under reload.control; without one, send SIGHUP.

    Exit code 0: in force. 1: refused, the former configuration stays. 3: the sidecar does not answer.
    """
    answer = asked(control_of(config, socket), _PATIENCE, do="reload")
    outcome = outcome_of(answer)
    if as_json:
        say_json(answer)
    elif outcome.is_loaded:
        for change in outcome.changes:
            say(str(change))
        say(f"in force: {outcome.digest[:12]}" if outcome.changes else f"nothing has changed: {outcome.digest[:12]}")
    else:
        for problem in outcome.problems:
            complain(problem)
        complain("refused: the former configuration stays in force; `sidecar check` says more")
    raise SystemExit(0 if outcome.is_loaded else EXIT_PROBLEMS)

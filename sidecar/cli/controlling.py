"""Find the sidecar that runs, and ask it something: what its commands share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sidecar.cli.asking import ask
from sidecar.cli.loading import show
from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_UNAVAILABLE, EXIT_USAGE, give_up
from sidecar.config.document import read_document
from sidecar.config.loader import ConfigError

SOCKET = click.option(
    "--socket", type=click.Path(path_type=Path), help="Its control socket; the one that CONFIG names when left out."
)


def control_of(config: Path, socket: Path | None) -> Path:
    """Where the sidecar that serves *config* listens to commands; leaves where that cannot be known.

    The rest of the file may be wrong: that is for the sidecar to say.
    """
    if socket is not None:
        return socket
    try:
        data = read_document(config).data
    except ConfigError as error:
        show(error.problems)
        raise SystemExit(EXIT_PROBLEMS) from None
    section = data.get("reload")
    path = section.get("control") if isinstance(section, Mapping) else None
    if not isinstance(path, str) or not path:
        give_up("reload.control is not set, so it cannot be asked: name --socket, or send SIGHUP", EXIT_USAGE)
    return config.resolve().parent / path


def asked(where: Path, patience: float, **fields: Any) -> Mapping[str, Any]:
    """What the sidecar at *where* answers; leaves when it does not."""
    try:
        return ask(where, patience, **fields)
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        give_up(f"no sidecar answers at {where}: {reason}", EXIT_UNAVAILABLE)

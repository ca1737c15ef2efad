"""``sidecar run``: serve until told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import click
import structlog

from sidecar.app import build
from sidecar.cli.loading import CONFIG, load_or_leave
from sidecar.cli.saying import EXIT_UNAVAILABLE, give_up
from sidecar.cli.workers import Workers
from sidecar.config.models import Config
from sidecar.model import Unavailable
from sidecar.telemetry.log import set_up

_log = structlog.get_logger("run")


@click.command()
@CONFIG
@click.option("--worker", is_flag=True, hidden=True, help="Serve as one of several workers.")
def run(config: Path, *, worker: bool) -> None:
    """Serve according to CONFIG (default: config.yaml, or $SIDECAR_CONFIG) until SIGTERM or Ctrl-C.

    SIGTERM drains: requests under way are finished, nothing new is accepted.
    """
    loaded = load_or_leave(config)
    settings = loaded.config
    set_up(settings.log.level, settings.log.format)
    if settings.server.workers > 1 and not worker:
        command = [sys.executable, "-m", "sidecar", "run", "--worker", str(config)]
        raise SystemExit(Workers(settings.server, command).run())
    try:
        run_loop(settings)
    except (OSError, ValueError) as error:
        give_up(f"cannot start: {error}")
    except Unavailable as fault:
        give_up(f"cannot start: {fault}", EXIT_UNAVAILABLE)


def run_loop(settings: Config) -> None:
    """Serve *settings* in this process until a signal says stop."""
    import uvloop  # noqa: PLC0415 - only a serving process needs it

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


async def serve(settings: Config) -> None:
    """Build, start, wait for SIGTERM or SIGINT, drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sidecar = await build(settings)
    try:
        await sidecar.start()
        _log.info("ready", listen=list(sidecar.addresses), public_url=settings.server.public_url, pid=os.getpid())
        await stop.wait()
        _log.info("draining", pid=os.getpid())
    finally:
        await sidecar.stop()

"""``sidecar run``: serve until told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
import structlog

from sidecar.app import build
from sidecar.cli.leash import Leash
from sidecar.cli.loading import CONFIG, load_or_leave
from sidecar.cli.saying import EXIT_UNAVAILABLE, give_up
from sidecar.cli.workers import Workers
from sidecar.config.models import Config
from sidecar.model import Unavailable
from sidecar.telemetry.log import set_up

_log = structlog.get_logger("run")


@click.command()
@CONFIG
@click.option("--worker", type=int, hidden=True, help="Serve as one of several workers, tied to this descriptor.")
def run(config: Path, *, worker: int | None) -> None:
    """Serve according to CONFIG (default: config.yaml, or $SIDECAR_CONFIG) until SIGTERM or Ctrl-C.

    Told to stop it drains: requests under way are finished, then nothing new is accepted. Told again it ends at once.
    SIGHUP renews the workers one by one; they read CONFIG again. With one worker it stops: nobody takes over.

    Exit code 0: stopped as told. 1: problems in the configuration, or it cannot start. 3: something that it cannot
    start without is not there.
    """
    settings = load_or_leave(config, quiet=worker is not None).config
    set_up(settings.log.level, settings.log.format)
    try:
        if settings.server.workers > 1 and worker is None:
            command = [sys.executable, "-m", "sidecar", "run", str(config)]
            raise SystemExit(asyncio.run(Workers(settings.server, command).run()))
        run_loop(settings, Leash(worker))
    except (OSError, ValueError) as error:
        _log.debug("cannot start", exc_info=True)
        give_up(f"cannot start: {error}")
    except Unavailable as fault:
        give_up(f"cannot start: {fault}", EXIT_UNAVAILABLE)


def run_loop(settings: Config, leash: Leash) -> None:
    """Serve *settings* in this process until a signal says stop."""
    import uvloop  # noqa: PLC0415 - only a serving process needs it

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, leash))


async def serve(settings: Config, leash: Leash) -> None:
    """Build, start, wait for SIGTERM or SIGINT, drain."""
    stop = Stop()
    leash.when_torn(stop)
    sidecar = await build(settings)
    try:
        await sidecar.start()
        _log.info("listening", on=list(sidecar.addresses), public_url=settings.server.public_url, pid=os.getpid())
        leash.say_ready()
        # What is there now stays: the collector need not look through it again while somebody waits.
        gc.freeze()
        await stop.wait()
        _log.info("draining", pid=os.getpid())
    finally:
        stop.next_time(sidecar.hurry)
        await sidecar.stop(is_replaced=stop.is_replaced)
        _log.info("stopped", pid=os.getpid())


class Stop:
    """Waits for SIGTERM or SIGINT, or for being called; what follows the first time is up to ``next_time``."""

    def __init__(self) -> None:
        """Listen to the signals in the running event loop."""
        self._told = asyncio.Event()
        self._again: Callable[[], None] | None = None
        self.is_replaced = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self)
        loop.add_signal_handler(signal.SIGUSR1, self._make_way)

    def __call__(self) -> None:
        """Stop, or be quick about it."""
        if self._told.is_set() and self._again is not None:
            self._again()
        self._told.set()

    def _make_way(self) -> None:
        """Stop because a new worker has taken over."""
        self.is_replaced = True
        self._told.set()

    def next_time(self, again: Callable[[], None]) -> None:
        """Call *again* from the second time on."""
        self._again = again

    async def wait(self) -> None:
        """Wait for the first time."""
        await self._told.wait()

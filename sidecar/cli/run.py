"""``sidecar run``: serve until told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import structlog

from sidecar.app import build
from sidecar.cli.hugepages import keep_gathered
from sidecar.cli.leash import Leash
from sidecar.cli.levels import Levels
from sidecar.cli.loading import CONFIG, load_or_leave
from sidecar.cli.notify import Notifier
from sidecar.cli.operating import Operating
from sidecar.cli.saying import EXIT_UNAVAILABLE, give_up
from sidecar.cli.serving_process import Alone, Worker
from sidecar.cli.workers import Workers
from sidecar.faults import Unavailable
from sidecar.reloading import Reloading
from sidecar.telemetry.log import set_up

if TYPE_CHECKING:
    from sidecar.config.loader import Loaded
    from sidecar.lasting import Reload

_log = structlog.get_logger("run")


@click.command()
@CONFIG
@click.option("--worker", type=int, hidden=True, help="Serve as one of several workers, tied to this descriptor.")
def run(config: Path, *, worker: int | None) -> None:
    """Serve according to CONFIG (default: config.yaml, or $SIDECAR_CONFIG) until SIGTERM or Ctrl-C.

    Told to stop it drains: requests under way are finished, then nothing new is accepted. Told again it ends at once.
    SIGHUP, `sidecar reload`, the console and, with reload.watch, a changed file make it read CONFIG again: whole or not
    at all, without dropping a request or a WebSocket. SIGUSR1 replaces the workers one by one. SIGUSR2 logs at debug
    for ten minutes.

    Exit code 0: stopped as told. 1: problems in the configuration, or it cannot start. 3: something that it cannot
    start without is not there.
    """
    loaded = load_or_leave(config, quiet=worker is not None)
    settings = loaded.config
    set_up(settings.log.level, settings.log.format)
    notifier = Notifier(os.environ)
    try:
        if settings.server.workers > 1 and worker is None:
            command = [sys.executable, "-m", "sidecar", "run", str(config)]
            raise SystemExit(asyncio.run(Workers(settings, command, notifier).run()))
        run_loop(config, loaded, Leash(worker), notifier)
    except (OSError, ValueError) as error:
        _log.debug("cannot start", exc_info=True)
        give_up(f"cannot start: {error}")
    except Unavailable as fault:
        give_up(f"cannot start: {fault}", EXIT_UNAVAILABLE)


def run_loop(path: Path, loaded: Loaded, leash: Leash, notifier: Notifier) -> None:
    """Serve what was *loaded* from *path* in this process until a signal says stop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(path, loaded, leash, notifier))


async def serve(path: Path, loaded: Loaded, leash: Leash, notifier: Notifier) -> None:
    """Build, start, wait for SIGTERM or SIGINT, drain."""
    stop = Stop(is_worker=leash.is_tied)
    reloading, levels = Reloading(path, loaded, await build(loaded.config)), Levels()
    alone, worker = Alone(reloading, levels), Worker(reloading, levels, leash)
    gathering: list[asyncio.Task[None]] = []

    async def end() -> None:
        stop.next_time(reloading.hurry)
        for task in gathering:
            task.cancel()
        await worker.abandon()
        await reloading.stop(is_replaced=stop.is_replaced)
        _log.info("stopped", pid=os.getpid())

    async def begin(reload: Reload) -> None:
        sidecar = reloading.sidecar
        await sidecar.start()
        sidecar.lasting.reload = reload
        reloading.note_start()
        _log.info("listening", on=list(sidecar.addresses), public_url=loaded.config.server.public_url, pid=os.getpid())
        # What is there now stays: the collector need not look through it again while somebody waits.
        gc.freeze()
        if loaded.config.server.huge_pages:
            gathering.append(asyncio.create_task(keep_gathered()))

    if not leash.is_tied:
        operations = Operating(alone, notifier, loaded.config.reload.control)
        try:
            await begin(operations.reload)
            async with operations.at_work():
                await stop.wait()
                _log.info("draining", pid=os.getpid())
        finally:
            await end()
            await operations.close()
        return
    try:
        await leash.tie(worker.serve, stop)
        if (await leash.ask("loaded", **worker.state())).get("go"):
            await begin(worker.reload)
            if (await leash.ask("ready")).get("stay"):
                await stop.wait()
            _log.info("draining", pid=os.getpid())
    except ConnectionError:
        _log.warning("the parent process is gone")
    finally:
        await end()


class Stop:
    """Waits for SIGTERM or SIGINT, or for being called; what follows the first time is up to ``next_time``."""

    def __init__(self, *, is_worker: bool = False) -> None:
        """Listen to the signals in the running event loop; to its parent's where *is_worker*."""
        self._told = asyncio.Event()
        self._again: Callable[[], None] | None = None
        self.is_replaced = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self)
        if is_worker:
            loop.add_signal_handler(signal.SIGUSR1, self._make_way)
            # These are for the parent; whoever sends them to everybody means it.
            for number in (signal.SIGHUP, signal.SIGUSR2):
                loop.add_signal_handler(number, int)

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

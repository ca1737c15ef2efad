"""Run several workers on one port, replace those that die or are to be renewed, and add up their metrics."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import multiprocess

from sidecar.cli.leash import READY
from sidecar.config.service import Server
from sidecar.listening import bound
from sidecar.model import Unavailable
from sidecar.reason import Reason
from sidecar.serving import server_of
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.page import MetricsPage

_log = structlog.get_logger("workers")
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_LAST_WORDS = 1.0


@dataclass(frozen=True, slots=True)
class _Worker:
    """A process that was started. ``leash`` is our end: the kernel closes it when we die, which ends the worker."""

    process: asyncio.subprocess.Process
    leash: socket.socket
    serves: bool


class Workers:
    """The parent process: it serves nothing but metrics and its probes."""

    def __init__(self, section: Server, command: Sequence[str]) -> None:
        """Run *command* ``workers`` times, each with ``--worker`` and a descriptor; they share the port."""
        self._section = section
        self._command = list(command)
        self._processes: set[asyncio.subprocess.Process] = set()
        self._current: dict[int, _Worker] = {}
        self._serving = 0
        self._stopping = asyncio.Event()
        self._renewal = asyncio.Event()

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; exit code of the whole. Raises OSError when the metrics address is taken."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._renewal.set)
        with tempfile.TemporaryDirectory(prefix="sidecar-metrics-") as folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            async with self._metrics():
                # One alone at first: what keeps it from starting keeps the others, too, and so is said once.
                first = await self._launch()
                if not first.serves:
                    return await self._ended(first)
                others = (self._keep(number) for number in range(2, self._section.workers + 1))
                return max(await asyncio.gather(self._renew_when_told(), self._keep(1, first), *others))

    def _stop(self) -> None:
        """Tell the workers to stop; told again, they end at once."""
        self._stopping.set()
        self._renewal.set()
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)

    async def _keep(self, number: int, worker: _Worker | None = None) -> int:
        """Run one worker, and another when it dies, until we stop; its last exit code."""
        pause = _FIRST_PAUSE
        while True:
            worker = self._current[number] = worker or await self._launch()
            code = await self._ended(worker)
            if self._current[number] is not worker:
                # It was renewed, and has drained.
                worker = self._current[number]
                continue
            if self._stopping.is_set():
                return code
            pause = _FIRST_PAUSE if worker.serves else min(pause * 2, _LONGEST_PAUSE)
            _log.error("a worker died, starting another", worker=number, code=code, in_seconds=pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
                    return 0
            worker = None if self._current[number] is worker else self._current[number]

    async def _renew_when_told(self) -> int:
        """Renew the workers after each SIGHUP, until we stop."""
        while True:
            await self._renewal.wait()
            self._renewal.clear()
            if self._stopping.is_set():
                return 0
            await self._renew()

    async def _renew(self) -> None:
        """Put a new worker into each place, one after another: it serves before the old one drains.

        The new ones read the configuration as it is now. When one does not start, those that serve stay.
        """
        _log.info("renewing the workers")
        for number, old in sorted(self._current.items()):
            new = await self._launch()
            if self._stopping.is_set() or not new.serves:
                code = await self._ended(new)
                if not self._stopping.is_set():
                    _log.error("a new worker does not start, the old ones stay", worker=number, code=code)
                return
            if self._current[number] is not old:
                # It died, and its place has been taken meanwhile.
                new.process.send_signal(signal.SIGUSR1)
                await self._ended(new)
                continue
            self._current[number] = new
            with contextlib.suppress(ProcessLookupError):
                old.process.send_signal(signal.SIGUSR1)
            await old.process.wait()
        _log.info("the workers are new")

    async def _launch(self) -> _Worker:
        """Start a worker, and wait until it serves or has let go of its end of the leash."""
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        with theirs:
            # A session of its own, so that Ctrl-C in the terminal reaches the workers through us alone, once.
            process = await asyncio.create_subprocess_exec(
                *[*self._command, "--worker", str(theirs.fileno())],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._processes.add(process)
        if self._stopping.is_set():
            process.send_signal(signal.SIGTERM)
        serves = await asyncio.get_running_loop().sock_recv(ours, 1) == READY
        self._serving += serves
        return _Worker(process, ours, serves)

    async def _ended(self, worker: _Worker) -> int:
        """Wait for the end of *worker*; its exit code, 0 for one that a signal of ours ended before it listened."""
        code = await worker.process.wait()
        worker.leash.close()
        self._processes.discard(worker.process)
        self._serving -= worker.serves
        multiprocess.mark_process_dead(worker.process.pid)  # type: ignore[no-untyped-call]
        return code if code >= 0 else int(not self._stopping.is_set())

    async def _readiness(self) -> Mapping[str, str]:
        if self._stopping.is_set():
            raise Unavailable(Reason.STOPPING)
        if not self._serving:
            raise Unavailable(Reason.STOPPING, "no worker serves")
        return {"workers": f"{self._serving} of {self._section.workers} serve"}

    @contextlib.asynccontextmanager
    async def _metrics(self) -> AsyncIterator[None]:
        if self._section.metrics is None:
            yield
            return
        page = MetricsPage(self._section.prefix.rstrip("/"), Metrics().render, self._readiness)
        server = server_of(self._section, page.handle)
        sockets = await bound("server.metrics", self._section.metrics)
        doors = [await asyncio.get_running_loop().create_server(server, sock=one) for one in sockets]
        try:
            yield
        finally:
            for door in doors:
                door.close()
            await server.shutdown(_LAST_WORDS)

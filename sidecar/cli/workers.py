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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import multiprocess

from sidecar.cli.assembly import Assembly, Worker
from sidecar.cli.levels import Levels
from sidecar.cli.operating import Operating
from sidecar.cli.outcomes import outcome_fields
from sidecar.cli.watching import Watched
from sidecar.cli.wire import Wire
from sidecar.faults import Unavailable
from sidecar.listening import bound
from sidecar.reason import Reason
from sidecar.serving import server_of
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.page import MetricsPage

if TYPE_CHECKING:
    from sidecar.cli.notify import Notifier
    from sidecar.config.models import Config
    from sidecar.lasting import Outcome

_log = structlog.get_logger("workers")
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_LAST_WORDS = 1.0
_SHORT = 5.0
# Longer than a reload under way may take, for which a new worker waits.
_LONGEST_START = 120.0


class Workers:
    """The parent process: it serves nothing but metrics and its probes."""

    def __init__(self, config: Config, command: Sequence[str], notifier: Notifier) -> None:
        """Run *command* ``workers`` times, each with ``--worker`` and a descriptor; they share the port."""
        self._config = config
        self._section = config.server
        self._command = list(command)
        self._notifier = notifier
        self._processes: set[asyncio.subprocess.Process] = set()
        self._current: dict[int, Worker] = {}
        self._serving = 0
        self._stopping = asyncio.Event()
        self._renewal = asyncio.Event()
        self._is_renewing = False
        self._levels = Levels()
        self._launched: list[Worker] = []
        self._assembly = Assembly(lambda: [one for one in self._launched if one.serves])
        self._operations = Operating(self, notifier, config.reload.control)

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; exit code of the whole. Raises OSError when the metrics address is taken."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGUSR1, self._renewal.set)
        with tempfile.TemporaryDirectory(prefix="sidecar-metrics-") as folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            async with self._metrics():
                # One alone at first: what keeps it from starting keeps the others, too, and so is said once.
                first = await self._launch(1)
                if not first.serves:
                    return await self._ended(first)
                self._current[1] = first
                try:
                    async with self._operations.at_work():
                        others = (self._keep(number) for number in range(2, self._section.workers + 1))
                        return max(await asyncio.gather(self._renew_when_told(), self._keep(1, first), *others))
                finally:
                    await self._operations.close()

    def _stop(self) -> None:
        """Tell the workers to stop; told again, they end at once."""
        if not self._stopping.is_set():
            self._notifier.stopping()
        self._stopping.set()
        self._renewal.set()
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)

    async def _keep(self, number: int, worker: Worker | None = None) -> int:
        """Run one worker, and another when it dies, until we stop; its last exit code."""
        pause = _FIRST_PAUSE
        while True:
            try:
                worker = self._current[number] = worker or await self._launch(number)
            except OSError as error:
                # Where there is no room for a process now, there may be soon; the others go on serving.
                _log.error("a worker cannot be started", worker=number, error=str(error), in_seconds=pause)
                if await self._stops_within(pause):
                    return 0
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            code = await self._ended(worker)
            if self._current[number] is not worker:
                # It was renewed, and has drained.
                worker = self._current[number]
                continue
            if self._stopping.is_set():
                return code
            pause = _FIRST_PAUSE if worker.serves else min(pause * 2, _LONGEST_PAUSE)
            _log.error("a worker died, starting another", worker=number, code=code, in_seconds=pause)
            if await self._stops_within(pause):
                return 0
            worker = None if self._current[number] is worker else self._current[number]

    async def _stops_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def _renew_when_told(self) -> int:
        """Renew the workers after each SIGUSR1, until we stop."""
        while True:
            await self._renewal.wait()
            self._renewal.clear()
            if self._stopping.is_set():
                return 0
            # Not while they reload: what is in force would be another in each.
            async with self._assembly.lock:
                self._is_renewing = True
                try:
                    await self._renew()
                finally:
                    self._is_renewing = False

    async def _renew(self) -> None:
        """Put a new worker into each place, one after another: it serves before the old one drains.

        The new ones read the configuration as it is now. When one does not start, those that serve stay.
        """
        _log.info("renewing the workers")
        for number, old in sorted(self._current.items()):
            try:
                new = await self._launch(number)
            except OSError as error:
                _log.error("a new worker cannot be started, the old ones stay", worker=number, error=str(error))
                return
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
            self._assembly.fingerprint = str(new.state.get("fingerprint"))
            with contextlib.suppress(ProcessLookupError):
                old.process.send_signal(signal.SIGUSR1)
            await old.process.wait()
        _log.info("the workers are new")

    async def _launch(self, number: int) -> Worker:
        """Start the worker of that *number*, and wait until it serves or has let go of its end of the leash.

        One that does neither for too long is killed. Raises OSError when the system gives no process.
        """
        process, ours = await self._spawn()
        self._processes.add(process)
        if self._section.cpu_affinity:
            _bind(process.pid, number)
        worker, ready = Worker(process), asyncio.Event()
        self._launched.append(worker)
        worker.wire = wire = await Wire.over(ours, lambda message: self._answer(worker, message, ready))
        if self._stopping.is_set():
            process.send_signal(signal.SIGTERM)

        async def listen() -> None:
            await wire.run()
            ready.set()

        worker.listening = asyncio.create_task(listen())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_START):
                await ready.wait()
        if not ready.is_set():
            _log.error("a worker does not get ready, it is killed", worker=number, after_seconds=_LONGEST_START)
            ready.set()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        self._serving += worker.serves
        return worker

    async def _spawn(self) -> tuple[asyncio.subprocess.Process, socket.socket]:
        """A process with its end of the leash, and our end. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                # A session of its own, so that Ctrl-C in the terminal reaches the workers through us alone, once.
                process = await asyncio.create_subprocess_exec(
                    *[*self._command, "--worker", str(theirs.fileno())],
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            except OSError:
                ours.close()
                raise
        ours.settimeout(0)
        return process, ours

    async def _answer(self, worker: Worker, message: Mapping[str, Any], ready: asyncio.Event) -> Mapping[str, Any]:
        """Answer what *worker* asks or says."""
        do = message.get("do")
        if do == "loaded":
            worker.state = {**message}
            return {"go": self._is_renewing or await self._assembly.admits(worker, self._operations.reload)}
        if do == "ready":
            # What was put in force since it was admitted has passed it by.
            agrees = self._is_renewing or await self._assembly.agrees(worker)
            # Too late is no: it is about to be killed.
            worker.serves = worker.serves or (agrees and not ready.is_set())
            ready.set()
            return {"stay": worker.serves}
        if do == "reload":
            return outcome_fields(await self._operations.reload(str(message["trigger"]), str(message["who"])))
        return {}

    async def _ended(self, worker: Worker) -> int:
        """Wait for the end of *worker*; its exit code, 0 for one that a signal of ours ended before it listened."""
        code = await worker.process.wait()
        if worker.wire is not None and worker.listening is not None:
            worker.wire.close()
            worker.listening.cancel()
        self._processes.discard(worker.process)
        self._launched.remove(worker)
        self._serving -= worker.serves
        multiprocess.mark_process_dead(worker.process.pid)  # type: ignore[no-untyped-call]
        return code if code >= 0 else int(not self._stopping.is_set())

    # As Operated

    async def reload(self, trigger: str, who: str = "") -> Outcome:
        """See Operated."""
        return await self._assembly.reload(trigger, who)

    async def set_level(self, level: str, logger: str, seconds: float, who: str) -> str:
        """See Operated."""
        problem = self._levels.set(level, logger, seconds)
        if not problem:
            asked = {"level": level, "logger": logger, "seconds": seconds, "who": who}
            for number, one in enumerate(self._assembly.serving()):
                await one.ask("log-level", _SHORT, noted=not number, **asked)
        return problem

    async def toggle_debug(self, seconds: float) -> None:
        """See Operated."""
        await self.set_level(self._levels.toggled(), "", seconds, "signal")

    def watched(self) -> Watched:
        """See Operated."""
        state = next((one.state for one in self._assembly.serving()), {})
        files = [Path(name) for name in state.get("files", ())]
        return Watched(files, float(state.get("every", _LONGEST_PAUSE)), bool(state.get("watch")))

    async def is_alive(self) -> bool:
        """See Operated: at least one worker answers; one that does not for too long is replaced."""
        patience = self._notifier.patience or _SHORT
        serving = self._assembly.serving()
        answers = await asyncio.gather(*(one.ask("ping", patience / 3) for one in serving))
        for one, answer in zip(serving, answers, strict=True):
            self._note_life(one, is_alive=answer is not None, patience=patience)
        return any(answer is not None for answer in answers) or self._stopping.is_set()

    def _note_life(self, worker: Worker, *, is_alive: bool, patience: float) -> None:
        now = asyncio.get_running_loop().time()
        if is_alive or not worker.heard:
            worker.heard = now
        elif now - worker.heard > patience and worker.process.returncode is None and not self._stopping.is_set():
            _log.error("a worker does not answer any more, it is killed", pid=worker.process.pid)
            worker.process.kill()

    def status(self) -> str:
        """See Operated."""
        return f"{self._serving} of {self._section.workers} workers serve"

    async def _readiness(self) -> Mapping[str, str]:
        if self._stopping.is_set():
            raise Unavailable(Reason.STOPPING)
        if not self._serving:
            raise Unavailable(Reason.STOPPING, "no worker serves")
        complaint = {"configuration": self._assembly.complaint} if self._assembly.complaint else {}
        return {"workers": f"{self._serving} of {self._section.workers} serve", **await self._conditions(), **complaint}

    async def _conditions(self) -> Mapping[str, str]:
        """What any of the workers says of its parts. Raises Unavailable when all lack what every request needs."""
        asked = await asyncio.gather(*(one.ask("condition", _SHORT) for one in self._assembly.serving()))
        answers = [answer for answer in asked if answer]
        parts: dict[str, str] = {}
        for answer in reversed(answers):
            parts |= answer.get("parts", {})
        if answers and not any("parts" in answer for answer in answers):
            reason, detail = answers[0]["fault"]
            raise Unavailable(Reason(reason), detail)
        return parts

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


def _bind(pid: int, number: int) -> None:
    """Have the worker of that *number* keep to one of the cores that we may use; its threads follow it."""
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(pid, {cores[(number - 1) % len(cores)]})

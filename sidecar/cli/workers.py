"""Run several workers on one port, replace those that die, and add up their metrics."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence

import structlog
from aiohttp import web
from prometheus_client import multiprocess

from sidecar.config.service import Server
from sidecar.listening import parse_listen
from sidecar.telemetry.metrics import Metrics

_log = structlog.get_logger("workers")
_TOO_FAST = 5.0
_PAUSE = 1.0


class Workers:
    """The parent process: it serves nothing but metrics."""

    def __init__(self, section: Server, command: Sequence[str]) -> None:
        """Run *command* ``workers`` times; they share the port by SO_REUSEPORT."""
        self._section = section
        self._command = list(command)
        self._children: list[asyncio.subprocess.Process] = []
        self._is_stopping = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; exit code of the whole."""
        return asyncio.run(self._run())

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        with tempfile.TemporaryDirectory(prefix="sidecar-metrics-") as folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            runner = await self._serve_metrics()
            try:
                codes = await asyncio.gather(*(self._keep_alive(number) for number in range(self._section.workers)))
            finally:
                if runner is not None:
                    await runner.cleanup()
        return max(codes)

    def _stop(self) -> None:
        self._is_stopping = True
        for child in self._children:
            if child.returncode is None:
                child.send_signal(signal.SIGTERM)

    async def _keep_alive(self, number: int) -> int:
        """Run one worker and start it anew when it dies; one that cannot even start ends everything."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            # A group of its own, so that Ctrl-C in the terminal reaches the workers through us alone, once.
            child = await asyncio.create_subprocess_exec(
                *self._command, start_new_session=True, stdin=subprocess.DEVNULL
            )
            self._children.append(child)
            if self._is_stopping:
                child.send_signal(signal.SIGTERM)
            code = await child.wait()
            self._children.remove(child)
            multiprocess.mark_process_dead(child.pid)  # type: ignore[no-untyped-call]
            if self._is_stopping:
                return max(code, 0)
            if loop.time() - began < _TOO_FAST:
                _log.error("a worker could not start, stopping", worker=number, code=code)
                self._stop()
                return code if code > 0 else 1
            _log.error("a worker died, starting another", worker=number, code=code)
            await asyncio.sleep(_PAUSE)

    async def _serve_metrics(self) -> web.AppRunner | None:
        if self._section.metrics is None:
            return None
        where = parse_listen(self._section.metrics)
        if isinstance(where, str):
            message = "server.metrics is host:port"
            raise ValueError(message)  # noqa: TRY004 - what is wrong is the text, not its type
        metrics = Metrics()

        async def page(_request: web.Request) -> web.Response:
            return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})

        application = web.Application()
        application.router.add_get("/metrics", page)
        application.router.add_get(f"{self._section.prefix}/live", _alive)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, *where).start()
        return runner


async def _alive(_request: web.Request) -> web.Response:
    return web.json_response({"status": "live"})

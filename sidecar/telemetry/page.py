"""Answer on the metrics listener: metrics and probes, and nothing of the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from sidecar.faults import Unavailable

# What the text format of Prometheus calls itself.
_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class MetricsPage:
    """Serves ``/metrics`` and, below *prefix*, ``live`` and ``ready``."""

    def __init__(
        self, prefix: str, render: Callable[[], bytes], readiness: Callable[[], Awaitable[Mapping[str, str]]]
    ) -> None:
        """*render* gives the metrics; *readiness* describes the parts or raises Unavailable."""
        self._prefix = prefix
        self._render = render
        self._readiness = readiness

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        answer = await self._answer(request)
        answer.headers.update({"Server": "sidecar", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
        return answer

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path not in ("/metrics", f"{self._prefix}/live", f"{self._prefix}/ready"):
            return web.Response(status=404, text="There is /metrics here, and nothing else but the probes.\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="GET it.\n", headers={"Allow": "GET, HEAD"})
        if request.path == "/metrics":
            return web.Response(body=self._render(), headers={"Content-Type": _EXPOSITION})
        if request.path.endswith("/live"):
            return web.json_response({"status": "live"})
        try:
            return web.json_response({"status": "ready", **await self._readiness()})
        except Unavailable as unavailable:
            fault = {"error": unavailable.reason.value, "detail": unavailable.detail}
            return web.json_response(fault, status=unavailable.status)

"""Receive every request, hand it to the portal or the gate, and answer what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from aiohttp import web

from sidecar.arrival import Arrival
from sidecar.core.audit import Event
from sidecar.gate import Gate
from sidecar.model import Reason, Refused, Unavailable, Visit
from sidecar.pages.answers import Answers
from sidecar.portal.portal import Portal
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics

_log = structlog.get_logger("front")


class Front:
    """The outermost handler: nothing gets past it unanswered."""

    def __init__(
        self,
        arrival: Arrival,
        portal: Portal,
        gate: Gate,
        answers: Answers,
        audit: AuditLog,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        """Wire the front; see app.py."""
        self._arrival = arrival
        self._portal = portal
        self._gate = gate
        self._answers = answers
        self._audit = audit
        self._metrics = metrics
        self._clock = clock

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        began = self._clock()
        self._metrics.in_flight.inc()
        try:
            return await self._answer(request, began)
        finally:
            self._metrics.in_flight.dec()
            self._metrics.seconds.observe(max(0.0, self._clock() - began))

    async def _answer(self, request: web.BaseRequest, now: float) -> web.StreamResponse:
        visit = self._arrival.visit(request)
        try:
            visit, target = self._arrival.locate(visit, request)
            if self._portal.owns(visit.path):
                if not self._portal.is_health(visit.path):
                    self._arrival.refuse_strange_hosts(visit, request)
                answer: web.StreamResponse = await self._portal.handle(request, visit, now)
            else:
                self._arrival.refuse_strange_hosts(visit, request)
                answer = await self._gate.handle(request, visit, target, now)
        except Refused as refused:
            return self._refused(visit, refused)
        except Unavailable as unavailable:
            return self._unavailable(visit, unavailable)
        except (ConnectionError, TimeoutError):
            # The client went away, or the transfer broke after it had begun: there is nobody to answer.
            raise
        except Exception:
            _log.exception("unexpected fault", reference=visit.reference, path=visit.path)
            return self._unavailable(visit, Unavailable(Reason.INTERNAL, status=500))
        self._metrics.requests.labels("answered", str(answer.status // 100) + "xx").inc()
        return answer

    def _refused(self, visit: Visit, refused: Refused) -> web.Response:
        self._metrics.requests.labels("refused", refused.reason.value).inc()
        self._note(visit, "deny", refused.reason, refused.detail)
        return self._answers.refused(visit, refused)

    def _unavailable(self, visit: Visit, unavailable: Unavailable) -> web.Response:
        self._metrics.requests.labels("unavailable", unavailable.reason.value).inc()
        self._metrics.faults.labels(unavailable.reason.value).inc()
        _log.warning(
            "unavailable",
            reason=unavailable.reason.value,
            detail=unavailable.detail,
            reference=visit.reference,
        )
        self._note(visit, "unavailable", unavailable.reason, unavailable.detail)
        return self._answers.unavailable(visit, unavailable)

    def _note(self, visit: Visit, effect: str, reason: Reason, detail: str) -> None:
        self._audit.record(
            Event.DECISION,
            {
                "effect": effect,
                "reason": reason.value,
                "detail": detail,
                "method": visit.method,
                "host": visit.host,
                "path": visit.path,
                "client": visit.client,
                "reference": visit.reference,
            },
        )

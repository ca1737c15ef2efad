"""Receive every request, hand it to the portal or the gate, and answer what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from aiohttp import web

from sidecar.arrival import Arrival
from sidecar.core.audit import Event
from sidecar.gate import Gate
from sidecar.limits import Limits
from sidecar.model import Reason, Refused, Unavailable, Visit
from sidecar.pages.answers import Answers
from sidecar.portal.portal import Portal
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics

_log = structlog.get_logger("front")
_UNREADABLE = frozenset([Reason.HEADERS_INVALID, Reason.TARGET_INVALID])


@dataclass(slots=True, kw_only=True)
class Front:
    """The outermost handler: nothing gets past it unanswered."""

    arrival: Arrival
    portal: Portal
    gate: Gate
    answers: Answers
    audit: AuditLog
    metrics: Metrics
    clock: Callable[[], float]
    limits: Limits

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        began = self.clock()
        self.metrics.in_flight.inc()
        try:
            return await self._answer(request, began)
        finally:
            self.metrics.in_flight.dec()
            self.metrics.seconds.observe(max(0.0, self.clock() - began))

    async def _answer(self, request: web.BaseRequest, now: float) -> web.StreamResponse:
        visit = self.arrival.visit(request)
        try:
            visit, target = self.arrival.locate(visit, request)
            if self.portal.owns(visit.path):
                if not self.portal.is_health(visit.path):
                    self.arrival.refuse_strange_hosts(visit, request)
                    self.limits.page(self.portal.page_of(visit.path), visit, now)
                answer: web.StreamResponse = await self.portal.handle(request, visit, now)
            else:
                self.arrival.refuse_strange_hosts(visit, request)
                self.limits.request(visit, now)
                answer = await self.gate.handle(request, visit, target, now)
        except Refused as refused:
            if refused.is_bad_token:
                self.limits.bad_token(visit, now)
            return self._refused(visit, refused)
        except Unavailable as unavailable:
            return self._unavailable(visit, unavailable)
        except (ConnectionError, TimeoutError):
            # The client went away, or the transfer broke after it had begun: there is nobody to answer.
            raise
        except Exception:  # noqa: BLE001 - a fault of ours must not show its inside to anybody
            _log.exception("unexpected fault", reference=visit.reference, path=visit.path)
            return self._unavailable(visit, Unavailable(Reason.INTERNAL, status=500))
        self.metrics.requests.labels("answered", str(answer.status // 100) + "xx").inc()
        return answer

    def _refused(self, visit: Visit, refused: Refused) -> web.Response:
        self.metrics.requests.labels("refused", refused.reason.value).inc()
        self._note(visit, "deny", refused.reason, refused.detail)
        answer = self.answers.refused(visit, refused)
        if refused.reason in _UNREADABLE:
            # Where this request ends may be a matter of opinion, and so what the next one is (RFC 9112, section 6.3).
            answer.force_close()
        return answer

    def _unavailable(self, visit: Visit, unavailable: Unavailable) -> web.Response:
        self.metrics.requests.labels("unavailable", unavailable.reason.value).inc()
        self.metrics.faults.labels(unavailable.reason.value).inc()
        _log.warning(
            "unavailable",
            reason=unavailable.reason.value,
            detail=unavailable.detail,
            reference=visit.reference,
        )
        self._note(visit, "unavailable", unavailable.reason, unavailable.detail)
        return self.answers.unavailable(visit, unavailable)

    def _note(self, visit: Visit, effect: str, reason: Reason, detail: str) -> None:
        self.audit.record(
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

"""Receive every request, hand it to the portal or the gate, and answer what they refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from aiohttp import web

from sidecar.arrival import Arrival, Seen, Whence
from sidecar.core.audit import Event
from sidecar.core.paths import Target
from sidecar.express import Sent
from sidecar.faults import Refused, Unavailable
from sidecar.forward_auth import ForwardAuth
from sidecar.gate import Gate
from sidecar.limits import Limits
from sidecar.model import Visit
from sidecar.pages.answers import Answers
from sidecar.portal.portal import Portal
from sidecar.reason import Reason
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.spans import note, within
from sidecar.trips import Told
from sidecar.upstream import Client, Departure

if TYPE_CHECKING:
    from sidecar.scim_api import ScimServer
    from sidecar.signals.push import SignalServer
    from sidecar.telemetry.tracing import Tracing

_log = structlog.get_logger("front")
_UNREADABLE = frozenset([Reason.HEADERS_INVALID, Reason.TARGET_INVALID])
_CLASSES = tuple(f"{hundreds}xx" for hundreds in range(10))


class ShortWay(Protocol):
    """Sends ordinary requests without a task, as ``Express`` does."""

    def depart(self, client: Client, request: web.BaseRequest, seen: Seen | None, now: float) -> Sent | None:
        """Send *request*, None when it takes the gate to do so."""

    def again(self, client: Client, data: bytes, origin: Whence, now: float) -> Sent | None:
        """Send *data*, whose header lines came before from *origin*."""

    @property
    def is_full(self) -> bool:
        """True while the application has no room for another request."""

    def may_wait(self, data: bytes) -> bool:
        """Whether *data* begins an ordinary request for the application."""


class QuickAnswers(Protocol):
    """Answers ordinary questions of front proxies without a task, as ``Questions`` does."""

    def first(self, request: web.BaseRequest, seen: Seen | None, now: float) -> Told | None:
        """Answer *request*; None when it is no question, or takes a task."""

    def again(self, data: bytes, origin: Whence, now: float) -> Told | None:
        """Answer *data*, whose header lines came before from *origin*."""


@dataclass(slots=True, kw_only=True)
class Front:
    """The outermost handler: nothing gets past it unanswered."""

    arrival: Arrival
    portal: Portal
    gate: Gate
    express: ShortWay
    answers: Answers
    audit: AuditLog
    metrics: Metrics
    clock: Callable[[], float]
    limits: Limits
    scim: ScimServer | None = None
    signals: SignalServer | None = None
    # Nothing is done that could not be written down.
    must_audit: bool = False
    forward_auth: ForwardAuth | None = None
    questions: QuickAnswers | None = None
    tracing: Tracing | None = None
    # What is under way: in tasks, and without one.
    _tasks: set[asyncio.Task[Any] | None] = field(default_factory=set)
    _trips: int = 0
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        self.metrics.began()
        span = self.tracing.begin(request) if self.tracing is not None else None
        if span is None:
            return await self._counted(request, None, self.clock())
        with within(span):
            answer = await self._counted(request, None, self.clock())
            span.note({"http.response.status_code": answer.status})
            return answer

    def depart(self, client: Client, request: web.BaseRequest, seen: Seen | None) -> Trip | Told | None:
        """Send an ordinary request on its way at once; None when it is not, or not now: then ``handle`` has it.

        *client* is told when the trip may ``arrive``; a front proxy's question is answered at once instead. *seen* is
        what the header lines are known by from now on.
        """
        if self._must_not or (self.tracing is not None and self.tracing.takes(client, request)):
            return None
        began = self.clock()
        try:
            if self.questions is not None and not client.writing_paused:
                answer = self.questions.first(request, seen, began)
                if answer is not None:
                    return self._at_once(client, answer, began)
            sent = self.express.depart(client, request, seen, began)
        except Exception:  # noqa: BLE001 - whatever it trips over or refuses, the gate does, too, and answers
            return None
        return None if sent is None else self._trip(client, sent, began)

    def again(self, client: Client, data: bytes, origin: Whence) -> Trip | Told | None:
        """As ``depart`` for a whole request whose header lines came before from the same *origin*."""
        if self._must_not or (self.tracing is not None and self.tracing.draws(client, data)):
            return None
        began = self.clock()
        try:
            if self.questions is not None and not client.writing_paused:
                answer = self.questions.again(data, origin, began)
                if answer is not None:
                    return self._at_once(client, answer, began)
            sent = self.express.again(client, data, origin, began)
        except Exception:  # noqa: BLE001 - as above
            return None
        return None if sent is None else self._trip(client, sent, began)

    @property
    def is_full(self) -> bool:
        """True while it would be in vain, since the application has no room for another request."""
        return self.express.is_full

    def may_wait(self, data: bytes) -> bool:
        """Whether *data*, as it came, begins a request for the application, which could wait until there is room."""
        return self.express.may_wait(data)

    @property
    def _must_not(self) -> bool:
        """True while nothing may pass, because it could not be noted."""
        return self.must_audit and self.audit.is_failing

    def _trip(self, client: Client, sent: Sent, began: float) -> Trip:
        self.metrics.began()
        self._trips += 1
        if self.tracing is not None:
            self.tracing.forget(client)
        return Trip(self, *sent, began)

    def _at_once(self, client: Client, answer: Told, began: float) -> Told:
        if self.tracing is not None:
            self.tracing.forget(client)
        self.metrics.began()
        self.metrics.became("answered", "2xx")
        self.metrics.ended(max(0.0, self.clock() - began))
        return answer

    async def quiet(self) -> None:
        """Wait until nothing is under way here; to be called when nothing new comes any more."""
        while self._tasks or self._trips:
            self._quiet.clear()
            await self._quiet.wait()

    def cut(self) -> None:
        """End what is under way in tasks: answers that stream, and WebSockets."""
        for task in self._tasks:
            if task is not None:
                task.cancel()

    def end_trip(self, began: float) -> None:
        """Note that a trip of ours that *began* then is over."""
        self._trips -= 1
        self.metrics.ended(max(0.0, self.clock() - began))
        if not self._trips:
            self._quiet.set()
            self.audit.catch_up()

    async def _counted(self, request: web.BaseRequest, trip: Trip | None, began: float) -> web.StreamResponse:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            return await self._answer(request, trip, began)
        finally:
            self._tasks.discard(task)
            if trip is None:
                self.metrics.ended(max(0.0, self.clock() - began))
                self._quiet.set()
            else:
                self.end_trip(began)

    async def _answer(self, request: web.BaseRequest, trip: Trip | None, now: float) -> web.StreamResponse:
        visit, target = trip.visit if trip is not None else self.arrival.visit(request, now), None
        note(reference=visit.reference)
        try:
            if trip is not None:
                answer: web.StreamResponse = await trip.departure.carry_on(request)
            else:
                visit, target = self.arrival.locate(visit, request)
                if self.forward_auth is not None and self.forward_auth.owns(target):
                    return await self._asked(self.forward_auth, request, visit, target, now)
                answer = await self._handed_over(request, visit, target, now)
        except Refused as refused:
            if refused.is_bad_token:
                self.limits.bad_token(visit, now)
            return self._refused(visit, refused)
        except Unavailable as unavailable:
            if target is not None and visit.method in ("GET", "HEAD") and not self.portal.owns(visit.path):
                unavailable.to = target.raw
            return self._unavailable(visit, unavailable)
        except (ConnectionError, TimeoutError):
            # The client went away, or the transfer broke after it had begun: there is nobody to answer.
            raise
        except Exception:  # noqa: BLE001 - a fault of ours must not show its inside to anybody
            _log.exception("unexpected fault", reference=visit.reference, path=visit.path)
            return self._unavailable(visit, Unavailable(Reason.INTERNAL, status=500))
        self.metrics.became("answered", _CLASSES[answer.status // 100])
        return answer

    async def _handed_over(
        self, request: web.BaseRequest, visit: Visit, target: Target, now: float
    ) -> web.StreamResponse:
        if not self.portal.is_health(visit.path):
            self.arrival.refuse_strange_hosts(visit, request)
            self._refuse_unwritten()
        if self.scim is not None and self.scim.owns(visit.path):
            return await self.scim.handle(request, visit, now)
        if self.signals is not None and self.signals.owns(visit.path):
            return await self.signals.handle(request, visit, now)
        if self.portal.owns(visit.path):
            self.limits.page(self.portal.page_of(visit.path), visit, now)
            return await self.portal.handle(request, visit, now)
        self.limits.request(visit, now)
        return await self.gate.handle(request, visit, target, now)

    def _refuse_unwritten(self) -> None:
        if self.must_audit and self.audit.is_failing:
            raise Unavailable(Reason.AUDIT_DOWN)

    async def _asked(
        self, desk: ForwardAuth, request: web.BaseRequest, visit: Visit, target: Target, now: float
    ) -> web.StreamResponse:
        """Tell a front proxy whether a request may pass; what is refused is refused in its dialect."""
        try:
            visit, asked = desk.told(request, visit, target)
            self._refuse_unwritten()
            self.limits.request(visit, now)
            answer = await desk.decide(request, visit, asked, target, now)
        except Refused as refused:
            # The first of two questions about a request has counted its token.
            if refused.is_bad_token and not desk.wants_whole(target):
                self.limits.bad_token(visit, now)
            return desk.refusal(visit, target, self._refused(visit, refused))
        except Unavailable as unavailable:
            return desk.refusal(visit, target, self._unavailable(visit, unavailable))
        self.metrics.became("answered", _CLASSES[answer.status // 100])
        return answer

    def _refused(self, visit: Visit, refused: Refused) -> web.Response:
        self.metrics.became("refused", refused.reason.value)
        if not refused.is_noted:
            note(effect="refused", reason=refused.reason.value)
            self._note(visit, "deny", refused.reason, refused.detail)
        answer = self.answers.refused(visit, refused)
        if refused.reason in _UNREADABLE:
            # Where this request ends may be a matter of opinion, and so what the next one is (RFC 9112, section 6.3).
            answer.force_close()
        return answer

    def _unavailable(self, visit: Visit, unavailable: Unavailable) -> web.Response:
        self.metrics.became("unavailable", unavailable.reason.value)
        note(effect="unavailable", reason=unavailable.reason.value)
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


class Trip:
    """An ordinary request that is on its way; whoever sent it calls one of the three."""

    __slots__ = ("_began", "_front", "departure", "visit")

    def __init__(self, front: Front, visit: Visit, departure: Departure, began: float) -> None:
        """Count *visit* at *front*; it *began* at that time, and is the *departure*."""
        self._front = front
        self._began = began
        self.visit = visit
        self.departure = departure

    def arrive(self) -> bool | None:
        """Give the client the answer; None when that takes more than a moment, which is up to ``carry_on`` then.

        True when the client's connection may serve another request.
        """
        try:
            arrived = self.departure.arrive()
        except Exception:  # noqa: BLE001 - whatever it trips over, nobody shall wait for ever
            _log.exception("unexpected fault", reference=self.visit.reference)
            return None
        if arrived is None:
            return None
        self._front.metrics.became("answered", _CLASSES[arrived.status // 100])
        self._front.end_trip(self._began)
        return arrived.stays

    async def carry_on(self, request: web.BaseRequest) -> web.StreamResponse:
        """Do the rest as for any other request."""
        return await self._front._counted(request, self, self._began)  # noqa: SLF001 - a part of it

    def abandon(self) -> None:
        """Forget about it: the client has gone."""
        self.departure.abandon()
        self._front.end_trip(self._began)

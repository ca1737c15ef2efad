"""Answer every request of the console: who asks, may they, which page, and an answer to what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import structlog
from aiohttp import web

from sidecar.arrival import Arrival
from sidecar.cancelling import cancelled
from sidecar.config.console import Console as Section
from sidecar.console.acts import Act, Acts, operator_fields
from sidecar.console.history import History
from sidecar.console.listening import ConsoleListener
from sidecar.console.operators import Level, Operator, Operators
from sidecar.console.page import STYLE, Asked, Page, Pages
from sidecar.console.seal import Seal
from sidecar.core.audit import Event
from sidecar.core.reasons import EXPLANATIONS
from sidecar.faults import Refused, Unavailable
from sidecar.limits import Limits
from sidecar.logins.login import Ask
from sidecar.model import Visit
from sidecar.pages.answers import Answers
from sidecar.portal.parameters import parameters_of, query_of, read_form
from sidecar.portal.portal import Portal
from sidecar.reason import Reason
from sidecar.telemetry.audit import AuditLog

_log = structlog.get_logger("console")
View = Callable[[Asked], Awaitable[Page]]
# Of the portal's pages those that sign-ins need, and nothing else of it.
_SIGNING_IN = frozenset(["login", "callback", "logout", "signed-out", "saml", "style.css", "backchannel"])
# Pages whose form changes nothing; it is posted because what it holds has no place in an address.
_ASK_BY_FORM = frozenset(["access"])
_READ = ("GET", "HEAD")
_UNTIL_ANSWERED = 0.1


@dataclass(slots=True, kw_only=True)
class Console:
    """The console of one sidecar. ``views`` are its pages by the first part of their path."""

    arrival: Arrival
    portal: Portal
    operators: Operators
    needs: Ask
    seal: Seal
    views: Mapping[str, View]
    acts: Acts
    pages: Pages
    answers: Answers
    audit: AuditLog
    limits: Limits
    history: History
    clock: Callable[[], float]
    must_audit: bool
    section: Section
    background: tuple[Callable[[], Awaitable[None]], ...] = ()
    listener: ConsoleListener | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _busy: int = 0

    async def start(self) -> None:
        """Open the listener, begin to remember. Raises OSError."""
        if self.listener is not None:
            await self.listener.start()
        self._begin()

    def _begin(self) -> None:
        self._tasks = [asyncio.create_task(_watched(work)) for work in (self.history.work, *self.background)]

    async def prepare(self, before: Console | None) -> Callable[[], None]:
        """Open the listener, unless *before* has it; what is given takes over without fail. Raises OSError."""
        former = before.listener if before is not None else None
        if former is None or self.listener is None or not former.can_serve(self.section):
            if self.listener is not None:
                await self.listener.start()
            return self._begin
        inherit = former.prepare(self.section, self.handle)

        def take_over() -> None:
            inherit()
            self.listener = former
            if before is not None:
                before.listener = None
            self._begin()

        return take_over

    async def rest(self) -> None:
        """End what goes on by itself, and let nobody in any more; what was asked already is answered."""
        await self._rest()
        if self.listener is not None:
            await self.listener.close()
            self.listener = None

    async def _rest(self) -> None:
        await cancelled(self._tasks)
        while self._busy:  # noqa: ASYNC110 - a few seconds at most, once for each reload
            await asyncio.sleep(_UNTIL_ANSWERED)

    async def close(self) -> None:
        """Stop listening."""
        await cancelled(self._tasks)
        if self.listener is not None:
            await self.listener.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        self._busy += 1
        try:
            return await self._handle(request)
        finally:
            self._busy -= 1

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        now = self.clock()
        visit = self.arrival.visit(request, now)
        try:
            visit, _ = self.arrival.locate(visit, request)
            self.arrival.refuse_strange_hosts(visit, request)
            return await self._answer(request, visit, now)
        except Refused as refused:
            return self.answers.refused(visit, refused)
        except Unavailable as fault:
            _log.warning("unavailable", reason=fault.reason.value, detail=fault.detail, reference=visit.reference)
            return self.answers.unavailable(visit, fault)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:  # noqa: BLE001 - a fault of ours must not show its inside to anybody
            _log.exception("unexpected fault", reference=visit.reference, path=visit.path)
            return self.answers.unavailable(visit, Unavailable(Reason.INTERNAL, status=500))

    async def _answer(self, request: web.BaseRequest, visit: Visit, now: float) -> web.Response:
        if visit.path == f"/{STYLE}":
            return self.pages.stylesheet()
        if self.must_audit and self.audit.is_failing:
            raise Unavailable(Reason.AUDIT_DOWN)
        if self.portal.owns(visit.path):
            page = self.portal.page_of(visit.path)
            if page not in _SIGNING_IN:
                raise Refused(Reason.NOT_FOUND, 404, page)
            self.limits.page(page, visit, now)
            return await self.portal.handle(request, visit, now)
        operator = await self.operators.find(visit, now)
        if operator is None or not self.needs.is_met_by(operator.session, now):
            return self._sign_in(request, visit, again=operator is not None)
        return await self._for(operator, request, visit, now)

    def _sign_in(self, request: web.BaseRequest, visit: Visit, *, again: bool) -> web.Response:
        if visit.method not in _READ or not visit.wants_page:
            raise Refused(Reason.REAUTHENTICATION if again else Reason.NOT_SIGNED_IN, 401)
        way = f"{self.portal.site.prefix}/login?to={quote(request.raw_path, safe='')}"
        return self.answers.go(f"{way}&again=1" if again else way)

    async def _for(self, operator: Operator, request: web.BaseRequest, visit: Visit, now: float) -> web.Response:
        name, _, rest = visit.path[1:].partition("/")
        query = parameters_of(query_of(request))
        asked = Asked(visit=visit, operator=operator, rest=rest, query=query, form={}, now=now)
        try:
            form = await self._form(operator, request, visit, name)
        except Refused as refused:
            fields = {"reason": refused.reason.value, "detail": refused.detail, "method": visit.method}
            self.audit.record(Event.CONSOLE_REFUSED, {**operator_fields(asked), **fields})
            raise
        asked = Asked(visit=visit, operator=operator, rest=rest, query=query, form=form, now=now)
        if name == "act" and visit.method == "POST":
            return await self._act(asked)
        view = self.views.get(name)
        if view is None:
            raise Refused(Reason.NOT_FOUND, 404, "no such page")
        page = await view(asked)
        return self.pages.answer(page, asked, self.seal.of(operator.token))

    async def _form(self, operator: Operator, request: web.BaseRequest, visit: Visit, name: str) -> Mapping[str, str]:
        """The form that *operator* posts, empty for what only reads. Raises Refused for what they may not send."""
        if not operator.may(Level.VIEW):
            raise Refused(Reason.ROLE_MISSING, 403, "no operator")
        if visit.method in _READ:
            return {}
        if visit.method != "POST" or name not in (*_ASK_BY_FORM, "act"):
            raise Refused(Reason.METHOD_REFUSED, 405, f"{visit.method} {visit.path}")
        form = parameters_of(await read_form(request))
        self.seal.refuse_foreign(request.headers, operator.token, form)
        return form

    async def _act(self, asked: Asked) -> web.Response:
        back = self.portal.site.return_to(asked.form.get("back", ""))
        try:
            await self.acts.do(asked)
        except (Refused, Unavailable) as fault:
            if not asked.visit.wants_page:
                raise
            return self.pages.answer(_not_done(fault, asked, back), asked, self.seal.of(asked.operator.token))
        done = Act(asked.form["act"]).value
        return self.pages.go(f"{back}{'&' if '?' in back else '?'}done={done}")


def _not_done(fault: Refused | Unavailable, asked: Asked, back: str) -> Page:
    """Operators are told what the log is told."""
    why = fault.detail or EXPLANATIONS[fault.reason].happened
    values = {
        "why": f"{why[:1].upper()}{why[1:]}",
        "act": asked.form.get("act", ""),
        "reason": fault.reason.value,
        "reference": asked.visit.reference,
        "is_fault": isinstance(fault, Unavailable),
        "back": back,
    }
    return Page("not_done", values, fault.status)


async def _watched(work: Callable[[], Awaitable[None]]) -> None:
    """Begin again what a fault has ended."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 - it is logged, and the work begins again
            _log.exception("background work failed, beginning again")
        await asyncio.sleep(1)

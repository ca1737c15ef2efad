"""Receive what providers send back through the browser, and open a session for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from aiohttp import web

from sidecar.core.audit import Event
from sidecar.faults import Refused, Unavailable
from sidecar.model import Visit
from sidecar.pages.answers import Answers
from sidecar.portal.handover import Handover
from sidecar.portal.parameters import parameters_of, query_of, read_form
from sidecar.portal.sign_in import Opened, SignIn
from sidecar.portal.site import Site
from sidecar.reason import Reason
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics


@dataclass(slots=True, kw_only=True)
class Callback:
    """The way back from a provider. Every end of it is a page for a person, and an audit line."""

    site: Site
    sign_in: SignIn
    handover: Handover
    answers: Answers
    audit: AuditLog
    metrics: Metrics

    async def posted(self, request: web.BaseRequest, visit: Visit, name: str, _now: float) -> web.Response:
        """Answer a provider's cross-site POST: keep it, and ask the browser to come again with its cookies."""
        person = visit.but(wants_page=True)
        try:
            form = parameters_of(await read_form(request))
            await self.sign_in.expect_post(name, form)
        except (Refused, Unavailable) as error:
            return self._failed(person, name, "/", error)
        token = await self.handover.leave(form)
        return self.answers.go(self.site.path(f"callback/{quote(name, safe='')}?answer={token}"), status=303)

    async def answered(self, request: web.BaseRequest, visit: Visit, name: str, now: float) -> web.Response:
        """Answer the GET that brings the provider's answer, or the token of a posted one."""
        person = visit.but(wants_page=True)
        to = "/"
        try:
            answer: Mapping[str, str] = parameters_of(query_of(request))
            if set(answer) == {"answer"}:
                answer = await self.handover.pick_up(answer["answer"])
            to = await self.sign_in.way_back(answer)
            opened = await self._finished(visit, name, answer, now)
        except (Refused, Unavailable) as error:
            return self._failed(person, name, to, error)
        if opened is None:
            return self._onward(to, "Once more, please.")
        self._succeeded(visit, name, opened)
        if not opened.is_enough:
            return self._too_weak(person, name, opened)
        return self._onward(opened.to, "You are signed in.", opened.cookies)

    async def _finished(self, visit: Visit, name: str, answer: Mapping[str, str], now: float) -> Opened | None:
        """Finish the sign-in; None when another tab overtook it and it had better begin anew."""
        try:
            return await self.sign_in.finish(visit, name, answer, now)
        except Refused as error:
            if error.reason is not Reason.LOGIN_COOKIE_MISSING or not await self.sign_in.is_overtaken(visit, answer):
                raise
            self._note_failure(visit, name, error, f"{error.detail}, begun anew")
            return None

    def _onward(self, to: str, note: str, cookies: Sequence[str] = ()) -> web.Response:
        if self.site.style.same_site == "Strict":
            # A strict cookie does not travel along a redirect that began at the provider: let the page go on itself.
            return self.answers.page("onward", 200, {"to": to, "note": note}, cookies)
        return self.answers.go(to, cookies)

    def _too_weak(self, visit: Visit, name: str, opened: Opened) -> web.Response:
        """Say that the provider did less than the page asks for: sending the person there again would never end.

        They are signed in all the same, for the pages that ask for less.
        """
        session = opened.session
        detail = f"acr {session.acr!a}, amr {list(session.amr)!a}, auth_time {session.auth_time:.0f}"
        refused = Refused(Reason.STEP_UP_UNMET, 403, detail)
        fields = {"provider": name, "reason": refused.reason.value, "detail": detail, "client": visit.client}
        self.audit.record(Event.LOGIN_FAILED, {**fields, "reference": visit.reference})
        return self.answers.refused(visit, refused, f"{self.site.login_path(opened.to)}&again=1", opened.cookies)

    def _failed(self, visit: Visit, name: str, to: str, error: Refused | Unavailable) -> web.Response:
        self._note_failure(visit, name, error, error.detail)
        retry = to if error.reason is Reason.LOGIN_STATE_UNKNOWN else self.site.login_path(to)
        if isinstance(error, Refused):
            return self.answers.refused(visit, error, retry)
        return self.answers.unavailable(visit, error, retry)

    def _note_failure(self, visit: Visit, name: str, error: Refused | Unavailable, detail: str) -> None:
        known = name if self.sign_in.knows(name) else "unknown"
        self.metrics.logins.labels(known, error.reason.value).inc()
        fields = {"provider": known, "reason": error.reason.value, "detail": detail, "client": visit.client}
        self.audit.record(Event.LOGIN_FAILED, {**fields, "reference": visit.reference})

    def _succeeded(self, visit: Visit, name: str, opened: Opened) -> None:
        self.metrics.logins.labels(name, "ok").inc()
        identity = opened.session.identity
        fields = {
            "provider": name,
            "person": identity.username,
            "issuer": identity.issuer,
            "subject": identity.subject,
            "session": opened.session.id,
            "client": visit.client,
            "reference": visit.reference,
        }
        self.audit.record(Event.LOGIN_SUCCEEDED, fields)

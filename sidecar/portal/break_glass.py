"""The page where somebody signs in with a local account, on the day on which nobody can at the provider."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog
from aiohttp import web

from sidecar.config.break_glass import BreakGlass, BreakGlassAccount
from sidecar.core.audit import Event
from sidecar.core.callers import is_from_here
from sidecar.core.limits import client_of
from sidecar.core.policy import is_within
from sidecar.faults import Refused
from sidecar.model import NOTHING_NEEDED, Session, SignedIn, Visit
from sidecar.pages.answers import Answers
from sidecar.portal.attempts import Attempt, browser_of, came_by, new_browser
from sidecar.portal.emergency import PROVIDER, Emergency
from sidecar.portal.parameters import parameters_of, query_of, read_form
from sidecar.portal.reach import Reach
from sidecar.portal.sign_in import SignIn
from sidecar.portal.site import Site
from sidecar.reason import Reason
from sidecar.sessions.store import Store
from sidecar.sessions.vault import is_token
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from sidecar.portal.vetting import Vetting

_log = structlog.get_logger("break_glass")
PAGE = "break-glass"
_ACCOUNT_TIMES, _TOGETHER_TIMES = 4, 10
_LONGEST_NAME, _LONGEST_PASSWORD = 128, 1024


@dataclass(slots=True, kw_only=True)
class BreakGlassPage:
    """``break-glass``: a form and its answer. Every try is audited, and nobody learns which names there are."""

    section: BreakGlass
    site: Site
    sign_in: SignIn
    emergency: Emergency
    vetting: Vetting
    reach: Reach
    store: Store
    answers: Answers
    audit: AuditLog
    metrics: Metrics
    _live_until: float = field(default=0.0, init=False)

    def complaints(self, now: float) -> Mapping[str, str]:
        """What an operator should know while a session that was opened here may live."""
        return {"break_glass": "an emergency account is in use"} if now < self._live_until else {}

    async def got(self, request: web.BaseRequest, visit: Visit, _rest: str, _now: float) -> web.Response:
        """Show the form."""
        await self._must_be_open(visit)
        query = parameters_of(query_of(request))
        to = self.site.return_to(query.get("to", ""))
        if visit.host != self.site.host and "moved" not in query:
            # The session's cookie belongs to public_url.
            return self.answers.go(f"{self.site.origin}{self.site.path(PAGE)}?to={quote(to, safe='/')}&moved=1")
        return await self._form(visit, to)

    async def _form(self, visit: Visit, to: str, problem: str = "") -> web.Response:
        browser = browser_of(visit, self.site) or new_browser()
        attempts = self.sign_in.attempts
        state = attempts.new_state()
        await attempts.keep(state, Attempt(PROVIDER, to, browser, {}, came_by(visit), NOTHING_NEEDED))
        asks_code = any(one.totp is not None for one in self.section.accounts.values())
        values = {"state": state, "asks_code": asks_code, "problem": problem, "lifetime": self._lifetime_text()}
        return self.answers.page("break_glass", 403 if problem else 200, values, [self.site.give_browser(browser)])

    def _lifetime_text(self) -> str:
        minutes = max(1, round(self.section.lifetime.total_seconds() / 60))
        if minutes % 60:
            return f"{minutes} minutes"
        return "an hour" if minutes == 60 else f"{minutes // 60} hours"

    async def posted(self, request: web.BaseRequest, visit: Visit, _rest: str, now: float) -> web.Response:
        """Check name and password, and open a session. Raises Refused and Unavailable."""
        await self._must_be_open(visit)
        if not is_from_here(self.site.origin, request.headers):
            raise Refused(Reason.CSRF, 403, "an emergency sign-in from another site")
        form = parameters_of(await read_form(request))
        attempt = await self._attempt(visit, form.get("state", ""))
        name, password = form.get("username", ""), form.get("password", "")
        if len(name) > _LONGEST_NAME or len(password) > _LONGEST_PASSWORD:
            raise Refused(Reason.BODY_TOO_LARGE, 413, "name or password")
        await self._count(visit, name)
        account, fault = await self.vetting.vetted(name, password, form.get("code", "").replace(" ", ""), now)
        if account is None:
            self._failed(visit, name, Reason.BREAK_GLASS_REFUSED, fault)
            return await self._form(visit, attempt.to, "Name, password or code is wrong.")
        return await self._opened(visit, name, account, attempt.to, now)

    async def _must_be_open(self, visit: Visit) -> None:
        networks = self.section.networks
        if networks and not is_within(visit.client, networks):
            raise Refused(Reason.NOT_FOUND, 404, "break-glass from a network that is not in break_glass.networks")
        if self.section.while_ == "outage" and not await self.reach.is_outage():
            raise Refused(Reason.BREAK_GLASS_CLOSED, 403, "no provider that was reached before is out of reach now")

    async def _attempt(self, visit: Visit, state: str) -> Attempt:
        """The form as we gave it to this browser, once: nobody signs anybody else in (login CSRF)."""
        if not is_token(state):
            raise Refused(Reason.LOGIN_STATE_UNKNOWN, 400, "no state of ours")
        return await self.sign_in.attempts.use(state, PROVIDER, browser_of(visit, self.site), came_by(visit))

    async def _count(self, visit: Visit, name: str) -> None:
        """Count before anything is computed, across replicas. Raises Refused(RATE_LIMITED)."""
        rate = self.section.tries
        if not rate.number:
            return
        counted: Sequence[tuple[str, str, int]] = (
            ("client", client_of(visit.client), 1),
            ("account", name, _ACCOUNT_TIMES),
            ("all", "", _TOGETHER_TIMES),
        )
        for kind, what, times in counted:
            key = f"break-glass:{kind}:{hashlib.sha256(what.encode(errors='replace')).hexdigest()[:32]}"
            if await self.store.count(key, rate.seconds) > rate.number * times:
                self._failed(visit, name, Reason.RATE_LIMITED, f"by {kind}")
                raise Refused(Reason.RATE_LIMITED, 429, f"break-glass, by {kind}", retry_after=rate.seconds)

    async def _opened(self, visit: Visit, name: str, account: BreakGlassAccount, to: str, now: float) -> web.Response:
        expires = now + self.section.lifetime.total_seconds()
        methods = ("pwd", "otp", "mfa") if account.totp is not None else ("pwd",)
        signed_in = SignedIn(self.emergency.identity(name), auth_time=now, amr=methods, expires=expires)
        token, session, dropped = await self.sign_in.open(visit, signed_in, now)
        self._live_until = max(self._live_until, session.expires)
        self._used(visit, session)
        # 303: the browser must not send the password again to the page.
        return self.answers.go(to, [self.site.give_session(token), *dropped], 303)

    def _used(self, visit: Visit, session: Session) -> None:
        self.metrics.break_glass.labels("ok").inc()
        fields = {"provider": PROVIDER, "person": session.identity.username, "subject": session.identity.subject}
        fields |= {"session": session.id, "client": visit.client, "reference": visit.reference}
        self.audit.record(Event.BREAK_GLASS_USED, fields)
        _log.warning("an emergency account was used", **fields)

    def _failed(self, visit: Visit, name: str, reason: Reason, detail: str = "") -> None:
        self.metrics.break_glass.labels(reason.value).inc()
        # Not what was typed: people type passwords into the wrong field.
        known = name if name in self.section.accounts else "unknown"
        fields = {"provider": PROVIDER, "subject": known, "reason": reason.value, "detail": detail}
        fields |= {"client": visit.client, "reference": visit.reference}
        self.audit.record(Event.BREAK_GLASS_FAILED, fields)
        _log.warning("an emergency sign-in failed", **fields)

"""Answer everything below the sidecar's own prefix."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from aiohttp import web

from sidecar.core.audit import Event
from sidecar.core.cookies import values_of
from sidecar.core.standing import user_of
from sidecar.logins.login import Ask
from sidecar.model import Reason, Refused, Session, Unavailable, Visit
from sidecar.pages.answers import Answers
from sidecar.portal.sign_in import SignIn, parameters_of
from sidecar.portal.sign_out import SignOut
from sidecar.portal.site import Site
from sidecar.sessions.keeper import SessionKeeper
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics

_LONGEST_FORM = 256 * 1024
Handler = Callable[[web.BaseRequest, Visit, str, float], Awaitable[web.Response]]


@dataclass(slots=True, kw_only=True)
class Portal:
    """Routes our own pages; every answer is made by ``answers``.

    ``keys`` is the JWK set of the assertion header, ``asks`` what a sign-in for a path must achieve; ``is_ready``
    raises Unavailable or describes the parts.
    """

    site: Site
    sign_in: SignIn
    sign_out: SignOut
    keeper: SessionKeeper
    answers: Answers
    audit: AuditLog
    metrics: Metrics
    keys: Mapping[str, object]
    asks: Callable[[str], Ask]
    is_ready: Callable[[], Awaitable[Mapping[str, str]]]
    _routes: dict[tuple[str, str], Handler] = field(init=False)

    def __post_init__(self) -> None:
        """List the pages."""
        self._routes = {
            ("GET", "login"): self._login,
            ("GET", "callback"): self._callback,
            ("GET", "logout"): self._logout,
            ("POST", "logout"): self._logout,
            ("GET", "signed-out"): self._signed_out,
            ("POST", "backchannel"): self._back_channel,
            ("GET", "me"): self._me,
            ("GET", "jwks.json"): self._jwks,
            ("GET", "style.css"): self._style,
            ("GET", "live"): self._live,
            ("GET", "ready"): self._ready,
        }

    def owns(self, path: str) -> bool:
        """True when *path* is below our prefix."""
        return path.startswith(self.site.prefix + "/") or path == self.site.prefix

    def is_health(self, path: str) -> bool:
        """True for the probes, which are asked by address and not by name."""
        return path in (self.site.path("live"), self.site.path("ready"))

    async def handle(self, request: web.BaseRequest, visit: Visit, now: float) -> web.Response:
        """Answer one request below the prefix. Raises Refused and Unavailable."""
        name, _, rest = visit.path[len(self.site.prefix) + 1 :].partition("/")
        method = "GET" if visit.method == "HEAD" else visit.method
        handler = self._routes.get((method, name))
        if handler is None or (rest and name not in ("callback", "backchannel")):
            known = any(page == name for _, page in self._routes)
            reason, status = (Reason.METHOD_REFUSED, 405) if known else (Reason.NOT_FOUND, 404)
            raise Refused(reason, status, f"{visit.method} {name}")
        return await handler(request, visit, rest, now)

    async def _login(self, request: web.BaseRequest, visit: Visit, _rest: str, now: float) -> web.Response:
        query = parameters_of(request.query_string)
        session = await self._session(visit, now)
        # What the sign-in must achieve follows from the rule for the page: no third party chooses it by a link.
        ask = self.asks(self.site.return_to(query.get("to", "")))
        if session is not None and "with" not in query and ask.is_met_by(session, now):
            # Somebody who is signed in already and comes here by a stale link or a second tab.
            return self.answers.go(self.site.return_to(query.get("to", "")))
        return await self.sign_in.begin(visit, query, ask, session)

    async def _callback(self, request: web.BaseRequest, visit: Visit, name: str, now: float) -> web.Response:
        to = "/"
        try:
            answer = parameters_of(request.query_string)
            to = await self.sign_in.way_back(answer.get("state", ""))
            opened = await self.sign_in.finish(visit, name, answer, now)
        except (Refused, Unavailable) as error:
            self.metrics.logins.labels(name if self.sign_in.knows(name) else "unknown", error.reason.value).inc()
            fields = {"provider": name, "reason": error.reason.value, "detail": error.detail, "client": visit.client}
            self.audit.record(Event.LOGIN_FAILED, {**fields, "reference": visit.reference})
            person = replace(visit, wants_page=True)
            retry = to if error.reason is Reason.LOGIN_STATE_UNKNOWN else self.site.login_path(to)
            if isinstance(error, Refused):
                return self.answers.refused(person, error, retry)
            return self.answers.unavailable(person, error, retry)
        session = opened.session
        self.metrics.logins.labels(name, "ok").inc()
        self.audit.record(
            Event.LOGIN_SUCCEEDED,
            {
                "provider": name,
                "person": session.identity.username,
                "issuer": session.identity.issuer,
                "subject": session.identity.subject,
                "session": session.id,
                "client": visit.client,
                "reference": visit.reference,
            },
        )
        if self.site.style.same_site == "Strict":
            # A strict cookie does not travel along a redirect that began at the provider: let the page go on itself.
            return self.answers.page("onward", 200, {"to": opened.to}, opened.cookies)
        return self.answers.go(opened.to, opened.cookies)

    async def _logout(self, request: web.BaseRequest, visit: Visit, _rest: str, now: float) -> web.Response:
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin", "same-site"):
            if visit.method == "POST":
                raise Refused(Reason.CSRF, 403, "sign-out from another site")
            return self.answers.page("confirm_sign_out", 200, {})
        answer, session = await self.sign_out.sign_out(visit, now)
        if session:
            self.audit.record(Event.SIGNED_OUT, {"session": session, "client": visit.client})
        return answer

    async def _signed_out(self, _request: web.BaseRequest, _visit: Visit, _rest: str, _now: float) -> web.Response:
        return self.answers.page("signed_out", 200, {})

    async def _back_channel(self, request: web.BaseRequest, _visit: Visit, name: str, now: float) -> web.Response:
        length = request.content_length
        if length is None or length > _LONGEST_FORM:
            raise Refused(Reason.BODY_TOO_LARGE, 413, "logout token")
        body = await request.content.readexactly(length)
        try:
            form = parameters_of(body.decode("ascii"))
            said, number = await self.sign_out.back_channel(name, form.get("logout_token", ""), now)
        except UnicodeDecodeError:
            return self.answers.json(400, {"error": "invalid_request"})
        except Refused as refused:
            self.audit.record(Event.PROVIDER_LOGOUT, {"provider": name, "reason": refused.reason.value})
            return self.answers.json(400, {"error": "invalid_request", "error_description": refused.reason.value})
        fields = {"provider": name, "issuer": said.issuer, "subject": said.subject, "ended": number}
        self.audit.record(Event.PROVIDER_LOGOUT, fields)
        return self.answers.json(200, {})

    async def _me(self, _request: web.BaseRequest, visit: Visit, _rest: str, now: float) -> web.Response:
        session = await self._session(visit, now)
        if session is None:
            raise Refused(Reason.NOT_SIGNED_IN, 401)
        return self.answers.json(
            200, {**user_of(session.identity), "provider": session.provider, "expires": int(session.expires)}
        )

    async def _jwks(self, _request: web.BaseRequest, _visit: Visit, _rest: str, _now: float) -> web.Response:
        return self.answers.json(200, self.keys)

    async def _style(self, _request: web.BaseRequest, _visit: Visit, _rest: str, _now: float) -> web.Response:
        return self.answers.stylesheet()

    async def _live(self, _request: web.BaseRequest, _visit: Visit, _rest: str, _now: float) -> web.Response:
        return self.answers.json(200, {"status": "live"})

    async def _ready(self, _request: web.BaseRequest, _visit: Visit, _rest: str, _now: float) -> web.Response:
        return self.answers.json(200, {"status": "ready", **await self.is_ready()})

    async def _session(self, visit: Visit, now: float) -> Session | None:
        for token in values_of(visit.cookies, self.site.session_cookie):
            session = await self.keeper.find(token, now)
            if session is not None:
                return session
        return None

"""Answer everything below the sidecar's own prefix."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from aiohttp import web

from sidecar.core.audit import Event
from sidecar.core.callers import is_ahead, is_embedded
from sidecar.core.conditions import user_of
from sidecar.core.cookies import values_of
from sidecar.faults import Refused
from sidecar.logins.login import Ask
from sidecar.model import Session, Visit
from sidecar.pages.answers import Answers
from sidecar.portal.attempts import browser_of
from sidecar.portal.break_glass import PAGE, BreakGlassPage
from sidecar.portal.callback import Callback
from sidecar.portal.front_channel import FrontChannel
from sidecar.portal.invitation import InvitationPage
from sidecar.portal.parameters import parameters_of, query_of, read_form
from sidecar.portal.saml import PARTIAL, SamlPages
from sidecar.portal.sign_in import SignIn
from sidecar.portal.sign_out import SignOut
from sidecar.portal.site import Site
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics

Handler = Callable[[web.BaseRequest, Visit, str, float], Awaitable[web.Response]]


@dataclass(slots=True, kw_only=True)
class Portal:
    """Routes our own pages; every answer is made by ``answers``.

    ``keys`` is the JWK set of the assertion header, ``asks`` what a sign-in for a path at a host must
    achieve; ``is_ready`` raises Unavailable or describes the parts.
    """

    site: Site
    sign_in: SignIn
    callback: Callback
    sign_out: SignOut
    saml: SamlPages
    front_channel: FrontChannel
    invitation: InvitationPage
    keeper: SessionKeeper
    answers: Answers
    audit: AuditLog
    metrics: Metrics
    keys: Mapping[str, object]
    asks: Callable[[str, str], Ask]
    is_ready: Callable[[], Awaitable[Mapping[str, str]]]
    break_glass: BreakGlassPage | None = None
    _routes: dict[tuple[str, str], Handler] = field(init=False)

    def __post_init__(self) -> None:
        """List the pages."""
        self._routes = {
            ("GET", "login"): self._login,
            ("GET", "invitation"): self.invitation.got,
            ("GET", "callback"): self.callback.answered,
            ("POST", "callback"): self.callback.posted,
            ("GET", "logout"): self._logout,
            ("POST", "logout"): self._logout,
            ("GET", "signed-out"): self._signed_out,
            ("POST", "backchannel"): self._back_channel,
            ("GET", "frontchannel"): self.front_channel.got,
            ("GET", "saml"): self.saml.got,
            ("POST", "saml"): self.saml.posted,
            ("GET", "me"): self._me,
            ("GET", "jwks.json"): self._jwks,
            ("GET", "style.css"): self._style,
            ("GET", "live"): self._live,
            ("GET", "ready"): self._ready,
        }
        if self.break_glass is not None:
            self._routes["GET", PAGE] = self.break_glass.got
            self._routes["POST", PAGE] = self.break_glass.posted

    def owns(self, path: str) -> bool:
        """True when *path* is below our prefix."""
        return self.site.owns(path)

    def is_health(self, path: str) -> bool:
        """True for the probes, which are asked by address and not by name."""
        return path in (self.site.path("live"), self.site.path("ready"))

    def page_of(self, path: str) -> str:
        """Name of our page that *path* is about, such as "login"."""
        return self._parts(path)[0]

    def _parts(self, path: str) -> tuple[str, str, str]:
        return path[len(self.site.prefix) + 1 :].partition("/")

    async def handle(self, request: web.BaseRequest, visit: Visit, now: float) -> web.Response:
        """Answer one request below the prefix. Raises Refused and Unavailable."""
        name, _, rest = self._parts(visit.path)
        method = "GET" if visit.method == "HEAD" else visit.method
        handler = self._routes.get((method, name))
        if handler is None or (rest and name not in ("callback", "backchannel", "frontchannel", "saml")):
            known = any(page == name for _, page in self._routes)
            reason, status = (Reason.METHOD_REFUSED, 405) if known else (Reason.NOT_FOUND, 404)
            raise Refused(reason, status, f"{visit.method} {name}")
        return await handler(request, visit, rest, now)

    async def _login(self, request: web.BaseRequest, visit: Visit, _rest: str, now: float) -> web.Response:
        query = parameters_of(query_of(request))
        if self._is_elsewhere(visit) and "moved" not in query:
            return self.answers.go(self._moved(query))
        session = await self._session(visit, now)
        # What the sign-in must achieve follows from the rule for the page: no third party chooses it by a link.
        ask = self.asks(self.site.return_to(query.get("to", "")), visit.host)
        if session is not None and "with" not in query and ask.is_met_by(session, now):
            # Somebody who is signed in already and comes here by a stale link or a second tab.
            return self.answers.go(self.site.return_to(query.get("to", "")))
        if session is not None and ("again" in query or not set(ask.amr) <= set(session.amr)):
            # OpenID Connect has no parameter for methods: only a provider that asks anew can use another one. So it is
            # for one that took the sign-in that was there, although the page asks for a stronger one.
            ask = replace(ask, prompt="login")
        return await self.sign_in.begin(visit, query, ask, session, now)

    def _is_elsewhere(self, visit: Visit) -> bool:
        """True where a cookie that is given now would not come back with the provider's answer, to public_url."""
        return visit.host != self.site.host or (self.site.scheme == "https" and visit.scheme == "http")

    def _moved(self, query: Mapping[str, str]) -> str:
        """The same sign-in at public_url. Once: behind a proxy that changes the Host, it never looks right."""
        kept = {name: query[name] for name in ("with", "email") if name in query}
        return f"{self.site.origin}{self.site.login_path(self.site.return_to(query.get('to', '')))}&" + urlencode(
            {**kept, "moved": "1"}
        )

    async def _logout(self, request: web.BaseRequest, visit: Visit, _rest: str, now: float) -> web.Response:
        if is_embedded(request.headers) or is_ahead(request.headers):
            # Refused, not asked: a browser would keep the question for whoever then really goes there.
            raise Refused(Reason.CSRF, 403, "sign-out by something embedded, or fetched ahead")
        if self.site.is_asked_elsewhere(request.headers):
            if visit.method == "POST":
                raise Refused(Reason.CSRF, 403, "sign-out from another site")
            return self.answers.page("confirm_sign_out", 200, {})
        answer, session = await self.sign_out.sign_out(visit, now)
        if session:
            await self.sign_in.circles.forget(browser_of(visit, self.site))
            self.audit.record(Event.SIGNED_OUT, {"session": session, "client": visit.client})
        return answer

    async def _signed_out(self, request: web.BaseRequest, _visit: Visit, _rest: str, _now: float) -> web.Response:
        return self.answers.page("signed_out", 200, {"is_partial": query_of(request) == PARTIAL})

    async def _back_channel(self, request: web.BaseRequest, _visit: Visit, name: str, now: float) -> web.Response:
        try:
            form = parameters_of(await read_form(request))
            said, number = await self.sign_out.back_channel(name, form.get("logout_token", ""), now)
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

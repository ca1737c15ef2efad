"""Tell a front proxy, in its dialect, whether a request that it carries itself may pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aiohttp import web

from sidecar.admission import Caller
from sidecar.arrival import Arrival
from sidecar.core.addresses import Network, client_address, host_of, is_trusted, parse_address
from sidecar.core.callers import wants_page
from sidecar.core.cookies import lines_without_marked
from sidecar.core.dialects import Dialect, refuse_misleading, told_method, told_scheme
from sidecar.core.headers import Line
from sidecar.core.paths import Target
from sidecar.core.references import is_reference
from sidecar.faults import Refused, Unavailable
from sidecar.gate import Gate
from sidecar.model import Decision, Effect, Visit
from sidecar.pages.answers import Answers
from sidecar.portal.site import Site
from sidecar.reason import Reason

_PAGE = "auth"
# Where a proxy that knows three answers fetches the whole of what it may not pass.
_WHOLE = "auth/answer"
# What the application gets in the place of what the browser sent: without our cookies, and without our tokens.
_GIVEN_BACK = ("cookie", "authorization")
_OF_HANDSHAKES = ("Sec-WebSocket-Key", "Sec-WebSocket-Version", "Upgrade")
_OURS = {"Server": "sidecar", "Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardAuth:
    """Reads the question, lets the gate decide, and answers.

    ``networks`` may ask, and when ``takes_unix`` whoever can open our Unix socket; ``proxies`` stand in front of them.
    ``managed`` are the headers that the application is told, in lower case.
    """

    site: Site
    arrival: Arrival
    gate: Gate
    answers: Answers
    dialect: Dialect
    networks: Sequence[Network]
    proxies: Sequence[Network]
    takes_unix: bool
    managed: frozenset[str]

    @property
    def page(self) -> str:
        """Where the questions go to."""
        return self.site.path(_PAGE)

    def owns(self, target: Target) -> bool:
        """True for a question. As it is written, since front proxies keep strangers away from it by the letter."""
        path = target.raw.partition("?")[0]
        if not self.dialect.uri:
            return path.startswith(f"{self.page}/")
        return path == self.page or self.wants_whole(target)

    def wants_whole(self, target: Target) -> bool:
        """True for the second question about a request, for the whole of an answer that lets nobody pass."""
        return self.dialect.takes_three and target.raw == self.site.path(_WHOLE)

    def told(self, request: web.BaseRequest, visit: Visit, target: Target) -> tuple[Visit, Target]:
        """What the front proxy was asked for. Raises Refused: nothing that a stranger says counts."""
        if not self._may_ask(request.remote or ""):
            raise Refused(Reason.FRONT_UNKNOWN, 403, "not one of forward_auth.from")
        method = told_method(_one(request, self.dialect.method) if self.dialect.method else request.method)
        host = host_of(_one(request, self.dialect.host or "Host"))
        visit = visit.but(
            method=method,
            host=host,
            client=self._client(request),
            scheme=told_scheme(request.headers.get("X-Forwarded-Proto", "")),
            wants_page=wants_page(method, request.headers) and not is_handshake(request),
            reference=self._reference(request, visit) if self.wants_whole(target) else visit.reference,
        )
        raw = _one(request, self.dialect.uri) if self.dialect.uri else target.raw.removeprefix(self.page)
        asked = self.arrival.read(method, raw)
        if asked.authority:
            raise Refused(Reason.TARGET_INVALID, 400, "the front proxy names an address where a path belongs")
        self.arrival.refuse_strange(host)
        if self.site.owns(asked.path):
            raise Refused(Reason.NOT_FOUND, 404, "a page of ours, which the front proxy has to pass on to us")
        return visit.but(path=asked.path, literal=asked.literal), asked

    def _may_ask(self, peer: str) -> bool:
        return is_trusted(peer, self.networks) if peer else self.takes_unix

    def _client(self, request: web.BaseRequest) -> str:
        chain = request.headers.getall("X-Forwarded-For", ())
        last = parse_address(chain[-1].rpartition(",")[2]) if chain else None
        if last is None:
            # Rules about networks would be asked about the front proxy itself.
            raise Refused(Reason.HEADERS_INVALID, 400, "the front proxy does not say whose request it is")
        own = (*self.networks, *self.proxies)
        return client_address(request.remote or "", chain, own) if own else str(last)

    @staticmethod
    def _reference(request: web.BaseRequest, visit: Visit) -> str:
        """The reference of the first question about the same request, so that a page names what the log has twice."""
        first = request.headers.get("X-Sidecar-Reference", "")
        return first if is_reference(first) else visit.reference

    async def decide(
        self, request: web.BaseRequest, visit: Visit, asked: Target, target: Target, now: float
    ) -> web.Response:
        """Answer the question at *target* about what was *asked* for. Raises Refused and Unavailable."""
        self.refuse_misleading(request)
        decision, lines, foreign = await self._judged(request, visit, asked, now)
        if isinstance(lines, web.Response):
            return self.refusal(visit, target, lines)
        if self.wants_whole(target):
            raise Unavailable(Reason.INTERNAL, f"asked for a refusal, but it may pass: {decision.rule}")
        given_back: Sequence[Line] = self.given_back(request)
        if foreign:
            given_back = lines_without_marked(given_back, foreign)
        answer = web.Response(status=200)
        for name, value in self.told_back(given_back, lines):
            answer.headers.add(name, value)
        return answer

    def refuse_misleading(self, request: web.BaseRequest) -> None:
        """Raise Refused(HEADERS_INVALID, 400) for what would get past the front proxy to the application."""
        names = [name for name, _ in request.raw_headers]
        refuse_misleading(names, self.gate.plan.incoming, self.managed, self.dialect)

    async def _judged(
        self, request: web.BaseRequest, visit: Visit, asked: Target, now: float
    ) -> tuple[Decision, Sequence[Line] | web.Response, Sequence[str]]:
        """Whether it may pass, what is said then, and which cookies are somebody else's (``Session.foreign``)."""
        admitted = self.gate.admit(visit, now)
        if admitted is not None:
            self.gate.audit.fill(self.gate.words(admitted, visit), now, visit.path, visit.reference)
            self._refuse_foreign(request)
            # Whoever has such cookies is not at hand.
            return admitted.decision, admitted.lines, ()
        decision, caller = await self.gate.judge(visit, now)
        if decision.effect is not Effect.ALLOW:
            return decision, self._turned_away(visit, asked, decision, caller), ()
        self._refuse_foreign(request)
        if caller is None:
            return decision, (), ()
        return decision, await self.gate.identity_lines(caller, now), caller.session.foreign

    def _refuse_foreign(self, request: web.BaseRequest) -> None:
        if is_handshake(request):
            self.gate.refuse_foreign_websocket(request.headers.get("Origin"))

    def _turned_away(self, visit: Visit, asked: Target, decision: Decision, caller: Caller | None) -> web.Response:
        """What the gate answers; addresses are whole, since some proxies take a path for one of the sidecar's own."""
        if decision.effect is Effect.DENY:
            raise Refused(decision.reason, 403, is_noted=True)
        # The host is one of ours: ``told`` refuses others.
        here = f"{self.site.scheme}://{self.site.authority_of(visit.host)}"
        is_read = visit.method in ("GET", "HEAD")
        login = self.site.login_path(asked.raw if is_read else "/")
        if not visit.wants_page or (caller is not None and not caller.token):
            return self.answers.challenge(visit, self.site.origin + login, decision)
        if is_read:
            return self.answers.go(here + login)
        # Its body is not ours to keep. No 200, as for the gate: it would mean that the form may pass.
        return self.answers.refused(visit, Refused(decision.reason, 401), login)

    def refusal(self, visit: Visit, target: Target, answer: web.Response) -> web.Response:
        """*answer*, which lets nobody pass, as the front proxy understands it."""
        if not self.dialect.takes_three or self.wants_whole(target):
            return answer
        is_challenge = answer.status in (302, 401)
        short = web.Response(status=401 if is_challenge else 403)
        for name in ("WWW-Authenticate", "Location"):
            if name in answer.headers:
                short.headers[name] = answer.headers[name]
        short.headers.update({**_OURS, "X-Sidecar-Reference": visit.reference})
        return short

    def given_back(self, request: web.BaseRequest) -> list[Line]:
        """What the application gets in the place of what *request* brought: without our cookies and tokens."""
        kept = self.gate.plan.incoming.incoming(request.raw_headers)
        lines = [line for line in kept if line[0].lower() in _GIVEN_BACK]
        cookies = [value for name, value in lines if name.lower() == "cookie"]
        if len(cookies) < 2:
            return lines
        # As RFC 9113, 8.2.3 joins them: of two lines nginx takes the first, Envoy the last, and Caddy puts in a comma.
        return [("Cookie", "; ".join(cookies)), *(line for line in lines if line[0].lower() != "cookie")]

    def told_back(self, given_back: Sequence[Line], lines: Sequence[Line]) -> list[Line]:
        """Header lines of the answer that lets somebody pass, with all that the application is told.

        What is left out has to be taken out of the request. Raises Refused(HEADER_VALUE, 403).
        """
        told = [*given_back, *self.gate.plan.always, *lines]
        for name, value in told:
            if not _is_text(value):
                raise Refused(Reason.HEADER_VALUE, 403, f"{name}: only UTF-8 can be handed to a front proxy")
        if self.dialect.wants_all:
            told += [(name, "") for name in self._absent(told)]
        if self.dialect.names_removals:
            told.append(("X-Envoy-Auth-Headers-To-Remove", ",".join(self._absent(told))))
        return [*told, *_OURS.items()]

    def _absent(self, told: Iterable[Line]) -> Iterable[str]:
        there = {name.lower() for name, _ in told}
        return sorted({*self.managed, *_GIVEN_BACK} - there)


def _one(request: web.BaseRequest, name: str) -> str:
    """The one value of a header that the front proxy writes: a second one would be somebody else's."""
    values = request.headers.getall(name, ())
    if len(values) != 1 or not values[0]:
        raise Refused(Reason.HEADERS_INVALID, 400, f"{name} must be there exactly once")
    return values[0]


def is_handshake(request: web.BaseRequest) -> bool:
    """True for the handshake of a WebSocket."""
    # Upgrade is between a proxy and its client (RFC 9110, 7.6.1); the others travel on (RFC 6455, 4.1). Over HTTP/2
    # there is no key (RFC 8441, 5), and HAProxy, which makes one for the application, asks before.
    return any(name in request.headers for name in _OF_HANDSHAKES)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Take every request for the application from its first byte to its answer; reads from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from aiohttp import web

from sidecar.admission import Admission, Caller
from sidecar.core.audit import Event
from sidecar.core.cookies import lines_without_marked, values_of, weight_of
from sidecar.core.headers import HeaderPlan, Line, Origin, forwarding_lines
from sidecar.core.paths import Target
from sidecar.core.policy import Rule, decide, is_open
from sidecar.core.regulars import Recurring
from sidecar.core.roles import Role, roles_of
from sidecar.core.rulebook import Rulebook
from sidecar.core.standing import HeaderTemplate, header_context, header_lines, standing_of
from sidecar.endings import Endings
from sidecar.engines.engines import Engines, Verdict
from sidecar.faults import Refused
from sidecar.leaving import Leaving
from sidecar.logins.login import Authenticator
from sidecar.model import Account, Decision, Effect, Identity, Session, Visit
from sidecar.pages.answers import Answers
from sidecar.portal.forms import KeptForm, KeptForms
from sidecar.portal.renewal import Renewal
from sidecar.portal.site import Site
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper
from sidecar.telemetry.audit import AuditLog, OpenForm
from sidecar.telemetry.spans import carrying, note, step
from sidecar.upstream import Ending, Head, Upstream, wants_websocket

_REMEMBERED = 20_000
_MOST_OF_COOKIES = 8 * 1024 * 1024  # bytes that they take


class Ensure(Protocol):
    """Makes sure that a person has their account; None where nothing is provisioned."""

    async def __call__(self, identity: Identity, roles: Sequence[str], now: float) -> Account | None:
        """Raise Refused or Unavailable when they cannot have it."""


class AtHand(Protocol):
    """As Ensure, without waiting."""

    def __call__(self, identity: Identity, roles: Sequence[str], now: float) -> tuple[Account | None] | None:
        """What Ensure would give, in a tuple; None when something is to be done or asked first."""


class Remembered(Protocol):
    """As Known, without waiting."""

    def __call__(self, signed_in: Identity, now: float) -> Identity | None:
        """What Known would give; None when that has to be asked first."""


class Known(Protocol):
    """Says who somebody is by now: sources that own people may have said otherwise since they signed in."""

    async def __call__(self, signed_in: Identity, now: float) -> Identity:
        """Raise Refused for those who were switched off, or Unavailable."""


class Assert(Protocol):
    """Signs the assertion header."""

    def __call__(self, session: Session, roles: Sequence[str], account: Account | None, now: float) -> Sequence[Line]:
        """Give the header lines to add, none when no assertion is configured."""


@dataclass(frozen=True, slots=True)
class GatePlan:
    """What the gate was told at load: rules, roles, headers; ``always`` are sent with public requests too."""

    rules: Rulebook
    roles: tuple[Role, ...]
    headers: tuple[HeaderTemplate, ...]
    incoming: HeaderPlan
    websocket_origins: frozenset[str]
    public_host_header: str
    always: tuple[Line, ...] = ()


@dataclass(slots=True, kw_only=True)
class Gate:
    """Every application request. Holds no state but a memo of what signed-in people are."""

    plan: GatePlan
    site: Site
    keeper: SessionKeeper
    renewal: Renewal
    authenticators: Sequence[Authenticator]
    forms: KeptForms
    leaving: Leaving
    remembered: Remembered
    known: Known
    engines: Engines
    ensure: Ensure
    at_hand: AtHand
    assertion: Assert
    upstream: Upstream
    endings: Endings
    answers: Answers
    audit: AuditLog
    _callers: dict[str, tuple[Session, Identity, Caller]] = field(default_factory=dict)
    _lines: dict[str, tuple[Caller, Account | None, Sequence[Line], tuple[Line, ...]]] = field(default_factory=dict)
    _forms: dict[tuple[str, str, str, str, str], tuple[Caller | None, OpenForm | None]] = field(default_factory=dict)
    _tokens: Recurring[tuple[tuple[str, str], ...], str] = field(default_factory=lambda: Recurring(_MOST_OF_COOKIES))

    async def handle(self, request: web.BaseRequest, visit: Visit, target: Target, now: float) -> web.StreamResponse:
        """Carry one request: who is it, may they, is there an account, and on. Raises Refused and Unavailable."""
        rules, heard = self.plan.rules.about(visit), self.endings.heard
        # What is open to anyone must not depend on the session store.
        with step("identify"):
            caller = None if is_open(rules, visit) else await self._identify(visit, now)
        # Now: engines and provisioning may take their time, and the session may end meanwhile.
        ended = self.endings.of(caller.session, is_kept=bool(caller.token), since=heard) if caller else None
        form = await self.forms.take(visit, target.raw, caller.session) if caller and caller.token else None
        if form is not None:
            visit = visit.but(method="POST")
            rules = self.plan.rules.about(visit)
        decision = await self._decided(rules, visit, caller, now)
        if decision.effect is not Effect.ALLOW:
            return await self._turn_away(request, visit, target, decision, caller)
        if decision.is_public:
            # Nothing was decided about who it is.
            caller = ended = None
        if wants_websocket(request):
            self.refuse_foreign_websocket(request.headers.get("Origin"))
            ended = self.endings.of_socket(ended, visit, caller)
        is_leaving = self.leaving.is_meant(request, visit, target)
        if is_leaving and self.leaving.takes_over:
            return await self.leaving.take_over(visit, now)
        lines = await self.identity_lines(caller, now) if caller else ()
        head = self._head(request, visit, target, form, lines)
        if caller is not None and caller.session.foreign:
            head = replace(head, headers=lines_without_marked(head.headers, caller.session.foreign))
        if is_leaving:
            return await self.leaving.carry(request, visit, head, self.answering, now)
        return await self._carry(request, head, form, caller, ended)

    async def judge(self, visit: Visit, now: float) -> tuple[Decision, Caller | None]:
        """Who it is and whether they may, for a request that somebody else carries. Raises Refused, Unavailable."""
        rules = self.plan.rules.about(visit)
        caller = None if is_open(rules, visit) else await self._identify(visit, now)
        decision = await self._decided(rules, visit, caller, now)
        return decision, None if decision.is_public else caller

    async def _decided(self, rules: Sequence[Rule], visit: Visit, caller: Caller | None, now: float) -> Decision:
        """What the rules say, and the engine that they name, once it is noted. Raises Refused and Unavailable."""
        with step("decide"):
            decision = decide(rules, visit, caller.standing if caller else None, now)
            verdict = await self._ruling(decision, rules, visit, caller, now)
            if verdict is not None and not verdict.ruling.allowed:
                decision = Decision(Effect.DENY, verdict.reason, decision.rule)
            note(effect=decision.effect.value, reason=decision.reason.value, rule=decision.rule)
        self.say(decision, visit, caller, verdict)
        return decision

    def admit(self, visit: Visit, now: float) -> Admission | None:
        """The same up to the headers, for whoever gets in without anything to wait for; None says nothing.

        Nothing is noted yet: whoever sends the request fills the ``words`` in, once it is on its way.
        """
        if self.leaving.may_be(visit):
            return None
        rules = self.plan.rules.about(visit)
        is_for_all = is_open(rules, visit)
        caller = None if is_for_all else self._caller_at_hand(visit, now)
        if caller is None and not is_for_all:
            return None
        decision = decide(rules, visit, caller.standing if caller else None, now)
        if decision.effect is not Effect.ALLOW or rules[-1].ask is not None:
            # An engine may have to be waited for, and what it said belongs into the audit line.
            return None
        if caller is None or decision.is_public:
            return Admission(decision, None, ())
        found = self.at_hand(caller.session.identity, caller.roles, now)
        return None if found is None else Admission(decision, caller, self._lines_of(caller, found[0], now))

    def _caller_at_hand(self, visit: Visit, now: float) -> Caller | None:
        token = (known := self._tokens.get(visit.cookies)) or self._only_token(visit.cookies)
        if not token:
            return self._program_at_hand(visit, now)
        session = self.keeper.at_hand(token, now)
        if session is None or session.foreign or (session.refresh_at and now >= session.refresh_at):
            return None
        if known is None:
            # Not before it opens something: strangers can send cookies without end.
            self._tokens.keep(visit.cookies, token, weight_of(visit.cookies))
        who = self.remembered(session.identity, now)
        return None if who is None else self._caller(session, who, "cookie", token)

    def _program_at_hand(self, visit: Visit, now: float) -> Caller | None:
        """Who shows a token that was good a moment ago, and nothing else that may say who it is."""
        if not visit.authorization or visit.certificate or values_of(visit.cookies, self.site.session_cookie):
            return None
        for authenticator in self.authenticators:
            session = authenticator.at_hand(visit, now)
            if session is not None:
                who = session.identity if authenticator.knows else self.remembered(session.identity, now)
                return None if who is None else self._caller(session, who, authenticator.via, "")
        return None

    def _only_token(self, cookies: tuple[tuple[str, str], ...]) -> str:
        """The session's token, "" when there is another or a kept form beside it: then it is no ordinary request."""
        tokens = values_of(cookies, self.site.session_cookie)
        return tokens[0] if len(tokens) == 1 and not values_of(cookies, self.site.form_cookie) else ""

    async def _identify(self, visit: Visit, now: float) -> Caller | None:
        """Session cookie first, then what programs come with."""
        for token in values_of(visit.cookies, self.site.session_cookie):
            session = await self.keeper.find(token, now)
            if session is not None:
                session = await self.renewal.fresh(token, session, now)
            if session is not None:
                return await self.known_caller(session, "cookie", token, now)
        for authenticator in self.authenticators:
            session = await authenticator.identify(visit, now)
            if session is not None:
                if authenticator.knows:
                    return self._caller(session, session.identity, authenticator.via, "")
                return await self.known_caller(session, authenticator.via, "", now)
        return None

    async def known_caller(self, session: Session, via: str, token: str, now: float) -> Caller:
        """Whoever comes with *session*, as they are by now. Raises Refused and Unavailable."""
        who = self.remembered(session.identity, now) or await self.known(session.identity, now)
        return self._caller(session, who, via, token)

    def _caller(self, session: Session, who: Identity, via: str, token: str) -> Caller:
        """Who comes with *session*, being *who* by now: roles and headers follow from that."""
        found = self._callers.get(session.id)
        if found is not None and found[0] is session and found[1] is who and found[2].token == token:
            return found[2]
        opened = session
        if who is not session.identity:
            session = replace(session, identity=who)
        roles = roles_of(session.identity, self.plan.roles) if session.roles is None else session.roles
        caller = Caller(session, standing_of(session, via, roles), roles, token)
        if len(self._callers) >= _REMEMBERED:
            self._callers.clear()
            self._lines.clear()
        self._callers[session.id] = opened, who, caller
        return caller

    def forget(self, person: str) -> None:
        """Work out anew what the person with this identity key is here: something about them has changed elsewhere."""
        for name in [name for name, (session, _, _) in self._callers.items() if session.identity.key == person]:
            del self._callers[name]
            self._lines.pop(name, None)

    async def _ruling(
        self, decision: Decision, rules: Sequence[Rule], visit: Visit, caller: Caller | None, now: float
    ) -> Verdict | None:
        """What the engine says that the rule names, once the rule itself has let somebody in; None when it names none.

        Raises Refused and Unavailable.
        """
        # The last of the rules about a request is the one that lets in: those before it only deny.
        if decision.effect is not Effect.ALLOW or rules[-1].ask is None or caller is None:
            return None
        return await self.engines.rule_on(rules[-1].ask, caller.session, caller.standing, visit, now)

    def say(self, decision: Decision, visit: Visit, caller: Caller | None, verdict: Verdict | None) -> None:
        """Note a decision."""
        fields = {**_told(decision, visit, caller), "path": visit.path, "reference": visit.reference}
        fields |= verdict.told() if verdict is not None else {}
        self.audit.record(Event.DECISION, fields)

    def words(self, admission: Admission, visit: Visit) -> OpenForm | None:
        """What will be noted about somebody who got in: the same line as ever, of which nearly all is written here."""
        caller = admission.caller
        # With all that ``_told`` reads of a visit: a front proxy asks about any method.
        key = (admission.decision.rule, caller.session.id if caller else "", visit.method, visit.host, visit.client)
        known = self._forms.get(key)
        if known is None or known[0] is not caller:
            if len(self._forms) >= _REMEMBERED:
                self._forms.clear()
            told = _told(admission.decision, visit, caller)
            known = self._forms[key] = (caller, self.audit.form(Event.DECISION, told, "path", "reference"))
        return known[1]

    async def _turn_away(
        self, request: web.BaseRequest, visit: Visit, target: Target, decision: Decision, caller: Caller | None
    ) -> web.StreamResponse:
        if decision.effect is Effect.DENY:
            raise Refused(decision.reason, 403, is_noted=True)
        is_program = not visit.wants_page or (caller is not None and not caller.token)
        if is_program:
            back = f"{self.site.origin}{self.site.login_path(target.raw if visit.method == 'GET' else '/')}"
            return self.answers.challenge(visit, back, decision)
        if visit.method in ("GET", "HEAD"):
            return self.answers.go(self.site.login_path(target.raw))
        cookies = await self.forms.keep(request, visit, target.raw)
        to = self.site.login_path(target.raw if cookies else "/")
        note = "What you sent is kept until you have signed in." if cookies else "Please sign in first."
        # A page, not a redirect: browsers hold redirects after a form against the application's form-action policy.
        return self.answers.page("onward", 200, {"to": to, "note": note}, cookies or ())

    def refuse_foreign_websocket(self, origin: str | None) -> None:
        """Refuse handshakes from other sites: browsers send cookies along, and no preflight protects them."""
        if origin is not None and origin.lower() not in self.plan.websocket_origins:
            raise Refused(Reason.ORIGIN_FOREIGN, 403, "WebSocket from another origin")

    async def identity_lines(self, caller: Caller, now: float) -> tuple[Line, ...]:
        """Header lines about somebody who may enter, once they have their account. Raises Refused, Unavailable."""
        with step("account"):
            account = await self.ensure(caller.session.identity, caller.roles, now)
        return self._lines_of(caller, account, now)

    def _lines_of(self, caller: Caller, account: Account | None, now: float) -> tuple[Line, ...]:
        known = self._lines.get(caller.session.id)
        asserted = self.assertion(caller.session, caller.roles, account, now)
        if known is None or known[0] is not caller or known[1] != account or known[2] is not asserted:
            context = header_context(caller.session, caller.roles, account)
            known = (caller, account, asserted, (*header_lines(self.plan.headers, context), *asserted))
            self._lines[caller.session.id] = known
        # The same object for as long as they are the same lines: whoever has written them need not do so again.
        return known[3]

    def _head(
        self, request: web.BaseRequest, visit: Visit, target: Target, form: KeptForm | None, lines: Sequence[Line]
    ) -> Head:
        kept = self.plan.incoming.incoming(request.raw_headers)
        if form is not None:
            kept = [line for line in kept if line[0].lower() not in ("content-type", "expect")]
            kept.append(("Content-Type", form.content_type))
        host, forwarding = self.lines_about(visit.client, visit.host)
        return Head(visit.method, target.raw, (host, *kept, *forwarding, *lines))

    def lines_about(self, client: str, host: str) -> tuple[Line, Sequence[Line]]:
        """Host line for the application, and what it is told about *client* and the *host* that was asked."""
        # Not as it was sent: with a port of somebody's choice the application would make links that lead there.
        authority = self.site.authority_of(host)
        origin = Origin(client, self.site.scheme, authority, self.site.port)
        forwarding = (*forwarding_lines(origin), *self.plan.always)
        return ("Host", self.plan.public_host_header or authority), forwarding

    async def _carry(
        self, request: web.BaseRequest, head: Head, form: KeptForm | None, caller: Caller | None, ended: Ending | None
    ) -> web.StreamResponse:
        affinity = caller.session.id if caller is not None else ""
        with step("application", "client") as span:
            head = head if span is None else replace(head, headers=carrying(span, head.headers))
            if wants_websocket(request):
                alter = self.answering(())
                return await self.upstream.tunnel(request, head, alter=alter, ended=ended, affinity=affinity)
            extra = [("Set-Cookie", self.site.drop_form())] if form is not None else []
            body = form.body if form is not None else None
            return await self.upstream.carry(
                request, head, alter=self.answering(extra), ended=ended, body=body, affinity=affinity
            )

    def answering(self, extra: Sequence[Line]) -> Callable[[list[Line]], list[Line]]:
        """What is done to an answer's lines: our cookies are nobody else's to set, and *extra* is added."""
        sets_own = self.plan.incoming.sets_own

        def alter(lines: list[Line]) -> list[Line]:
            kept = [line for line in lines if line[0].lower() != "set-cookie" or not sets_own(line[1])]
            return [*kept, *extra]

        return alter


def _told(decision: Decision, visit: Visit, caller: Caller | None) -> dict[str, object]:
    """What the audit line of a decision says, but for where the request goes and how it is called."""
    identity = caller.session.identity if caller else None
    return {
        "effect": decision.effect.value,
        "reason": decision.reason.value,
        "rule": decision.rule,
        "method": visit.method,
        "host": visit.host,
        "client": visit.client,
        "person": identity.username if identity else "",
        "subject": identity.subject if identity else "",
        "session": caller.session.id if caller else "",
    }

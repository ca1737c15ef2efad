"""Say what would happen to somebody with given claims: decision, roles, headers and account, without doing it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sidecar.config.callers import CERTIFICATE_ISSUER, CERTIFICATES, service_identity
from sidecar.config.login import OidcLogin
from sidecar.config.models import Config
from sidecar.config.saml import SamlLogin
from sidecar.config.secret import Secret
from sidecar.core.claims import identity_from
from sidecar.core.explanation import Considered, Criterion, Explanation, explain
from sidecar.core.headers import Line
from sidecar.core.paths import read_target
from sidecar.core.policy import Standing
from sidecar.core.roles import RoleFound, find_roles
from sidecar.core.standing import HeaderTemplate, header_context, header_lines, standing_of
from sidecar.core.template import Compiler
from sidecar.faults import Refused, Unavailable
from sidecar.hooks.order import PlannedCall
from sidecar.logins.saml.naming import issuer_of
from sidecar.model import Decision, Effect, Identity, Session, Visit
from sidecar.plans import (
    certificate_plan,
    header_plan,
    identity_plan,
    login_domains,
    roles_plan,
    rulebook_of,
    secret_lines,
)
from sidecar.portal.site import site_of
from sidecar.reason import Reason

if TYPE_CHECKING:
    from sidecar.engines.engines import Verdict
    from sidecar.provision import ProvisionPlan

_HIDDEN = "(secret)"
_HIDDEN_BASIC = Compiler().compile(f"Basic {_HIDDEN}")


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks for what: *claims* as the provider *login* would send them, verified; None when nobody is signed in.

    ``via`` is "cookie", or how else they come: "bearer" with an access token that has these claims, "token" with an API
    token of the person whose claims these are (``scope``), or of the ``service`` with ``roles``, "certificate" with one
    that has these claims. ``host`` "" is the public one.
    """

    login: str
    claims: Mapping[str, Any] | None
    method: str = "GET"
    target: str = "/"
    host: str = ""
    client: str = ""
    via: str = "cookie"
    scope: tuple[str, ...] = ()
    service: str = ""
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Foresight:
    """The answer. ``refused`` says why it ends early, "" when it does not; ``account`` is None where none is made.

    ``engine`` is what an engine is asked and what it says, None where none is asked.
    """

    identity: Identity | None
    found_roles: tuple[RoleFound, ...]
    explanation: Explanation
    headers: tuple[Line, ...] = ()
    account: ProvisionPlan | None = None
    refused: str = ""
    engine: Criterion | None = None

    @property
    def decision(self) -> Decision:
        """What was decided."""
        return self.explanation.decision

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the roles that the person has."""
        return tuple(role.name for role in self.found_roles if role.held)

    @property
    def calls(self) -> tuple[PlannedCall, ...]:
        """Calls that would be made to the application, in their order."""
        return () if self.account is None else (*self.account.lookup, *self.account.calls)


async def foresee(
    config: Config,
    question: Question,
    *,
    lookup: bool,
    accounts: bool = True,
    engines: bool = False,
    now: float | None = None,
) -> Foresight:
    """Answer *question*; with *lookup* the application is really asked for the account, nothing else is called.

    With *engines* the engine that the rule names is asked over the network, too; Cedar, which is here, always is.
    Without *accounts* nothing is said about one, and the directory is not opened. Raises Refused when the claims make
    no identity or the target no path, Unavailable when directory or *lookup* fail.
    """
    moment = time.time() if now is None else now
    session = _session_asked(config, question, moment)
    found = () if session is None else _found_roles(config, session)
    roles = tuple(role.name for role in found if role.held)
    standing = None if session is None else standing_of(session, question.via, roles)
    seen = Foresight(
        None if session is None else session.identity,
        found,
        explain(rulebook_of(config), _visit(config, question), standing, moment),
    )
    if session is not None and standing is not None and seen.decision.effect is Effect.ALLOW:
        seen = await _ruled(config, question, seen, session, standing, moment, asks=engines)
    if seen.decision.effect is not Effect.ALLOW:
        return seen
    if seen.decision.is_public or session is None:
        return replace(seen, headers=_always(config))
    account = None
    if accounts and config.provision is not None:
        from sidecar.provision.ahead import looking_ahead  # noqa: PLC0415 - databases are for those who have accounts

        async with looking_ahead(config.provision, config.directory, login_domains(config)) as provisioner:
            provisioned = await provisioner.plan(session.identity, roles, moment, probe=lookup)
        account, seen = provisioned.verdict.account, replace(seen, account=provisioned)
        if provisioned.verdict.refused is not None:
            refused = f"{provisioned.verdict.refused.value}: {provisioned.verdict.detail}".removesuffix(": ")
            return replace(seen, refused=refused)
    try:
        lines = header_lines(_shown(config), header_context(session, roles, account))
    except Refused as error:
        return replace(seen, refused=str(error))
    return replace(seen, headers=(*lines, *_always(config), *_asserted(config)))


async def _ruled(  # noqa: PLR0917 - what the gate has in hand, too
    config: Config,
    question: Question,
    seen: Foresight,
    session: Session,
    standing: Standing,
    now: float,
    *,
    asks: bool,
) -> Foresight:
    """*seen* with what the engine says that the deciding rule names, and with what becomes of the decision then."""
    visit = _visit(config, question)
    ask = rulebook_of(config).about(visit)[-1].ask
    if ask is None:
        return seen
    try:
        wants = f"{ask.engine} {json.dumps(ask.question(session, standing, visit), ensure_ascii=False)}"
    except Refused as refused:
        wants = ask.engine
        if refused.reason is not Reason.ENGINE_NOT_ASKED:
            raise
    section = config.engines[ask.engine]
    if section.type != "cedar" and not asks:
        return _with_engine(seen, Criterion("engine", wants, "not asked now", None), seen.decision)
    from sidecar.engines.opening import open_engines  # noqa: PLC0415 - an HTTP client is for who asks one

    engines = open_engines({ask.engine: section})
    try:
        verdict = await engines.rule_on(ask, session, standing, visit, now)
    except Unavailable as fault:
        decision = Decision(Effect.DENY, fault.reason, seen.decision.rule)
        return _with_engine(seen, Criterion("engine", wants, fault.detail, None), decision)
    finally:
        await engines.close()
    allowed = verdict.ruling.allowed
    decision = seen.decision if allowed else Decision(Effect.DENY, verdict.reason, seen.decision.rule)
    return _with_engine(seen, Criterion("engine", wants, _said(verdict), allowed), decision)


def _said(verdict: Verdict) -> str:
    policy = f", by {verdict.ruling.policy}" if verdict.ruling.policy else ""
    return verdict.detail or f"{'allows' if verdict.ruling.allowed else 'denies'}{policy}"


def _with_engine(seen: Foresight, criterion: Criterion, decision: Decision) -> Foresight:
    considered: tuple[Considered, ...] = tuple(
        replace(one, criteria=(*one.criteria, criterion)) if one.decided else one for one in seen.explanation.considered
    )
    return replace(seen, explanation=Explanation(decision, considered), engine=criterion)


def _visit(config: Config, question: Question) -> Visit:
    target = read_target(question.target)
    return Visit(
        method=question.method,
        path=target.path,
        literal=target.literal,
        host=question.host.lower() or site_of(config.server, config.sessions).host,
        client=question.client,
    )


def _session_asked(config: Config, question: Question, now: float) -> Session | None:
    if question.service:
        who = service_identity(question.service)
        return Session("(token)", who, now, now, now, 0.0, scope=question.scope, roles=question.roles)
    if question.claims is None:
        return None
    if question.via == "certificate" and config.certificates is not None:
        who = identity_from(
            CERTIFICATES, CERTIFICATE_ISSUER, question.claims, certificate_plan(config, config.certificates)
        )
        return Session("(certificate)", who, now, now, now, 0.0)
    session = _session(config, question, question.claims, now)
    if question.via != "token":
        return session
    return replace(session, auth_time=0.0, acr="", amr=(), scope=question.scope)


def _found_roles(config: Config, session: Session) -> tuple[RoleFound, ...]:
    if session.roles is None:
        return find_roles(session.identity, roles_plan(config))
    why = {True: "given to the service", False: "not given to the service"}
    return tuple(RoleFound(name, name in session.roles, why[name in session.roles]) for name in config.roles)


def _session(config: Config, question: Question, claims: Mapping[str, Any], now: float) -> Session:
    issuer = _issuer(config.logins[question.login])
    identity = identity_from(question.login, issuer, claims, identity_plan(config, question.login))
    methods, at = claims.get("amr"), claims.get("auth_time")
    return Session(
        "(session id)",
        identity,
        created=now,
        expires=now,
        seen=now,
        auth_time=float(at) if isinstance(at, int | float) else now,
        acr=str(claims.get("acr", "")),
        amr=tuple(map(str, methods)) if isinstance(methods, list) else (),
    )


def _shown(config: Config) -> tuple[HeaderTemplate, ...]:
    """Headers about the person, with the passwords that stand in the configuration hidden."""
    hidden = (name for name, line in config.headers.items() if line.basic and isinstance(line.basic.password, Secret))
    names = frozenset(hidden)
    return tuple(
        replace(header, password=None, value=_HIDDEN_BASIC) if header.name in names else header
        for header in header_plan(config)
    )


def _always(config: Config) -> tuple[Line, ...]:
    return tuple((name, _HIDDEN) for name, _ in secret_lines(config))


def _asserted(config: Config) -> tuple[Line, ...]:
    return () if config.assertion is None else ((config.assertion.header, "(signed for each request)"),)


def _issuer(login: OidcLogin | SamlLogin) -> str:
    """Who the provider says it is, as far as the configuration knows: a SAML one's entityID stands in its metadata."""
    return login.issuer if isinstance(login, OidcLogin) else issuer_of(login.idp or login.metadata)

"""Say what would happen to somebody with given claims: decision, roles, headers and account, without doing it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from sidecar.config.login import OidcLogin
from sidecar.config.models import Config
from sidecar.config.saml import SamlLogin
from sidecar.core.claims import identity_from
from sidecar.core.headers import Line
from sidecar.core.paths import read_target
from sidecar.core.policy import Standing, decide, match
from sidecar.core.standing import header_context, header_lines, roles_of
from sidecar.directory import Directory
from sidecar.hooks.hook import StepHook
from sidecar.hooks.order import PlannedCall
from sidecar.logins.saml.naming import issuer_of
from sidecar.model import Decision, Effect, Identity, Refused, Session
from sidecar.plans import gate_plan, identity_plan, login_domains
from sidecar.portal.site import site_of
from sidecar.provision import Provisioner, ProvisionPlan
from sidecar.sessions.memory import MemoryStore
from sidecar.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks for what: *claims* as the provider *login* would send them, verified."""

    login: str
    claims: Mapping[str, Any]
    method: str = "GET"
    target: str = "/"


@dataclass(frozen=True, slots=True)
class Foresight:
    """The answer. ``refused`` says why it ends early, "" when it does not; ``account`` is None where none is made."""

    identity: Identity
    roles: tuple[str, ...]
    decision: Decision
    headers: tuple[Line, ...] = ()
    account: ProvisionPlan | None = None
    refused: str = ""

    @property
    def calls(self) -> tuple[PlannedCall, ...]:
        """Calls that would be made to the application, in their order."""
        return () if self.account is None else (*self.account.lookup, *self.account.calls)


async def foresee(config: Config, question: Question, *, lookup: bool, now: float | None = None) -> Foresight:
    """Answer *question*; with *lookup* the application is really asked for the account, nothing else is called.

    Raises Refused when the claims make no identity or the target no path, Unavailable when *lookup* fails.
    """
    moment = time.time() if now is None else now
    issuer = _issuer(config.logins[question.login])
    identity = identity_from(question.login, issuer, question.claims, identity_plan(config, question.login))
    site = site_of(config.server, config.sessions)
    upstream = Upstream(config.app)
    plan = gate_plan(config, site, upstream.authority)
    await upstream.close()
    roles = roles_of(identity, config.roles)
    standing = Standing(
        login=question.login,
        via="cookie",
        roles=frozenset(roles),
        groups=frozenset(identity.groups or ()),
        auth_time=moment,
        acr=str(question.claims.get("acr", "")),
    )
    rule = match(plan.rules, question.method, site.host, read_target(question.target).path)
    decision = decide(rule, standing, moment)
    if decision.effect is not Effect.ALLOW or decision.is_public:
        return Foresight(identity, roles, decision)
    account, provisioned = None, None
    if config.provision is not None:
        async with _provisioner(config) as provisioner:
            provisioned = await provisioner.plan(identity, roles, moment, probe=lookup)
        account = provisioned.verdict.account
        if provisioned.verdict.refused is not None:
            refused = f"{provisioned.verdict.refused.value}: {provisioned.verdict.detail}".removesuffix(": ")
            return Foresight(identity, roles, decision, account=provisioned, refused=refused)
    try:
        lines = header_lines(plan.headers, header_context(_session(identity, moment), roles, account))
    except Refused as error:
        return Foresight(identity, roles, decision, account=provisioned, refused=str(error))
    return Foresight(identity, roles, decision, lines, provisioned)


def _issuer(login: OidcLogin | SamlLogin) -> str:
    """Who the provider says it is, as far as the configuration knows: a SAML one's entityID stands in its metadata."""
    return login.issuer if isinstance(login, OidcLogin) else issuer_of(login.idp or login.metadata)


def _session(identity: Identity, now: float) -> Session:
    return Session("(session id)", identity, created=now, expires=now, seen=now, auth_time=now)


@asynccontextmanager
async def _provisioner(config: Config) -> AsyncIterator[Provisioner]:
    assert config.provision is not None  # noqa: S101 - the caller looked
    hook = StepHook(config.provision)
    name = config.directory.application
    with tempfile.TemporaryDirectory() as folder:
        directory = await Directory.open(
            _existing(config.directory.url.reveal(), Path(folder)), name, config.directory.timeout.total_seconds()
        )
        store = MemoryStore(time.time)
        try:
            yield Provisioner(
                config.provision, hook, directory, store, name, time.time, login_domains(config), lambda _e, _f: None
            )
        finally:
            await hook.close()
            await directory.close()


def _existing(url: str, folder: Path) -> str:
    """Address of the directory, or of an empty one when its file does not exist: looking ahead creates nothing."""
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite" and not (parts.database and Path(parts.database).exists()):
        return f"sqlite:///{folder}/empty.db"
    return url

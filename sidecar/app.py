"""Wire everything: a configuration comes in, a running sidecar goes out; the only reader of the whole configuration."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from sidecar import __version__
from sidecar.arrival import Arrival
from sidecar.assertion import AssertionSigner
from sidecar.condition import Accounts, Condition, MetadataWatch, Parts
from sidecar.config.models import Config
from sidecar.core.audit import Event
from sidecar.core.headers import Line
from sidecar.endings import Endings
from sidecar.engines.opening import open_engines
from sidecar.express import Express
from sidecar.front import Front
from sidecar.gate import Gate
from sidecar.leaving import Leaving
from sidecar.limits import Limits
from sidecar.listening import Listener
from sidecar.logins.certificates import CertificateAuthenticator
from sidecar.logins.login import Authenticator
from sidecar.logins.oidc import OpenIdLogin
from sidecar.logins.opening import open_bearer, open_introspection, open_logins, saml_logins_of
from sidecar.model import Unavailable
from sidecar.pages.answers import Answers
from sidecar.plans import asks_of, certificate_plan, forward_auth_of, gate_plan, identity_plan
from sidecar.portal.application import ApplicationSession
from sidecar.portal.emergency import Emergency
from sidecar.portal.invitation import nobody_invites
from sidecar.portal.opening import Entrance, emergency_path, open_break_glass
from sidecar.portal.outages import Outages
from sidecar.portal.renewal import Renewal
from sidecar.portal.site import site_of
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.opening import for_site, open_store, server_secrets
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.opening import open_audit
from sidecar.telemetry.page import MetricsPage
from sidecar.upstream import Upstream

if TYPE_CHECKING:
    from sidecar.console.console import Console
    from sidecar.telemetry.tracing import Tracing

_log = structlog.get_logger("app")
Clock = Callable[[], float]


@dataclass(slots=True)
class Sidecar:
    """A wired sidecar: start it, and stop it when done."""

    config: Config
    front: Front
    metrics: Metrics
    audit: AuditLog
    upstream: Upstream
    condition: Condition
    background: Sequence[Callable[[], Awaitable[None]]]
    parts: Parts
    console: Console | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _listener: Listener | None = None

    async def start(self) -> None:
        """Open the listeners and begin the background work. Raises OSError when an address is taken.

        A store, directory or provider that is down does not keep it from starting: it is not ready, says so in the
        log, and becomes ready when they are back.
        """
        self._tasks = [asyncio.create_task(_lasting(work)) for work in self.background]
        page = MetricsPage(self.front.portal.site.prefix, self.metrics.render, self.condition.readiness)
        self._listener = Listener(self.config.server, self.front, page.handle)
        await self._listener.start()
        if self.console is not None:
            await self.console.start()
        self.audit.record(Event.SERVICE_STARTED, {"version": __version__, "listen": self.config.server.listen})
        with contextlib.suppress(Unavailable):
            await self.condition.readiness()

    @property
    def addresses(self) -> Sequence[str]:
        """Where it really listens (host:port), once started: useful with port 0."""
        return self._listener.addresses if self._listener is not None else ()

    async def stop(self, *, is_replaced: bool = False) -> None:
        """Leave, drain, let go of everything.

        For ``server.notice`` all is served as ever, only ``/-/ready`` says 503; then no new connection is accepted, and
        what runs may finish until ``server.drain`` is over. When *is_replaced*, another process serves already, so that
        load balancers need not hear of it.
        """
        self.condition.is_stopping = not is_replaced
        drain = self.config.server.drain.total_seconds()
        notice = 0.0 if is_replaced else min(self.config.server.notice.total_seconds(), drain / 2)
        if self._listener is not None:
            if self._listener.addresses:
                await self._listener.leave(notice)
            self.upstream.drain()
            await self._listener.drain(drain - notice, self.upstream.close)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.parts.close()
        self.audit.record(Event.SERVICE_STOPPED, {"version": __version__})
        self.audit.close()

    def hurry(self) -> None:
        """Make a ``stop`` that is under way end at once."""
        if self._listener is not None:
            self._listener.hurry()


async def _lasting(work: Callable[[], Awaitable[None]]) -> None:
    """Run background work again when a fault ends it: it must never die silently."""
    while True:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, it is logged and the work begins again
            _log.exception("background work failed, beginning again")
        await asyncio.sleep(1)


async def build(config: Config, clock: Clock = time.time) -> Sidecar:
    """Make every room and connect them. Raises ValueError, OSError or Unavailable when that cannot be done.

    What was opened is closed again then.
    """
    audit = open_audit(config.audit, clock)
    parts = Parts()
    try:
        return await _wired(config, clock, audit, parts)
    except BaseException:
        await parts.close()
        audit.close()
        raise


async def _wired(config: Config, clock: Clock, audit: AuditLog, parts: Parts) -> Sidecar:
    site = site_of(config.server, config.sessions)
    metrics = Metrics()
    secrets = for_site(server_secrets(config.sessions), site.shared)
    store = parts.add(open_store(config.sessions, clock))
    keeper = parts.add(SessionKeeper(store, config.sessions, secrets, clock))
    await keeper.start()
    answers = Answers(
        app_name=config.app.name or site.host,
        prefix=site.prefix,
        support=config.pages.support,
        overrides=config.pages.templates,
        takes_basic=config.tokens is not None and config.tokens.basic != "never",
        emergency=emergency_path(config.break_glass, site),
    )
    plans = {name: identity_plan(config, name) for name in config.logins}
    accounts, scim, tokens, schedules = Accounts(), None, None, list[Any]()
    if config.provision is not None or config.tokens is not None:
        # Databases and what speaks to them are a third of the start and of the memory: for those who have accounts.
        from sidecar.accounts import open_accounts, open_schedules, open_scim, open_tokens  # noqa: PLC0415 - see above

        accounts = await open_accounts(config, store, keeper, audit, metrics, clock, parts)
        scim = open_scim(config.scim, site, accounts, store, audit, metrics)
        tokens = open_tokens(config, accounts, audit)
        schedules = open_schedules(config, accounts, audit, metrics, clock)
        if tokens is not None:
            parts.add(tokens)
    signals = None
    if config.signals is not None:
        from sidecar.signals.opening import open_signals  # noqa: PLC0415 - for those who hear of others

        both = accounts.directory, accounts.provisioner
        signals = parts.add(open_signals(config, site.origin, site.prefix, store, keeper, both, audit, metrics, clock))
    logins = open_logins(config.logins, site.origin, site.prefix, plans, clock)
    for login in logins.values():
        parts.add(login)
    upstream = parts.add(Upstream(config.app, max_body=config.server.max_body, tell=metrics.of_server))
    endings = Endings(keeper, clock)
    signer = AssertionSigner(config.assertion, site.origin) if config.assertion is not None else None
    found = (tokens, open_bearer(logins, config.logins, site.origin), open_introspection(logins, config.logins))
    callers: list[Authenticator] = [one for one in found if one is not None]
    if config.certificates is not None:
        callers.append(CertificateAuthenticator(config.certificates, certificate_plan(config, config.certificates)))
    plan = gate_plan(config, site, upstream.authority)
    application = ApplicationSession(
        config.app,
        plan.incoming,
        site.style,
        upstream.ask,
        lambda client, host: gate.lines_about(client, host),  # noqa: PLW0108 - made below
    )
    saml_logins = saml_logins_of(logins, config.logins)
    outage = config.sessions.outage
    outages = Outages(store, outage.total_seconds() if outage is not None else None, audit.record, metrics)
    entrance = Entrance(
        site=site,
        store=store,
        secrets=secrets,
        keeper=keeper,
        logins=logins,
        saml=saml_logins,
        application=application,
        answers=answers,
        audit=audit,
        metrics=metrics,
        patience=config.sessions.login.total_seconds(),
        lifetime=config.sessions.absolute.total_seconds(),
        keep_post=config.sessions.keep_post,
        accept=accounts.invitations.accept if accounts.invitations is not None else None,
        emergency=emergency_path(config.break_glass, site),
        is_away=outages.is_away,
    )
    emergency = Emergency(
        section=config.break_glass,
        origin=site.origin,
        remembered_else=accounts.remembered,
        known_else=accounts.known,
        ensure_else=accounts.ensure,
        at_hand_else=accounts.at_hand,
        end_person=keeper.end_person,
    )
    break_glass = open_break_glass(config.break_glass, entrance, emergency, parts)
    gate = Gate(
        plan=plan,
        site=site,
        keeper=keeper,
        renewal=Renewal(logins, keeper, outages, audit.record),
        authenticators=callers,
        forms=entrance.forms,
        leaving=Leaving(entrance.sign_out, upstream, audit),
        remembered=emergency.remembered,
        known=emergency.known,
        engines=parts.add(open_engines(config.engines, metrics, accounts.changes)),
        ensure=emergency.ensure,
        at_hand=emergency.at_hand,
        assertion=signer or _nothing_asserted,
        upstream=upstream,
        endings=endings,
        answers=answers,
        audit=audit,
    )
    watch = MetadataWatch({name: login.metadata for name, login in saml_logins.items()}, metrics)

    def complaints() -> Mapping[str, str]:
        own = {**outages.complaints(), **(break_glass.complaints(clock()) if break_glass is not None else {})}
        return {
            **watch.complaints(),
            **own,
            **{name: text for one in schedules for name, text in one.complaints().items()},
        }

    condition = Condition(store, accounts, upstream.says, complaints)
    portal = entrance.portal(
        asks=asks_of(gate.plan.rules),
        is_ready=condition.in_public,
        break_glass=break_glass,
        keys=signer.keys if signer is not None else {"keys": []},
        invitations=accounts.invitations.opened if accounts.invitations is not None else nobody_invites,
        front_channel={
            name: login
            for name, login in logins.items()
            if isinstance(login, OpenIdLogin) and login.takes_front_channel
        },
    )
    arrival = Arrival(
        trusted=config.server.trusted_proxies,
        hosts=frozenset([site.host, *(host.lower() for host in config.server.hosts)]),
        is_secure=site.style.secure,
        largest_head=config.server.max_header,
        is_windows=config.app.ignore_case,
        certificates=config.certificates,
    )
    limits = Limits(config.limits)
    front = Front(
        arrival=arrival,
        portal=portal,
        gate=gate,
        express=Express(arrival, portal.owns, gate, limits),
        answers=answers,
        audit=audit,
        metrics=metrics,
        clock=clock,
        limits=limits,
        scim=scim,
        signals=signals.server if signals is not None else None,
        must_audit=config.audit.on_failure == "refuse",
        forward_auth=forward_auth_of(config, site, arrival, gate, answers),
        tracing=_tracing(config, parts),
    )
    return Sidecar(
        config=config,
        front=front,
        metrics=metrics,
        audit=audit,
        upstream=upstream,
        condition=condition,
        background=[
            endings.watch_the_clock,
            upstream.look_after_servers,
            *([accounts.work] if accounts.database is not None else []),
            *([partial(tokens.watch, endings.live, endings.end, clock)] if tokens is not None else []),
            *(one.work for one in schedules),
            *watch.work,
            *(signals.work if signals is not None else []),
        ],
        parts=parts,
        console=await _console(config, store, keeper, condition, audit, metrics, clock, parts),
    )


async def _console(config: Config, *joined: Any) -> Console | None:
    if config.console is None:
        return None
    from sidecar.console.opening import open_console  # noqa: PLC0415 - as for accounts

    return await open_console(config, config.console, *joined)


def _tracing(config: Config, parts: Parts) -> Tracing | None:
    if config.tracing is None:
        return None
    # OpenTelemetry is an extra, and costs memory.
    from sidecar.telemetry.tracing import Tracing  # noqa: PLC0415

    return parts.add(Tracing(config.tracing, config.server.trusted_proxies))


def _nothing_asserted(*_: object, **__: object) -> Sequence[Line]:
    return ()

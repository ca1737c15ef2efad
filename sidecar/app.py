"""Wire everything: a configuration comes in, a running sidecar goes out; the only reader of the whole configuration."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from aiohttp import web

from sidecar import __version__
from sidecar.arrival import Arrival
from sidecar.assertion import AssertionSigner
from sidecar.config.models import Config
from sidecar.config.service import Audit
from sidecar.core.audit import Event
from sidecar.core.headers import Line
from sidecar.directory import Directory
from sidecar.endings import Endings
from sidecar.front import Front
from sidecar.gate import Gate
from sidecar.hooks.hook import StepHook
from sidecar.listening import Listener
from sidecar.logins.opening import open_bearer, open_logins
from sidecar.model import Account, Identity, Person, Reason, Unavailable
from sidecar.pages.answers import Answers
from sidecar.plans import asks_of, gate_plan, identity_plan, login_domains
from sidecar.portal.attempts import Attempts
from sidecar.portal.callback import Callback
from sidecar.portal.forms import KeptForms
from sidecar.portal.handover import Handover
from sidecar.portal.portal import Portal
from sidecar.portal.renewal import Renewal
from sidecar.portal.sign_in import SignIn
from sidecar.portal.sign_out import SignOut
from sidecar.portal.site import site_of
from sidecar.provision import Provisioner
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.opening import open_store, server_secrets
from sidecar.sessions.store import Store
from sidecar.sessions.vault import Vault
from sidecar.telemetry.audit import AuditLog, FileSink, Sink, StdoutSink
from sidecar.telemetry.metrics import Metrics
from sidecar.upstream import Upstream

_log = structlog.get_logger("app")
Clock = Callable[[], float]


class Closeable(Protocol):
    """A room that holds connections."""

    async def close(self) -> None:
        """Let go of them."""


@dataclass(slots=True)
class Condition:
    """Whether the sidecar can do its work: what ``/-/ready`` says."""

    store: Store
    directory: Directory | None
    is_stopping: bool = False

    async def readiness(self) -> Mapping[str, str]:
        """What the parts say of themselves; raises Unavailable when one that every request needs is down."""
        if self.is_stopping:
            raise Unavailable(Reason.STOPPING)
        parts = {"store": await self.store.ping()}
        if self.directory is not None:
            parts["directory"] = await self.directory.ping()
        return parts


@dataclass(slots=True)
class Sidecar:
    """A wired sidecar: start it, and stop it when done. ``parts`` are closed in their order."""

    config: Config
    front: Front
    metrics: Metrics
    audit: AuditLog
    upstream: Upstream
    condition: Condition
    background: Sequence[Callable[[], Awaitable[None]]]
    parts: Sequence[Closeable]
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _listener: Listener | None = None

    async def start(self) -> None:
        """Open the listeners and begin the background work. Raises OSError when an address is taken."""
        self._tasks = [asyncio.create_task(_lasting(work)) for work in self.background]
        self._listener = Listener(self.config.server, self.front.handle, self._metrics_page)
        await self._listener.start()
        self.audit.record(Event.SERVICE_STARTED, {"version": __version__, "listen": self.config.server.listen})

    @property
    def addresses(self) -> Sequence[str]:
        """Where it really listens (host:port), once started: useful with port 0."""
        return self._listener.addresses if self._listener is not None else ()

    async def stop(self) -> None:
        """Drain: take nothing new, let what runs come to its end, then let go of everything."""
        self.condition.is_stopping = True
        self.upstream.drain()
        if self._listener is not None:
            await self._listener.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for part in self.parts:
            with contextlib.suppress(Unavailable):
                await part.close()
        self.audit.record(Event.SERVICE_STOPPED, {"version": __version__})
        self.audit.close()

    async def _metrics_page(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/metrics":
            return web.Response(body=self.metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})
        return await self.front.handle(request)


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


def _audit_log(section: Audit, clock: Clock) -> AuditLog:
    sinks: list[Sink] = []
    if section.file is not None:
        sinks.append(FileSink(section.file))
    if section.stdout:
        sinks.append(StdoutSink())
    return AuditLog(sinks, clock)


@dataclass(frozen=True, slots=True)
class _Provisioning:
    """The rooms that accounts are kept true with; all None where nothing is provisioned."""

    directory: Directory | None = None
    hook: StepHook | None = None
    provisioner: Provisioner | None = None

    async def ensure(self, identity: Identity, roles: Sequence[str], now: float) -> Account | None:
        """See gate.Ensure."""
        return None if self.provisioner is None else await self.provisioner.ensure(identity, roles, now)


async def build(config: Config, clock: Clock = time.time) -> Sidecar:
    """Make every room and connect them. Raises ValueError, OSError or Unavailable when that cannot be done."""
    site = site_of(config.server, config.sessions)
    audit = _audit_log(config.audit, clock)
    metrics = Metrics()
    store = open_store(config.sessions, clock)
    secrets = server_secrets(config.sessions)
    keeper = SessionKeeper(store, config.sessions, secrets, clock)
    await keeper.start()
    answers = Answers(
        app_name=config.app.name or site.host,
        prefix=site.prefix,
        support=config.pages.support,
        overrides=config.pages.templates,
    )
    plans = {name: identity_plan(config, name) for name in config.logins}
    logins = open_logins(config.logins, site.origin, site.prefix, plans, clock)
    upstream = Upstream(config.app, max_body=config.server.max_body)
    accounts = await _provisioning(config, store, keeper, audit, metrics, clock)
    endings = Endings(keeper, clock)
    signer = AssertionSigner(config.assertion, site.origin) if config.assertion is not None else None
    bearer = open_bearer(logins, config.logins, site.origin)
    seconds = config.sessions.login.total_seconds()
    gate = Gate(
        plan=gate_plan(config, site, upstream.authority),
        site=site,
        keeper=keeper,
        renewal=Renewal(logins, keeper, audit.record),
        authenticators=[bearer] if bearer is not None else [],
        forms=KeptForms(Vault(store, secrets, "form"), site, config.sessions.keep_post, seconds),
        ensure=accounts.ensure,
        assertion=signer or _nothing_asserted,
        upstream=upstream,
        endings=endings,
        answers=answers,
        audit=audit,
    )
    attempts = Attempts(Vault(store, secrets, "login"), store, seconds)
    sign_in = SignIn(site=site, logins=logins, attempts=attempts, keeper=keeper, answers=answers)
    condition = Condition(store, accounts.directory)
    portal = Portal(
        site=site,
        sign_in=sign_in,
        callback=Callback(
            site=site,
            sign_in=sign_in,
            handover=Handover(Vault(store, secrets, "answer")),
            answers=answers,
            audit=audit,
            metrics=metrics,
        ),
        sign_out=SignOut(
            site=site,
            logins=logins,
            keeper=keeper,
            store=store,
            answers=answers,
            app_cookies=config.app.sign_out_cookies,
        ),
        keeper=keeper,
        answers=answers,
        audit=audit,
        metrics=metrics,
        keys=signer.keys if signer is not None else {"keys": []},
        asks=asks_of(gate.plan.rules, site),
        is_ready=condition.readiness,
    )
    arrival = Arrival(
        trusted=config.server.trusted_proxies,
        hosts=frozenset([site.host, *(host.lower() for host in config.server.hosts)]),
        is_secure=site.style.secure,
    )
    front = Front(arrival=arrival, portal=portal, gate=gate, answers=answers, audit=audit, metrics=metrics, clock=clock)
    background: list[Callable[[], Awaitable[None]]] = [endings.watch_the_clock]
    if accounts.provisioner is not None:
        background.append(accounts.provisioner.outbox.run)
    parts = (upstream, *logins.values(), accounts.provisioner, accounts.hook, accounts.directory, keeper, store)
    return Sidecar(
        config=config,
        front=front,
        metrics=metrics,
        audit=audit,
        upstream=upstream,
        condition=condition,
        background=background,
        parts=[part for part in parts if part is not None],
    )


async def _provisioning(  # noqa: PLR0917 - the parts that it joins
    config: Config, store: Store, keeper: SessionKeeper, audit: AuditLog, metrics: Metrics, clock: Clock
) -> _Provisioning:
    if config.provision is None:
        return _Provisioning()
    name = config.app.name or config.app.upstream
    directory = await Directory.open(config.directory.url.reveal(), name, config.directory.timeout.total_seconds())
    hook = StepHook(config.provision)

    def record(event: str, fields: Mapping[str, object]) -> None:
        metrics.accounts.labels(event).inc()
        audit.record(Event(event), fields)

    async def end_sessions(person: Person) -> None:
        for key in person.identities:
            await keeper.end_person(key)

    domains = login_domains(config)
    provisioner = Provisioner(config.provision, hook, directory, store, name, clock, domains, record, end_sessions)
    return _Provisioning(directory, hook, provisioner)


def _nothing_asserted(*_: object, **__: object) -> Sequence[Line]:
    return ()

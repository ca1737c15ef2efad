"""Wire everything: a configuration comes in, a running sidecar goes out; the only reader of the whole configuration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.arrival import Arrival
from sidecar.assertion import AssertionSigner
from sidecar.condition import Accounts, Condition, MetadataWatch, Parts
from sidecar.config.models import Config
from sidecar.core.claims import IdentityPlan
from sidecar.core.dialects import DIALECTS
from sidecar.core.headers import HeaderPlan, Line, collapsed
from sidecar.endings import Endings
from sidecar.engines.opening import open_engines
from sidecar.express import Express
from sidecar.forward_auth import ForwardAuth
from sidecar.front import Front
from sidecar.gate import Gate, GatePlan
from sidecar.lasting import Lasting, Marks, Share, close_part
from sidecar.leaving import Leaving
from sidecar.limits import Limits
from sidecar.logins.certificates import CertificateAuthenticator
from sidecar.logins.login import Authenticator, Login
from sidecar.logins.oidc import OpenIdLogin
from sidecar.logins.opening import open_bearer, open_introspection, open_logins, saml_logins_of
from sidecar.pages.answers import Answers
from sidecar.plans import (
    asks_of,
    certificate_plan,
    header_names,
    header_plan,
    identity_plan,
    roles_plan,
    rulebook_of,
    secret_lines,
)
from sidecar.portal.application import ApplicationSession
from sidecar.portal.emergency import Emergency
from sidecar.portal.invitation import nobody_invites
from sidecar.portal.lookout import Lookout
from sidecar.portal.opening import Entrance, doorplate_of, open_break_glass
from sidecar.portal.outages import Outages
from sidecar.portal.renewal import Renewal
from sidecar.portal.site import Site, site_of
from sidecar.questions import Questions
from sidecar.rechecks import Rechecks
from sidecar.recording import open_keeping, open_recording
from sidecar.running import Sidecar
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.opening import for_site
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.audit_watch import AuditWatch
from sidecar.upstream import Upstream
from sidecar.upstream.cluster import complaints_about

if TYPE_CHECKING:
    from sidecar.console.console import Console
    from sidecar.logins.saml.login import SamlSignIn
    from sidecar.logins.saml.parties import ProviderMetadata
    from sidecar.sessions.store import Store
    from sidecar.telemetry.tracing import Tracing
    from sidecar.tokens import TokenAuthenticator

__all__ = ["Sidecar", "build"]
Clock = Callable[[], float]


async def build(config: Config, clock: Clock = time.time, lasting: Lasting | None = None) -> Sidecar:
    """Make every room and connect them. Raises ValueError, OSError or Unavailable when that cannot be done.

    What was opened is closed again then. What *lasting* holds is carried over; without it everything is new.
    """
    owned = Lasting(config, clock) if lasting is None else None
    lasting = lasting or owned
    assert lasting is not None  # noqa: S101 - one of the two
    parts = Parts()
    try:
        share = lasting.share("audit", _audit_mark(config), lambda: open_recording(config, clock), _close_audit)
        try:
            return await _wired(config, share, parts, lasting)
        except BaseException:
            await parts.close()
            await share.close()
            raise
    except BaseException:
        if owned is not None:
            await owned.close()
        raise


def _audit_mark(config: Config) -> Hashable:
    return Marks(config).of("audit", *(["directory"] if config.audit.database is not None else []))


async def _close_audit(audit: AuditLog) -> None:
    audit.rest()
    # A sink that hangs must not hold up whoever is served meanwhile.
    await asyncio.to_thread(audit.close)


async def _wired(config: Config, audit_share: Share[AuditLog], parts: Parts, lasting: Lasting) -> Sidecar:
    clock, metrics, audit, marks = lasting.clock, lasting.metrics, audit_share.part, Marks(config)
    site = site_of(config.server, config.sessions)
    secrets = for_site(lasting.secrets(config.sessions), site.shared)
    store = parts.add(lasting.lender.lend())
    keeper = parts.add(SessionKeeper(store, config.sessions, secrets, clock))
    await keeper.start()
    plans = {name: identity_plan(config, name) for name in config.logins}
    accounts, scim, tokens, schedules = Accounts(), None, None, list[Any]()
    if config.provision is not None or config.tokens is not None:
        # Databases and what speaks to them are a third of the start and of the memory: for those who have accounts.
        from sidecar.accounts import open_accounts, open_tokens  # noqa: PLC0415 - see above

        accounts = await open_accounts(config, store, keeper, audit, metrics, clock, parts)
        tokens = open_tokens(config, accounts, audit, parts)
    if config.scim is not None or config.sync or config.drift is not None:
        from sidecar.telling import open_telling  # noqa: PLC0415 - for those who hear of people so

        scim, schedules = open_telling(config, site, accounts, store, audit, metrics, clock)
    signals = None
    if config.signals is not None:
        from sidecar.signals.opening import open_signals  # noqa: PLC0415 - for those who hear of others

        both = accounts.directory, accounts.provisioner
        signals = parts.add(open_signals(config, site.origin, site.prefix, store, keeper, both, audit, metrics, clock))
    logins = {name: _login(config, name, plan, site, lasting, marks, parts) for name, plan in plans.items()}
    outage = config.sessions.outage
    outages = Outages(store, outage.total_seconds() if outage is not None else None, audit.record, metrics)
    lookout = parts.add(Lookout(logins, outages, store, clock))
    doorplate = doorplate_of(config.break_glass, site, logins, lookout)
    parts.add(doorplate.reach)
    answers = Answers(
        app_name=config.app.name or site.host,
        prefix=site.prefix,
        support=config.pages.support,
        overrides=config.pages.templates,
        takes_basic=config.tokens is not None and config.tokens.basic != "never",
        emergency=doorplate.link,
        titles={name: login.title for name, login in logins.items()},
        is_away=lookout.is_away,
    )
    upstream = parts.add(
        lasting.share(
            "upstream",
            marks.of("app", "server.max_body"),
            lambda: Upstream(config.app, max_body=config.server.max_body, tell=metrics.of_server),
            close_part,
        )
    ).part
    endings = Endings(keeper, clock)
    signer = AssertionSigner(config.assertion, site.origin) if config.assertion is not None else None
    found = (tokens, open_bearer(logins, config.logins, site.origin), open_introspection(logins, config.logins))
    callers: list[Authenticator] = [one for one in found if one is not None]
    if config.certificates is not None:
        callers.append(CertificateAuthenticator(config.certificates, certificate_plan(config, config.certificates)))
    plan = _gate_plan(config, site, upstream.authority)
    application = ApplicationSession(
        config.app,
        plan.incoming,
        site.style,
        upstream.ask,
        lambda client, host: gate.lines_about(client, host),  # noqa: PLW0108 - made below
    )
    saml_logins = saml_logins_of(logins, config.logins)
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
        doorplate=doorplate,
        lookout=lookout,
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
    break_glass = open_break_glass(config.break_glass, entrance, emergency, doorplate.reach, parts)
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
    watch, audit_watch = MetadataWatch(_described(saml_logins), metrics), AuditWatch(audit, metrics)

    def complaints() -> Mapping[str, str]:
        own = {**outages.complaints(), **(break_glass.complaints(clock()) if break_glass is not None else {})}
        return {
            **lasting.complaints(),
            **audit_watch.complaints(),
            **complaints_about(upstream.servers),
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
    limits = lasting.keep("limits", marks.of("limits"), lambda: Limits(config.limits))
    desk = _forward_auth(config, site, arrival, gate, answers)
    front = Front(
        arrival=arrival,
        portal=portal,
        gate=gate,
        express=Express(arrival, portal.site.owns, gate, limits, max_body=config.server.max_body),
        answers=answers,
        audit=audit,
        metrics=metrics,
        clock=clock,
        limits=limits,
        scim=scim,
        signals=signals.server if signals is not None else None,
        must_audit=config.audit.on_failure == "refuse",
        forward_auth=desk,
        questions=Questions(desk, arrival, limits) if desk is not None else None,
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
            upstream.look_after_servers,
            *([accounts.work] if accounts.database is not None else []),
            *(one.work for one in schedules),
            *watch.work,
            audit_watch.work,
            *([doorplate.reach.watch] if doorplate.needs_watch else []),
            *_looking_on(config, store, audit, lasting, accounts, tokens, parts),
            *(signals.work if signals is not None else []),
        ],
        # Streams outlive a new configuration, and so does what ends them.
        lives_on=[
            endings.watch_the_clock,
            Rechecks(gate, accounts.changes, accounts.identities, clock).watch,
            *([partial(tokens.watch, endings.live, endings.end, clock)] if tokens is not None else []),
        ],
        parts=parts,
        lasting=lasting,
        audit_share=audit_share,
        console=await _console(config, store, keeper, condition, audit, parts, lasting),
    )


def _described(logins: Mapping[str, SamlSignIn]) -> Mapping[str, ProviderMetadata]:
    return {name: login.metadata for name, login in logins.items()}


def _gate_plan(config: Config, site: Site, upstream_authority: str) -> GatePlan:
    """Everything the gate decides and injects by."""
    return GatePlan(
        rules=rulebook_of(config),
        roles=roles_plan(config),
        headers=header_plan(config),
        always=secret_lines(config),
        incoming=HeaderPlan(
            managed=frozenset(map(collapsed, header_names(config))),
            own_cookies=site.own_cookies,
            keeps_bearer=config.tokens is None and not any(login.bearer for login in config.oidc_logins.values()),
            keeps_basic=config.tokens is None or config.tokens.forward_basic,
        ),
        websocket_origins=frozenset([site.origin, *(origin.lower() for origin in config.app.websocket_origins)]),
        public_host_header="" if config.app.host == "public" else upstream_authority,
    )


def _forward_auth(config: Config, site: Site, arrival: Arrival, gate: Gate, answers: Answers) -> ForwardAuth | None:
    """Who answers a front proxy; None where none may ask."""
    section = config.forward_auth
    if section is None:
        return None
    return ForwardAuth(
        site=site,
        arrival=arrival,
        gate=gate,
        answers=answers,
        dialect=DIALECTS[section.dialect],
        networks=section.networks,
        proxies=config.server.trusted_proxies,
        takes_unix="unix" in section.peers,
        managed=frozenset(map(str.lower, header_names(config))),
    )


def _login(  # noqa: PLR0917 - the parts that it joins
    config: Config, name: str, plan: IdentityPlan, site: Site, lasting: Lasting, marks: Marks, parts: Parts
) -> Login:
    """The login of that *name*: the former one, with all that it has learnt, where nothing about it has changed."""
    share = lasting.share(
        f"login {name}",
        (marks.of(f"logins.{name}"), plan, site.origin, site.prefix),
        lambda: open_logins({name: config.logins[name]}, site.origin, site.prefix, {name: plan}, lasting.clock)[name],
        close_part,
    )
    return parts.add(share).part


def _looking_on(  # noqa: PLR0917 - the parts that it joins
    config: Config,
    store: Store,
    audit: AuditLog,
    lasting: Lasting,
    accounts: Accounts,
    tokens: TokenAuthenticator | None,
    parts: Parts,
) -> Sequence[Callable[[], Awaitable[None]]]:
    """Work that looks at what the others do: old audit lines go, and what is odd is told."""
    work: list[Callable[[], Awaitable[None]]] = []
    keeping = open_keeping(config, lasting.clock)
    if keeping is not None:
        work.append(parts.add(keeping).work)
    if config.insights is not None:
        from sidecar.insights.opening import open_insights  # noqa: PLC0415 - for those who want alerts

        known = accounts.database, config.directory.application
        insight = parts.add(open_insights(config.insights, store, audit, lasting.metrics, lasting.clock, *known))
        work.append(insight.work)
        if tokens is not None:
            tokens.heard = insight.watch.token_used
    return work


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

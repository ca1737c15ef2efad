"""Wire the console: its own sign-in over the same providers, its own sessions in the same store, its pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sidecar.arrival import Arrival
from sidecar.condition import Accounts, Condition, MetadataWatch, Parts
from sidecar.config.console import Console as Section
from sidecar.config.login import OidcLogin
from sidecar.config.models import Config
from sidecar.config.service import Cookie
from sidecar.console.acts import Acts
from sidecar.console.apart import Apart
from sidecar.console.behind import NoApplication
from sidecar.console.console import Console, View
from sidecar.console.drifts import Drifts
from sidecar.console.history import History
from sidecar.console.listening import ConsoleListener
from sidecar.console.operators import Operators, rules_of
from sidecar.console.page import Pages
from sidecar.console.seal import Seal
from sidecar.console.syncs import Syncs
from sidecar.console.views.access import AccessPage
from sidecar.console.views.drift import DriftPage
from sidecar.console.views.house import HousePages
from sidecar.console.views.insights import InsightsPage
from sidecar.console.views.owed import OwedPage
from sidecar.console.views.people import PeoplePages
from sidecar.console.views.sync import SyncPages
from sidecar.console.views.tokens import TokenPages
from sidecar.console.views.trail import TrailPages
from sidecar.insights.unused import UnusedCount
from sidecar.lasting import Lasting
from sidecar.limits import Limits
from sidecar.logins.login import Ask
from sidecar.logins.opening import open_logins, saml_logins_of
from sidecar.pages.answers import Answers
from sidecar.plans import identity_plan, roles_plan
from sidecar.plans import rules_of as access_rules
from sidecar.portal.opening import Entrance
from sidecar.portal.site import Site, site_of
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.opening import for_site
from sidecar.sessions.store import Store
from sidecar.telemetry.audit import AuditLog
from sidecar.telling import open_drift, open_sync
from sidecar.tokens import Issuer

if TYPE_CHECKING:
    from sidecar.directory.audit import AuditBook

_PREFIX = "console:"


def console_site(config: Config, section: Section) -> Site:
    """What the console is called: an origin and cookies of its own, which no page of another site can use."""
    cookie = Cookie(name=f"{config.sessions.cookie.name}-console", same_site="strict")
    server = config.server.model_copy(update={"public_url": section.public_url})
    return site_of(server, config.sessions.model_copy(update={"cookie": cookie}))


async def open_console(  # noqa: PLR0917 - the parts that it joins
    config: Config,
    section: Section,
    store: Store,
    keeper: SessionKeeper,
    condition: Condition,
    audit: AuditLog,
    parts: Parts,
    lasting: Lasting,
) -> Console:
    """The console that *section* describes; *parts* closes it. Raises ValueError, OSError and Unavailable."""
    clock, metrics = lasting.clock, lasting.metrics
    site = console_site(config, section)
    own = Apart(store, _PREFIX)
    # A record that somebody moved between the two kinds of sessions inside the store would open with neither.
    secrets = for_site(lasting.secrets(config.sessions), f"console {site.origin}")
    times = {"idle": section.idle, "absolute": section.absolute}
    own_keeper = parts.add(SessionKeeper(own, config.sessions.model_copy(update=times), secrets, clock))
    await own_keeper.start()
    chosen = {name: one for name, one in config.logins.items() if not section.logins or name in section.logins}
    plans = {name: identity_plan(config, name) for name in chosen}
    logins = open_logins(chosen, site.origin, site.prefix, plans, clock)
    for login in logins.values():
        parts.add(login)
    saml = saml_logins_of(logins, chosen)
    name = config.app.name or site_of(config.server, config.sessions).host
    answers = Answers(
        app_name=f"{name} · console",
        prefix=site.prefix,
        support="",
        overrides=None,
        titles={login: one.title for login, one in logins.items()},
    )
    needs = _ask(section)
    entrance = Entrance(
        site=site,
        store=own,
        secrets=secrets,
        keeper=own_keeper,
        logins=logins,
        saml=saml,
        application=NoApplication(config.app, site),
        answers=answers,
        audit=audit,
        metrics=metrics,
        patience=float(site.login_seconds),
        lifetime=section.absolute.total_seconds(),
    )
    portal = entrance.portal(
        asks=lambda _path, _host: replace(needs), is_ready=condition.in_public, keys={"keys": []}, front_channel={}
    )
    accounts = condition.accounts
    history = lasting.keep("history", None, lambda: History(metrics, clock, _sessions_at(lasting)))
    trail = TrailPages(audit=audit, file=config.audit.file, book=_book(config, parts))
    house = HousePages(config=config, condition=condition, history=history, trail=trail, audit=audit, lasting=lasting)
    issuers = {name: one.issuer for name, one in config.logins.items() if isinstance(one, OidcLogin)}
    people = PeoplePages(accounts=accounts, keeper=keeper, issuers=issuers, audit=audit, audit_file=config.audit.file)
    views: dict[str, View] = {"": house.overview}
    menu = [("/", "Overview")]
    if accounts.directory is not None:
        views |= {"people": people.people, "owed": OwedPage(accounts=accounts).show}
        menu += [("/people", "People"), ("/owed", "Outbox")]
    syncs, issuer = None, _issuer(config, accounts, audit)
    if config.sync:
        syncs = parts.add(Syncs(sources=open_sync(config, accounts, audit.record, clock), accounts=accounts))
        views["sync"] = SyncPages(config=config, syncs=syncs, audit=audit).show
        menu.append(("/sync", "Sync"))
    drifts = _drifts(config, accounts, audit, lasting, parts)
    if config.drift is not None and drifts is not None:
        views["drift"] = DriftPage(section=config.drift, drifts=drifts, audit=audit).show
        menu.append(("/drift", "Drift"))
    if config.insights is not None:
        unused = UnusedCount(
            config.insights, accounts.database, config.directory.application, clock, config.tokens is not None
        )
        views["insights"] = InsightsPage(section=config.insights, store=store, audit=audit, unused=unused).show
        menu.append(("/insights", "Insights"))
    if issuer is not None or config.scim is not None:
        views["tokens"] = TokenPages(config=config, accounts=accounts, audit_file=config.audit.file).show
        menu.append(("/tokens", "Tokens"))
    views |= {
        "sessions": people.sessions,
        "access": AccessPage(config=config, accounts=accounts, audit=audit).show,
        "audit": trail.search,
        "why": trail.why,
        "health": house.health,
        "configuration": house.configuration,
    }
    menu += [("/sessions", "Sessions"), ("/access", "Access"), ("/audit", "Audit"), ("/why", "Why")]
    menu += [("/health", "Health"), ("/configuration", "Configuration")]
    console = Console(
        arrival=Arrival(
            trusted=config.server.trusted_proxies,
            hosts=frozenset([site.host]),
            is_secure=site.style.secure,
            largest_head=config.server.max_header,
        ),
        portal=portal,
        operators=Operators(
            keeper=own_keeper,
            cookie=site.session_cookie,
            rules=rules_of(section.operators),
            roles=roles_plan(config),
            accounts=accounts,
        ),
        needs=needs,
        seal=Seal(secrets, site.origin),
        views=views,
        acts=Acts(
            accounts=accounts,
            keeper=keeper,
            own_keeper=own_keeper,
            audit=audit,
            lasting=lasting,
            issuer=issuer,
            syncs=syncs,
            drifts=drifts,
        ),
        pages=Pages(app_name=name, prefix=site.prefix, menu=tuple(menu)),
        answers=answers,
        audit=audit,
        limits=lasting.keep("console limits", config.limits, lambda: Limits(config.limits)),
        section=section,
        history=history,
        clock=clock,
        must_audit=config.audit.on_failure == "refuse",
        background=tuple(MetadataWatch({name: one.metadata for name, one in saml.items()}, metrics).work),
    )
    console.listener = ConsoleListener(section, config.server, console.handle)
    return parts.add(console)


def _sessions_at(lasting: Lasting) -> Callable[[], Awaitable[int]]:
    """Counts sessions in the store, which outlasts configurations as their history does."""
    store = lasting.lender.lend()
    return lambda: store.number("session:")


def _book(config: Config, parts: Parts) -> AuditBook | None:
    """Audit lines in the database, where they are in no file."""
    if config.audit.file is not None or config.audit.database is None:
        return None
    from sidecar.directory.audit import AuditBook  # noqa: PLC0415 - databases are for those who have one
    from sidecar.directory.database import Database  # noqa: PLC0415 - likewise

    directory = config.directory
    return AuditBook(parts.add(Database(directory.url.reveal(), directory.timeout.total_seconds())))


def _drifts(config: Config, accounts: Accounts, audit: AuditLog, lasting: Lasting, parts: Parts) -> Drifts | None:
    """What compares the application's accounts, where they can be listed."""
    watch = open_drift(config, accounts, audit.record, lasting.clock)
    return parts.add(Drifts(watch=watch, accounts=accounts)) if watch is not None else None


def _issuer(config: Config, accounts: Accounts, audit: AuditLog) -> Issuer | None:
    """What ends API tokens, where there are any."""
    if config.tokens is None or accounts.directory is None or accounts.changes is None:
        return None
    rules = [rule.name for rule in access_rules(config.access)]
    return Issuer(accounts.directory, accounts.changes, audit.record, rules, config.roles)


def _ask(section: Section) -> Ask:
    require = section.require
    age = None if require.max_age is None else require.max_age.total_seconds()
    return Ask(max_age=age, acr=require.acr, amr=require.amr)

"""Wire what keeps accounts: directory, people, provisioning."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from sidecar.condition import Accounts, Parts
from sidecar.config.models import Config
from sidecar.core.audit import Event
from sidecar.directory import Directory
from sidecar.directory.database import Database
from sidecar.faults import Unavailable
from sidecar.hooks.hook import StepHook
from sidecar.manual.register import MANUAL
from sidecar.model import Person
from sidecar.people import Changes, Invitations, People, SourcePlan
from sidecar.plans import login_domains, roles_plan
from sidecar.provision import Provisioner
from sidecar.provision.backlog import BacklogWatch
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.opening import server_secrets
from sidecar.sessions.store import Store
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics
from sidecar.tokens import TokenAuthenticator

_log = structlog.get_logger("accounts")


async def open_accounts(  # noqa: PLR0917 - the parts that it joins
    config: Config,
    store: Store,
    keeper: SessionKeeper,
    audit: AuditLog,
    metrics: Metrics,
    clock: Callable[[], float],
    parts: Parts,
) -> Accounts:
    """Open what ``provision`` and ``tokens`` ask for; *parts* closes it.

    Raises Unavailable for a file that cannot be used.
    """
    name = config.directory.application
    database = Database(config.directory.url.reveal(), config.directory.timeout.total_seconds())
    directory = parts.add(Directory(database, name))
    changes = Changes(store)
    if config.provision is None:
        return await _prepared(Accounts(database, directory, changes=changes))
    hook = parts.add(StepHook(config.provision, metrics.of_hook))

    def record(event: str, fields: Mapping[str, object]) -> None:
        metrics.accounts.labels(event).inc()
        audit.record(Event(event), fields)

    async def end_sessions(person: Person) -> None:
        for key in person.identities:
            await keeper.end_person(key)

    sources = source_plans(config)
    roles, telling = roles_plan(config), _telling_logins(config)
    people = People(
        directory, changes, sources, roles, telling, adds=_groups_add_up(config), joined=noting_joins(audit, name)
    )
    provisioner = parts.add(
        Provisioner(
            config.provision,
            hook,
            directory,
            store,
            name,
            clock,
            login_domains(config),
            record,
            end_sessions,
            people.of if sources else _unheard_of,
            changes,
        )
    )
    watch = BacklogWatch(
        config.provision.outbox,
        directory,
        clock,
        lambda owed, seconds: metrics.backlog(owed.waiting, owed.dead, seconds),
    )
    # Without sources nobody needs to be asked who somebody is: the sign-in says it. A token says nothing of its owner.
    needs_people = bool(sources) or config.tokens is not None
    accounts = Accounts(database, directory, provisioner, people if needs_people else None, changes, watch)
    accounts.invitations = _invitations(config, directory, changes, audit)
    return await _prepared(accounts)


async def _prepared(accounts: Accounts) -> Accounts:
    try:
        await accounts.prepare()
    except Unavailable as fault:
        # A file on this machine does not come by itself; a database server may.
        if accounts.database is not None and accounts.database.address.kind == "sqlite":
            raise
        _log.error("the directory cannot be used yet", error=str(fault))
    return accounts


def _invitations(config: Config, directory: Directory, changes: Changes, audit: AuditLog) -> Invitations | None:
    """Invitations, where people may be added by hand and there is a secret that outlives this process."""
    if config.people is None or not config.sessions.secrets:
        return None
    section, secrets = config.people.invitations, server_secrets(config.sessions)
    lifetime = section.lifetime.total_seconds()
    return Invitations(directory, changes, secrets, lifetime, audit.record, strict=section.strict)


def open_tokens(config: Config, accounts: Accounts, audit: AuditLog, parts: Parts) -> TokenAuthenticator | None:
    """What recognises API tokens of ours, where there are any; *parts* closes it."""
    directory, changes = accounts.directory, accounts.changes
    if config.tokens is None or directory is None or changes is None:
        return None
    authenticator = TokenAuthenticator(
        config.tokens,
        directory.tokens,
        accounts.people.of if accounts.people is not None else _unheard_of,
        changes,
        roles=config.roles,
        is_shared=config.sessions.redis is not None,
        record=audit.record,
    )
    return parts.add(authenticator)


async def _unheard_of(_person: Person) -> None:
    return None


def noting_joins(audit: AuditLog, application: str) -> Callable[[Mapping[str, object]], None]:
    """What writes down that somebody of a source was joined to their sign-in."""

    def joined(fields: Mapping[str, object]) -> None:
        audit.record(Event.PEOPLE_JOINED, {"application": application, **fields})

    return joined


def source_plans(config: Config) -> tuple[SourcePlan, ...]:
    """The sources that own people, the strongest first: what an operator wrote by hand comes last."""
    clients = config.scim.clients if config.scim is not None else {}
    by_hand = [] if config.people is None else [SourcePlan(MANUAL, config.people.join)]
    told = [SourcePlan(f"scim:{name}", client.join) for name, client in clients.items()]
    read = [SourcePlan(f"sync:{name}", section.join) for name, section in config.sync.items()]
    return (*told, *read, *by_hand)


def _groups_add_up(config: Config) -> bool:
    """True where the groups of sources are added to those of the sign-in."""
    clients = config.scim.clients.values() if config.scim is not None else ()
    return all(one.groups == "add" for one in (*clients, *config.sync.values()))


def _telling_logins(config: Config) -> frozenset[str]:
    """Logins that say groups."""
    logins = config.logins.items()
    return frozenset(name for name, login in logins if login.identity.groups or config.identity.groups)

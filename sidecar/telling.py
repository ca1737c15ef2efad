"""Wire what brings word of people: SCIM and synchronisation, and drift, which reads with the same sources."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from sidecar.accounts import noting_joins
from sidecar.condition import Accounts
from sidecar.config.models import Config
from sidecar.config.scim import Scim
from sidecar.core.audit import Event
from sidecar.directory.sync_runs import RunRecord
from sidecar.drift import DriftWatch
from sidecar.drift.rules import rules_of as drift_rules
from sidecar.drift.schedule import DriftSchedule
from sidecar.drift.watch import Ground
from sidecar.plans import roles_plan
from sidecar.portal.site import Site
from sidecar.scim_api import ScimServer
from sidecar.scim_api.client import client_of
from sidecar.scim_api.groups import Groups
from sidecar.scim_api.users import Users
from sidecar.sessions.store import Store
from sidecar.sync import Synchroniser
from sidecar.sync.rules import protected_rules
from sidecar.sync.rules import rules_of as sync_rules
from sidecar.sync.runs import Room
from sidecar.sync.schedule import Schedule
from sidecar.sync.sources.opening import open_source
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics


def open_telling(  # noqa: PLR0917 - the parts that it joins
    config: Config,
    site: Site,
    accounts: Accounts,
    store: Store,
    audit: AuditLog,
    metrics: Metrics,
    clock: Callable[[], float],
) -> tuple[ScimServer | None, list[Schedule | DriftSchedule]]:
    """The SCIM server, and what runs the sources, and looks for drift, when it is due."""
    found = (
        _sync_schedule(config, accounts, audit, metrics, clock),
        _drift_schedule(config, accounts, audit, metrics, clock),
    )
    scim = _scim(config.scim, site, accounts, store, audit, metrics)
    return scim, [one for one in found if one is not None]


def _scim(  # noqa: PLR0917 - the parts that it joins
    section: Scim | None, site: Site, accounts: Accounts, store: Store, audit: AuditLog, metrics: Metrics
) -> ScimServer | None:
    """The SCIM server, where there are clients."""
    directory, provisioner, changes = accounts.directory, accounts.provisioner, accounts.changes
    if section is None or directory is None or provisioner is None or changes is None:
        return None
    base = f"{site.origin}{site.prefix}/scim"
    return ScimServer(
        prefix=site.prefix,
        clients={name: client_of(name, client, base) for name, client in section.clients.items()},
        users=Users(directory, provisioner, changes, noting_joins(audit, directory.application)),
        groups=Groups(directory, provisioner, changes),
        store=store,
        audit=audit,
        metrics=metrics,
    )


def open_sync(
    config: Config, accounts: Accounts, record: Callable[[Event, dict[str, object]], None], clock: Callable[[], float]
) -> dict[str, Synchroniser]:
    """The sources of people that are read regularly, by name."""
    directory, provisioner, changes = accounts.directory, accounts.provisioner, accounts.changes
    if directory is None or provisioner is None or changes is None:
        return {}
    room = Room(
        book=directory.sync,
        application=directory.application,
        accounts=provisioner,
        announce=changes.announce,
        wake=provisioner.outbox.wake,
        record=record,
        clock=clock,
    )
    roles, protected = roles_plan(config), protected_rules(config.provision)
    return {
        name: Synchroniser(
            sync_rules(name, section, roles, protected), partial(open_source, name, section.source), room
        )
        for name, section in config.sync.items()
    }


def _sync_schedule(
    config: Config, accounts: Accounts, audit: AuditLog, metrics: Metrics, clock: Callable[[], float]
) -> Schedule | None:

    def record(event: Event, fields: dict[str, object]) -> None:
        audit.record(event, fields)

    def tell(name: str, run: RunRecord) -> None:
        metrics.of_sync(name, run.state, run.head.get("counts", {}), run.updated)

    files = {name: section.source.csv or section.source.json_file for name, section in config.sync.items()}
    watched = {name: file.path for name, file in files.items() if file is not None and config.sync[name].watch}
    sources = open_sync(config, accounts, record, clock)
    # Whoever is late by chance need not be so in secret.
    return Schedule(sources, watched, clock, random.random, tell) if sources else None


def open_drift(
    config: Config, accounts: Accounts, record: Callable[[Event, dict[str, object]], None], clock: Callable[[], float]
) -> DriftWatch | None:
    """What compares the application's accounts with those known here, where it is told how to list them."""
    directory, provisioner = accounts.directory, accounts.provisioner
    if config.drift is None or config.provision is None or directory is None or provisioner is None:
        return None
    ground = Ground(directory.sync, directory.holdings, provisioner.outbox.wake, record, clock)
    opened = partial(open_source, "drift", config.drift.list_)
    return DriftWatch(drift_rules(config.drift, config.provision), opened, ground)


def _drift_schedule(
    config: Config, accounts: Accounts, audit: AuditLog, metrics: Metrics, clock: Callable[[], float]
) -> DriftSchedule | None:
    watch = open_drift(config, accounts, audit.record, clock)
    if watch is None or config.drift is None:
        return None
    # Whoever is late by chance need not be so in secret.
    return DriftSchedule(watch, random.random, metrics.of_drift, repairs=config.drift.repair)

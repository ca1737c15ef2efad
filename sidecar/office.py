"""Wire what commands about people need: the rooms of a sidecar, without anything that serves or works by itself."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sidecar.accounts import open_accounts
from sidecar.condition import Accounts, Parts
from sidecar.config.models import Config
from sidecar.directory import Directory
from sidecar.faults import Refused, Unavailable
from sidecar.hooks.order import PlannedCall
from sidecar.manual import Desk, Register
from sidecar.model import Person
from sidecar.people import Invitations
from sidecar.portal.site import Site, site_of
from sidecar.reason import Reason
from sidecar.recording import open_recording
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.opening import open_store, server_secrets
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Office:
    """What a command about people works with.

    ``shares_sessions`` is False where sessions are in the memory of the sidecar that runs, out of reach from here.
    """

    config: Config
    site: Site
    directory: Directory
    desk: Desk
    register: Register
    invitations: Invitations | None
    accounts: Accounts
    audit: AuditLog
    shares_sessions: bool

    def link(self, code: str, login: str) -> str:
        """The address to send to somebody who is invited."""
        query = urlencode({"code": code, **({"with": login} if login else {})})
        return f"{self.site.origin}{self.site.path('invitation')}?{query}"

    async def foresee(self, person: Person, now: float) -> tuple[str, tuple[PlannedCall, ...]]:
        """(what would be done to somebody's account, the calls), by what the directory remembers."""
        provisioner, people = self.accounts.provisioner, self.accounts.people
        standing = None if people is None else await people.of(person)
        if provisioner is None or standing is None:
            return "nothing is known of this person but their sign-in: it is done when they come", ()
        found = await provisioner.plan(*standing, now)
        if found.verdict.refused is not None:
            raise Refused(found.verdict.refused, 403, found.verdict.detail)
        changes = ", ".join(change.value for change in found.verdict.changes)
        return "nothing to do" if found.is_settled else changes or "nothing to do", (*found.lookup, *found.calls)


@asynccontextmanager
async def open_office(config: Config) -> AsyncIterator[Office]:
    """Open what *config* describes. Raises Unavailable, and Refused where there are no accounts to look after."""
    if config.provision is None:
        raise Refused(Reason.NOT_FOUND, 404, "there is no provision section, so nobody is remembered")
    parts = Parts()
    # Standard output is for what the command says.
    audit = open_recording(config, time.time, is_command=True)
    try:
        store = parts.add(open_store(config.sessions, time.time))
        keeper = parts.add(SessionKeeper(store, config.sessions, server_secrets(config.sessions), time.time))
        accounts = await open_accounts(config, store, keeper, audit, Metrics(), time.time, parts)
        yield _joined(config, accounts, keeper, audit)
    finally:
        await parts.close()
        audit.close()


def _joined(config: Config, accounts: Accounts, keeper: SessionKeeper, audit: AuditLog) -> Office:
    directory, provisioner, changes = accounts.directory, accounts.provisioner, accounts.changes
    if directory is None or provisioner is None or changes is None:
        raise Unavailable(Reason.DIRECTORY_DOWN, "not opened")

    def record(event: Any, fields: Any) -> None:
        audit.record(event, {**fields, "by": "command"})

    on = "email" if config.people is None else config.people.on
    register = Register(directory, provisioner, changes, on, record)
    return Office(
        config=config,
        site=site_of(config.server, config.sessions),
        directory=directory,
        desk=Desk(directory, provisioner, changes, keeper, register, record),
        register=register,
        invitations=accounts.invitations,
        accounts=accounts,
        audit=audit,
        shares_sessions=config.sessions.redis is not None,
    )

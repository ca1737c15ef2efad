"""Compile what the configuration says of one source of people."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.config.provision import Provision
from sidecar.config.redaction import plain
from sidecar.config.sync import Limit as LimitSection
from sidecar.config.sync import Sync
from sidecar.core.claims import IdentityPlan
from sidecar.core.roles import Role
from sidecar.core.sync.entry import EntryPlan
from sidecar.core.sync.guards import Limit, Limits
from sidecar.core.sync.plan import Grace
from sidecar.core.sync.timetable import Timetable, parse_cron
from sidecar.core.template import Compiler
from sidecar.core.wanted import AccountRules, folded, is_protected
from sidecar.directory.sync import KnownPerson

# What these say changes nothing about what a plan does.
_WITHOUT_MEANING = frozenset(["every", "cron", "jitter", "watch", "full", "errors"])
_LIMITS = (
    *("deactivate", "delete", "remove_roles", "grant_privileged", "rename"),
    *("create", "group_members", "invalid"),
)


@dataclass(frozen=True, slots=True)
class SourceRules:
    """One source. ``salt`` stands for how rows are read, ``digest`` for everything that shapes a plan.

    ``is_protected`` says of an account key, a user name or an id that nothing may be changed about it.
    """

    name: str
    entry: EntryPlan
    limits: Limits
    grace: Grace
    roles: Sequence[Role]
    salt: str
    digest: str
    is_additive: bool
    timetable: Timetable
    full: float
    errors: tuple[int, int]
    protected_key: Callable[[str], bool]
    protected_names: frozenset[str]

    @property
    def source(self) -> str:
        """What the directory calls it."""
        return self.entry.source

    def is_protected(self, external: str, username: str, account_key: str) -> bool:
        """True for somebody about whom nothing may be changed."""
        if folded(external) in self.protected_names or folded(username) in self.protected_names:
            return True
        return self.protected_key(account_key or username)

    def protects(self, external: str, person: KnownPerson) -> bool:
        """True for a person about whom nothing may be changed."""
        return self.is_protected(external, person.username, person.account_key)


def rules_of(name: str, section: Sync, roles: Sequence[Role], account: AccountRules | None) -> SourceRules:
    """The rules of *section*; *account* are those of the application's accounts. Raises ValueError for a wrong cron."""
    source = f"sync:{name}"
    reading = _digest({key: plain(getattr(section, key)) for key in ("id", "active", "identity", "on", "domains")})
    shape = {
        "reading": reading,
        "sync": {
            key: plain(getattr(section, key)) for key in type(section).model_fields if key not in _WITHOUT_MEANING
        },
        "protected": [] if account is None else sorted(account.protected),
        "roles": [(role.name, sorted(role.groups), role.when.source if role.when else "") for role in roles],
    }
    strongest = [roles[0].name] if roles else []
    return SourceRules(
        name=name,
        entry=_entry(source, section),
        limits=Limits(
            of={key: _limit(getattr(section.limits, key)) for key in _LIMITS},
            shrink=section.limits.shrink,
            privileged=frozenset(section.limits.privileged or strongest),
        ),
        grace=Grace(
            source=source,
            runs=section.grace.runs,
            seconds=section.grace.time.total_seconds(),
            delete_after=None if section.delete is None else section.delete.total_seconds(),
        ),
        roles=roles,
        salt=reading,
        digest=_digest(shape),
        is_additive=section.incomplete == "additive",
        timetable=timetable_of(section),
        full=section.full.total_seconds(),
        errors=(section.errors.count, section.errors.percent),
        protected_key=lambda key: account is not None and is_protected(account, key),
        protected_names=frozenset(folded(one) for one in section.protect),
    )


def timetable_of(section: Sync) -> Timetable:
    """When the source is read. Raises ValueError."""
    return Timetable(
        every=None if section.every is None else section.every.total_seconds(),
        cron=None if section.cron is None else parse_cron(section.cron),
        jitter=0.0 if section.jitter is None else section.jitter.total_seconds(),
    )


def protected_rules(section: Provision | None) -> AccountRules | None:
    """As much of the account rules as says which keys are protected."""
    if section is None:
        return None
    return AccountRules(section.account.key, frozenset(folded(key) for key in section.account.protected))


def _entry(source: str, section: Sync) -> EntryPlan:
    own, compiled = section.identity, Compiler().compile
    identity = IdentityPlan(
        username=own.username or compiled("{{ claims.username }}"),
        email=own.email,
        name=own.name,
        groups=own.groups,
        claims=frozenset(),
        # Whoever keeps the list of people may say what their address is, unless that was limited.
        trust_email=not section.domains,
        email_domains=frozenset(domain.lower() for domain in section.domains),
    )
    return EntryPlan(source, section.id, identity, section.active, section.on)


def _limit(section: LimitSection) -> Limit:
    return Limit(section.count, section.percent)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()

"""Compile what the configuration says of drift."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.config.drift import Drift
from sidecar.config.provision import Provision
from sidecar.core.drift import Reader
from sidecar.core.sync.guards import Limit
from sidecar.core.sync.timetable import Timetable, parse_cron
from sidecar.core.wanted import AccountRules, folded, is_protected


@dataclass(frozen=True, slots=True)
class DriftRules:
    """How the listing is read, what is compared, and how much one repair may do."""

    reader: Reader
    managed: frozenset[str]
    mode: str
    idle: float | None
    most: int
    left_alone: Callable[[str], bool]
    deactivate: Limit
    change: Limit
    timetable: Timetable


def rules_of(section: Drift, provision: Provision) -> DriftRules:
    """The rules of *section*. Raises ValueError for a wrong cron."""
    account, roles, limits = section.account, provision.roles, section.limits
    protected = AccountRules(provision.account.key, frozenset(provision.account.protected))
    ignored = frozenset(map(folded, section.ignore))

    def left_alone(key: str) -> bool:
        return folded(key) in ignored or is_protected(protected, key)

    return DriftRules(
        reader=Reader(account.key, account.id, account.active, account.roles, account.email, account.seen),
        managed=frozenset(roles.managed),
        mode=roles.mode,
        idle=section.idle.total_seconds() if section.idle is not None else None,
        most=section.most,
        left_alone=left_alone,
        deactivate=Limit(limits.deactivate.count, limits.deactivate.percent),
        change=Limit(limits.change.count, limits.change.percent),
        timetable=Timetable(
            section.every.total_seconds() if section.every is not None else None,
            parse_cron(section.cron) if section.cron is not None else None,
            section.jitter.total_seconds() if section.jitter is not None else 0.0,
        ),
    )

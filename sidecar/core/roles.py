"""Work out the roles that somebody has here: by group, login and condition, and by other roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sidecar.core.conditions import Answer, Facts, answer, facts_of
from sidecar.core.template import Template
from sidecar.faults import Refused
from sidecar.model import Identity
from sidecar.reason import Reason


@dataclass(frozen=True, slots=True)
class Role:
    """One role: all of its lines that are given must hold, or another role that somebody has includes it."""

    name: str
    groups: frozenset[str] = frozenset()
    logins: frozenset[str] = frozenset()
    when: Template | None = None
    includes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoleFound:
    """Whether somebody has a role, and why."""

    name: str
    held: bool
    why: str


def roles_of(identity: Identity, roles: Sequence[Role]) -> tuple[str, ...]:
    """Names of the roles that *identity* has, in the order of the configuration; the first is the strongest."""
    return tuple(found.name for found in find_roles(identity, roles) if found.held)


def find_roles(identity: Identity, roles: Sequence[Role]) -> tuple[RoleFound, ...]:
    """Every role with the reason for having it or not.

    What is missing or unknown never gives a role. A condition that gives neither true nor false is refused, since
    nobody could tell what was meant.
    """
    facts = facts_of(identity)
    found = {role.name: _found(role, identity, facts) for role in roles}
    includes = {role.name: role.includes for role in roles}
    waiting = [name for name, one in found.items() if one.held]
    while waiting:
        giver = waiting.pop(0)
        for name in includes[giver]:
            if not found[name].held:
                found[name] = replace(found[name], held=True, why=f"included in {giver}")
                waiting.append(name)
    return tuple(found.values())


def _found(role: Role, identity: Identity, facts: Facts) -> RoleFound:
    reasons = []
    for holds, why in (_groups(role, identity), _login(role, identity), _when(role, facts)):
        if holds is False:
            return RoleFound(role.name, held=False, why=why)
        if holds:
            reasons.append(why)
    return RoleFound(role.name, bool(reasons), " and ".join(reasons) or "only other roles include it")


def _groups(role: Role, identity: Identity) -> tuple[bool | None, str]:
    if not role.groups:
        return None, ""
    if identity.groups is None:
        return False, "the groups are unknown"
    common = sorted(role.groups.intersection(identity.groups))
    return bool(common), f"in group {common[0]}" if common else f"not in group {' or '.join(sorted(role.groups))}"


def _login(role: Role, identity: Identity) -> tuple[bool | None, str]:
    if not role.logins:
        return None, ""
    return identity.provider in role.logins, f"signed in at {identity.provider}"


def _when(role: Role, facts: Facts) -> tuple[bool | None, str]:
    if role.when is None:
        return None, ""
    said = answer(role.when, facts)
    if said is Answer.WRONG:
        raise Refused(Reason.IDENTITY_INCOMPLETE, 403, f"roles.{role.name}: {role.when.source} {said.value}")
    return said is Answer.YES, f"{role.when.source} {said.value}"

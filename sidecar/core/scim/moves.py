"""Read who comes into a group and who goes by a PATCH, without looking at all of its members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.core.scim.fault import bad_value
from sidecar.core.scim.filters import Compare
from sidecar.core.scim.patch import operations_of, target_of
from sidecar.core.scim.resource import canonical
from sidecar.core.scim.schema import GROUPS


@dataclass(frozen=True, slots=True)
class Moves:
    """Ids of members: those who are to be in the group, and those who are not; nobody is in both."""

    come: frozenset[str] = frozenset()
    go: frozenset[str] = frozenset()


def moves_of(body: Any, *, tolerant: bool) -> Moves | None:
    """What *body* asks for, when all of it is adding and removing members by their ids; else None. Raises Fault.

    It comes to the same as ``patched`` on the whole group: of several operations on one member the last one counts.
    """
    is_in: dict[str, bool] = {}
    for operation in operations_of(body):
        move = _move(operation, tolerant=tolerant)
        if move is None:
            return None
        comes, ids = move
        if "" in ids:
            raise bad_value("a member has no value")
        is_in.update((one, comes) for one in ids)
    return Moves(
        frozenset(one for one, comes in is_in.items() if comes),
        frozenset(one for one, comes in is_in.items() if not comes),
    )


def _move(operation: Mapping[str, Any], *, tolerant: bool) -> tuple[bool, list[str]] | None:
    verb, path, value = operation.get("op"), operation.get("path"), operation.get("value")
    if tolerant and isinstance(verb, str):
        verb = verb.lower()
    match verb:
        case "add" if not path and isinstance(value, Mapping) and [key.lower() for key in value] == ["members"]:
            return True, _named(next(iter(value.values())), tolerant=tolerant)
        case "add" if _is_members(path) and value:
            return True, _named(value, tolerant=tolerant)
        case "remove" if _is_members(path) and value:
            return False, [one for one in _named(value, tolerant=True) if one]
        case "remove" if isinstance(path, str) and (one := _chosen(path)):
            return False, [one]
        case _:
            return None


def _is_members(path: Any) -> bool:
    return isinstance(path, str) and path.strip().lower() == "members"


def _named(value: Any, *, tolerant: bool) -> list[str]:
    attribute = GROUPS.core.attribute("members")
    found = canonical(attribute, value, tolerant=tolerant) if attribute is not None else None
    return [one.get("value", "") for one in found or ()]


def _chosen(path: str) -> str:
    """The id in ``members[value eq "…"]``, "" for any other path."""
    if not path.strip().lower().startswith("members["):
        return ""
    target = target_of(GROUPS, path)
    which = target.which
    if target.part is None and isinstance(which, Compare) and which.operator == "eq" and isinstance(which.value, str):
        is_value = which.place.attribute is not None and which.place.attribute.name == "value"
        # Comparing pays no heed to case, and ids of ours are in lower case.
        return which.value.lower() if is_value else ""
    return ""

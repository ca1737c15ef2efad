"""Evaluate conditions on a person so that what nobody knows never lets anybody in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sidecar.core.template import MissingValueError, Template, TemplateError
from sidecar.model import Identity


class Answer(Enum):
    """What a condition says of somebody; the value is what ``explain`` prints."""

    YES = "holds"
    NO = "does not hold"
    MISSING = "reads something that is missing for this person"
    UNKNOWN = "depends on groups, which are not known for this person"
    WRONG = "gives neither true nor false"


class _EveryGroup:
    """Stands for unknown groups: they might be any. Whatever asks for more than ``in`` gets an error."""

    __slots__ = ()

    def __contains__(self, _: object) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Facts:
    """What conditions see of a person; ``has_groups`` is False when the provider did not say which there are."""

    names: Mapping[str, Any]
    has_groups: bool = True


def user_of(identity: Identity) -> dict[str, Any]:
    """The ``user`` that templates see."""
    return {
        "username": identity.username,
        "email": identity.email,
        "name": identity.name,
        "groups": list(identity.groups or ()),
    }


def facts_of(identity: Identity, roles: tuple[str, ...] | None = None) -> Facts:
    """Facts of *identity*, with its *roles* where they are known already."""
    names = {
        "user": user_of(identity),
        "groups": list(identity.groups or ()),
        "claims": dict(identity.claims),
        **({} if roles is None else {"roles": list(roles)}),
    }
    return Facts(names, identity.groups is not None)


def answer(condition: Template, facts: Facts) -> Answer:
    """Evaluate *condition*. Only YES may let somebody in, and only NO may spare them a refusal.

    Where groups are unknown it is evaluated as if there were none, and as if there were every one: only when both agree
    does it not depend on them.
    """
    try:
        as_none = condition.is_true(facts.names)
        if facts.has_groups or not reads_groups(condition):
            return Answer.YES if as_none else Answer.NO
        as_every = condition.is_true(_with_every_group(facts.names))
    except MissingValueError:
        return Answer.MISSING
    except TemplateError:
        return Answer.WRONG if facts.has_groups else Answer.UNKNOWN
    return Answer.YES if as_none and as_every else Answer.UNKNOWN


def reads_groups(condition: Template) -> bool:
    """True when the groups can matter to *condition*."""
    return bool(condition.names & {"groups", "user"}) and "groups" in condition.source


def _with_every_group(names: Mapping[str, Any]) -> dict[str, Any]:
    every = _EveryGroup()
    return {**names, "groups": every, "user": {**names["user"], "groups": every}}

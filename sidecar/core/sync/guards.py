"""Say whether a plan changes more than one run may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sidecar.core.sync.plan import Item, Kind
from sidecar.model import Identity

# A group of three changes by a third when one of them leaves.
_FEW_MEMBERS = 5
_COUNTED = {
    Kind.CREATE: "create",
    Kind.DEACTIVATE: "deactivate",
    Kind.DELETE: "delete",
    Kind.INVALID: "invalid",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """Most of something: None for any number; percent of the people (or members) that were there before."""

    count: int | None = None
    percent: int | None = None

    def allowed(self, before: int, few: int = 1) -> int | None:
        """How many may change of *before*; *few* are never too many for percent. None for any number."""
        shares = [] if self.percent is None else [max(few, before * self.percent // 100)]
        return min([*shares, *([] if self.count is None else [self.count])], default=None)


@dataclass(frozen=True, slots=True)
class Limits:
    """By name what one run may change, and by how many percent the source may have become smaller."""

    of: Mapping[str, Limit] = field(default_factory=dict)
    shrink: int = 10
    privileged: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Past:
    """What the last good run left: how many people the source had (None: there was none), how many are on, groups."""

    people: int | None = None
    on: int = 0
    groups: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Breach:
    """One limit that is exceeded."""

    limit: str
    found: int
    allowed: int
    about: str = ""

    def __str__(self) -> str:
        """Say it in a line."""
        about = f" ({self.about})" if self.about else ""
        return f"{self.limit}{about}: {self.found}, and {self.allowed} are allowed"


class Tally:
    """Counts what the items of a plan come to."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.kinds: Counter[str] = Counter()
        self.remove_roles = 0
        self.grant_privileged = 0
        self.rename = 0
        self.come: Counter[str] = Counter()
        self.leave: Counter[str] = Counter()

    def add(self, item: Item, privileged: frozenset[str], sign: int = 1) -> None:
        """Count *item*; with *sign* -1 take it back."""
        self.kinds[item.kind.value] += sign
        before, after = set(item.roles.get("before", ())), set(item.roles.get("after", ()))
        # Whoever leaves loses everything, which is what the limit for leaving is about.
        if item.kind in (Kind.CREATE, Kind.UPDATE, Kind.REACTIVATE):
            self.remove_roles += sign * bool(before - after)
            self.grant_privileged += sign * bool((after - before) & privileged)
            self.rename += sign * item.is_rename
        come, leave = membership(item)
        for groups, counter in ((come, self.come), (leave, self.leave)):
            for group in groups:
                counter[group] += sign

    def counts(self) -> dict[str, int]:
        """By name how many there are, without those of which there are none."""
        more = {"remove_roles": self.remove_roles, "grant_privileged": self.grant_privileged, "rename": self.rename}
        return {name: number for name, number in {**self.kinds, **more}.items() if number}


def membership(item: Item) -> tuple[set[str], set[str]]:
    """Groups that somebody comes to, and those that they leave."""
    is_going = item.kind in (Kind.DEACTIVATE, Kind.DELETE) or (item.kind is Kind.CREATE and not item.active)
    if item.after is None and not is_going:
        return set(), set()
    before = set() if item.kind in (Kind.REACTIVATE, Kind.DELETE) else _groups(item.before)
    after = set() if is_going else _groups(item.after)
    return after - before, before - after


def _groups(who: Identity | None) -> set[str]:
    return set() if who is None or who.groups is None else set(who.groups)


def breaches(tally: Tally, limits: Limits, past: Past, people: int | None) -> list[Breach]:
    """Every limit that is exceeded; *people* is how many the source has now, None when not all were read."""
    found = list(_counted(tally, limits, past))
    found += _in_groups(tally, limits, past)
    if people is not None and past.people is not None:
        fewer, allowed = past.people - people, max(1, past.people * limits.shrink // 100)
        if fewer > allowed:
            found.append(Breach("shrink", fewer, allowed, "people fewer than before"))
    return found


def _counted(tally: Tally, limits: Limits, past: Past) -> Iterable[Breach]:
    numbers = {_COUNTED[kind]: tally.kinds[kind.value] for kind in _COUNTED}
    numbers |= {
        "remove_roles": tally.remove_roles,
        "grant_privileged": tally.grant_privileged,
        "rename": tally.rename,
    }
    is_first = past.people is None
    for name, number in numbers.items():
        if is_first and name == "create":
            continue
        limit = limits.of.get(name, Limit())
        of = past.on + tally.kinds["create"] if name == "invalid" else past.on
        allowed = limit.allowed(of)
        if allowed is not None and number > allowed:
            yield Breach(name, number, allowed)


def _in_groups(tally: Tally, limits: Limits, past: Past) -> Iterable[Breach]:
    if past.people is None:
        return
    limit = limits.of.get("group_members", Limit())
    for group in sorted({*tally.come, *tally.leave}):
        before, number = past.groups.get(group, 0), max(tally.come[group], tally.leave[group])
        # Of a group that is new nobody knows how large it should be.
        kind = limit if before else Limit(limit.count)
        allowed = kind.allowed(before, _FEW_MEMBERS)
        if allowed is not None and number > allowed:
            yield Breach("group_members", number, allowed, group)

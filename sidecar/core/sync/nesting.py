"""Say in which groups everybody is, where groups may be members of groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def memberships(
    members: Mapping[str, Sequence[str]], names: Mapping[str, str], *, nested: bool
) -> dict[str, tuple[str, ...]]:
    """By member the names of their groups; *members* and *names* are by the groups' keys. Circles are no trouble."""
    above: dict[str, set[str]] = {}
    for group, inside in members.items():
        for one in inside:
            above.setdefault(one, set()).add(group)
    found: dict[str, tuple[str, ...]] = {}
    for one, direct in above.items():
        if one in members:
            continue
        seen: set[str] = set()
        waiting = list(direct)
        while waiting:
            group = waiting.pop()
            if group not in seen:
                seen.add(group)
                waiting += above.get(group, ()) if nested else ()
        found[one] = tuple(sorted({names[group] for group in seen}))
    return found

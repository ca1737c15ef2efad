"""Decide what becomes of one person of a source: by what it says now, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sidecar.core.sync.entry import Entry
from sidecar.model import Identity


class Kind(Enum):
    """What one item of a plan does. WAIT and NOTE only keep the source's books."""

    CREATE = "create"
    UPDATE = "update"
    REACTIVATE = "reactivate"
    DEACTIVATE = "deactivate"
    DELETE = "delete"
    WAIT = "wait"
    NOTE = "note"
    SKIP = "skip"
    INVALID = "invalid"


# What an item of these kinds does is nothing to anybody.
QUIET = frozenset([Kind.WAIT, Kind.NOTE, Kind.SKIP, Kind.INVALID])


@dataclass(frozen=True, slots=True)
class Track:
    """What the books say of one person of the source.

    ``missing`` counts the complete runs without them, ``since`` is the time of the first of those; ``off`` is when the
    source had them switched off, None while they are on.
    """

    person_id: str
    mark: str
    missing: int = 0
    since: float | None = None
    off: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a person stands in the directory: ``off_by`` are all who have them switched off.

    ``identity`` is what this source last said, None when it never did.
    """

    person_id: str
    owner: str
    is_on: bool = True
    off_by: tuple[str, ...] = ()
    is_gone: bool = False
    is_protected: bool = False
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class Grace:
    """How long somebody missing in *source* is left alone, and when they are deleted (seconds; None: never)."""

    source: str
    runs: int = 3
    seconds: float = 86400.0
    delete_after: float | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One change: whom it is about, what, and why. ``after`` None leaves what the source said as it is."""

    kind: Kind
    external: str
    person_id: str
    reason: str
    before: Identity | None = None
    after: Identity | None = None
    active: bool = True
    joins: tuple[str, ...] = ()
    mark: str = ""
    missing: int = 0
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_rename(self) -> bool:
        """True when somebody is called otherwise from now on."""
        return self.before is not None and self.after is not None and self.before.username != self.after.username


def present(source: str, entry: Entry, mark: str, standing: Standing | None) -> Item:
    """What becomes of somebody whom the source tells of, and of whom it did not say exactly this before."""
    item = _Draft(entry.external, standing.person_id if standing else "", entry, mark, standing)
    if standing is None:
        return item.of(Kind.CREATE, "new in the source" if entry.active else "new in the source, and not active there")
    left_alone = _untouchable(source, standing)
    if left_alone:
        return item.of(Kind.SKIP, left_alone)
    if entry.active and not standing.is_on:
        others = [one for one in standing.off_by if one != source]
        if not others:
            return item.of(Kind.REACTIVATE, "active in the source again")
        return item.of(Kind.UPDATE, f"told anew; stays switched off by {', '.join(others)}")
    # Also when somebody else was faster, who may change their mind.
    if not entry.active and source not in standing.off_by:
        return item.of(Kind.DEACTIVATE, "not active in the source")
    if standing.identity is None:
        return item.of(Kind.UPDATE, "joined to the source")
    changed = differences(standing.identity, entry.identity)
    return item.of(Kind.UPDATE, "changed: " + ", ".join(changed)) if changed else item.of(Kind.NOTE, "as before")


def unreadable(source: str, external: str, standing: Standing, why: str, mark: str) -> Item:
    """What becomes of somebody who is not active in the source, and of whom nothing else can be read: *why*.

    Nobody stays because of what they are called.
    """
    if source in standing.off_by or _untouchable(source, standing):
        return Item(Kind.INVALID, external, standing.person_id, why)
    return _Draft(external, standing.person_id, None, mark, standing).of(
        Kind.DEACTIVATE, f"not active in the source, where nothing else can be read: {why}"
    )


def absent(track: Track, external: str, standing: Standing, grace: Grace, now: float) -> Item | None:
    """What becomes of somebody who was in the source and is not any more; None when nothing does."""
    item = _Draft(external, track.person_id, None, track.mark, standing)
    if _untouchable(grace.source, standing):
        return None
    missing, since = track.missing + 1, now if track.since is None else track.since
    has_waited = missing >= grace.runs and now - since >= grace.seconds
    if track.off is not None or not standing.is_on:
        # Whom somebody else switched off is not ours to delete.
        if grace.delete_after is None or track.off is None or now - track.off < grace.delete_after:
            return None
        if has_waited:
            return item.of(Kind.DELETE, "switched off long enough ago")
    elif has_waited:
        return item.of(Kind.DEACTIVATE, f"missing in {missing} runs", missing)
    return item.of(Kind.WAIT, f"missing in run {missing} of {grace.runs}", missing)


def _untouchable(source: str, standing: Standing) -> str:
    if standing.is_gone:
        return "removed for good"
    if standing.is_protected:
        return "protected"
    if _is_another(source, standing.owner):
        return f"owned by {standing.owner}"
    return ""


def _is_another(source: str, owner: str) -> bool:
    """True for people of another source; those who only signed in are nobody's yet."""
    return owner != source and (owner == "manual" or owner.startswith(("scim:", "sync:")))


@dataclass(frozen=True, slots=True)
class _Draft:
    external: str
    person_id: str
    entry: Entry | None
    mark: str
    standing: Standing | None

    def of(self, kind: Kind, reason: str, missing: int = 0) -> Item:
        entry, before = self.entry, self.standing.identity if self.standing else None
        return Item(
            kind=kind,
            external=self.external,
            person_id=self.person_id,
            reason=reason,
            before=before,
            after=None if entry is None or kind in (Kind.SKIP, Kind.NOTE) else entry.identity,
            active=True if entry is None else entry.active,
            joins=() if entry is None else entry.joins,
            mark=self.mark,
            missing=missing,
        )


def differences(before: Identity, after: Identity) -> tuple[str, ...]:
    """Names of what changed, for people to read."""
    found = [name for name in ("username", "email", "name") if getattr(before, name) != getattr(after, name)]
    if set(before.groups or ()) != set(after.groups or ()) or (before.groups is None) != (after.groups is None):
        found.append("groups")
    old, new = before.claims, after.claims
    return (*found, *sorted(name for name in {*old, *new} if old.get(name) != new.get(name)))


def shown(before: Identity | None, after: Identity | None) -> dict[str, tuple[Any, Any]]:
    """Name → (before, after) of what changes, for people to read."""
    names = differences(before or _NOBODY, after or _NOBODY)
    return {name: (_of(before, name), _of(after, name)) for name in names}


def _of(who: Identity | None, name: str) -> Any:
    if who is None:
        return None
    if name in ("username", "email", "name"):
        return getattr(who, name)
    return list(who.groups) if name == "groups" and who.groups is not None else who.claims.get(name)


_NOBODY = Identity("", "", "", "")

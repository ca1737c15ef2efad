"""Compare the accounts that the application has with those that it should have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from sidecar.core.template import MissingValueError, Template, TemplateError
from sidecar.core.wanted import folded

_LONGEST = 255
# Times beyond this are milliseconds: as seconds they are in the year 5138.
_MILLISECONDS = 1e11
# The end of the year 9999: what comes later could not be shown.
_LATEST = 253_402_300_799.0


class Finding(Enum):
    """What is wrong with one account."""

    LINGERING = "lingering"
    DISABLED = "disabled"
    ROLES = "roles"
    ORPHAN = "orphan"
    SIMILAR = "similar"
    MISSING = "missing"
    RENAMED = "renamed"
    REPLACED = "replaced"
    TWICE = "twice"
    DORMANT = "dormant"


WORDS: Mapping[Finding, str] = {
    Finding.LINGERING: "active there, though the person was switched off or is gone",
    Finding.DISABLED: "switched off there, though the person is active",
    Finding.ROLES: "has other roles there",
    Finding.ORPHAN: "active there, and nobody's here",
    Finding.SIMILAR: "nobody's here, but looks like somebody's",
    Finding.MISSING: "is not there any more",
    Finding.RENAMED: "is called otherwise there",
    Finding.REPLACED: "is another account under the same name",
    Finding.TWICE: "is there twice",
    Finding.DORMANT: "without a sign-in for long",
}
# Those that are put right by doing again what was done before. What nobody here made is nobody's here to change, and
# whoever was locked out there was so for a reason that is not known here.
FIXABLE = (Finding.LINGERING, Finding.ROLES)


@dataclass(frozen=True, slots=True)
class Listed:
    """One account as the application lists it; None is what the listing does not say. ``seen`` are epoch seconds."""

    key: str
    id: str = ""
    active: bool | None = None
    roles: tuple[str, ...] | None = None
    email: str = ""
    seen: float | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """One account as it is known here. ``is_on`` is False for people who were switched off or are gone.

    ``roles`` are those that it was given last, None when nothing was ever said about roles.
    """

    person_id: str
    username: str
    email: str
    is_on: bool
    key: str
    id: str = ""
    roles: tuple[str, ...] | None = None
    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class Living:
    """Somebody who is switched on and has no account here."""

    person_id: str
    username: str
    email: str


@dataclass(frozen=True, slots=True)
class Found:
    """One finding: which account, whose, what is seen there and what it should be."""

    finding: Finding
    account: str
    person_id: str = ""
    username: str = ""
    there: str = ""
    here: str = ""
    seen: float | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """How a row of the listing is read: templates over ``row``."""

    key: Template
    id: Template | None = None
    active: Template | None = None
    roles: Template | None = None
    email: Template | None = None
    seen: Template | None = None

    def read(self, row: Mapping[str, Any]) -> Listed:
        """Read one row. Raises TemplateError, and ValueError for what no account is called."""
        context = {"row": dict(row)}
        key = self.key.text(context).strip()
        if not key or len(key) > _LONGEST or not key.isprintable():
            message = "has no usable key"
            raise ValueError(message)
        return Listed(
            key=key,
            id=_optional(self.id, context),
            active=None if self.active is None else self.active.is_true(context),
            roles=None if self.roles is None else _names(self.roles.value(context)),
            email=_optional(self.email, context),
            seen=None if self.seen is None else _moment(self.seen, context),
        )


def _nobody(_key: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Standards:
    """What counts as drift. ``managed`` are the roles that are looked after; ``idle`` seconds without a sign-in.

    ``mode`` is that of the accounts' roles. ``left_alone`` says of an account key that nobody may touch it.
    """

    managed: frozenset[str] = frozenset()
    mode: str = "authoritative"
    idle: float | None = None
    now: float = 0.0
    left_alone: Callable[[str], bool] = _nobody


@dataclass(slots=True)
class Comparison:
    """Takes the listing, account by account, and gives what is wrong."""

    standards: Standards
    held: Sequence[Held]
    living: Iterable[Living] = ()
    _by_id: dict[str, Held] = field(default_factory=dict)
    _by_key: dict[str, Held] = field(default_factory=dict)
    _alike: dict[str, Living] = field(default_factory=dict)
    _seen: dict[str, str] = field(default_factory=dict)
    _keys: set[str] = field(default_factory=set)
    _missing: dict[str, Held] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index what is known here."""
        for one in self.held:
            self._missing[one.person_id] = one
            self._by_key[folded(one.key)] = one
            if one.id:
                self._by_id[one.id] = one
        for somebody in self.living:
            for name in (somebody.username, somebody.email):
                if name:
                    self._alike.setdefault(folded(name), somebody)

    def take(self, listed: Listed) -> Iterator[Found]:
        """What is wrong with an account that is there."""
        if self.standards.left_alone(listed.key):
            self._forget(listed)
            return
        known = self._by_id.get(listed.id) if listed.id else None
        namesake = self._by_key.get(folded(listed.key))
        if known is None and namesake is not None and listed.id and namesake.id and namesake.id != listed.id:
            self._missing.pop(namesake.person_id, None)
            yield self._of(Finding.REPLACED, listed, namesake, f"id {listed.id}", f"id {namesake.id}")
            return
        known = known or namesake
        if folded(listed.key) in self._keys or (known is not None and known.person_id in self._seen):
            before = self._seen.get(known.person_id, listed.key) if known is not None else listed.key
            yield self._of(Finding.TWICE, listed, known, listed.key, before)
        elif known is None:
            yield from self._nobodys(listed)
        else:
            yield from self._theirs(listed, known)
        self._keys.add(folded(listed.key))
        if known is not None:
            self._seen[known.person_id] = listed.key
            self._missing.pop(known.person_id, None)
        yield from self._dormant(listed, known)

    def rest(self) -> Iterator[Found]:
        """What should be there and is not; to be asked only when the listing was complete."""
        for one in self._missing.values():
            if one.is_on and not self.standards.left_alone(one.key):
                yield Found(Finding.MISSING, one.key, one.person_id, one.username, "", one.key)

    def _forget(self, listed: Listed) -> None:
        for known in (self._by_id.get(listed.id), self._by_key.get(folded(listed.key))):
            if known is not None:
                self._missing.pop(known.person_id, None)

    def _nobodys(self, listed: Listed) -> Iterator[Found]:
        if listed.active is False:
            return
        similar = self._alike.get(folded(listed.key)) or (
            self._alike.get(folded(listed.email)) if listed.email else None
        )
        if similar is not None:
            yield Found(
                Finding.SIMILAR, listed.key, similar.person_id, similar.username, _active(listed), "", listed.seen
            )
        else:
            yield Found(Finding.ORPHAN, listed.key, "", "", _active(listed), "", listed.seen)

    def _theirs(self, listed: Listed, known: Held) -> Iterator[Found]:
        if not known.is_on:
            if listed.active:
                yield self._of(Finding.LINGERING, listed, known, "active", "gone" if known.is_gone else "switched off")
            return
        if listed.active is False:
            yield self._of(Finding.DISABLED, listed, known, "switched off", "active")
        if folded(listed.key) != folded(known.key):
            yield self._of(Finding.RENAMED, listed, known, listed.key, known.key)
        there, here = self._roles(listed, known)
        if there != here:
            yield self._of(Finding.ROLES, listed, known, ", ".join(there), ", ".join(here))

    def _roles(self, listed: Listed, known: Held) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(managed roles there, those that there should be), equal where nobody looks after them."""
        if listed.roles is None or known.roles is None or self.standards.mode == "create_only":
            return (), ()
        there = sorted(set(listed.roles) & self.standards.managed)
        here = sorted(set(known.roles) & self.standards.managed)
        if self.standards.mode == "additive":
            here = sorted({*here, *there})
        return tuple(there), tuple(here)

    def _dormant(self, listed: Listed, known: Held | None) -> Iterator[Found]:
        idle, now = self.standards.idle, self.standards.now
        if idle is None or listed.seen is None or listed.active is False or now - listed.seen < idle:
            return
        yield self._of(Finding.DORMANT, listed, known, f"{int((now - listed.seen) / 86400)} days", "")

    def _of(self, finding: Finding, listed: Listed, known: Held | None, there: str, here: str) -> Found:
        person_id, username = (known.person_id, known.username) if known is not None else ("", "")
        return Found(finding, listed.key, person_id, username, there, here, listed.seen)


def _active(listed: Listed) -> str:
    return "active" if listed.active else ""


def _optional(template: Template | None, context: Mapping[str, Any]) -> str:
    if template is None:
        return ""
    try:
        return template.text(context).strip()[:_LONGEST]
    except MissingValueError:
        return ""


def _names(value: Any) -> tuple[str, ...]:
    """Names of roles: a list, or text with commas between them."""
    if value is None:
        return ()
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str | int) for part in parts):
        message = "roles are neither a list nor text"
        raise TemplateError(message)
    return tuple(dict.fromkeys(text for part in parts if (text := str(part).strip())))


def _moment(template: Template, context: Mapping[str, Any]) -> float | None:
    """Epoch seconds of a time: a number of seconds or milliseconds, or ISO 8601 (UTC where it says nothing)."""
    try:
        value = template.value(context)
    except MissingValueError:
        return None
    if isinstance(value, str):
        value = _number(value.strip())
    # Compared before it is converted: an integer of hundreds of digits is no float, and not infinite either.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LATEST * 1000:
        return None
    return float(value) / 1000 if value >= _MILLISECONDS else float(value)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()

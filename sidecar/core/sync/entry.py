"""Read one person out of a row of a source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sidecar.core.claims import IdentityPlan, identity_from
from sidecar.core.template import Template, TemplateError
from sidecar.faults import Refused
from sidecar.model import Identity
from sidecar.reason import Reason

LONGEST_ID = 255
Row = Mapping[str, Any]
# Made once: json.dumps with options makes one for every row.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode


@dataclass(frozen=True, slots=True)
class EntryPlan:
    """How rows are read. ``source`` is ``sync:NAME``; ``on`` is the attribute that joins people to their sign-in."""

    source: str
    id: str
    identity: IdentityPlan
    active: Template | None = None
    on: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a source says of one person; ``joins`` are values by which somebody who signs in is found."""

    external: str
    identity: Identity
    active: bool
    joins: tuple[str, ...] = ()


def external_of(row: Row, name: str) -> str:
    """The id of the person in *row*, "" when there is none that can be used."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = str(value).strip()
    return text if len(text) <= LONGEST_ID and text.isprintable() else ""


def mark_of(row: Row, salt: str) -> str:
    """Digest of everything that *row* says under the rules that *salt* stands for."""
    text = _encode(row)
    return hashlib.sha256(f"{salt}\n{text}".encode()).hexdigest()[:32]


def entry_of(row: Row, plan: EntryPlan) -> Entry:
    """Read *row*. Raises Refused(IDENTITY_INCOMPLETE) that says what is wrong, without a value."""
    external = external_of(row, plan.id)
    if not external:
        raise Refused(Reason.IDENTITY_INCOMPLETE, 422, f"no usable {plan.id}")
    claims = dict(row)
    who = identity_from(plan.source, plan.source, {**claims, "sub": external}, plan.identity)
    return Entry(external, replace(who, claims=claims), _is_active(claims, plan), _joins(claims, plan, external))


def is_off(row: Row, plan: EntryPlan) -> bool:
    """True when *row* says that the person is not active, whatever else in it can be read."""
    try:
        return not _is_active(dict(row), plan)
    except Refused:
        return False


def _is_active(claims: Mapping[str, Any], plan: EntryPlan) -> bool:
    if plan.active is None:
        return True
    try:
        return plan.active.is_true({"claims": claims})
    except TemplateError as error:
        raise Refused(Reason.IDENTITY_INCOMPLETE, 422, f"active: {error}") from None


def _joins(claims: Mapping[str, Any], plan: EntryPlan, external: str) -> tuple[str, ...]:
    value = claims.get(plan.on) if plan.on else external
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return ()
    return (str(value),)

"""Read the paths by which attributes are named in filters, changes and projections (RFC 7644, section 3.10)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.core.scim.schema import COMMON, Attribute, Kind

_NAME = re.compile(r"\$?[A-Za-z][A-Za-z0-9_-]*")
_UNKEPT = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: ``urn`` of an extension ("" for the resource itself), attribute, and part of it.

    Without ``attribute`` it is the whole extension.
    """

    urn: str = ""
    attribute: Attribute | None = None
    part: Attribute | None = None

    @property
    def leaf(self) -> Attribute | None:
        """What stands at the end of the path."""
        return self.part or self.attribute

    def values(self, resource: Mapping[str, Any]) -> Iterable[Any]:
        """Every value at this place of *resource*; for a list of complex values without a part, their ``value``."""
        if self.attribute is None:
            return
        found = (resource.get(self.urn) or {}) if self.urn else resource
        value = found.get(self.attribute.name)
        for one in value if isinstance(value, list) else [value]:
            if one is None:
                continue
            if self.part is not None:
                if isinstance(one, Mapping) and (inner := one.get(self.part.name)) is not None:
                    yield inner
            elif self.attribute.kind == "complex" and isinstance(one, Mapping):
                yield one.get("value", one)
            else:
                yield one


def can_be_kept(text: str) -> bool:
    """False for a text that some database can neither keep nor be asked for: with NUL, or half a character in it."""
    return _UNKEPT.search(text) is None


def place_of(kind: Kind, text: str) -> Place | None:
    """Where *text* leads in resources of *kind*; None for nowhere. Names count in any case of their letters."""
    urn, rest = _urn_of(kind, text)
    if urn and not rest:
        return None if urn == kind.core.urn else Place(urn)
    name, dot, part_name = rest.partition(".")
    if not _NAME.fullmatch(name) or (dot and not _NAME.fullmatch(part_name)):
        return None
    schema = kind.schema(urn) if urn else kind.core
    attribute = schema.attribute(name) if schema is not None else None
    if attribute is None and (not urn or urn == kind.core.urn):
        attribute = COMMON.get(name.lower())
    if attribute is None:
        return None
    part = attribute.part(part_name) if dot else None
    if dot and part is None:
        return None
    return Place("" if urn == kind.core.urn else urn, attribute, part)


def _urn_of(kind: Kind, text: str) -> tuple[str, str]:
    for schema in (kind.core, *kind.extensions):
        start = text[: len(schema.urn)]
        if start.lower() == schema.urn.lower():
            rest = text[len(start) :]
            # A dot in place of the colon is what some clients write.
            if not rest or rest[0] in ":.":
                return schema.urn, rest[1:]
    return "", text

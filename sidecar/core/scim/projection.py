"""Leave out of a resource what a client did not ask for (RFC 7644, section 3.9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.core.scim.fault import bad_value
from sidecar.core.scim.paths import Place, place_of
from sidecar.core.scim.schema import Kind

_ALWAYS = frozenset(["id", "schemas"])
# Many more than there are.
_MOST_NAMES = 1000


@dataclass(frozen=True, slots=True)
class _Cut:
    """What is left of an attribute: nothing, or these ``parts`` (None: all) but for those that are ``hidden``."""

    is_shown: bool
    parts: set[str] | None
    hidden: set[str]


@dataclass(frozen=True, slots=True)
class Projection:
    """What is shown: only ``wanted`` (None for all), and not ``unwanted``."""

    wanted: tuple[Place, ...] | None = None
    unwanted: tuple[Place, ...] = ()
    # By attribute what is left of it: the same for every resource of a page.
    _cuts: dict[tuple[str, str], _Cut] = field(default_factory=dict, compare=False, repr=False)

    def shows(self, attribute: str, urn: str = "") -> bool:
        """True when any part of this attribute may be seen: so that nothing is looked up in vain."""
        if any(_is_whole(one, attribute, urn) for one in self.unwanted):
            return False
        return self.wanted is None or any(_touches(one, attribute, urn) for one in self.wanted)

    def of(self, resource: Mapping[str, Any]) -> dict[str, Any]:
        """*resource* without what is not shown."""
        if self.wanted is None and not self.unwanted:
            return dict(resource)
        shown: dict[str, Any] = {}
        for name, value in resource.items():
            if name.startswith("urn:"):
                inner = {key: cut for key, one in value.items() if (cut := self._cut(key, one, name)) is not None}
                if inner:
                    shown[name] = inner
            elif (cut := self._cut(name, value, "")) is not None:
                shown[name] = cut
        return shown

    def _cut(self, name: str, value: Any, urn: str) -> Any:
        if not urn and name in _ALWAYS:
            return value
        cut = self._cuts.get((name, urn))
        if cut is None:
            hidden = {one.part.name for one in self.unwanted if one.part is not None and _touches(one, name, urn)}
            cut = self._cuts[name, urn] = _Cut(self.shows(name, urn), self._wanted_parts(name, urn), hidden)
        return _parts_of(value, cut.parts, cut.hidden) if cut.is_shown else None

    def _wanted_parts(self, name: str, urn: str) -> set[str] | None:
        if self.wanted is None:
            return None
        named = [one for one in self.wanted if _touches(one, name, urn)]
        return None if any(one.part is None for one in named) else {one.part.name for one in named if one.part}


def _touches(place: Place, attribute: str, urn: str) -> bool:
    return place.urn == urn and (place.attribute is None or place.attribute.name == attribute)


def _is_whole(place: Place, attribute: str, urn: str) -> bool:
    return place.part is None and _touches(place, attribute, urn)


def _parts_of(value: Any, parts: set[str] | None, hidden: set[str]) -> Any:
    if parts is None and not hidden:
        return value
    if isinstance(value, list):
        return [_parts_of(one, parts, hidden) for one in value]
    if not isinstance(value, Mapping):
        return value
    return {key: one for key, one in value.items() if (parts is None or key in parts) and key not in hidden}


def projection_of(kind: Kind, attributes: Any, excluded: Any) -> Projection:
    """Read both lists, as texts with commas or as lists of texts. Raises Fault(invalidValue)."""
    wanted, unwanted = _names(attributes), _names(excluded)
    if wanted and unwanted:
        raise bad_value("either attributes or excludedAttributes")
    places = [place for name in wanted if (place := place_of(kind, name)) is not None]
    hidden = [place for name in unwanted if (place := place_of(kind, name)) is not None]
    return Projection(tuple(places) if wanted else None, tuple(hidden))


def _names(value: Any) -> list[str]:
    if value is None:
        return []
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise bad_value("a list of attributes is expected")
    if len(names) > _MOST_NAMES:
        raise bad_value("too many attributes are named")
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))

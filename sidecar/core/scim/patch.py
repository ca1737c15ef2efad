"""Change a resource by the operations of a PATCH (RFC 7644, section 3.5.2), and by those that clients really send."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.core.scim.fault import Fault, bad_path, bad_syntax, bad_value
from sidecar.core.scim.filters import Both, Compare, Filter, fits, parse_inner
from sidecar.core.scim.paths import Place, place_of
from sidecar.core.scim.resource import Resource, canonical, key_of, put
from sidecar.core.scim.schema import Attribute, Kind

_MOST_OPERATIONS = 1000
# Comparisons of values that all operations together may take; some of those without a filter cost as much as one.
_MOST_LOOKS = 100_000
_PLAIN_LOOKS = 10
_JOINTS = re.compile(r"\b(?:and|or)\b", re.IGNORECASE)
_FILTERED = re.compile(r"(?P<list>[^\[\]]+)\[(?P<filter>.*)\](?:\.(?P<part>[^\[\].]+))?", re.DOTALL)
_OPERATIONS = frozenset(["add", "replace", "remove"])


@dataclass(frozen=True, slots=True)
class _Target:
    """Where an operation leads: a place, and within a list the values for which ``which`` holds."""

    place: Place
    which: Filter | None = None
    part: Attribute | None = None


def patched(resource: Resource, body: Any, kind: Kind, *, tolerant: bool) -> Resource:
    """*resource* after all operations of *body*; the original stays as it is. Raises Fault."""
    # Nothing is changed in place but an extension: values are put in the place of others.
    changed = {key: dict(value) if isinstance(value, dict) else value for key, value in resource.items()}
    looks = 0
    for operation in operations_of(body):
        looks += _looks(changed, operation)
        if looks > _MOST_LOOKS:
            raise Fault("tooMany", "the operations would look at too many values", 413)
        _apply(changed, operation, kind, tolerant=tolerant)
    for attribute in kind.core.attributes:
        if attribute.required and not changed.get(attribute.name):
            raise bad_value(f"{attribute.name} cannot be removed")
    return changed


def _looks(resource: Resource, operation: Mapping[str, Any]) -> int:
    """How many looks at values of lists *operation* takes, for each term of a filter one: everybody waits for them."""
    path, value = operation.get("path"), operation.get("value")
    looks = 0
    for name in (path, *(value if isinstance(value, Mapping) else ())):
        start, bracket, which = name.partition("[") if isinstance(name, str) else ("", "", "")
        lowered = start.rpartition(":")[2].partition(".")[0].strip().lower()
        lists = (one for key, one in resource.items() if key.lower() == lowered and isinstance(one, list))
        number = len(next(lists, ()))
        looks += number * (1 + len(_JOINTS.findall(which))) if bracket else number // _PLAIN_LOOKS
    return looks


def operations_of(body: Any) -> Sequence[Mapping[str, Any]]:
    """The operations that *body* lists. Raises Fault."""
    if not isinstance(body, Mapping):
        raise bad_syntax("a PATCH is a JSON object")
    found = next((value for key, value in body.items() if key.lower() == "operations"), None)
    if not isinstance(found, list) or not found or not all(isinstance(one, Mapping) for one in found):
        raise bad_syntax("Operations must be a list of JSON objects")
    if len(found) > _MOST_OPERATIONS:
        raise Fault("tooMany", "there are too many operations", 413)
    return found


def _apply(resource: Resource, operation: Mapping[str, Any], kind: Kind, *, tolerant: bool) -> None:
    verb = operation.get("op")
    if not isinstance(verb, str) or (verb.lower() if tolerant else verb) not in _OPERATIONS:
        raise bad_syntax("op must be add, replace or remove")
    verb = verb.lower()
    path = operation.get("path")
    if path is None or path == "":
        _apply_pathless(resource, verb, operation, kind, tolerant=tolerant)
        return
    if not isinstance(path, str):
        raise bad_path("path must be a text")
    target = target_of(kind, path)
    leaf = target.part or target.place.leaf
    if leaf is not None and leaf.is_read_only:
        if tolerant:
            return
        raise Fault("mutability", f"{leaf.name} is written by the server only")
    value = operation.get("value")
    if verb != "remove" and "value" not in operation:
        raise bad_value("value is missing")
    if target.which is not None:
        _change_some(resource, verb, target, value, tolerant=tolerant)
    elif verb == "remove":
        _remove(resource, target.place, value, tolerant=tolerant)
    else:
        _write(resource, verb, target.place, value, tolerant=tolerant)


def _apply_pathless(resource: Resource, verb: str, operation: Mapping[str, Any], kind: Kind, *, tolerant: bool) -> None:
    value = operation.get("value")
    if verb == "remove":
        raise Fault("noTarget", "remove needs a path")
    if not isinstance(value, Mapping):
        raise bad_value("without a path, value must be a JSON object")
    known = 0
    for key, one in value.items():
        target = target_of(kind, key, is_strict=False)
        if target is None:
            continue
        known += 1
        leaf = target.part or target.place.leaf
        if leaf is not None and leaf.is_read_only:
            continue
        if target.which is not None:
            _change_some(resource, verb, target, one, tolerant=tolerant)
        else:
            _write(resource, verb, target.place, one, tolerant=tolerant)
    if value and not known:
        # Else a deactivation that was misspelt would look as if it had been done.
        raise bad_path(f"there are no such attributes: {', '.join(list(value)[:5])}")


def target_of(kind: Kind, path: str, *, is_strict: bool = True) -> Any:
    """Where *path* leads; to nowhere: Fault(invalidPath), or None unless *is_strict*."""
    match = _FILTERED.fullmatch(path.strip())
    place = place_of(kind, match["list"] if match else path.strip())
    if place is None or (match and (place.attribute is None or place.part is not None)):
        if is_strict:
            raise bad_path(f"there is no attribute {path}")
        return None
    if match is None:
        return _Target(place)
    attribute = place.attribute
    if attribute is None or attribute.kind != "complex":
        raise bad_path(f"{path} has no parts that could be compared")
    part = attribute.part(match["part"]) if match["part"] else None
    if match["part"] and part is None:
        raise bad_path(f"there is no attribute {path}")
    return _Target(place, parse_inner(match["filter"], attribute), part)


def _inside(resource: Resource, place: Place) -> Resource:
    inside: Resource = (resource.get(place.urn) or {}) if place.urn else resource
    return inside


def _write(resource: Resource, verb: str, place: Place, value: Any, *, tolerant: bool) -> None:
    """Add or replace. What is added to a list joins it; the parts of a complex value stand beside those there."""
    attribute = place.attribute
    if attribute is None:
        if place.urn and isinstance(value, Mapping) and not value:
            return
        put(resource, place, value, tolerant=tolerant)
        return
    before = _inside(resource, place).get(attribute.name)
    if place.part is not None and attribute.many:
        # emails.value without saying which one: all of them.
        values = [{**one, place.part.name: value} for one in before or [{}]]
        put(resource, Place(place.urn, attribute), values, tolerant=tolerant)
    elif place.part is not None:
        put(resource, place, value, tolerant=tolerant)
    elif attribute.many and verb == "add":
        added = canonical(attribute, value, tolerant=tolerant) or []
        put(resource, place, _joined(before or [], added, attribute), tolerant=tolerant)
    elif attribute.kind == "complex" and not attribute.many and before:
        written = canonical(attribute, value, tolerant=tolerant)
        put(resource, place, None if written is None else {**before, **written}, tolerant=tolerant)
    else:
        put(resource, place, value, tolerant=tolerant)


def _joined(before: list[Any], added: list[Any], attribute: Attribute) -> list[Any]:
    if attribute.name == "members":
        present = {one.get("value") for one in before}
        return [*before, *(one for one in added if one.get("value") not in present)]
    present = {key_of(one) for one in before}
    new = [one for one in added if key_of(one) not in present]
    if any(isinstance(one, dict) and one.get("primary") for one in new):
        before = [{**one, "primary": False} if one.get("primary") else one for one in before]
    return [*before, *new]


def _remove(resource: Resource, place: Place, value: Any, *, tolerant: bool) -> None:
    attribute = place.attribute
    before = _inside(resource, place).get(attribute.name) if attribute is not None else None
    if attribute is not None and attribute.many and place.part is None and value not in (None, "", []):
        # Not in the RFC, but sent: remove these members, and by no means all of them.
        gone = {_name_of(one) for one in canonical(attribute, value, tolerant=True) or []}
        put(resource, place, [one for one in before or [] if _name_of(one) not in gone], tolerant=tolerant)
    elif place.part is not None and attribute is not None and attribute.many:
        rest = [{key: one[key] for key in one if key != place.part.name} for one in before or []]
        put(resource, Place(place.urn, attribute), rest, tolerant=tolerant)
    else:
        put(resource, place, None, tolerant=tolerant)


def _name_of(value: Any) -> Any:
    return value.get("value") if isinstance(value, Mapping) else value


def _change_some(resource: Resource, verb: str, target: _Target, value: Any, *, tolerant: bool) -> None:
    """Change those values of a list that a filter means."""
    attribute, which = target.place.attribute, target.which
    if attribute is None or which is None:
        return
    found = _inside(resource, target.place).get(attribute.name) or []
    before = found if isinstance(found, list) else [found]
    meant = [fits(which, one) for one in before]
    whole = Place(target.place.urn, attribute)
    if verb == "remove":
        rest = [_without(one, target.part) if is_meant else one for one, is_meant in zip(before, meant, strict=True)]
        put(resource, whole, [one for one in rest if one] or None, tolerant=tolerant)
        return
    written = {target.part.name: value} if target.part is not None else value
    if not isinstance(written, Mapping):
        raise bad_value("value must be a JSON object")
    if any(meant):
        both = zip(before, meant, strict=True)
        after = [{**one, **written} if is_meant else _yielding(one, written) for one, is_meant in both]
    elif verb == "replace" and not tolerant:
        raise Fault("noTarget", f"no value of {attribute.name} is meant")
    else:
        after = [*(_yielding(one, written) for one in before), {**_described(which), **written}]
    put(resource, whole, after, tolerant=tolerant)


def _without(value: Mapping[str, Any], part: Attribute | None) -> dict[str, Any]:
    return {} if part is None else {key: one for key, one in value.items() if key != part.name}


def _yielding(value: dict[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """*value*, no longer the first choice when what is *written* is."""
    return {**value, "primary": False} if value.get("primary") and written.get("primary") is True else value


def _described(which: Filter) -> dict[str, Any]:
    """The value that a filter describes: ``type eq "work"`` is one of type work."""
    terms = which.terms if isinstance(which, Both) else (which,)
    return {
        one.place.attribute.name: one.value
        for one in terms
        if isinstance(one, Compare) and one.operator == "eq" and one.place.attribute is not None
    }

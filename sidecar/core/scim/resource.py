"""Bring what clients send into one form, as tolerantly as they were configured (RFC 7643, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.core.scim.fault import bad_syntax, bad_value
from sidecar.core.scim.paths import Place, can_be_kept, place_of
from sidecar.core.scim.schema import EXTERNAL_ID, KINDS, Attribute, Kind

LONGEST_NAME = 190
_LONGEST_TEXT = 4096
_MOST_VALUES = 200
_TRUTHS = {"true": True, "false": False}

Resource = dict[str, Any]


def read_resource(body: Any, kind: Kind, *, tolerant: bool) -> Resource:
    """Everything in *body* that a client may write, under its proper names. Raises Fault.

    What only the server writes is left out, as the RFC says; so is what no schema knows.
    """
    if not isinstance(body, Mapping):
        raise bad_syntax("a resource is a JSON object")
    _check_schemas(body, kind, tolerant=tolerant)
    resource: Resource = {}
    for key, value in body.items():
        place = place_of(kind, key)
        if place is not None:
            put(resource, place, value, tolerant=tolerant)
    for attribute in kind.core.attributes:
        if attribute.required and not resource.get(attribute.name):
            raise bad_value(f"{attribute.name} is missing")
    return resource


def _check_schemas(body: Mapping[str, Any], kind: Kind, *, tolerant: bool) -> None:
    schemas = next((value for key, value in body.items() if key.lower() == "schemas"), None)
    if schemas is None and tolerant:
        return
    named = [one.lower() for one in schemas if isinstance(one, str)] if isinstance(schemas, list) else []
    if kind.core.urn.lower() not in named and not tolerant:
        raise bad_syntax(f"schemas does not name {kind.core.urn}")


def put(resource: Resource, place: Place, value: Any, *, tolerant: bool) -> None:
    """Set what stands at *place* of *resource* to *value*; None and what is empty remove it. Raises Fault."""
    if place.attribute is None:
        _put_extension(resource, place, value, tolerant=tolerant)
        return
    if place.attribute.is_read_only:
        return
    inside = resource.setdefault(place.urn, {}) if place.urn else resource
    if place.part is not None and place.attribute.many:
        value = [{place.part.name: value}]
    elif place.part is not None:
        value = {**(inside.get(place.attribute.name) or {}), place.part.name: value}
    found = canonical(place.attribute, value, tolerant=tolerant)
    if found is None:
        inside.pop(place.attribute.name, None)
    else:
        inside[place.attribute.name] = found
    if place.urn and not inside:
        del resource[place.urn]


def _put_extension(resource: Resource, place: Place, value: Any, *, tolerant: bool) -> None:
    if value is None:
        resource.pop(place.urn, None)
        return
    if not isinstance(value, Mapping):
        raise bad_syntax("an extension is a JSON object")
    kind = next((kind for kind in KINDS if kind.schema(place.urn) is not None), None)
    for key, one in value.items():
        inner = place_of(kind, f"{place.urn}:{key}") if kind is not None else None
        if inner is not None and inner.attribute is not None:
            put(resource, inner, one, tolerant=tolerant)


def canonical(attribute: Attribute, value: Any, *, tolerant: bool) -> Any:
    """*value* as *attribute* wants it; None where there is nothing. Raises Fault(invalidValue)."""
    if not attribute.many:
        return _single(attribute, value, tolerant=tolerant)
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    if len(values) > _MOST_VALUES and attribute.name != "members":
        raise bad_value(f"{attribute.name} has too many values")
    found = [one for one in (_single(attribute, one, tolerant=tolerant) for one in values) if one is not None]
    return _distinct(found, attribute, tolerant=tolerant) or None


def key_of(value: Any) -> Any:
    """The same for two values of a list that are the same, in their canonical form."""
    return frozenset(value.items()) if isinstance(value, dict) else value


def _distinct(values: list[Any], attribute: Attribute, *, tolerant: bool) -> list[Any]:
    if attribute.name == "members":
        return list({one.get("value"): one for one in values}.values())
    found: dict[Any, Any] = {}
    for one in values:
        found.setdefault(key_of(one), one)
    distinct = list(found.values())
    first = [one for one in distinct if isinstance(one, dict) and one.get("primary") is True]
    if len(first) > 1:
        if not tolerant:
            raise bad_value(f"{attribute.name} has more than one primary value")
        for one in first[1:]:
            one["primary"] = False
    return distinct


def _single(attribute: Attribute, value: Any, *, tolerant: bool) -> Any:
    if value is None:
        return None
    match attribute.kind:
        case "boolean":
            return _boolean(attribute, value, tolerant=tolerant)
        case "complex":
            return _complex(attribute, value, tolerant=tolerant)
        case _:
            return _text(attribute, value, tolerant=tolerant)


def _boolean(attribute: Attribute, value: Any, *, tolerant: bool) -> bool:
    if tolerant and isinstance(value, str):
        value = _TRUTHS.get(value.strip().lower())
    if not isinstance(value, bool):
        raise bad_value(f"{attribute.name} must be true or false")
    return value


def _text(attribute: Attribute, value: Any, *, tolerant: bool) -> str | None:
    if tolerant and isinstance(value, int | float):
        value = str(value).lower() if isinstance(value, bool) else str(value)
    if not isinstance(value, str):
        raise bad_value(f"{attribute.name} must be a text")
    if len(value) > (LONGEST_NAME if attribute.uniqueness == "server" else _LONGEST_TEXT):
        raise bad_value(f"{attribute.name} is too long")
    if not can_be_kept(value):
        raise bad_value(f"{attribute.name} has letters in it that cannot be kept")
    return value.strip() if attribute.uniqueness == "server" else value or None


def _complex(attribute: Attribute, value: Any, *, tolerant: bool) -> dict[str, Any] | None:
    if tolerant and isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and (tolerant or attribute.many):
        value = {"value": value}
    if tolerant and value == []:
        return None
    if not isinstance(value, Mapping):
        raise bad_value(f"{attribute.name} must be a JSON object")
    found: dict[str, Any] = {}
    for key, one in value.items():
        part = attribute.part(key)
        if part is not None and not part.is_read_only:
            inner = canonical(part, one, tolerant=tolerant)
            if inner is not None:
                found[part.name] = inner
    return found or None


def external_id(resource: Mapping[str, Any]) -> str:
    """What the client calls the resource, "" for nothing."""
    return str(resource.get(EXTERNAL_ID.name, ""))

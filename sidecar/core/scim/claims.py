"""Give the attributes of somebody whom SCIM tells of as claims, so that templates read them like a sign-in's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.core.scim.schema import ENTERPRISE

# The first choice of these lists, under a name of its own.
_FIRST = {"emails": "email", "phoneNumbers": "phoneNumber"}


def claims_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """All attributes in one mapping: the parts of ``name`` and the enterprise extension stand beside the others.

    ``email`` and ``phoneNumber`` are the first choice of their lists, ``manager`` is the manager's id.
    """
    claims = {key: value for key, value in document.items() if key != "name" and not key.startswith("urn:")}
    claims |= document.get("name") or {}
    enterprise = dict(document.get(ENTERPRISE) or {})
    manager = enterprise.pop("manager", None)
    claims |= enterprise
    if isinstance(manager, Mapping) and manager.get("value"):
        claims["manager"] = manager["value"]
    for many, single in _FIRST.items():
        first = _first(document.get(many) or ())
        if first:
            claims[single] = first
    claims.setdefault("displayName", _called(claims))
    return claims


def _first(values: Any) -> str:
    ranked = sorted(values, key=lambda one: (not one.get("primary"), one.get("type") != "work"))
    return next((str(one["value"]) for one in ranked if one.get("value")), "")


def _called(claims: Mapping[str, Any]) -> str:
    parts = (str(claims[key]) for key in ("givenName", "familyName") if claims.get(key))
    return str(claims.get("formatted") or " ".join(parts) or claims.get("userName", ""))

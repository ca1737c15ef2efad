"""Write the items of a plan down, and read them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sidecar.core.sync.plan import Item, Kind
from sidecar.model import Identity

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str).encode


def written(item: Item) -> str:
    """*item* as text; the same item gives the same text."""
    parts: dict[str, Any] = {
        "external": item.external,
        "reason": item.reason,
        "before": _plain(item.before),
        "after": _plain(item.after),
        "active": item.active,
        "joins": list(item.joins),
        "mark": item.mark,
        "missing": item.missing,
        "roles": {name: list(roles) for name, roles in item.roles.items()},
    }
    return _encode(parts)


def read(source: str, kind: str, person_id: str, text: str) -> Item:
    """The item that ``written`` wrote down."""
    parts = json.loads(text)
    external = parts["external"]
    return Item(
        kind=Kind(kind),
        external=external,
        person_id=person_id,
        reason=parts["reason"],
        before=_identity(source, external, parts["before"]),
        after=_identity(source, external, parts["after"]),
        active=parts["active"],
        joins=tuple(parts["joins"]),
        mark=parts["mark"],
        missing=parts["missing"],
        roles={name: tuple(roles) for name, roles in parts["roles"].items()},
    )


def digest_of(kind: Kind, person_id: str, text: str) -> bytes:
    """Digest of one written item."""
    return hashlib.sha256(f"{kind.value}\n{person_id}\n{text}".encode(errors="surrogatepass")).digest()


def _plain(who: Identity | None) -> Mapping[str, Any] | None:
    if who is None:
        return None
    return {
        "username": who.username,
        "email": who.email,
        "name": who.name,
        "groups": None if who.groups is None else list(who.groups),
        "claims": dict(who.claims),
    }


def _identity(source: str, external: str, parts: Mapping[str, Any] | None) -> Identity | None:
    if parts is None:
        return None
    groups = parts["groups"]
    return Identity(
        provider=source,
        issuer=source,
        subject=external,
        username=parts["username"],
        email=parts["email"],
        name=parts["name"],
        groups=None if groups is None else tuple(groups),
        claims=parts["claims"],
    )

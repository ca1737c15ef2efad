"""Lay out what the templates of hooks can read: the order, and the answer of the application."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sidecar.hooks.order import Order

_DEEPEST = 64


class Fields(dict[str, Any]):
    """A mapping whose entries can be read as attributes, also those named like a method of dict (``body.items``)."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        """Prefer the entry *name* to the method *name*."""
        if dict.__contains__(self, name):
            return dict.__getitem__(self, name)
        return super().__getattribute__(name)


def fields_of(value: Any, depth: int = 0) -> Any:
    """Copy a JSON value with its objects as ``Fields``; raises ValueError when it is nested too deeply."""
    if depth > _DEEPEST:
        message = f"more than {_DEEPEST} levels"
        raise ValueError(message)
    if isinstance(value, Mapping):
        return Fields({str(name): fields_of(part, depth + 1) for name, part in value.items()})
    if isinstance(value, list | tuple):
        return [fields_of(part, depth + 1) for part in value]
    return value


def order_context(order: Order, saved: Mapping[str, str]) -> dict[str, Any]:
    """Give every variable of ``ORDER_NAMES`` except ``item``; *saved* are the values that earlier steps saved."""
    person = order.identity
    return {
        "user": Fields(
            username=person.username,
            email=person.email,
            name=person.name,
            groups=list(person.groups or ()),
        ),
        "claims": dict(person.claims),
        # The key and the id are the binding; an output of the same name must not replace them.
        "account": Fields({**order.account.outputs, "key": order.account.key, "id": order.account.id}),
        "attributes": Fields(order.attributes),
        "changed": sorted(order.changed),
        "roles": list(order.roles),
        "role": order.roles[0] if order.roles else "",
        "roles_added": list(order.added),
        "roles_removed": list(order.removed),
        "generated": Fields(order.generated),
        "saved": Fields(saved),
        "change": order.change.value,
        "now": datetime.fromtimestamp(order.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "idempotency": order.idempotency,
        "new_key": order.new_key,
    }

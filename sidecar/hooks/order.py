"""The seam between provisioning and the application: one order, its outcome, and the calls it would make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sidecar.model import Account, Change, Identity, Outcome


@dataclass(frozen=True, slots=True)
class Order:
    """One change asked of the application, for one person.

    ``attributes`` are the evaluated attributes to write (name → text), ``changed`` those of them that are new;
    ``roles`` the application roles the account shall have, ``added`` and ``removed`` the difference to what it has.
    ``generated`` holds values made for this order only (``password``, ``uuid``); they are never saved.
    ``idempotency`` is stable for repetitions of the same order. ``new_key`` is the key to
    give the account (RENAME).
    """

    change: Change
    identity: Identity
    account: Account
    attributes: Mapping[str, str] = field(default_factory=dict)
    changed: frozenset[str] = frozenset()
    roles: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    generated: Mapping[str, str] = field(default_factory=dict, repr=False)
    idempotency: str = ""
    now: float = 0.0
    new_key: str = ""


# The variables that templates of hooks may use; the configuration is checked against the same names.
ORDER_NAMES = frozenset(
    [
        *("user", "claims", "account", "attributes", "changed", "roles", "role", "roles_added", "roles_removed"),
        *("generated", "saved", "item", "change", "now", "idempotency", "new_key"),
    ]
)
ANSWER_NAMES = frozenset(["status", "body", "headers", "row", "rows", "affected"])


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call that would be made: what ``sidecar plan`` prints. Secrets and generated values are masked."""

    step: str
    target: str
    action: str
    values: Mapping[str, Any] = field(default_factory=dict)


class Hook(Protocol):
    """Acts on accounts inside the application."""

    def has(self, change: Change) -> bool:
        """True when there are steps for this change."""

    async def apply(self, order: Order) -> Outcome:
        """Carry the order out. Raises ``Unavailable(PROVISIONING_DOWN)`` when the application surely did nothing."""

    async def verify(self, order: Order) -> Outcome | None:
        """Read back after a change; None when no ``verify`` steps are configured."""

    def plan(self, order: Order) -> tuple[PlannedCall, ...]:
        """What apply would do, without doing it; values known only from answers are shown as ``<body.id>``."""

    async def probe(self) -> Mapping[str, str]:
        """Reach each connection: name → one line that describes it, or what is wrong with it."""

    async def close(self) -> None:
        """Let go of connections."""

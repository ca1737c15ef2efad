"""Ask the application for things through the hook, and say what its answers mean for the person at the door."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from dataclasses import dataclass, replace

from sidecar.core.accounts import Verdict
from sidecar.core.wanted import Wanted
from sidecar.faults import Refused, Unavailable
from sidecar.hooks.order import Hook, Order
from sidecar.model import Account, Change, Identity, Outcome, Result
from sidecar.reason import Reason

SUCCESSES = frozenset([Result.FOUND, Result.CREATED, Result.UPDATED])
_LOOKUPS = frozenset([Result.FOUND, Result.NOT_FOUND, Result.AMBIGUOUS])


@dataclass(frozen=True, slots=True)
class Job:
    """One person's provisioning: who, what is wanted, its fingerprint, and the time (epoch seconds)."""

    identity: Identity
    wanted: Wanted
    mark: str
    now: float


def order_of(change: Change, job: Job, verdict: Verdict, idempotency: str = "") -> Order:
    """The order that makes one change of *verdict*."""
    return Order(
        change=change,
        identity=job.identity,
        account=verdict.account,
        attributes=verdict.attributes,
        changed=verdict.changed,
        roles=verdict.roles,
        added=verdict.added,
        removed=verdict.removed,
        generated={} if change is Change.LOOKUP else generated(),
        idempotency=idempotency,
        now=job.now,
    )


def lookup_of(job: Job, account: Account) -> Order:
    """The order that looks *account* up."""
    return Order(Change.LOOKUP, job.identity, account, attributes=job.wanted.written, now=job.now)


def generated() -> dict[str, str]:
    """Values made for one order only."""
    return {"password": secrets.token_urlsafe(24), "uuid": str(uuid.uuid4())}


def repetition_key(*parts: object) -> str:
    """Idempotency key that is the same whenever the *parts* are."""
    return hashlib.sha256("\n".join(str(part) for part in parts).encode()).hexdigest()[:32]


class Application:
    """The hook, with its outcomes read."""

    def __init__(self, hook: Hook) -> None:
        """Act through *hook*."""
        self.hook = hook

    async def look(self, job: Job, account: Account) -> Outcome:
        """Look *account* up: FOUND, NOT_FOUND or AMBIGUOUS; Unavailable(PROVISIONING_DOWN) for every other end."""
        found = await self.hook.apply(lookup_of(job, account))
        if found.result not in _LOOKUPS:
            raise Unavailable(Reason.PROVISIONING_DOWN, f"lookup {found.result.value}: {found.detail}")
        return found

    async def change(self, order: Order) -> Outcome:
        """Carry *order* out and read it back.

        Raises Refused(ACCOUNT_REFUSED) when the application does not want it, Unavailable(PROVISIONING_DOWN) when it
        failed, or when nobody can say.
        """
        outcome = await self.hook.apply(order)
        if outcome.result not in SUCCESSES:
            raise failure_of(order.change, outcome)
        if order.change is not Change.DELETE:
            await self.verify(order)
        return outcome

    async def verify(self, order: Order) -> None:
        """Read back where that is configured. Raises Unavailable when the application is not as ordered."""
        seen = await self.hook.verify(order)
        if seen is not None and seen.result is not Result.FOUND:
            detail = f"{order.change.value} was not confirmed by verify: {seen.detail}"
            raise Unavailable(Reason.PROVISIONING_DOWN, detail)


def failure_of(change: Change, outcome: Outcome) -> Refused | Unavailable:
    """The exception that an unsuccessful *outcome* means."""
    detail = f"{change.value} {outcome.result.value}: {outcome.detail}"
    if outcome.result in (Result.REFUSED, Result.CONFLICT):
        return Refused(Reason.ACCOUNT_REFUSED, 403, detail)
    return Unavailable(Reason.PROVISIONING_DOWN, detail)


def with_saved(account: Account, outcome: Outcome) -> Account:
    """*account* with what the application told: outputs, and its id unless known already."""
    return replace(account, id=account.id or outcome.saved.get("id", ""), outputs={**account.outputs, **outcome.saved})

"""Carry out orders by the steps of the configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sqlalchemy.exc import DBAPIError

from sidecar.config.provision import Provision, RestStep
from sidecar.core.template import TemplateError
from sidecar.faults import Unavailable
from sidecar.hooks.calls import run_rest
from sidecar.hooks.check import problems
from sidecar.hooks.context import order_context
from sidecar.hooks.matching import SUCCESSES, StepError, success_of
from sidecar.hooks.order import Order, PlannedCall
from sidecar.hooks.plan import planned
from sidecar.hooks.request import Request, build_request
from sidecar.hooks.rest import RestApi
from sidecar.hooks.sql import CommitLost, Database, Transaction, bound, refusal_of, run_sql
from sidecar.hooks.step import Placed, evaluated, items_of, placed, section_steps, transactions
from sidecar.model import Change, Outcome, Result
from sidecar.telemetry import spans

# Where every condition may say that there is nothing to do.
_MAY_BE_IDLE = frozenset([Change.UPDATE, Change.SET_ROLES])


@dataclass(slots=True)
class _Progress:
    """What an order has come to so far."""

    order: Order
    change: Change
    saved: dict[str, str] = field(default_factory=dict)
    is_found: bool = False
    has_run: bool = False
    has_changed: bool = False
    end: Outcome | None = None

    def context(self) -> dict[str, Any]:
        return order_context(self.order, self.saved)

    def is_too_early(self, step: Placed) -> bool:
        """True for a step that adds to what a lookup found, while nothing was found."""
        return self.change is Change.LOOKUP and step.needs_saved and not self.is_found

    def note(self, step: Placed, outcome: Outcome) -> None:
        """Take the outcome of one step in; ``end`` is set when it is the last one."""
        self.has_run = True
        if outcome.result in SUCCESSES:
            self._merge(step.place, outcome.saved)
            self.is_found = True
        elif outcome.result is not Result.NOT_FOUND or self.change is not Change.LOOKUP:
            self.end = replace(outcome, saved=dict(self.saved), detail=f"{step.place}: {outcome.detail}")

    def fail(self, step: Placed, error: Exception) -> None:
        """End because a template or an answer of *step* cannot be used."""
        self.end = Outcome(Result.FAILED, dict(self.saved), f"{step.place}: {error}")

    def _merge(self, place: str, values: Mapping[str, str]) -> None:
        if self.change is Change.LOOKUP:
            for name, value in values.items():
                # Two ways to search that find two accounts must not be mixed into one.
                if self.saved.get(name, value) != value:
                    self.end = Outcome(Result.AMBIGUOUS, {}, f"{place}: another {name} than before")
                    return
        self.saved.update(values)

    def ended(self) -> Outcome:
        if self.end is not None:
            return self.end
        if self.change is Change.LOOKUP:
            if not self.has_run:
                return Outcome(Result.FAILED, {}, "no step of the lookup ran")
            return Outcome(Result.FOUND if self.is_found else Result.NOT_FOUND, dict(self.saved))
        if self.change not in _MAY_BE_IDLE and not self.has_run:
            # Else an account whose conditions all say no would count as switched off.
            return Outcome(Result.FAILED, {}, f"no step of {self.change.value} ran")
        return Outcome(success_of(self.change), dict(self.saved))


class StepHook:
    """The hook that the section ``provision`` describes."""

    def __init__(self, section: Provision, tell: Callable[[str, float], None] | None = None) -> None:
        """Connects to nothing yet. *tell* hears of each order: its change, and how many seconds it took.

        Raises ValueError that names every problem of *section*.
        """
        found = problems(section)
        if found:
            raise ValueError("; ".join(f"{path}: {message}" for path, message in found))
        self._tell = tell
        self._steps = section_steps(section)
        self._verify = placed("verify", section.verify)
        self._databases: dict[str, Database] = {}
        self._apis: dict[str, RestApi] = {}
        for name, connection in section.connections.items():
            if connection.sql is not None:
                self._databases[name] = Database(name, connection.sql, connection.timeout)
            elif connection.rest is not None:
                self._apis[name] = RestApi(name, connection.rest)

    def has(self, change: Change) -> bool:
        """True when there are steps for this change."""
        return bool(self._steps.get(change))

    async def apply(self, order: Order) -> Outcome:
        """Carry the order out, step after step, until one does not succeed.

        Raises ``Unavailable(PROVISIONING_DOWN)`` when the application surely did nothing.
        """
        began = time.perf_counter()
        try:
            return await self._run(self._steps[order.change], _Progress(order, order.change))
        finally:
            if self._tell is not None:
                self._tell(order.change.value, time.perf_counter() - began)

    async def verify(self, order: Order) -> Outcome | None:
        """Read back after a change, by the rules of a lookup; None when no ``verify`` steps are configured."""
        if not self._verify:
            return None
        return await self._run(self._verify, _Progress(order, Change.LOOKUP))

    def plan(self, order: Order) -> tuple[PlannedCall, ...]:
        """What apply would do, without doing it; values known only from answers are shown as ``<body.id>``."""
        return planned(self._steps.get(order.change, ()), order)

    async def probe(self) -> Mapping[str, str]:
        """Reach each connection: name → ``ok: …`` or ``failed: …``."""
        lines: dict[str, str] = {}
        for name, connection in self._connections():
            try:
                lines[name] = f"ok: {await connection.probe()}"
            except Unavailable as error:
                lines[name] = f"failed: {error.detail}"
        return lines

    async def close(self) -> None:
        """Let go of connections."""
        for _, connection in self._connections():
            await connection.close()

    def _connections(self) -> list[tuple[str, Database | RestApi]]:
        return [*self._databases.items(), *self._apis.items()]

    async def _run(self, steps: Sequence[Placed], progress: _Progress) -> Outcome:
        for group in transactions(steps):
            try:
                if group[0].database:
                    await self._run_sql(group, progress)
                else:
                    await self._run_rest(group[0], progress)
            except Unavailable as error:
                if not progress.has_changed:
                    raise
                # An earlier step has had its effect, so "surely nothing" would be untrue.
                return Outcome(Result.UNKNOWN, dict(progress.saved), f"{group[0].place}: {error.detail}")
            if progress.end is not None:
                break
        return progress.ended()

    async def _run_rest(self, step: Placed, progress: _Progress) -> None:
        rest = step.rest
        if rest is None or progress.is_too_early(step):
            return
        try:
            for number, context in enumerate(items_of(step.step, progress.context())):
                build = partial(build_request, rest, context, _call_key(progress.order, step, number))
                request = await evaluated(step.is_slow, build)
                await self._call(step, rest, request, context, progress)
                if progress.end is not None:
                    return
        except (StepError, TemplateError) as error:
            progress.fail(step, error)

    async def _call(
        self, step: Placed, rest: RestStep, request: Request, context: Mapping[str, Any], progress: _Progress
    ) -> None:
        with spans.step("hook", "client", step=step.place, connection=rest.on):
            outcome = await run_rest(
                self._apis[rest.on], rest, request, context, change=progress.change, enriches=progress.is_found
            )
            spans.note(result=outcome.result.value)
        progress.note(step, outcome)
        if progress.end is None and progress.change is not Change.LOOKUP:
            progress.has_changed |= rest.method != "GET"

    async def _run_sql(self, group: Sequence[Placed], progress: _Progress) -> None:
        """Run neighbouring statements in one transaction; a lookup never commits, so it cannot change anything."""
        database = self._databases[group[0].database]
        writes = progress.change is not Change.LOOKUP
        before = dict(progress.saved)
        async with database.transaction(writes=writes) as transaction:
            for step in group:
                await self._run_statements(step, transaction, database.dialect, progress)
                if progress.end is not None:
                    # What was rolled back has no id.
                    progress.end = replace(progress.end, saved=before)
                    return
            if writes and (lost := await _committed(transaction)) is not None:
                progress.end = replace(lost, saved=before, detail=f"{group[-1].place}: {lost.detail}")
            progress.has_changed |= writes

    async def _run_statements(self, step: Placed, transaction: Transaction, dialect: str, progress: _Progress) -> None:
        sql = step.sql
        if sql is None or progress.is_too_early(step):
            return
        try:
            for context in items_of(step.step, progress.context()):
                values = await evaluated(step.is_slow, partial(bound, sql, context, dialect))
                with spans.step("hook", "client", step=step.place, connection=sql.on):
                    outcome = await run_sql(
                        transaction, sql, values, context, change=progress.change, enriches=progress.is_found
                    )
                    spans.note(result=outcome.result.value)
                progress.note(step, outcome)
                if progress.end is not None:
                    return
        except (StepError, TemplateError) as error:
            progress.fail(step, error)


async def _committed(transaction: Transaction) -> Outcome | None:
    """Commit; None when that went well."""
    try:
        await transaction.commit()
    except CommitLost:
        return Outcome(Result.UNKNOWN, detail="the connection was lost while committing")
    except DBAPIError as error:
        return refusal_of(error)
    return None


def _call_key(order: Order, step: Placed, number: int) -> str:
    """Idempotency key of one call: the order's, and which of its calls this is."""
    place = step.place.replace("[", "-").replace("]", "")
    return f"{order.idempotency}-{place}-{number}" if order.idempotency else ""

"""Carry out a stored plan, item by item, so that a run that is killed anywhere goes on where it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from sqlalchemy.exc import IntegrityError

from sidecar.core.audit import Event
from sidecar.core.sync.document import read
from sidecar.core.sync.plan import QUIET, Item, Kind, shown
from sidecar.directory.sync import SyncBook
from sidecar.directory.sync_apply import Desk, carry_out, give_back
from sidecar.directory.sync_runs import PlannedItem, RunRecord
from sidecar.faults import Refused, Unavailable
from sidecar.model import Person

_AT_ONCE = 25
_MOST_TRIES = 3

Record = Callable[[Event, dict[str, object]], None]
Progress = Callable[[str, int, int], None]


class Accounts(Protocol):
    """What makes everybody notice that somebody has changed; ``provision.Provisioner`` is it."""

    async def disable(self, person_id: str, by: str, now: float) -> Person:
        """End the sessions of somebody who is switched off."""

    async def enable(self, person_id: str, by: str, now: float) -> Person:
        """Let somebody in again."""

    async def remove(self, person_id: str, by: str, now: float) -> Person:
        """End the sessions of somebody who is gone for good."""


class Applier:
    """Carries out the items of one run. Raises Unavailable and LeaseLost; what is done stays done."""

    def __init__(  # noqa: PLR0917 - the parts that it joins
        self,
        book: SyncBook,
        desk: Callable[[], Desk],
        accounts: Accounts,
        announce: Callable[[Sequence[str]], Awaitable[None]],
        record: Record,
        progress: Progress,
    ) -> None:
        """Work at *desk()*; *announce* tells every replica that these people have changed."""
        self._book = book
        self._desk = desk
        self._accounts = accounts
        self._announce = announce
        self._record = record
        self._progress = progress
        self.done: Counter[str] = Counter()
        self.failed = 0

    async def apply(self, run: RunRecord, errors: tuple[int, int], *, takes_nothing_away: bool = False) -> bool:
        """Do everything that is due; False when too much of it failed, by *errors* (count, percent)."""
        total, tried, last = int(run.head["items"]), 0, -1
        before = total - await self._left(run.id)
        while items := await self._due(run.id, last):
            last = items[-1].number
            read_items = [(one, read(run.source, one.kind, one.person_id, one.document)) for one in items]
            if takes_nothing_away:
                read_items = [(one, _harmless(item)) for one, item in read_items]
            await self._some(run, read_items)
            tried += len(items)
            self._progress("apply", min(before + tried, total), total)
            if self.failed > errors[0] and self.failed * 100 > errors[1] * tried:
                return False
        return True

    async def _due(self, run_id: str, last: int) -> list[PlannedItem]:
        """What comes after the number *last*; then what is to be tried again, from the beginning."""
        found = await self._book.items(run_id, after=last, limit=_AT_ONCE, state="due")
        return found or await self._book.items(run_id, limit=_AT_ONCE, state="due")

    async def _left(self, run_id: str) -> int:
        counts = await self._book.item_counts(run_id)
        return sum(counts.get("due", {}).values())

    async def _some(self, run: RunRecord, items: Sequence[tuple[PlannedItem, Item]]) -> None:
        """Do *items* in one transaction, or one by one when one of them cannot be done."""
        try:
            await self._together(run, items)
        except (Refused, IntegrityError):
            for one in items:
                await self._alone(run, one)

    async def _together(self, run: RunRecord, items: Sequence[tuple[PlannedItem, Item]]) -> None:
        desk, numbered = self._desk(), [(one.number, item) for one, item in items]
        people: list[str] = await self._book.transact(
            lambda connection: carry_out(connection, desk, run.id, numbered),
        )
        await self._follow(desk, [(item, person_id) for (_, item), person_id in zip(items, people, strict=True)])

    async def _alone(self, run: RunRecord, one: tuple[PlannedItem, Item]) -> None:
        try:
            await self._together(run, [one])
        except (Refused, IntegrityError) as error:
            for_good = isinstance(error, Refused) or one[0].tries + 1 >= _MOST_TRIES
            self.failed += for_good
            why = ("dead" if for_good else "due", str(error) if isinstance(error, Refused) else type(error).__name__)
            desk, number = self._desk(), one[0].number
            await self._book.transact(lambda connection: give_back(connection, desk, run.id, number, why))

    async def _follow(self, desk: Desk, done: Sequence[tuple[Item, str]]) -> None:
        """Make everybody notice; what cannot be done at once, the outbox does."""
        changed = []
        for item, person_id in done:
            self.done[item.kind.value] += 1
            if item.kind in QUIET:
                continue
            self._record(Event.SYNC_CHANGED, _noted(desk.source, item, person_id))
            with suppress(Unavailable, Refused):
                if item.kind is Kind.DELETE:
                    await self._accounts.remove(person_id, desk.source, desk.now)
                elif item.kind is Kind.DEACTIVATE or not item.active:
                    await self._accounts.disable(person_id, desk.source, desk.now)
                elif item.kind is Kind.REACTIVATE:
                    await self._accounts.enable(person_id, desk.source, desk.now)
                else:
                    changed.append(person_id)
        if changed:
            with suppress(Unavailable):
                await self._announce(changed)


def _harmless(item: Item) -> Item:
    """*item* unless it takes something away from somebody, which an incomplete source must not."""
    before, after = (set(item.roles.get(name, ())) for name in ("before", "after"))
    gives = item.kind in (Kind.CREATE, Kind.UPDATE, Kind.REACTIVATE) and item.active and before <= after
    return item if gives or item.kind in QUIET - {Kind.WAIT} else replace(item, kind=Kind.SKIP, after=None)


def _noted(source: str, item: Item, person_id: str) -> dict[str, Any]:
    """The fields of an audit line: names of what changed, never values."""
    roles = {name: sorted(item.roles.get(name, ())) for name in ("before", "after")}
    return {
        "source": source,
        "change": item.kind.value,
        "external": item.external,
        "person": person_id,
        "reason": item.reason,
        "attributes": sorted(shown(item.before, item.after)) if item.after is not None else [],
        **({"before": roles["before"], "after": roles["after"]} if roles["before"] != roles["after"] else {}),
    }

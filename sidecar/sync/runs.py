"""Synchronise one source: plan, guard, wait for approval where that is needed, apply, keep the books."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from sidecar.core.audit import Event
from sidecar.core.sync.document import read
from sidecar.core.sync.plan import Item
from sidecar.directory.sync import SourceState, SyncBook
from sidecar.directory.sync_apply import Desk, LeaseLost
from sidecar.directory.sync_runs import PlannedItem, RunRecord
from sidecar.faults import Refused, Unavailable
from sidecar.reason import Reason
from sidecar.sync.applying import Accounts, Applier, Progress, Record
from sidecar.sync.consent import ASKED_KEYS, WAITING, Consent
from sidecar.sync.lease import LEASE, alone, claim_turn
from sidecar.sync.planning import Planned, Planner, planned_of
from sidecar.sync.rules import SourceRules
from sidecar.sync.sources.source import Source

_KEPT = 20
_OTHER_RULES = "the configuration has changed since the plan was made"
# A run in one of these states may be applied.
READY = frozenset(["planned", "approved"])


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for: by whom, everything anew or not, and only about one person where ``only`` is their id.

    ``keys`` are all that they are known by, where somebody knows: one human may be called differently at two sign-ins.
    """

    by: str
    full: bool = False
    only: str = ""
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Room:
    """What every source needs. ``application`` is as the directory names it; ``clock`` gives epoch seconds."""

    book: SyncBook
    application: str
    accounts: Accounts
    announce: Callable[[Sequence[str]], Awaitable[None]]
    wake: Callable[[], None]
    record: Record
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Which:
    """Which items of a plan: of these kinds, in this state, about this person; empty ones narrow nothing."""

    kinds: tuple[str, ...] = ()
    state: str = ""
    external: str = ""


def _silent(_what: str, _done: int, _of: int) -> None:
    return


class Synchroniser:
    """Runs one source. Coroutines raise Unavailable: DIRECTORY_DOWN, SOURCE_DOWN, SYNC_BUSY."""

    def __init__(self, rules: SourceRules, opened: Callable[[], Source], room: Room) -> None:
        """Read what *opened()* gives, each time anew. Raises ValueError."""
        self.rules = rules
        self._opened = opened
        self._room = room
        self._book = room.book
        events = Event.SYNC_APPROVED, Event.SYNC_REJECTED
        self._consent = Consent(room.book, "plan", *events, room.record, room.clock)
        self._token = ""

    # What people and schedules ask for

    async def plan(self, wish: Wish, progress: Progress = _silent) -> RunRecord:
        """Plan, and change nothing."""
        async with self._alone():
            return await self._planned(wish, progress)

    async def run(self, wish: Wish, progress: Progress = _silent) -> RunRecord:
        """Finish what was begun; then plan, and apply unless there is too much of it."""
        async with self._alone():
            unfinished = await self._unfinished()
            if unfinished is not None and not await self._gives_up(unfinished):
                await self._carry_out(unfinished, progress)
            approved = await self._approved(progress)
            if approved is not None:
                return await self._carry_out(approved, progress)
            run = await self._planned(wish, progress)
            return await self._carry_out(run, progress) if run.state == "planned" else run

    async def _approved(self, progress: Progress) -> RunRecord | None:
        """A run that somebody has approved, if everything is still as it was."""
        for run in await self._book.runs(self.rules.source, _KEPT):
            if run.state == "approved":
                try:
                    await self._refuse_stale(run, progress)
                except Refused:
                    await self._book.change(run.id, ["approved"], state="stale", updated=self._now)
                else:
                    return run
        return None

    async def apply(self, name: str, by: str, progress: Progress = _silent) -> RunRecord:
        """Apply the plan whose hash or id begins with *name*, if everything is still as it was.

        Raises Refused: NOT_FOUND, CONFLICT for one that may not be applied, CHANGED_MEANWHILE.
        """
        async with self._alone():
            run = await self.find(name)
            if run.state == "applying":
                if await self._gives_up(run):
                    raise Refused(Reason.CHANGED_MEANWHILE, 409, _OTHER_RULES)
                return await self._carry_out(run, progress)
            if run.state not in READY:
                raise Refused(Reason.CONFLICT, 409, f"the plan is {run.state}: {_why_not(run)}")
            await self._refuse_stale(run, progress)
            return await self._carry_out(replace(run, asked_by=run.asked_by or by), progress)

    async def approve(self, name: str, by: str, keys: Iterable[str] = ()) -> RunRecord:
        """Let a run that was quarantined be applied, once; see Consent. Raises Refused: NOT_FOUND, CONFLICT."""
        return await self._consent.approve(await self.find(name), by, keys)

    async def reject(self, name: str, by: str) -> RunRecord:
        """Never apply a run that waits. Raises Refused: NOT_FOUND, CONFLICT."""
        return await self._consent.reject(await self.find(name), by)

    async def find(self, name: str) -> RunRecord:
        """The newest run whose plan's hash, or id, begins with *name*. Raises Refused(NOT_FOUND)."""
        found = await self._book.find(name, self.rules.source) if name else await self._book.runs(self.rules.source, 1)
        if not found:
            raise Refused(Reason.NOT_FOUND, 404, f"{self.rules.source} has no plan {name}")
        return found[0]

    async def runs(self) -> list[RunRecord]:
        """The newest runs first."""
        return await self._book.runs(self.rules.source, _KEPT)

    async def look(self, run_id: str) -> RunRecord | None:
        """The run of this very id."""
        found = await self._book.find(run_id, self.rules.source) if run_id else []
        return next((run for run in found if run.id == run_id), None)

    async def page(self, run: RunRecord, after: int, limit: int, which: Which) -> list[tuple[PlannedItem, Item]]:
        """As many items of a plan, those *which* fit, after the number *after*."""
        rows = await self._book.items(run.id, after, limit, which.state, which.kinds, which.external)
        return [(row, read(run.source, row.kind, row.person_id, row.document)) for row in rows]

    async def items(self, run: RunRecord) -> AsyncIterator[tuple[PlannedItem, Item]]:
        """The items of a plan, in their order."""
        last = -1
        while page := await self._book.items(run.id, after=last):
            for row in page:
                yield row, read(run.source, row.kind, row.person_id, row.document)
            last = page[-1].number

    async def state(self) -> SourceState:
        """How the source stands."""
        return await self._book.state(self.rules.source)

    async def claim_turn(self, now: float, chance: float) -> bool:
        """True when it is due by its timetable, for the one who asks first; it is due again later then."""
        return await claim_turn(self._book, self.rules.source, self.rules.timetable, now, chance)

    async def waiting(self) -> RunRecord | None:
        """The newest run, when it waits for somebody or was approved."""
        newest = await self._book.runs(self.rules.source, 1)
        return newest[0] if newest and newest[0].state in WAITING | {"applying"} else None

    # The parts of it

    @property
    def _now(self) -> float:
        return self._room.clock()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Work on the source while nobody else does, on any replica."""
        source = self.rules.source
        async with alone(self._book, source, self._room.clock, f"{source} is being worked on") as token:
            self._token = token
            try:
                yield
            finally:
                self._token = ""

    def _desk(self) -> Desk:
        return Desk(self.rules.source, self._room.application, self._token, self._now + LEASE, self._now)

    async def _unfinished(self) -> RunRecord | None:
        for run in await self._book.runs(self.rules.source, _KEPT):
            if run.state == "applying":
                return run
            if run.state == "reading":
                # Killed while reading: nothing had been changed.
                await self._book.change(run.id, ["reading"], state="failed", updated=self._now)
        return None

    async def _gives_up(self, run: RunRecord) -> bool:
        """True for a run that was begun under other rules: whoever changed them may have wanted to stop it."""
        if run.head["config"] == self.rules.digest:
            return False
        await self._end(replace(run, head={**run.head, "why": _OTHER_RULES}), "failed")
        return True

    async def _planned(self, wish: Wish, progress: Progress) -> RunRecord:
        state = await self.state()
        now = self._now
        run = RunRecord(uuid.uuid4().hex, self.rules.source, "", "reading", now, now, wish.by, "", {})
        await self._book.begin(run)
        try:
            planned = await self._read(state, run.id, self._since(state, wish), wish.only, progress)
        except BaseException as error:
            why = str(error) if isinstance(error, Unavailable | Refused) else type(error).__name__
            with suppress(Unavailable):
                await self._end(replace(run, head={"why": why, "only": wish.only, ASKED_KEYS: wish.keys}), "failed")
            raise
        head = {**planned.head(), "only": wish.only, "since": self._since(state, wish), "config": self.rules.digest}
        head[ASKED_KEYS] = wish.keys
        run = replace(run, hash=planned.hash, state=self._verdict(planned), head=head, updated=self._now)
        is_known = await self._supersede(run)
        await self._book.change(
            run.id, ["reading"], hash=run.hash, state=run.state, head=dict(head), updated=run.updated
        )
        await self._book.prune(self.rules.source, _KEPT)
        if not is_known:
            self._say(run)
        return run

    def _since(self, state: SourceState, wish: Wish) -> str:
        """Where the reading begins: from the start when the rules have changed, or it was not done for long."""
        is_old = self._now - state.last_full >= self.rules.full
        return "" if wish.full or wish.only or is_old or state.config != self.rules.digest else state.cursor

    async def _read(self, state: SourceState, run_id: str, since: str, only: str, progress: Progress) -> Planned:
        source = self._opened()
        try:
            return await Planner(self.rules, self._book, run_id, progress).plan(
                source, state, self._now, since=since, only=only
            )
        finally:
            await source.close()

    def _verdict(self, planned: Planned) -> str:
        if not planned.is_complete and not self.rules.is_additive:
            return "incomplete"
        if planned.breaches:
            return "quarantined"
        return "planned"

    async def _supersede(self, run: RunRecord) -> bool:
        """Plans that wait are out of date now; True when one of them, quarantined too, said the very same."""
        is_known = False
        for other in await self._book.runs(self.rules.source, _KEPT):
            if other.id != run.id and other.state in WAITING:
                is_known |= (other.state, other.hash) == ("quarantined", run.hash) == (run.state, run.hash)
                await self._book.change(other.id, WAITING, state="stale", updated=self._now)
        return is_known

    async def _refuse_stale(self, run: RunRecord, progress: Progress) -> None:
        """Raise Refused(CHANGED_MEANWHILE) unless source, target and configuration are as they were."""
        planned = planned_of(run.head)
        if run.head["config"] != self.rules.digest:
            raise Refused(Reason.CHANGED_MEANWHILE, 409, _OTHER_RULES)
        again = await self._read(await self.state(), "", run.head["since"], run.head["only"], progress)
        if again.source != planned.source or again.reading != planned.reading:
            raise Refused(Reason.CHANGED_MEANWHILE, 409, "the source has changed since the plan was made")
        if again.target != planned.target:
            raise Refused(Reason.CHANGED_MEANWHILE, 409, "people have changed here since the plan was made")

    async def _carry_out(self, run: RunRecord, progress: Progress) -> RunRecord:
        planned = planned_of(run.head)
        await self._book.change(run.id, [*READY, "applying"], state="applying", updated=self._now)
        room = self._room
        applier = Applier(self._book, self._desk, room.accounts, room.announce, room.record, progress)
        try:
            is_fine = await applier.apply(run, self.rules.errors, takes_nothing_away=not planned.is_complete)
        except LeaseLost:
            raise Unavailable(Reason.SYNC_BUSY, "somebody else has taken over") from None
        finally:
            room.wake()
        counts = await self._book.item_counts(run.id)
        head = {**run.head, "dead": sum(counts.get("dead", {}).values()), "left": sum(counts.get("due", {}).values())}
        if not is_fine:
            head["why"] = f"{applier.failed} changes failed: stopped"
        ended = await self._end(replace(run, head=head), "done" if is_fine else "failed")
        if is_fine and not run.head["only"]:
            await self._keep_books(planned, is_clean=not head["dead"])
        return ended

    async def _keep_books(self, planned: Planned, *, is_clean: bool) -> None:
        """Note what the source had. Where something failed the next run reads it again, from the same place."""
        now = self._now
        values: dict[str, Any] = {"last_good": now, "groups": json.dumps(planned.groups), "config": self.rules.digest}
        if is_clean and planned.is_complete:
            values["cursor"] = planned.cursor
        if planned.reading == "full" and planned.is_complete:
            values |= {"people": planned.people, "last_full": now}
        await self._book.note(self.rules.source, self._token, values)

    async def _end(self, run: RunRecord, state: str) -> RunRecord:
        head = dict(run.head)
        await self._book.change(run.id, ["reading", "applying"], state=state, head=head, updated=self._now)
        ended = replace(run, state=state, updated=self._now)
        self._say(ended)
        return ended

    def _say(self, run: RunRecord) -> None:
        if run.state == "planned":
            return
        event = Event.SYNC_QUARANTINED if run.state == "quarantined" else Event.SYNC_ENDED
        head = run.head
        fields: dict[str, object] = {"source": run.source, "run": run.id, "plan": run.hash, "result": run.state}
        fields |= {"by": run.asked_by, "counts": dict(head.get("counts", {})), "reason": head.get("why", "")}
        if head.get("breaches"):
            fields["breaches"] = list(head["breaches"])
        self._room.record(event, fields)


def _why_not(run: RunRecord) -> str:
    if run.state == "quarantined":
        return "it changes more than one run may, and somebody has to approve it first"
    return str(run.head.get("why", "")) or "make a new one"

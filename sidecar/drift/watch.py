"""Read the application's accounts, compare, keep what was found, and put right what is ours to put right."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from sidecar.core.audit import Event
from sidecar.core.drift import FIXABLE, Comparison, Finding, Found, Listed, Standards
from sidecar.core.sync.guards import Breach
from sidecar.core.template import TemplateError
from sidecar.directory.holdings import Holdings
from sidecar.directory.sync import SourceState, SyncBook
from sidecar.directory.sync_runs import PlannedItem, RunRecord
from sidecar.directory.tables import digest
from sidecar.drift.rules import DriftRules
from sidecar.faults import Refused, Unavailable
from sidecar.reason import Reason
from sidecar.sync.consent import ASKED_KEYS, WAITING, Consent
from sidecar.sync.lease import alone, claim_turn
from sidecar.sync.sources.source import Source

SOURCE = "drift"
_KEPT = 20
_PAGE = 500
# So many rows that cannot be read are a mistake in the templates.
_MOST_UNREADABLE = 100
# So much of a hash says which repair is meant.
_SHORTEST = 8
_BUSY = "the application's accounts are being looked at already: try again when that is over"

Progress = Callable[[str, int, int], None]
Record = Callable[[Event, dict[str, object]], None]


@dataclass(frozen=True, slots=True)
class Ground:
    """What a look works with; ``wake`` says that something is owed, ``clock`` gives epoch seconds."""

    book: SyncBook
    holdings: Holdings
    wake: Callable[[], None]
    record: Record
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Report:
    """What one look found, and the run that it is kept as."""

    run: RunRecord
    found: Sequence[Found]

    @property
    def is_complete(self) -> bool:
        """True when every account was read."""
        return bool(self.run.head.get("is_complete"))

    def fixable(self) -> list[Found]:
        """What may be put right."""
        return [one for one in self.found if one.finding in FIXABLE]


def _silent(_what: str, _done: int, _of: int) -> None:
    return


class DriftWatch:
    """Looks for drift. Coroutines raise Unavailable: DIRECTORY_DOWN, SOURCE_DOWN, SYNC_BUSY."""

    def __init__(self, rules: DriftRules, opened: Callable[[], Source], ground: Ground) -> None:
        """Read what *opened()* gives, each time anew."""
        self.rules = rules
        self._opened = opened
        self._ground = ground
        self._book = ground.book
        events = Event.DRIFT_APPROVED, Event.DRIFT_REJECTED
        self._consent = Consent(ground.book, "repair", *events, ground.record, ground.clock)

    async def look(
        self, by: str, progress: Progress = _silent, idle: float | None = None, keys: Sequence[str] = ()
    ) -> Report:
        """Compare, and change nothing. *idle* seconds without a sign-in count as dormant, in place of the rules'.

        *keys* are all that *by* is known by, where somebody knows.
        """
        async with self._alone():
            return await self._looked(by, keys, progress, idle)

    async def fix(self, by: str, progress: Progress = _silent, keys: Sequence[str] = ()) -> Report:
        """Look, and owe the application what it should be like already, unless that is more than one repair may do.

        Raises Refused(CONFLICT) when the listing was not complete: then nobody knows what is true.
        """
        async with self._alone():
            approved = await self._approved()
            report = await self._looked(by, keys, progress, None)
            if not report.is_complete:
                raise Refused(Reason.CONFLICT, 409, f"the listing is not complete: {report.run.head['why']}")
            fixable = report.fixable()
            if not fixable:
                if approved is not None:
                    # What comes back later is for somebody to look at again.
                    await self._change(approved, "stale")
                return report
            breaches = [str(one) for one in self._breaches(fixable, report.run.head["known"])]
            run = replace(report.run, hash=_hash(fixable), head={**report.run.head, "breaches": breaches})
            if breaches and (approved is None or approved.hash != run.hash):
                if approved is not None:
                    await self._change(approved, "stale")
                run = await self._change(run, "quarantined")
                self._say(Event.DRIFT_QUARANTINED, run)
                return Report(run, report.found)
            if approved is not None and approved.hash == run.hash:
                run = replace(run, approved_by=approved.approved_by)
                # Once, and only as long as nobody has thought better of it.
                if not await self._book.change(approved.id, ["approved"], state="done", updated=self._ground.clock()):
                    raise Refused(Reason.CONFLICT, 409, "the approval was used or taken back meanwhile")
            elif approved is not None:
                await self._change(approved, "stale")
            return Report(await self._carry_out(run, fixable, progress), report.found)

    async def approve(self, name: str, by: str, keys: Iterable[str] = ()) -> RunRecord:
        """Let a repair that was quarantined be done, once; see Consent. Raises Refused: NOT_FOUND, CONFLICT."""
        return await self._consent.approve(await self._find(name), by, keys)

    async def reject(self, name: str, by: str) -> RunRecord:
        """Never do a repair that waits; the next one may want the same. Raises Refused: NOT_FOUND, CONFLICT."""
        return await self._consent.reject(await self._find(name), by)

    async def _find(self, name: str) -> RunRecord:
        found = await self._book.find(name, SOURCE) if len(name) >= _SHORTEST else []
        if not found:
            raise Refused(Reason.NOT_FOUND, 404, f"there is no repair {name}")
        return found[0]

    async def runs(self) -> list[RunRecord]:
        """The newest looks first."""
        return await self._book.runs(SOURCE, _KEPT)

    async def state(self) -> SourceState:
        """Who looks now, and when it is due again."""
        return await self._book.state(SOURCE)

    async def last(self) -> RunRecord | None:
        """The newest look that came to an end."""
        return next((run for run in await self.runs() if run.state not in ("reading", "failed")), None)

    async def newest(self) -> RunRecord | None:
        """The newest look, however it ended."""
        return next((run for run in await self.runs() if run.state != "reading"), None)

    async def findings(self, run: RunRecord) -> AsyncIterator[Found]:
        """What a look found, in its order."""
        last = -1
        while page := await self.page(run, last):
            for number, found in page:
                yield found
                last = number

    async def page(
        self, run: RunRecord, after: int, limit: int = _PAGE, kinds: Iterable[Finding] = ()
    ) -> list[tuple[int, Found]]:
        """As many findings of a look, of *kinds* if any are named, after the number *after*, with their numbers."""
        names = [one.value for one in kinds]
        return [(row.number, _found(row)) for row in await self._book.items(run.id, after, limit, kinds=names)]

    async def is_due(self, chance: float) -> bool:
        """True when it is time for a look, for the one who asks first; it is due again later then."""
        return await claim_turn(self._book, SOURCE, self.rules.timetable, self._ground.clock(), chance)

    # The parts of it

    def _alone(self) -> AbstractAsyncContextManager[str]:
        return alone(self._book, SOURCE, self._ground.clock, _BUSY)

    async def _approved(self) -> RunRecord | None:
        return next((run for run in await self.runs() if run.state == "approved"), None)

    async def _looked(self, by: str, keys: Sequence[str], progress: Progress, idle: float | None) -> Report:
        now = self._ground.clock()
        asked = {ASKED_KEYS: list(keys)}
        run = RunRecord(uuid.uuid4().hex, SOURCE, "", "reading", now, now, by, "", asked)
        await self._book.begin(run)
        try:
            found, head = await self._compared(now, progress, idle)
        except BaseException as error:
            why = str(error) if isinstance(error, Unavailable | Refused) else type(error).__name__
            with suppress(Unavailable):
                await self._change(replace(run, head={**asked, "why": why}), "failed")
            raise
        await self._book.add_items(run.id, [_item(number, one) for number, one in enumerate(found)])
        run = await self._change(replace(run, head={**asked, **head}), "done" if head["is_complete"] else "incomplete")
        for other in await self.runs():
            # What was true then need not be so now; one that was approved is looked at again by the repair.
            if other.id != run.id and other.state in ("quarantined", "reading"):
                # Whoever was reading was killed: nobody else looks while we do.
                state = "stale" if other.state == "quarantined" else "failed"
                await self._book.change(other.id, [other.state], state=state, updated=self._ground.clock())
        await self._book.prune(SOURCE, _KEPT)
        self._say(Event.DRIFT_FOUND, run)
        return Report(run, found)

    async def _compared(self, now: float, progress: Progress, idle: float | None) -> tuple[list[Found], dict[str, Any]]:
        rules = self.rules
        held = await self._ground.holdings.all()
        living = await self._ground.holdings.without()
        standards = Standards(
            managed=rules.managed,
            mode=rules.mode,
            idle=idle if idle is not None else rules.idle,
            now=now,
            left_alone=rules.left_alone,
        )
        comparison = Comparison(standards, held, living)
        found: list[Found] = []
        read, broken, why = 0, 0, ""
        async for row in self._rows():
            listed = self._listed(row)
            if listed is None:
                broken += 1
                if broken > _MOST_UNREADABLE:
                    why = f"more than {_MOST_UNREADABLE} accounts cannot be read: see drift.account"
                    break
                continue
            read += 1
            if read > rules.most:
                why = f"there are more than {rules.most} accounts"
                break
            found += comparison.take(listed)
            if read % 1000 == 0:
                progress("read", read, len(held))
        why = why or self._why or (f"{broken} accounts cannot be read" if broken else "")
        if not read:
            why = why or "there are no accounts in it"
        if not why:
            found += comparison.rest()
        found.sort(key=lambda one: (list(Finding).index(one.finding), one.account))
        counts = Counter(one.finding.value for one in found)
        head = {"is_complete": not why, "why": why, "accounts": read, "known": len(held), "counts": dict(counts)}
        return found, {**head, "items": len(found)}

    async def _rows(self) -> AsyncIterator[Any]:
        source = self._opened()
        self._why = "not read to the end"
        try:
            await source.begin("")
            async for rows in source.batches():
                for row in rows:
                    yield row
            end = source.end()
            self._why = "" if end.is_complete else end.why or "not everything was read"
        finally:
            await source.close()

    _why = ""

    def _listed(self, row: Any) -> Listed | None:
        try:
            return self.rules.reader.read(row)
        except (TemplateError, ValueError):
            return None

    def _breaches(self, fixable: Sequence[Found], known: int) -> list[Breach]:
        off = sum(one.finding is Finding.LINGERING for one in fixable)
        people = {one.person_id for one in fixable if one.finding is not Finding.LINGERING}
        found = []
        for name, number, limit in (
            ("deactivate", off, self.rules.deactivate),
            ("change", len(people), self.rules.change),
        ):
            allowed = limit.allowed(known)
            if allowed is not None and number > allowed:
                found.append(Breach(name, number, allowed))
        return found

    async def _carry_out(self, run: RunRecord, fixable: Sequence[Found], progress: Progress) -> RunRecord:
        people = list(dict.fromkeys(one.person_id for one in fixable))
        owed: Counter[str] = Counter()
        try:
            for number, person_id in enumerate(people):
                with suppress(Refused):
                    duty = await self._ground.holdings.owe_again(person_id, run.id, self._ground.clock())
                    owed[duty.value if duty is not None else "nothing"] += 1
                progress("owe", number + 1, len(people))
        finally:
            self._ground.wake()
        run = await self._change(replace(run, head={**run.head, "owed": dict(owed)}), "done")
        self._say(Event.DRIFT_FIXED, run)
        return run

    async def _change(self, run: RunRecord, state: str) -> RunRecord:
        changed = replace(run, state=state, updated=self._ground.clock())
        await self._book.change(
            run.id,
            ["reading", "done", *WAITING],
            state=state,
            hash=changed.hash,
            approved_by=changed.approved_by,
            head=dict(changed.head),
            updated=changed.updated,
        )
        return changed

    def _say(self, event: Event, run: RunRecord) -> None:
        head = run.head
        fields: dict[str, object] = {"run": run.id, "by": run.approved_by or run.asked_by}
        fields |= {"accounts": head.get("accounts", 0), "counts": dict(head.get("counts", {}))}
        fields |= {"reason": head.get("why", "")} if head.get("why") else {}
        fields |= {"owed": dict(head["owed"])} if "owed" in head else {}
        fields |= {"plan": run.hash} if run.hash else {}
        self._ground.record(event, fields)


def _found(row: PlannedItem) -> Found:
    parts = json.loads(row.document)
    return Found(**{**parts, "finding": Finding(parts["finding"])})


def _item(number: int, one: Found) -> PlannedItem:
    document = json.dumps({**asdict(one), "finding": one.finding.value}, ensure_ascii=False)
    return PlannedItem(number, one.finding.value, digest(f"{number}:{one.account}"), one.person_id, document)


def _hash(fixable: Sequence[Found]) -> str:
    lines = sorted(f"{one.finding.value}\0{one.person_id}\0{one.account}\0{one.there}\0{one.here}" for one in fixable)
    return hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()

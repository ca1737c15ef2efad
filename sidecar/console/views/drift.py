"""The page about accounts that are not what they should be: what was found, and what waits for somebody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.config.drift import Drift
from sidecar.console.acts import operator_fields
from sidecar.console.drifts import Drifts
from sidecar.console.errands import asker_of
from sidecar.console.page import Asked, Page
from sidecar.console.views.sync import TONES, number_in, timetable_of
from sidecar.core.audit import Event
from sidecar.core.drift import FIXABLE, WORDS, Finding
from sidecar.directory.sync_runs import RunRecord
from sidecar.drift.watch import SOURCE
from sidecar.faults import Refused
from sidecar.reason import Reason
from sidecar.sync.consent import WAITING, is_asker
from sidecar.sync.lease import process_of
from sidecar.telemetry.audit import AuditLog

PAGE = 50
_LOOKS = 10
_FIXABLE = "fixable"


@dataclass(slots=True, kw_only=True)
class DriftPage:
    """``/drift``, the newest look at the application's accounts, and ``/drift/LOOK``."""

    section: Drift
    drifts: Drifts
    audit: AuditLog

    async def show(self, asked: Asked) -> Page:
        """What is not as it should be, by kind."""
        show, after = asked.query.get("show", ""), number_in(asked.query.get("after", "-1"))
        kinds = _kinds(show)
        runs = [run for run in await self.drifts.watch.runs() if run.state != "reading"]
        shown = _shown(runs, asked.rest)
        state = await self.drifts.watch.state()
        values: dict[str, Any] = {
            "looks": runs[:_LOOKS],
            "shown": shown,
            "is_newest": not asked.rest,
            "waiting": next((run for run in runs if run.state in WAITING), None),
            "state": state,
            "process": process_of(state.lease),
            "timetable": timetable_of(self.section),
            "repairs": self.section.repair,
            "late": self.drifts.errands.late.get(SOURCE),
            "show": show,
            "tones": TONES,
            "words": WORDS,
            "fixable": FIXABLE,
            "is_begun": after >= 0,
        }
        return Page("drift", {**values, **(await self._found(asked, shown, kinds, after) if shown is not None else {})})

    async def _found(self, asked: Asked, shown: RunRecord, kinds: Sequence[Finding], after: int) -> Mapping[str, Any]:
        self.audit.record(Event.CONSOLE_READ, {**operator_fields(asked), "target": f"drift {shown.id}"})
        found = await self.drifts.watch.page(shown, after, PAGE + 1, kinds)
        asker = await asker_of(self.drifts.accounts, asked.operator)
        counts: Mapping[str, int] = shown.head.get("counts", {})
        return {
            "found": [one for _, one in found[:PAGE]],
            "more": found[PAGE - 1][0] if len(found) > PAGE else None,
            "tabs": [(one.value, one.value, counts[one.value]) for one in Finding if counts.get(one.value)],
            "to_fix": sum(counts.get(one.value, 0) for one in FIXABLE),
            "is_own": is_asker(shown, asker.by, asker.keys),
        }


def _kinds(show: str) -> Sequence[Finding]:
    if show == _FIXABLE:
        return [one for one in Finding if one in FIXABLE]
    try:
        return [Finding(show)] if show else []
    except ValueError:
        raise Refused(Reason.NOT_FOUND, 404, "no such findings") from None


def _shown(runs: Sequence[RunRecord], run_id: str) -> RunRecord | None:
    """The look that is asked for, or the newest that came to an end."""
    if not run_id:
        return next((run for run in runs if run.state != "failed"), None)
    for run in runs:
        if run.id == run_id:
            return run
    raise Refused(Reason.NOT_FOUND, 404, "there is no such look")

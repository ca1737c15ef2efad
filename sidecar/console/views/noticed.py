"""Pages about what was noticed: accounts that are not what they should be, and alerts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.condition import Accounts
from sidecar.config.insights import Insights, Silence
from sidecar.console.acts import operator_fields
from sidecar.console.history import HEIGHT, Series, stacked
from sidecar.console.page import Asked, Page
from sidecar.console.views.sync import number_in
from sidecar.core.audit import Event
from sidecar.core.drift import FIXABLE, WORDS, Finding
from sidecar.directory.sync_runs import RunRecord
from sidecar.drift.watch import SOURCE, read_found
from sidecar.insights.alerts import recent
from sidecar.insights.present import MINUTES, present
from sidecar.insights.unused import Unused, UnusedCount
from sidecar.model import Refused, Unavailable
from sidecar.reason import Reason
from sidecar.sessions.store import Store
from sidecar.telemetry.audit import AuditLog

PAGE = 50
_MOST_ALERTS = 100
_TONES = {"done": "good", "approved": "good", "quarantined": "warn", "failed": "bad", "incomplete": "bad"}


@dataclass(slots=True, kw_only=True)
class DriftPage:
    """``/drift``: the newest look at the application's accounts, and what it found."""

    accounts: Accounts
    audit: AuditLog

    async def show(self, asked: Asked) -> Page:
        """What is not as it should be, by kind."""
        directory = self.accounts.directory
        if directory is None:
            raise Refused(Reason.NOT_FOUND, 404, "no accounts are kept here")
        show, after = asked.query.get("show", ""), number_in(asked.query.get("after", "-1"))
        if show and show not in {one.value for one in Finding}:
            raise Refused(Reason.NOT_FOUND, 404, "no such findings")
        looks = [run for run in await directory.sync.runs(SOURCE) if run.state != "reading"]
        newest = next((run for run in looks if run.state != "failed"), None)
        values: dict[str, Any] = {"looks": looks[:10], "newest": newest, "show": show, "tones": _TONES, "tabs": []}
        values |= {"found": [], "more": None, "is_begun": after >= 0, "words": WORDS, "fixable": FIXABLE}
        if newest is not None:
            self.audit.record(Event.CONSOLE_READ, {**operator_fields(asked), "target": f"drift {newest.id}"})
            kinds = (show,) if show else ()
            rows = await directory.sync.items(newest.id, after, PAGE + 1, kinds=kinds)
            values |= {"found": [read_found(row) for row in rows[:PAGE]], "tabs": _tabs(newest)}
            values["more"] = rows[PAGE - 1].number if len(rows) > PAGE else None
        return Page("drift", values)


def _tabs(run: RunRecord) -> list[tuple[str, int]]:
    counts: Mapping[str, int] = run.head.get("counts", {})
    return [(one.value, counts[one.value]) for one in Finding if counts.get(one.value)]


@dataclass(slots=True, kw_only=True)
class InsightsPage:
    """``/insights``: what goes on at present, and the newest alerts."""

    section: Insights
    store: Store
    audit: AuditLog
    unused: UnusedCount

    async def show(self, asked: Asked) -> Page:
        """What was told in the last days, the newest first."""
        kind = asked.query.get("kind", "")
        alerts = await recent(self.store, _MOST_ALERTS, asked.now)
        values = await self._present(asked.now)
        # Alerts name people.
        self.audit.record(Event.CONSOLE_READ, {**operator_fields(asked), "target": "insights"})
        kinds = sorted({str(one.get("insight", "")) for one in alerts})
        chosen = [_parts(one) for one in alerts if kind in ("", one.get("insight"))]
        return Page("insights", {**values, "alerts": chosen, "kinds": kinds, "kind": kind})

    async def _present(self, now: float) -> Mapping[str, Any]:
        state = await present(self.store, now)
        try:
            unused = await self.unused.count()
        except Unavailable:
            # The rest is worth seeing, above all then.
            unused = Unused()
        minutes = state.by_minute(now)
        # The minute before this one: the last that is over.
        plot = stacked(
            "Refusals by the minute", [(number,) for number in minutes], [Series("", "bad", "", all)], MINUTES
        )
        return {
            "accounts": state.accounts,
            "refusals": minutes[-2],
            "refused": sum(minutes),
            "plot": plot,
            "width": MINUTES,
            "height": HEIGHT,
            "failures": sorted(state.failures.items(), key=lambda one: -one[1]),
            "orders": sorted(state.orders.items()),
            "slow": self.section.slow_hooks,
            "unused": unused,
            "after": {"dormant": _days(self.section.dormant), "silent": _days(self.section.silent_token)},
        }


def _days(silence: Silence | None) -> int:
    return 0 if silence is None else silence.after.days


def _parts(alert: Mapping[str, Any]) -> tuple[str, str, list[tuple[str, str]]]:
    """(time, kind, the rest by name)."""
    rest = [(name, _text(value)) for name, value in alert.items() if name not in ("time", "insight", "event")]
    return str(alert.get("time", "")), str(alert.get("insight", "")), rest


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

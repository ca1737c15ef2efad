"""The page about what goes on at present, and alerts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.config.insights import Insights, Silence
from sidecar.console.acts import operator_fields
from sidecar.console.history import HEIGHT, Series, stacked
from sidecar.console.page import Asked, Page, span
from sidecar.core.audit import Event
from sidecar.faults import Unavailable
from sidecar.insights.alerts import recent
from sidecar.insights.present import MINUTES, present
from sidecar.insights.unused import Unused, UnusedCount
from sidecar.sessions.store import Store
from sidecar.telemetry.audit import AuditLog

_MOST_ALERTS = 100
# What has a column of its own, and what is for receivers only.
_NOT_SHOWN = frozenset(["time", "insight", "event", "id"])


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
    rest = [(name, _text(name, value)) for name, value in alert.items() if name not in _NOT_SHOWN]
    return str(alert.get("time", "")), str(alert.get("insight", "")), rest


def _text(name: str, value: object) -> str:
    if name == "within" and isinstance(value, int | float):
        return span(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

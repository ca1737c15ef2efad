"""The page about alerts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.console.acts import operator_fields
from sidecar.console.page import Asked, Page
from sidecar.core.audit import Event
from sidecar.insights.alerts import recent
from sidecar.sessions.store import Store
from sidecar.telemetry.audit import AuditLog

_MOST_ALERTS = 100


@dataclass(slots=True, kw_only=True)
class InsightsPage:
    """``/insights``: the newest alerts."""

    store: Store
    audit: AuditLog

    async def show(self, asked: Asked) -> Page:
        """What was told in the last days, the newest first."""
        kind = asked.query.get("kind", "")
        alerts = await recent(self.store, _MOST_ALERTS)
        # Alerts name people.
        self.audit.record(Event.CONSOLE_READ, {**operator_fields(asked), "target": "insights"})
        kinds = sorted({str(one.get("insight", "")) for one in alerts})
        chosen = [_parts(one) for one in alerts if kind in ("", one.get("insight"))]
        return Page("insights", {"alerts": chosen, "kinds": kinds, "kind": kind})


def _parts(alert: Mapping[str, Any]) -> tuple[str, str, list[tuple[str, str]]]:
    """(time, kind, the rest by name)."""
    rest = [(name, str(value)) for name, value in alert.items() if name not in ("time", "insight", "event")]
    return str(alert.get("time", "")), str(alert.get("insight", "")), rest

"""Wire the watch to all that it hears of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sidecar.config.insights import Insights
from sidecar.insights.alerts import Alerts
from sidecar.insights.watch import Watch
from sidecar.sessions.store import Store
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.webhook import Sender

if TYPE_CHECKING:
    from sidecar.directory.database import Database


class Insight:
    """The watch, and what it sends with."""

    def __init__(self, watch: Watch, sender: Sender | None, audit: AuditLog, metrics: Metrics) -> None:
        """Join *watch* and *sender*; hear of what *audit* and *metrics* are told while at work."""
        self.watch = watch
        self._sender = sender
        self._audit = audit
        self._metrics = metrics

    async def work(self) -> None:
        """Watch for ever; after a reload another one does, and what both hear must not count twice."""
        self._audit.listen(self.watch.hear)
        self._metrics.hook_watchers.append(self.watch.hook_took)
        try:
            await self.watch.work()
        finally:
            self._audit.stop_listening(self.watch.hear)
            self._metrics.hook_watchers.remove(self.watch.hook_took)

    async def close(self) -> None:
        """Deliver the rest, for a moment."""
        if self._sender is not None:
            self._sender.close()


def open_insights(  # noqa: PLR0917 - the parts that it joins
    section: Insights,
    store: Store,
    audit: AuditLog,
    metrics: Metrics,
    clock: Callable[[], float],
    database: Database | None,
    application: str,
) -> Insight:
    """What *section* asks for, which will hear of all that *audit* and *metrics* are told. Raises OSError."""
    sender = None
    if section.webhook is not None:
        sender = Sender(section.webhook, "insights", clock, "insights.webhook")
        sender.start()

    async def dormant(before: float, most: int) -> tuple[int, Sequence[str]]:
        assert database is not None  # noqa: S101 - see below
        from sidecar.directory.dormant import dormant as find  # noqa: PLC0415 - for those who have a directory

        return await find(database, application, before, most)

    alerts = Alerts(section, store, audit, metrics, clock, sender)
    watch = Watch(section, store, alerts, clock, dormant if database is not None else None)
    return Insight(watch, sender, audit, metrics)

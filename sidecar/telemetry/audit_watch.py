"""Say in metrics and in `/-/ready` where audit lines do not arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics

_EVERY = 1.0


class AuditWatch:
    """Looks at the sinks of one audit log, for as long as its configuration is in force."""

    def __init__(self, audit: AuditLog, metrics: Metrics) -> None:
        """Watch *audit*; count in *metrics*, from now on."""
        self._audit = audit
        self._metrics = metrics
        self._lost = {name: lost for name, (_, lost) in audit.standing.items()}

    def complaints(self) -> Mapping[str, str]:
        """Sink, as the configuration names it → why its lines do not arrive; only where they do not."""
        return {f"audit.{name}": why for name, (why, _) in self._audit.standing.items() if why}

    async def work(self) -> None:
        """Look once a second, for ever."""
        try:
            while True:
                self.look()
                await asyncio.sleep(_EVERY)
        finally:
            # A sink that the next configuration has no more is no trouble any more.
            for name in self._lost:
                self._metrics.audit_failing.labels(name).set(0)

    def look(self) -> None:
        """Carry over how the sinks are."""
        for name, (why, lost) in self._audit.standing.items():
            self._metrics.audit_failing.labels(name).set(bool(why))
            self._metrics.audit_lost.labels(name).inc(lost - self._lost[name])
            self._lost[name] = lost

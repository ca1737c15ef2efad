"""Count what happens, for Prometheus; labels are closed sets, never names of people or paths."""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# Seconds that what every request counts may wait in plain numbers: a counter shared between processes costs more.
_POST_AFTER = 0.25


class Metrics:
    """The counters of one process; with several workers they are added up when read."""

    def __init__(self) -> None:
        """Make a fresh registry, so that two sidecars in one process do not share counters."""
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "sidecar_requests", "Requests by what became of them.", ["effect", "reason"], registry=registry
        )
        self.seconds = Histogram(
            "sidecar_request_seconds", "Time until the answer was sent.", buckets=_BUCKETS, registry=registry
        )
        self.logins = Counter(
            "sidecar_logins", "Sign-ins by provider and end.", ["provider", "result"], registry=registry
        )
        self.break_glass = Counter(
            "sidecar_break_glass", "Emergency sign-ins by their end.", ["result"], registry=registry
        )
        self.outage = Gauge(
            "sidecar_provider_outage",
            "1 while a provider cannot be reached, or answers refreshes with faults alone.",
            ["provider"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.accounts = Counter("sidecar_accounts", "Provisioning events.", ["event"], registry=registry)
        self.scim = Counter("sidecar_scim", "Requests of SCIM clients.", ["client", "status"], registry=registry)
        self.sync_runs = Counter("sidecar_sync_runs", "Synchronisations.", ["source", "result"], registry=registry)
        self.sync_changes = Counter(
            "sidecar_sync_changes", "What synchronisations changed.", ["source", "change"], registry=registry
        )
        self.sync_good = Gauge(
            "sidecar_sync_last_good_seconds",
            "When a source was last synchronised without fault (epoch seconds).",
            ["source"],
            registry=registry,
            multiprocess_mode="max",
        )
        self.drift = Gauge(
            "sidecar_drift",
            "Findings of the last look at the application's accounts.",
            ["finding"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.signals = Counter(
            "sidecar_signals",
            "Security events by transmitter and what became of them.",
            ["transmitter", "event", "result"],
            registry=registry,
        )
        self.metadata = Counter(
            "sidecar_provider_metadata",
            "Looks at a SAML provider's metadata.",
            ["provider", "result"],
            registry=registry,
        )
        self.engines = Counter(
            "sidecar_engines", "Questions to engines by what came of them.", ["engine", "result"], registry=registry
        )
        self.engine_seconds = Histogram(
            "sidecar_engine_seconds",
            "Time until an engine had ruled.",
            ["engine"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.insights = Counter(
            "sidecar_insights",
            "Alerts by their kind; suppressed are those beyond the most.",
            ["kind"],
            registry=registry,
        )
        self.hook_seconds = Histogram(
            "sidecar_hook_seconds",
            "Time that orders to the application took.",
            ["change"],
            buckets=_BUCKETS,
            registry=registry,
        )
        # Each is told of every order: which change, and how many seconds it took.
        self.hook_watchers: list[Callable[[str, float], None]] = []
        self.faults = Counter(
            "sidecar_faults", "Answers with 5xx made by the sidecar itself.", ["reason"], registry=registry
        )
        self.in_flight = Gauge(
            "sidecar_requests_in_flight", "Requests being carried.", multiprocess_mode="livesum", registry=registry
        )
        self.servers_up = Gauge(
            "sidecar_upstream_up",
            "1 while a server of the application gets requests, in every worker.",
            ["server"],
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.servers = Counter(
            "sidecar_upstream", "Faults and repeated requests by server.", ["server", "event"], registry=registry
        )
        self.owed = Gauge(
            "sidecar_outbox",
            "Duties owed to the application: waiting, and dead (put aside for people to look at).",
            ["state"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.owed_for = Gauge(
            "sidecar_outbox_oldest_seconds",
            "For how long the oldest duty has waited.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.configurations = Counter(
            "sidecar_configuration_loads", "Configurations by whether they are in force.", ["result"], registry=registry
        )
        self.configuration_at = Gauge(
            "sidecar_configuration_last_good_seconds",
            "When a configuration was last put in force (epoch seconds).",
            registry=registry,
            multiprocess_mode="max",
        )
        self.configuration_refused = Gauge(
            "sidecar_configuration_refused",
            "1 while the newest state of the configuration is refused and a former one in force.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.audit_failing = Gauge(
            "sidecar_audit_failing",
            "1 while audit lines do not arrive at a sink; they wait.",
            ["sink"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.audit_lost = Counter(
            "sidecar_audit_lost", "Audit lines that were thrown away, as too many waited.", ["sink"], registry=registry
        )
        self._under_way = 0
        self._ended: Tally[tuple[str, str]] = Tally()
        self._took = [0] * (len(_BUCKETS) + 1)
        self._took_together = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def began(self) -> None:
        """Count a request that begins."""
        self._under_way += 1

    def ended(self, seconds: float) -> None:
        """Count a request that is over, after *seconds*."""
        self._under_way -= 1
        self._took[bisect_left(_BUCKETS, seconds)] += 1
        self._took_together += seconds
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_POST_AFTER, self._post)

    def became(self, effect: str, reason: str) -> None:
        """Count what became of a request; *reason* is of a closed set."""
        self._ended[effect, reason] += 1

    def _post(self) -> None:
        """Carry the plain numbers over to where they are read."""
        self._timer = None
        self.in_flight.set(self._under_way)
        for labels, number in self._ended.items():
            self.requests.labels(*labels).inc(number)
        self._ended.clear()
        _observe(self.seconds, self._took, self._took_together)
        self._took = [0] * len(self._took)
        self._took_together = 0.0

    def of_sync(self, source: str, result: str, counts: Mapping[str, int], at: float) -> None:
        """Note how a synchronisation ended at *at*, and what it changed."""
        self.sync_runs.labels(source, result).inc()
        if result == "done":
            self.sync_good.labels(source).set(at)
            for change, number in counts.items():
                self.sync_changes.labels(source, change).inc(number)

    def of_hook(self, change: str, seconds: float) -> None:
        """Note that an order to the application took *seconds*."""
        self.hook_seconds.labels(change).observe(seconds)
        for watch in self.hook_watchers:
            watch(change, seconds)

    def of_configuration(self, result: str, at: float) -> None:
        """Note what became of a configuration at *at*: loaded or refused."""
        self.configurations.labels(result).inc()
        self.configuration_refused.set(result == "refused")
        if result == "loaded":
            self.configuration_at.set(at)

    def of_drift(self, counts: Mapping[str, int]) -> None:
        """Note how many findings of each kind there are; one that is gone is none."""
        for finding, number in counts.items():
            self.drift.labels(finding).set(number)

    def of_server(self, happening: Enum, server: str) -> None:
        """Note what happened to a server of the application: up, down, fault or repeat."""
        if happening.value in {"up", "down"}:
            self.servers_up.labels(server).set(happening.value == "up")
        else:
            self.servers.labels(server, happening.value).inc()

    def backlog(self, waiting: int, dead: int, seconds: float) -> None:
        """Note how much is owed to the application, and since how many seconds."""
        self.owed.labels("waiting").set(waiting)
        self.owed.labels("dead").set(dead)
        self.owed_for.set(seconds)

    def render(self) -> bytes:
        """Text exposition of all counters, of all workers where there are several."""
        if self._timer is not None:
            self._timer.cancel()
        self._post()
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def _observe(histogram: Histogram, numbers: list[int], total: float) -> None:
    """Add many observations at once: prometheus_client knows only one at a time."""
    buckets: list[Any] = histogram._buckets  # noqa: SLF001 - see above
    for bucket, number in zip(buckets, numbers, strict=True):
        if number:
            bucket.inc(number)
    if any(numbers):
        histogram._sum.inc(total)  # noqa: SLF001 - as above

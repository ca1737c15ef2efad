"""Count what happens, for Prometheus; labels are closed sets, never names of people or paths."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


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
        self.accounts = Counter("sidecar_accounts", "Provisioning events.", ["event"], registry=registry)
        self.metadata = Counter(
            "sidecar_provider_metadata",
            "Looks at a SAML provider's metadata.",
            ["provider", "result"],
            registry=registry,
        )
        self.faults = Counter(
            "sidecar_faults", "Answers with 5xx made by the sidecar itself.", ["reason"], registry=registry
        )
        self.in_flight = Gauge(
            "sidecar_requests_in_flight", "Requests being carried.", multiprocess_mode="livesum", registry=registry
        )

    def render(self) -> bytes:
        """Text exposition of all counters, of all workers where there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)

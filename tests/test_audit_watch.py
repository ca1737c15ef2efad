"""Operators hear of audit lines that do not arrive, wherever they look: metrics, readiness, the dashboard's alerts."""

from __future__ import annotations

import time

import pytest
from prometheus_client import CollectorRegistry

from sidecar.core.audit import Event
from sidecar.telemetry import outlet
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.audit_watch import AuditWatch
from sidecar.telemetry.metrics import Metrics
from tests.world import World, until


def of(registry: CollectorRegistry, name: str, sink: str) -> float | None:
    return registry.get_sample_value(name, {"sink": sink})


async def test_a_full_disk_is_told_and_so_is_its_end(world: World) -> None:
    running = await world()
    registry = running.sidecar.metrics.registry
    assert running.sidecar.condition.complaints() == {}
    await until(lambda: claims(of(registry, "sidecar_audit_failing", "file") == 0))
    async with running.full_disk():
        said = running.sidecar.condition.complaints()["audit.file"]
        assert said.startswith("no room for ")
        assert said.endswith(" lines wait")
        await until(lambda: claims(of(registry, "sidecar_audit_failing", "file") == 1))
        assert "audit.file" in await running.sidecar.condition.readiness()
    await until(lambda: claims(of(registry, "sidecar_audit_failing", "file") == 0))
    assert running.sidecar.condition.complaints() == {}


async def claims(claim: bool) -> bool:
    return claim


class Deaf:
    """A sink that takes nothing."""

    def place(self) -> str:
        return ""

    def write(self, _lines: bytes) -> int:
        raise OSError(28, "full")

    def close(self) -> None:
        pass


def test_lines_that_are_thrown_away_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "_MOST_WAITING", 3)
    log, metrics = AuditLog([Deaf()], time.time, names=["syslog"]), Metrics()
    watch = AuditWatch(log, metrics)
    for number in range(10):
        log.record(Event.DECISION, {"path": f"/{number}"})
    watch.look()
    watch.look()
    lost = of(metrics.registry, "sidecar_audit_lost_total", "syslog")
    assert lost == log.dropped > 0
    log.close()
    assert watch.complaints()["audit.syslog"].startswith("full; ")

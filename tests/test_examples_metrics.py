"""The dashboard and the alerts speak of metrics that exist, with labels that they have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from sidecar.reason import Reason
from sidecar.telemetry.metrics import Metrics

ROOT = Path(__file__).parent.parent
ALERTS = ROOT / "examples" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "examples" / "grafana" / "sidecar.json"
# What every target of Prometheus has, and what histograms add.
ALWAYS = {"job", "instance", "le"}


def series() -> dict[str, set[str]]:
    """Name of every time series → its labels."""
    found: dict[str, set[str]] = {}
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(metric._type, [""])
            found |= {metric._name + ending: set(metric._labelnames) | ALWAYS for ending in endings}
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Where each expression stands, and the expression."""
    for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]:
        yield rule["alert"], rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_each_expression_asks_for_what_there_is(where: str, expression: str) -> None:
    known = series()
    labels: set[str] = set()
    for name, matchers in re.findall(r"\b(sidecar_\w+)(?:\{([^}]*)\})?", expression):
        assert name in known, where
        labels |= known[name]
        assert set(re.findall(r"(\w+)(?:=~|!=|!~|=)", matchers)) <= known[name], where
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(re.split(r", *", group)) <= labels, where


def test_every_metric_is_on_the_dashboard() -> None:
    asked = " ".join(expression for _, expression in expressions())
    endings = r"(_total|_bucket|_sum|_count)$"
    missing = {re.sub(endings, "", name) for name in series()} - set(
        re.findall(r"(sidecar_\w+?)(?:_total|_bucket)?\b", asked)
    )
    assert not missing


def test_panels_neither_overlap_nor_leave_the_page() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place: dict[str, Any] = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_each_panel_says_what_it_shows() -> None:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        assert panel["type"] == "row" or panel["description"], panel["title"]


def test_alerts_name_reasons_that_exist() -> None:
    for alert, expression in expressions():
        for reason in re.findall(r'reason="([^"]+)"', expression):
            assert reason in {one.value for one in Reason}, alert


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian: prometheus) is not installed")
def test_the_alerts_fire_when_they_should() -> None:
    for words in (["check", "rules", ALERTS.name], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run([str(PROMTOOL), *words], cwd=ALERTS.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

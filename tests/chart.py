"""Renders the Helm chart as Helm does, and finds things in what comes out."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from sidecar.config.loader import load
from sidecar.config.models import Config
from sidecar.hooks.passwords import FILTERS
from tests.services.certificates import make_certificates

ROOT = Path(__file__).parent.parent
CHART = ROOT / "helm/sidecar"
SECRETS = "/run/secrets/sidecar"
OURS = {"sidecar", "ready"}
# The oldest that Chart.yaml allows, and the newest whose schemas there are.
KUBERNETES = ("1.30.0", kubernetes_validate.latest_version())
# Not of Kubernetes itself, so there is no schema at hand.
FOREIGN = {"PodMonitor"}
IN_CHART = ("standalone", "replicas", "pod")
Manifest = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = os.environ.get("HELM") or shutil.which("helm")
    if command is None:
        pytest.fail("Helm is missing; `make check` builds it")
    return subprocess.run([command, *arguments], capture_output=True, text=True, check=False, timeout=60)


def values_of(case: str) -> Path:
    return CHART / "ci" / f"{case}.yaml"


def template(chart: Path, *arguments: str) -> list[Manifest]:
    result = helm("template", "wiki", str(chart), "--kube-version", KUBERNETES[-1], *arguments)
    assert result.returncode == 0, result.stderr
    return [manifest for manifest in yaml.safe_load_all(result.stdout) if manifest]


def rendered(case: str, *settings: str) -> list[Manifest]:
    """Manifests of a case in helm/sidecar/ci, with further ``--set`` settings."""
    return template(CHART, "-f", str(values_of(case)), *(part for setting in settings for part in ("--set", setting)))


@functools.cache
def plain(case: str) -> list[Manifest]:
    return rendered(case)


def of_kind(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def pods(manifests: Sequence[Manifest]) -> Iterator[Manifest]:
    for deployment in of_kind(manifests, "Deployment"):
        yield deployment["spec"]["template"]["spec"]
    for pod in of_kind(manifests, "Pod"):
        yield pod["spec"]


def pod_of(manifests: Sequence[Manifest]) -> Manifest:
    (deployment,) = of_kind(manifests, "Deployment")
    return deployment["spec"]["template"]["spec"]


def container(manifests: Sequence[Manifest], name: str = "sidecar") -> Manifest:
    (found,) = [container for container in pod_of(manifests)["containers"] if container["name"] == name]
    return found


def config_text(manifests: Sequence[Manifest]) -> str:
    (config,) = of_kind(manifests, "ConfigMap")
    return config["data"]["config.yaml"]


def policies(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    return {policy["metadata"]["name"]: policy["spec"] for policy in of_kind(manifests, "NetworkPolicy")}


def mounted_secrets(manifests: Sequence[Manifest]) -> set[str]:
    volumes = {volume["name"]: volume for volume in pod_of(manifests)["volumes"]}
    sources = volumes["sidecar-secrets"]["projected"]["sources"]
    return {item["path"] for source in sources for item in source["secret"]["items"]}


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return bool(selector["matchLabels"]) and selector["matchLabels"].items() <= labels.items()


def sample(name: str) -> str:
    """A plausible secret for what is called *name*."""
    addresses = {
        "directory": "postgresql://sidecar@db/sidecar",
        "REDIS_URL": "redis://redis:6379/0",
        "WIKI_DB_URL": "mysql://sidecar@db/wiki",
    }
    return addresses.get(name, f"{name}-is-a-secret-of-enough-characters")


def loaded(manifests: Sequence[Manifest], place: Path) -> Config:
    """The configuration as the sidecar in the pod would load it: with just the secrets that the chart gives it."""
    certificates = make_certificates(place)
    tls = {"tls.crt": certificates.certificate, "tls.key": certificates.key}
    for name in mounted_secrets(manifests):
        (place / name).write_text(tls[name].read_text() if name in tls else sample(name))
    path = place / "config.yaml"
    path.write_text(config_text(manifests).replace(SECRETS, str(place)))
    environment = {line["name"]: sample(line["name"]) for line in container(manifests).get("env", ())}
    result = load(path, environment=environment, filters=FILTERS)
    assert not result.warnings, [str(warning) for warning in result.warnings]
    return result.config

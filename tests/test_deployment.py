"""The Helm chart renders what Kubernetes accepts and the sidecar reads, and nobody gets round it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from sidecar.listening import parse_listen
from sidecar.portal.site import site_of
from tests.chart import (
    CHART,
    FOREIGN,
    IN_CHART,
    KUBERNETES,
    OURS,
    ROOT,
    Manifest,
    config_text,
    container,
    helm,
    loaded,
    matches,
    of_kind,
    plain,
    pod_of,
    pods,
    policies,
    rendered,
    template,
    values_of,
)


@pytest.fixture(scope="session")
def included(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """Manifests of an application's own chart that includes the sidecar."""
    place = tmp_path_factory.mktemp("helm")
    shutil.copytree(ROOT / "helm", place, dirs_exist_ok=True)
    chart = place / "example-application"
    built = helm("dependency", "build", str(chart))
    assert built.returncode == 0, built.stderr
    return template(chart)


@pytest.fixture(params=[*IN_CHART, "included"])
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """The manifests of each case in turn."""
    return request.getfixturevalue("included") if request.param == "included" else plain(request.param)


def test_every_case_is_tested() -> None:
    assert {path.stem for path in (CHART / "ci").iterdir()} == set(IN_CHART)


@pytest.mark.parametrize("case", IN_CHART)
def test_the_chart_has_no_lint(case: str) -> None:
    result = helm("lint", "--strict", "--kube-version", KUBERNETES[-1], str(CHART), "-f", str(values_of(case)))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_accepts_every_manifest(manifests: list[Manifest], version: str) -> None:
    for manifest in manifests:
        if manifest["kind"] not in FOREIGN:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_sidecar_loads_its_configuration_with_the_secrets_that_the_chart_mounts(
    manifests: list[Manifest], tmp_path: Path
) -> None:
    config = loaded(manifests, tmp_path)
    assert config.server.public_url == "https://wiki.example.com"


@pytest.mark.parametrize("case", IN_CHART)
def test_the_configuration_arrives_line_for_line(case: str) -> None:
    assert config_text(plain(case)) == yaml.safe_load(values_of(case).read_text())["config"]


def test_the_order_of_roles_survives(tmp_path: Path) -> None:
    assert list(loaded(plain("replicas"), tmp_path).roles) == ["owner", "editor", "admin"]


def test_a_changed_configuration_starts_new_pods(tmp_path: Path) -> None:
    changed = tmp_path / "config.yaml"
    changed.write_text(config_text(plain("standalone")) + "\n# changed\n")
    before, after = (
        of_kind(manifests, "Deployment")[0]["spec"]["template"]["metadata"]["annotations"]["checksum/sidecar-config"]
        for manifests in (
            plain("standalone"),
            template(CHART, "-f", str(values_of("standalone")), "--set-file", f"config={changed}"),
        )
    )
    assert before != after


def test_no_container_is_root_or_can_become_it(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        assert pod["automountServiceAccountToken"] is False
        assert not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
        for one in pod["containers"]:
            security = {**pod["securityContext"], **one["securityContext"]}
            assert security["runAsNonRoot"] is True
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_sidecar_writes_only_to_its_state_and_tmp(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        for one in pod["containers"]:
            if one["name"] in OURS:
                assert one["securityContext"]["readOnlyRootFilesystem"] is True
                assert one["resources"]["limits"]["memory"]
    mounts = container(manifests)["volumeMounts"]
    assert {mount["mountPath"] for mount in mounts if not mount.get("readOnly")} == {"/var/lib/sidecar", "/tmp"}
    assert container(manifests)["workingDir"] == "/var/lib/sidecar"


def test_secrets_are_named_and_never_written(manifests: list[Manifest]) -> None:
    assert not of_kind(manifests, "Secret")
    plain_lines = [line for line in container(manifests).get("env", ()) if "value" in line]
    assert [line["name"] for line in plain_lines] in ([], ["TZ"])
    assert "secret: {" not in config_text(manifests).replace("secret: {file:", "").replace("secret: {env:", "")


def test_a_secret_value_in_the_values_is_refused() -> None:
    setting = '{"name": "TOKEN", "secret": "a", "key": "b", "value": "hunter2"}'
    result = helm(
        "template",
        "wiki",
        str(CHART),
        "-f",
        str(values_of("standalone")),
        "--set-json",
        f"secrets.env=[{setting}]",
    )
    assert result.returncode != 0
    assert "value" in result.stderr
    assert "secrets" in result.stderr


def test_probes_ask_the_sidecar_itself_where_it_answers(manifests: list[Manifest], tmp_path: Path) -> None:
    config = loaded(manifests, tmp_path)
    site = site_of(config.server, config.sessions)
    one = container(manifests)
    ports = {port["name"]: port["containerPort"] for port in one["ports"]}
    for probe, page in (("startupProbe", "live"), ("livenessProbe", "live"), ("readinessProbe", "ready")):
        assert one[probe]["httpGet"] == {
            "path": site.path(page),
            "port": "sidecar",
            "scheme": "HTTPS" if config.server.tls else "HTTP",
        }
    assert ports["sidecar"] == parse_listen(config.server.listen)[1]
    if config.server.metrics is not None:
        assert ports["sidecar-metrics"] == parse_listen(config.server.metrics)[1]


def test_a_pod_is_given_the_time_to_drain(manifests: list[Manifest], tmp_path: Path) -> None:
    drain = loaded(manifests, tmp_path).server.drain.total_seconds()
    pause = container(manifests)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= 1
    assert pod_of(manifests)["terminationGracePeriodSeconds"] > pause + drain
    # The application beside it outlives the last request that the sidecar carries to it.
    for one in pod_of(manifests)["containers"]:
        if one["name"] != "sidecar":
            assert one["lifecycle"]["preStop"]["sleep"]["seconds"] >= pause + drain


def test_only_the_port_of_the_sidecar_is_open(manifests: list[Manifest], tmp_path: Path) -> None:
    config = loaded(manifests, tmp_path)
    policy = policies(manifests)["wiki-sidecar"]
    (deployment,) = of_kind(manifests, "Deployment")
    assert matches(policy["podSelector"], deployment["spec"]["template"]["metadata"]["labels"])
    assert "Ingress" in policy["policyTypes"]
    door, *others = policy["ingress"]
    assert door["ports"] == [{"protocol": "TCP", "port": parse_listen(config.server.listen)[1]}]
    for other in others:
        assert config.server.metrics is not None
        assert other["ports"] == [{"protocol": "TCP", "port": parse_listen(config.server.metrics)[1]}]
        assert other["from"]


def test_nobody_scrapes_the_metrics_unless_named() -> None:
    (door,) = policies(rendered("replicas", "metrics.from=null"))["wiki-sidecar"]["ingress"]
    assert [port["port"] for port in door["ports"]] == [8443]


@pytest.mark.parametrize("case", ["standalone", "replicas"])
def test_only_the_sidecar_reaches_the_application(case: str) -> None:
    manifests = plain(case)
    policy = policies(manifests)["wiki-sidecar-application"]
    assert policy["podSelector"] == {"matchLabels": {"app": "wiki"}}
    assert policy["policyTypes"] == ["Ingress"]
    rule, *others = policy["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 3000}]
    (peer,) = rule["from"]
    (deployment,) = of_kind(manifests, "Deployment")
    assert set(peer) == {"podSelector"}
    assert matches(peer["podSelector"], deployment["spec"]["template"]["metadata"]["labels"])
    assert others == yaml.safe_load(values_of(case).read_text())["application"].get("alsoFrom", [])


def test_services_lead_to_the_sidecar_and_never_past_it(manifests: list[Manifest]) -> None:
    services = of_kind(manifests, "Service")
    assert services
    for service in services:
        assert [port["targetPort"] for port in service["spec"]["ports"]] == ["sidecar"]


def test_beside_the_application_nothing_is_closed_twice_or_left_open() -> None:
    manifests = plain("pod")
    assert set(policies(manifests)) == {"wiki-sidecar"}
    assert {one["name"] for one in pod_of(manifests)["containers"]} == {"sidecar", "wiki"}
    others = [mount["name"] for mount in container(manifests, "wiki")["volumeMounts"]]
    assert others == ["wiki-data"]


def test_one_sqlite_file_is_never_written_by_two_pods() -> None:
    (deployment,) = of_kind(plain("pod"), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_a_rollout_and_a_drained_node_take_one_pod_at_a_time() -> None:
    (deployment,) = of_kind(plain("replicas"), "Deployment")
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert "replicas" not in deployment["spec"], "the autoscaler decides"
    (budget,) = of_kind(plain("replicas"), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert matches(budget["spec"]["selector"], deployment["spec"]["template"]["metadata"]["labels"])


def test_an_ingress_has_the_hosts_of_the_configuration() -> None:
    (ingress,) = of_kind(plain("replicas"), "Ingress")
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == ["wiki.example.com", "wiki.example.org"]


SAMPLE = "server: {listen: %s, public_url: 'https://a.example'}\napp: {upstream: %s}\n"
INSIDE = SAMPLE % ("0.0.0.0:80", "http://a")
SHARED = SAMPLE % ("0.0.0.0:80", "http://a") + "sessions: {redis: 'redis://r'}\nprovision: {}\n"


@pytest.mark.parametrize(
    ("case", "settings", "config", "says"),
    [
        ("standalone", ["replicas=2"], None, "set sessions.redis"),
        ("standalone", ["autoscaling.enabled=true"], None, "set sessions.redis"),
        ("pod", ["persistence.enabled=false"], None, "would be lost with the pod"),
        ("standalone", ["application.podLabels=null"], None, "nobody goes round"),
        ("standalone", ["metrics.podMonitor.enabled=true"], None, "server.metrics"),
        ("pod", ["app.container.image="], None, "app.container"),
        ("standalone", ["config="], None, "config is missing"),
        ("standalone", ["mode=beside"], None, "mode"),
        ("standalone", ["replica=2"], None, "replica"),
        ("standalone", [], SAMPLE % ("127.0.0.1:8080", "http://wiki"), "0.0.0.0:8080"),
        ("standalone", [], SAMPLE % ("0.0.0.0:8080", "http://localhost:3000"), "take mode pod"),
        ("pod", [], SAMPLE % ("0.0.0.0:8080", "http://wiki:3000"), "take mode standalone"),
        ("standalone", [], SAMPLE % ("unix:/tmp/socket", "http://wiki"), "host:port"),
        ("standalone", [], SAMPLE % ("{env: LISTEN}", "http://wiki"), "has to be written out"),
        ("standalone", [], "server: {", "not YAML"),
        ("standalone", ["replicas=2"], SHARED, "a shared directory"),
        ("replicas", ["persistence.enabled=true"], None, "cannot share one volume"),
        ("standalone", [], INSIDE + "directory: postgresql://me:hunter2@db/wiki\n", "put the address into a Secret"),
        ("standalone", [], INSIDE + "sessions: {redis: 'redis://:hunter2@redis/0'}\n", "put the address into a Secret"),
    ],
)  # fmt: skip
def test_what_would_not_work_is_refused_with_the_way_out(
    case: str, settings: list[str], config: str | None, says: str, tmp_path: Path
) -> None:
    arguments = [part for setting in settings for part in ("--set", setting)]
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
        arguments += ["--set-file", f"config={tmp_path / 'config.yaml'}"]
    result = helm(
        "template", "wiki", str(CHART), "-f", str(values_of(case)), *arguments, "--kube-version", KUBERNETES[-1]
    )
    assert result.returncode != 0
    assert says in result.stderr


def test_an_address_without_a_password_may_stand_in_the_configuration(tmp_path: Path) -> None:
    lines = ["# as postgresql://me:password@db/wiki would", "directory: postgresql://me@db:5432/wiki # a:b@c"]
    lines += ["logins: {a: {issuer: 'https://id.example.com:8443/realms/a@b'}}", ""]
    file = tmp_path / "config.yaml"
    file.write_text(INSIDE + "\n".join(lines))
    made = template(CHART, "-f", str(values_of("standalone")), "--set-file", f"config={file}")
    assert config_text(made) == file.read_text()


def test_every_value_has_a_type_and_every_type_a_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    # Helm itself hands these down to a chart that is a dependency.
    assert set(schema["properties"]) - {"enabled", "global"} == set(values)

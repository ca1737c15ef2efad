"""The Dockerfile keeps its promises, and its steps work: they are replayed here, since there is no container engine."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.test_compiled import modules

ROOT = Path(__file__).parent.parent
CHART = ROOT / "helm/sidecar"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of the Dockerfile, continuations joined; ``stage`` counts from 1, and 0 is before the first FROM."""

    stage: int
    name: str
    text: str

    @property
    def json(self) -> list[str]:
        """The arguments of ENTRYPOINT, CMD and the like in their exec form."""
        return json.loads(self.text[self.text.index("[") :])


@functools.cache
def dockerfile() -> tuple[Instruction, ...]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    stage, found = 0, []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        name, _, text = line.strip().partition(" ")
        stage += name == "FROM"
        if name:
            found.append(Instruction(stage, name, text.strip()))
    return tuple(found)


def said(name: str, stage: int) -> list[Instruction]:
    return [instruction for instruction in dockerfile() if (instruction.name, instruction.stage) == (name, stage)]


def last(name: str) -> Instruction:
    """What the final stage says last about *name*."""
    return said(name, dockerfile()[-1].stage)[-1]


@dataclass(frozen=True, slots=True)
class Built:
    """What the first stage leaves behind: the wheel, and the environment that the image gets."""

    wheel: Path
    environment: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The first stage, replayed in a temporary folder with only the files that it copies."""
    place = tmp_path_factory.mktemp("image")
    source = place / "source"
    source.mkdir()
    for copy in said("COPY", 1):
        *names, target = copy.text.split()
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (source / target).parent.mkdir(exist_ok=True)
                shutil.copy(ROOT / name, source / target)
    search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for run in said("RUN", 1):
        command = run.text.replace("/wheels", f"{place}/wheels").replace("/opt/", f"{place}/opt/")
        # What is compiled here is what the tests of compiled modules take, and the other way round.
        variables = {**os.environ, "PATH": search, "COMPILED_KEPT": str(ROOT / ".cache/compiled-modules")}
        subprocess.run(["/bin/sh", "-euc", command], cwd=source, env=variables, check=True)
    (wheel,) = (place / "wheels").iterdir()
    return Built(wheel, place / "opt/sidecar")


@pytest.mark.timeout(600)
def test_the_wheel_holds_every_file_of_the_package(built: Built) -> None:
    packed = {name for name in zipfile.ZipFile(built.wheel).namelist() if name.startswith("sidecar/")}
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sidecar").rglob("*") if path.is_file()}
    compiled = {name for name in packed if name.endswith(".so")}
    assert packed - compiled == {name for name in files if "__pycache__" not in name}
    assert {name.partition(".")[0] for name in compiled} == {name.removesuffix(".py") for name in modules()}
    for needed in ("sidecar/demo/demo.yaml", "sidecar/directory/migrations/env.py"):
        assert needed in packed
    assert any(re.fullmatch(r"sidecar/pages/templates/.+\.html", name) for name in packed)


def said_by(command: list[str], environment: dict[str, str], place: Path) -> str:
    """Standard output of *command*, which has to succeed."""
    result = subprocess.run(
        command, env=environment, cwd=place, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.timeout(600)
def test_the_installed_command_runs_with_nothing_but_its_own_dependencies(built: Built, tmp_path: Path) -> None:
    environment = {"PATH": f"{built.environment / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}
    command = str(built.environment / "bin" / last("ENTRYPOINT").json[0])
    assert f"{version()}, request path compiled" in said_by([command, "--version"], environment, tmp_path)
    everything = """
import importlib, pkgutil, sidecar
for module in pkgutil.walk_packages(sidecar.__path__, "sidecar."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            # Extras, which the image does not carry.
            if error.name not in ("cedarpy", "ldap", "opentelemetry", "requests"):
                raise
"""
    said_by([str(built.environment / "bin/python"), "-c", everything], environment, tmp_path)


@pytest.mark.timeout(600)
def test_the_image_carries_no_installer(built: Built) -> None:
    assert not list((built.environment / "bin").glob("pip*"))
    assert "pip uninstall" in last("RUN").text


def test_the_dockerfile_has_no_lint() -> None:
    linter = str(Path(sys.executable).parent / "hadolint")
    subprocess.run([linter, str(ROOT / "Dockerfile")], check=True, timeout=60)


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", last("USER").text)


def test_chart_and_image_agree() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    user, group = map(int, last("USER").text.split(":"))
    assert (values["securityContext"]["runAsUser"], values["securityContext"]["runAsGroup"]) == (user, group)
    assert values["podSecurityContext"]["fsGroup"] == group
    pod = (CHART / "templates/_pod.tpl").read_text()
    assert f"args: [{', '.join(last('CMD').json)}]" in pod
    assert f"workingDir: {last('WORKDIR').text}" in pod
    assert last("VOLUME").json == [last("WORKDIR").text]


def version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_everything_has_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version(), version())
    assert last("ARG").text == f"VERSION={version()}"


def test_a_stop_is_asked_for_politely() -> None:
    assert last("STOPSIGNAL").text == "SIGTERM"
    # A shell in between would keep the signal to itself.
    assert last("ENTRYPOINT").json == ["sidecar"]


def test_only_what_the_wheel_is_made_of_gets_into_the_build() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert let_in == {name for copy in said("COPY", 1) for name in copy.text.split()[:-1]}


class Health(http.server.BaseHTTPRequestHandler):
    """Answers with the status that its server was told."""

    def do_GET(self) -> None:
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def health() -> Iterator[http.server.HTTPServer]:
    """A server that answers health checks with its ``status``."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (503, False)])
def test_the_health_check_believes_the_sidecar(
    health: http.server.HTTPServer, status: int, *, is_healthy: bool
) -> None:
    health.status = status  # type: ignore[attr-defined]
    _, *arguments = last("HEALTHCHECK").json
    address = f"http://127.0.0.1:{health.server_port}/-/live"
    result = subprocess.run(
        [sys.executable, *arguments], env={"SIDECAR_HEALTH": address}, capture_output=True, check=False, timeout=30
    )
    assert (result.returncode == 0) is is_healthy

"""What the documentation shows is true: its configurations load, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from sidecar.cli import main
from sidecar.config.loader import ConfigError, load
from sidecar.config.models import Config
from sidecar.hooks.passwords import FILTERS
from sidecar.telemetry.metrics import Metrics
from tests.world import merged

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
BASE = """
server: {public_url: https://wiki.example.com}
app: {upstream: http://127.0.0.1:3000}
logins:
  corp: {type: oidc, issuer: https://id.example.com, client_id: wiki, client_secret: {env: S}, bearer: {audience: wiki}}
identity: {username: "{{ claims.preferred_username }}"}
sessions: {secrets: [{env: S}]}
access: [{path: /health, allow: anyone}, {path: /**, allow: signed_in}]
"""
PROVISION = """
account: {key: "{{ user.username }}"}
connections: {db: {sql: {env: S}}}
lookup: {sql: {on: db, query: "SELECT id FROM users WHERE login = :login", params: {login: "{{ account.key }}"}}}
"""
SECTIONS = set(Config.model_fields)


def blocks(language: str) -> list[tuple[str, str]]:
    """(page and line, text) of each fenced block."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            found.append((f"{page.relative_to(ROOT)}:{line}", match[1]))
    return found


def configurations() -> list[tuple[str, dict[str, Any]]]:
    """Blocks that are parts of a configuration of ours."""
    found = []
    for where, text in blocks("yaml"):
        data = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - text only
        if isinstance(data, dict) and set(data) <= SECTIONS:
            found.append((where, data))
    return found


CONFIGURATIONS = configurations()


def test_there_are_configurations_in_the_docs() -> None:
    assert len(CONFIGURATIONS) > 15


@pytest.mark.parametrize(("where", "part"), CONFIGURATIONS, ids=[where for where, _ in CONFIGURATIONS])
def test_each_configuration_in_the_docs_loads(where: str, part: dict[str, Any], tmp_path: Path) -> None:
    if "provision" in part:
        # What a page on hooks leaves out, because it stands on the page before.
        part = {"provision": merged(yaml.load(PROVISION, Loader=yaml.BaseLoader), part["provision"])}  # noqa: S506
    if {"scim", "people", "sync", "drift"} & set(part):
        part = {"provision": yaml.load(PROVISION, Loader=yaml.BaseLoader), **part}  # noqa: S506
    whole = merged(yaml.load(BASE, Loader=yaml.BaseLoader), part)  # noqa: S506 - text only
    # A login that says its type is complete, and may be of another kind than the one of the same name above.
    whole["logins"] |= {name: login for name, login in part.get("logins", {}).items() if "type" in login}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(whole, sort_keys=False))
    try:
        load(file, environment={}, filters=FILTERS, needs_secrets=False)
    except ConfigError as error:
        wrong = [str(problem) for problem in error.problems if problem.severity == "error"]
        pytest.fail(f"{where}: {wrong}")


def commands() -> list[tuple[str, list[str]]]:
    """Every line that calls ``sidecar``."""
    found = []
    for where, text in blocks("sh"):
        for line in text.splitlines():
            for part in re.split(r"&&|\|", line.partition("#")[0]):
                words = part.split()
                if words[:1] == ["sidecar"]:
                    found.append((where, words[1:]))
    return found


@pytest.mark.parametrize(("where", "words"), commands())
def test_each_command_in_the_docs_exists_with_its_options(where: str, words: list[str]) -> None:
    command: click.Command = main
    while words and not words[0].startswith("-") and isinstance(command, click.Group):
        context = click.Context(command)
        assert words[0] in command.list_commands(context), f"{where}: there is no command {words[0]}"
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    asked = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert asked <= options, where


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_holds_what_a_merge_left_behind(page: Path) -> None:
    assert not re.search(r"^(<<<<<<<|=======|>>>>>>>)", page.read_text(), re.MULTILINE)


def test_no_two_pages_have_the_same_title() -> None:
    titles = [page.read_text().partition("\n")[0] for page in PAGES if page.parent == ROOT / "docs"]
    assert sorted(set(titles)) == sorted(titles)


def test_the_page_of_metrics_names_each_with_its_kind_and_labels() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(sidecar_\w+)` \| (\w+) \|([^|]*)\|", page, re.MULTILINE)
    written = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    metrics = [one for one in vars(Metrics()).values() if isinstance(one, MetricWrapperBase)]
    ending = {"counter": "_total"}
    assert written == {one._name + ending.get(one._type, ""): (one._type, set(one._labelnames)) for one in metrics}


def test_each_attack_in_the_security_page_has_its_tests() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| (T\d\d)(?:–T\d\d)? \| [^|]+ \| ([^|]+) \|", page, re.MULTILINE)
    assert len(rows) >= 60
    for case, held_by in rows:
        for file in re.findall(r"`(test_[a-z_0-9]+\.py)`", held_by):
            text = (ROOT / "tests" / file).read_text()
            assert re.search(rf"def test_(?:t\d\d_)*{case.lower()}_", text), f"{file} has no test of {case}"

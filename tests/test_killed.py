"""Killed with SIGKILL at every step of the SCIM path and of the outbox, the sidecar ends in the right state, once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scim_world import TOKEN, client_section
from tests.test_journey import users_table
from tests.world import BASE, PROVISION, SECRET, merged

ROOT = Path(__file__).parent.parent
MEMORY = Path("/dev/shm")
ADA = {"userName": "ada", "emails": [{"value": "ada@example.com", "primary": True}], "active": True}
MAKE = {"method": "POST", "body": ADA}
OFF = {"method": "PATCH", "of": "ada", "body": {"Operations": [{"op": "replace", "value": {"active": False}}]}}
RENAME = {"method": "PATCH", "of": "ada", "body": {"Operations": [{"op": "replace", "value": {"userName": "lady"}}]}}
DELETE = {"method": "DELETE", "of": "ada"}
ADMINS = {"method": "POST", "in": "Groups", "member": "ada", "body": {"displayName": "wiki-admins"}}
TEAM = {"method": "POST", "in": "Groups", "body": {"displayName": "wiki-admins"}}
COME = {"method": "PATCH", "in": "Groups", "of": "wiki-admins", "op": "add", "member": "ada"}
CALL = {
    "method": "PATCH",
    "in": "Groups",
    "of": "wiki-admins",
    "body": {"Operations": [{"op": "replace", "path": "displayName", "value": "wiki-editors"}]},
}
END = {"method": "DELETE", "in": "Groups", "of": "wiki-admins"}
PEOPLE = "SELECT search_name, active FROM sidecar_scim_user"
GROUPS = "SELECT name, (SELECT COUNT(*) FROM sidecar_member WHERE group_id = sidecar_group.id) FROM sidecar_group"


def by_id(statement: str, **values: str) -> dict[str, Any]:
    """A step on the account's row."""
    return {"sql": {"on": "db", "exec": statement, "params": {"id": "{{ account.id }}", **values}, "affected": "1"}}


STEPS = {
    "rename": by_id("UPDATE users SET login = :new WHERE id = :id", new="{{ new_key }}"),
    "delete": by_id("DELETE FROM users WHERE id = :id"),
}


def plan_in(folder: Path, **story: Any) -> tuple[Path, dict[str, str]]:
    """(plan, environment) of a story on a fresh stage: an application whose table has no unique index."""
    stage = folder / "stage"
    stage.mkdir()
    users = users_table(stage / "users.db")
    config = yaml.load(BASE, Loader=yaml.BaseLoader)  # noqa: S506 - our own text
    changes = {
        "server": {"listen": "127.0.0.1:0", "public_url": "http://localhost:8123"},
        "app": {"upstream": "http://127.0.0.1:9"},
        "directory": f"sqlite:///{stage}/directory.db",
        "provision": {**yaml.load(PROVISION, Loader=yaml.BaseLoader), **STEPS},  # noqa: S506 - our own text
        "scim": {"clients": {"okta": client_section(profile="okta")}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(merged(config, changes)))
    plan = {"stage": str(stage), "start": str(folder / "start"), "config": str(folder / "config.yaml"), **story}
    (folder / "plan.json").write_text(json.dumps(plan))
    known = {"ISSUER": "http://localhost:9/id", "OIDC_SECRET": "a client secret", "SESSION_SECRET": SECRET}
    return folder / "plan.json", {**os.environ, **known, "SCIM_TOKEN": TOKEN, "USERS_DB": users}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("before", "deed", "query", "told", "rows"),
    [
        ([], MAKE, PEOPLE, [["ada", 1]], [["ada", 1, "reader"]]),
        ([MAKE], OFF, PEOPLE, [["ada", 0]], [["ada", 0, "reader"]]),
        ([MAKE], RENAME, PEOPLE, [["lady", 1]], [["lady", 1, "reader"]]),
        ([MAKE], DELETE, PEOPLE, [], []),
        ([MAKE], ADMINS, GROUPS, [["wiki-admins", 1]], [["ada", 1, "admin"]]),
        ([MAKE, TEAM], COME, GROUPS, [["wiki-admins", 1]], [["ada", 1, "admin"]]),
        ([MAKE, ADMINS], {**COME, "op": "remove"}, GROUPS, [["wiki-admins", 0]], [["ada", 1, "reader"]]),
        ([MAKE, ADMINS], CALL, GROUPS, [["wiki-editors", 1]], [["ada", 1, "editor"]]),
        ([MAKE, ADMINS], END, GROUPS, [], [["ada", 1, "reader"]]),
    ],
    ids=[
        "make",
        "switch off",
        "rename",
        "delete",
        "make a group",
        "come into a group",
        "leave a group",
        "rename a group",
        "delete a group",
    ],
)
def test_t70_killed_at_any_step_the_end_is_right_and_nothing_happened_twice(
    tmp_path: Path, request: pytest.FixtureRequest, before: list[Any], deed: Any, query: str, told: Any, rows: Any
) -> None:
    # A killed process loses nothing that it wrote, so no disk has to be waited for.
    folder = Path(tempfile.mkdtemp(dir=MEMORY)) if MEMORY.is_dir() else tmp_path
    request.addfinalizer(lambda: shutil.rmtree(folder, ignore_errors=True))
    plan, environment = plan_in(folder, before=before, deed=deed, query=query, told=told)
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed_at", plan],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    # Every moment has come, before the request was written and behind it, and the last process was not killed.
    assert [end["is_over"] for end in ends] == [False] * (len(ends) - 1) + [True]
    assert {end["was_asked_again"] for end in ends} == {True, False}
    assert len(ends) > 8
    for at, end in enumerate(ends):
        assert (end["rows"], end["owed"]) == (rows, []), f"killed at moment {at}"

"""A command loads what its configuration asks for, and nothing else: most of its time would go there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.cli import _COMMANDS
from tests.world import BASE, PROVISION, merged

DATABASES, MIGRATIONS, REDIS = {"sqlalchemy", "aiosqlite"}, {"alembic", "mako"}, {"redis"}
NETWORK = {"aiohttp", "authlib", "joserfc", "cryptography"}
# Redis' client brings OpenTelemetry where it is installed, migrations bring Pygments.
LARGE = DATABASES | MIGRATIONS | REDIS | NETWORK | {"opentelemetry", "pygments", "structlog", "onelogin", "lxml"}

COMMAND = """
import json, sys
from sidecar.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print(json.dumps([end.code or 0, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
BUILT = """
import asyncio, json, os, sys
from pathlib import Path
from sidecar.cli import main, run
from sidecar.config.loader import load
from sidecar.hooks.passwords import FILTERS

async def built():
    sidecar = await run.build(load(Path(sys.argv[1]), environment=os.environ, filters=FILTERS).config)
    print(json.dumps([0, sorted({name.partition(".")[0] for name in sys.modules})]))
    await sidecar.stop()

asyncio.run(built())
"""


class House:
    """A folder with a configuration that names neither a database nor Redis."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configure()

    def configure(self, **changes: Any) -> None:
        """Write the configuration, with *changes* laid over it."""
        (self.folder / "audit.jsonl").write_text('{"time": "2026-01-31T12:00:00.000Z", "event": "login-succeeded"}\n')
        own = {
            "server": {"listen": "127.0.0.1:8123", "public_url": "http://localhost:8123"},
            "app": {"upstream": "http://127.0.0.1:9"},
            "audit": {"file": str(self.folder / "audit.jsonl")},
        }
        base = merged(yaml.load(BASE, Loader=yaml.BaseLoader), own)  # noqa: S506 - our own text
        (self.folder / "config.yaml").write_text(yaml.safe_dump(merged(base, changes)))

    def keep_accounts(self) -> None:
        """Write one with a directory, and hooks that speak SQL."""
        provision = yaml.load(PROVISION, Loader=yaml.BaseLoader)  # noqa: S506 - our own text
        self.configure(provision=provision, directory=f"sqlite:///{self.folder}/directory.db")

    def loaded(self, program: str, *words: str, code: int = 0) -> set[str]:
        """Names of the packages that *program* has loaded at its end, which is with *code*."""
        environment = {
            **os.environ,
            "OIDC_SECRET": "hidden-client-secret",
            "SESSION_SECRET": "a session secret that is long enough for anybody",
            "ISSUER": "http://localhost:9/id",
            "USERS_DB": f"sqlite:///{self.folder}/users.db",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        found, names = json.loads(done.stdout.splitlines()[-1])
        assert found == code, done.stderr
        return set(names)


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A fresh one."""
    return House(tmp_path)


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("schema", set()),
        ("check", set()),
        ("explain GET /health", set()),
        ("explain GET /public/x --as claims.json", set()),
        ("plan --user claims.json", set()),
        ("audit search", {"cryptography"}),
    ],
    ids=str,
)
def test_a_command_loads_no_part_that_its_configuration_does_not_name(
    house: House, words: str, needed: set[str]
) -> None:
    claims = {"sub": "1", "preferred_username": "ada", "groups": ["wiki-admins"]}
    (house.folder / "claims.json").write_text(json.dumps(claims))
    assert house.loaded(COMMAND, *words.split()) & LARGE == needed


def test_help_loads_nothing_that_a_command_works_with(house: House) -> None:
    for name in sorted(set(_COMMANDS) - {"run", "demo"}):
        assert house.loaded(COMMAND, name, "--help") & LARGE <= {"structlog", "pygments", "cryptography"}, name


@pytest.mark.parametrize("words", ["reload", "log-level debug"])
def test_a_command_to_the_sidecar_that_runs_loads_nothing_that_serves(house: House, words: str) -> None:
    house.configure(reload={"control": str(house.folder / "control")})
    assert not house.loaded(COMMAND, *words.split(), code=3) & (DATABASES | REDIS | NETWORK)


def test_a_command_loads_databases_where_there_is_one_and_migrations_only_to_carry_them_out(house: House) -> None:
    house.keep_accounts()
    first, second = (house.loaded(COMMAND, "users", "list") for _ in range(2))
    assert first >= DATABASES | MIGRATIONS
    assert second >= DATABASES
    assert not second & (MIGRATIONS | REDIS | {"opentelemetry"})


def test_what_serves_has_loaded_what_it_needs_before_anybody_comes(house: House) -> None:
    rest = DATABASES | MIGRATIONS | REDIS | {"opentelemetry", "lxml", "onelogin"}
    assert house.loaded(BUILT, "config.yaml") & rest == set()
    house.configure(sessions={"redis": "redis://127.0.0.1:9"})
    assert house.loaded(BUILT, "config.yaml") & rest == REDIS | {"opentelemetry"}
    house.keep_accounts()
    assert house.loaded(BUILT, "config.yaml") & rest == DATABASES | MIGRATIONS
    assert house.loaded(BUILT, "config.yaml") & rest == DATABASES

"""A sidecar that runs, and an operator at a terminal beside it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.demo.provider import DemoProvider
from tests.test_journey import users_of, users_table
from tests.world import SECRET, Running, World, until

PEOPLE = {"on": "email", "join": {"corp": "{{ user.email }}"}}


@dataclass
class Said:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its answer."""
        return json.loads(self.out)


@dataclass
class Terminal:
    """Types commands that work with the configuration of *running*."""

    running: Running
    environment: Mapping[str, str]
    users: Path

    async def __call__(self, *words: str, typed: str | None = None) -> Said:
        """Type ``sidecar`` and *words*; CONFIG is the last of them."""
        return await asyncio.to_thread(self._run, words, typed)

    def _run(self, words: tuple[str, ...], typed: str | None) -> Said:
        config = str(self.running.folder / "config.yaml")
        # The commands run in this process: starting an interpreter for each takes longer than all that is tested.
        try:
            done = CliRunner().invoke(main, [*words, config], input=typed, env=dict(self.environment))
        finally:
            structlog.reset_defaults()
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.exit_code, done.stdout, done.stderr)

    async def good(self, *words: str) -> Any:
        """Type a command that has to succeed; its JSON."""
        said = await self(*words, "--json")
        assert said.code == 0, said
        return said.json

    def rows(self) -> list[tuple[Any, ...]]:
        """(login, email, role, active) of everybody in the application but its own administrator."""
        return [row for row in users_of(self.users) if row[0] != "root"]

    async def has_row(self, login: str, active: int = 1) -> None:
        """Wait until the application has that account, switched on or off."""

        async def is_there() -> bool:
            return any(row[0] == login and row[3] == active for row in self.rows())

        await until(is_there)

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Audit lines of these events."""
        return [line for line in self.running.audit() if line["event"] in names]


async def beside(
    world: World,
    folder: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    provider: DemoProvider | None = None,
    port: int = 0,
    **environment: str,
) -> Terminal:
    """Start a sidecar with accounts and people by hand; with Redis where REDIS_URL is given."""
    users = folder / "users.db"
    variables = {"USERS_DB": users_table(users), **environment}
    shared: dict[str, Any] = {"people": PEOPLE, **(changes or {})}
    if "REDIS_URL" in environment:
        shared["sessions"] = {"redis": {"env": "REDIS_URL"}}
    running = await world(shared, environment=variables, provision=True, provider=provider, port=port)
    known = {**variables, "ISSUER": running.provider.issuer, "OIDC_SECRET": "a client secret", "SESSION_SECRET": SECRET}
    return Terminal(running, {**os.environ, **known}, users)

"""A company for tests of synchronisation: a list of people, an application with a table of users, and a clock."""

from __future__ import annotations

import csv
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sidecar.config.loader import load
from sidecar.directory.sync_runs import RunRecord
from sidecar.hooks.passwords import FILTERS
from sidecar.sync import Synchroniser
from sidecar.sync.runs import Wish
from sidecar.syncing import Syncing, open_syncing
from tests.world import SECRET, merged

USERS = (
    "CREATE TABLE users (id INTEGER PRIMARY KEY, login TEXT UNIQUE, email TEXT, role TEXT, active INTEGER DEFAULT 1)"
)
COLUMNS = ("number", "login", "mail", "name", "status", "teams")

CONFIG = """
server: {listen: 127.0.0.1:0, public_url: http://127.0.0.1:1}
app: {upstream: http://127.0.0.1:1}
logins:
  corp: {type: oidc, title: Corp, issuer: http://127.0.0.1:9, client_id: wiki, client_secret: {env: SECRET}}
identity: {username: "{{ claims.preferred_username }}"}
roles: {admin: "{{ 'admins' in groups }}", editor: "{{ 'editors' in groups }}"}
access: [{path: /**, allow: signed_in}]
sessions: {secrets: [{env: SECRET}]}
provision:
  account: {key: "{{ user.username }}", protected: [root]}
  attributes: {email: {from: "{{ user.email }}"}}
  roles: {mode: authoritative, managed: [admin, editor]}
  connections: {db: {sql: {env: APP_DB}}}
  lookup:
    sql: {on: db, query: "SELECT id, role, active FROM users WHERE login = :login",
          params: {login: "{{ account.key }}"}}
  create:
    sql: {on: db, exec: "INSERT INTO users (login, email, role) VALUES (:login, :email, :role)",
          params: {login: "{{ account.key }}", email: "{{ attributes.email }}", role: "{{ role }}"}, affected: 1}
  update:
    sql: {on: db, exec: "UPDATE users SET email = :email WHERE login = :login",
          params: {login: "{{ account.key }}", email: "{{ attributes.email }}"}, affected: 1}
  set_roles:
    sql: {on: db, exec: "UPDATE users SET role = :role WHERE login = :login",
          params: {login: "{{ account.key }}", role: "{{ role }}"}, affected: 1}
  deactivate:
    sql: {on: db, exec: "UPDATE users SET active = 0 WHERE login = :login",
          params: {login: "{{ account.key }}"}, affected: 1}
  reactivate:
    sql: {on: db, exec: "UPDATE users SET active = 1 WHERE login = :login",
          params: {login: "{{ account.key }}"}, affected: 1}
  delete:
    sql: {on: db, exec: "DELETE FROM users WHERE login = :login", params: {login: "{{ account.key }}"}, affected: 1}
sync:
  hr:
    source: {csv: people.csv}
    id: number
    active: "{{ claims.status == 'active' }}"
    identity:
      username: "{{ claims.login }}"
      email: "{{ claims.mail }}"
      name: "{{ claims.name }}"
      groups: "{{ claims.teams.split(';') }}"
    join: {corp: "{{ claims.number }}"}
    grace: {runs: 2, time: 1h}
audit: {file: audit.jsonl}
"""


def person(number: int, **changes: str) -> dict[str, str]:
    """One line of the list of people."""
    login = f"p{number:05}"
    line = {"number": str(number), "login": login, "mail": f"{login}@example.com", "name": f"Person {number}"}
    return {**line, "status": "active", "teams": "", **changes}


@dataclass
class Company:
    """What there is in one folder. ``now`` is what the clock shows."""

    folder: Path
    changes: dict[str, Any] = field(default_factory=dict)
    now: float = field(default_factory=lambda: float(int(time.time())))

    def __post_init__(self) -> None:
        with closing(sqlite3.connect(self.folder / "app.db")) as database, database:
            database.execute(USERS)
        self.configure(self.changes)

    @property
    def file(self) -> Path:
        """The configuration."""
        return self.folder / "config.yaml"

    @property
    def environment(self) -> dict[str, str]:
        """What the configuration reads."""
        return {"SECRET": SECRET, "APP_DB": f"sqlite:///{self.folder}/app.db"}

    def configure(self, changes: dict[str, Any]) -> None:
        """Change the configuration."""
        base = yaml.load(CONFIG, Loader=yaml.BaseLoader)  # noqa: S506 - text only
        whole = merged(base, {"directory": f"sqlite:///{self.folder}/directory.db"})
        self.file.write_text(yaml.safe_dump(merged(whole, changes), sort_keys=False))

    def list(self, people: Iterable[dict[str, str]], name: str = "people.csv") -> None:
        """Write the list of people."""
        path = self.folder / name
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(people)

    def users(self) -> dict[str, tuple[str, str, int]]:
        """By login (e-mail, role, active) of everybody in the application."""
        with closing(sqlite3.connect(self.folder / "app.db")) as database, database:
            rows = database.execute("SELECT login, email, role, active FROM users ORDER BY login").fetchall()
        return {row[0]: (row[1], row[2], row[3]) for row in rows}

    def active(self) -> set[str]:
        """Logins that are active in the application."""
        return {login for login, user in self.users().items() if user[2]}

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Syncing]:
        """Open the company's sources."""
        config = load(self.file, environment=self.environment, filters=FILTERS).config
        async with open_syncing(config, lambda: self.now) as syncing:
            yield syncing

    async def do(self, act: Callable[[Synchroniser], Any], name: str = "hr", *, settle: bool = True) -> Any:
        """Let *act* do something with a source, then settle the accounts."""
        async with self.opened() as syncing:
            try:
                return await act(syncing.sources[name])
            finally:
                if settle:
                    await syncing.settle(lambda _done: None)

    async def run(
        self, *, by: str = "schedule", full: bool = False, only: str = "", name: str = "hr", settle: bool = True
    ) -> RunRecord:
        """Run a source, and settle the accounts."""
        run: RunRecord = await self.do(lambda one: one.run(Wish(by, full=full, only=only)), name, settle=settle)
        return run

    async def plan(self, *, by: str = "ada", full: bool = False, only: str = "") -> RunRecord:
        """Plan."""
        run: RunRecord = await self.do(lambda one: one.plan(Wish(by, full=full, only=only)))
        return run

    def pass_time(self, hours: float) -> None:
        """Set the clock ahead."""
        self.now += hours * 3600

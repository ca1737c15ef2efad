"""The command line as people and scripts use it: exit codes, JSON, dry runs that change nothing, completion."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from sidecar.cli import main
from tests.services import commands
from tests.world import BASE, PROVISION, USERS

pytestmark = pytest.mark.timeout(400)

SECRETS = {"OIDC_SECRET": "hidden-client-secret", "SESSION_SECRET": "a session secret that is long enough for anybody"}
ADA = {
    "iss": "https://id.example.com",
    "sub": "1",
    "preferred_username": "ada",
    "email": "ada@example.com",
    "email_verified": True,
    "name": "Ada Lovelace",
    "groups": ["wiki-admins"],
}


class Desk:
    """A folder with a configuration, claims, and a users table; and a terminal in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.users = folder / "users.db"
        with closing(sqlite3.connect(self.users)) as database, database:
            database.execute(USERS)
        self.configure()
        self.claims(**ADA)

    def configure(self, text: str = "") -> None:
        """Write the configuration: a complete one, or *text*."""
        config = yaml.load(BASE, Loader=yaml.BaseLoader)  # noqa: S506 - our own text
        config["server"] |= {"listen": "127.0.0.1:8123", "public_url": "http://localhost:8123"}
        config["app"]["upstream"] = "http://127.0.0.1:9"
        config["provision"] = yaml.load(PROVISION, Loader=yaml.BaseLoader)  # noqa: S506 - our own text
        config["directory"] = f"sqlite:///{self.folder}/directory.db"
        config["audit"] = {"stdout": "true"}
        (self.folder / "config.yaml").write_text(text or yaml.safe_dump(config, sort_keys=False))

    def claims(self, **claims: object) -> None:
        """Write what the provider says of somebody."""
        (self.folder / "claims.json").write_text(json.dumps(claims))

    def rows(self) -> list[tuple[object, ...]]:
        """The application's users."""
        with closing(sqlite3.connect(self.users)) as database, database:
            return database.execute("SELECT login, email, role FROM users").fetchall()

    def __call__(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Type ``sidecar`` and *words*."""
        return commands.typed(*words, folder=self.folder, environment={**self.environment(), **variables})

    def environment(self) -> dict[str, str]:
        """What the configuration takes from there, and this process's."""
        own = {"ISSUER": "http://localhost:9/id", "USERS_DB": f"sqlite:///{self.users}"}
        return {**os.environ, **SECRETS, **own}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh one."""
    return Desk(tmp_path)


@pytest.mark.parametrize(
    "words", ["check", "plan --user claims.json", "explain GET /admin", "run --what", "check no.yaml"]
)
def test_the_installed_program_does_what_is_typed_in_these_tests(desk: Desk, words: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("sidecar"), *words.split()],
        cwd=desk.folder,
        env=desk.environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    typed = desk(*words.split())
    assert (done.returncode, done.stdout, done.stderr) == (typed.returncode, typed.stdout, typed.stderr)


def test_check_is_quiet_and_0_about_a_good_configuration(desk: Desk) -> None:
    done = desk("check")
    assert (done.returncode, done.stdout) == (0, "config.yaml: 0 error(s), 0 warning(s)\n")


def test_check_names_file_line_place_and_way_out_and_is_1(desk: Desk) -> None:
    text = (desk.folder / "config.yaml").read_text()
    desk.configure(text.replace("upstream:", "upsteam:"))
    done = desk("check")
    line = next(number for number, said in enumerate(text.splitlines(), 1) if "upstream:" in said)
    assert done.returncode == 1
    assert f"config.yaml:{line}:3: error: app.upsteam: unknown key `upsteam`. Did you mean `upstream`?" in done.stderr
    said = json.loads(desk("check", "--json").stdout)
    assert said["ok"] is False
    (found,) = [problem for problem in said["problems"] if problem["path"] == "app.upsteam"]
    assert (found["line"], found["fix"]) == (line, "Did you mean `upstream`?")


def test_strict_makes_warnings_errors(desk: Desk) -> None:
    text = (desk.folder / "config.yaml").read_text()
    desk.configure(text.replace("- path: /health", "- path: /status/\n  allow: anyone\n- path: /health"))
    assert desk("check").returncode == 0
    assert desk("check", "--strict").returncode == 1


def test_connect_says_what_cannot_be_reached_and_is_3(desk: Desk) -> None:
    done = desk("check", "--connect", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 3
    assert said["ok"] is False
    reached = {name: part["ok"] for name, part in said["connections"].items()}
    assert reached == {
        "sessions": True,
        "app": False,
        "logins.corp": False,
        "directory": True,
        "provision.connections.db": True,
    }


def leaves(command: click.Command, *names: str) -> Iterator[tuple[str, ...]]:
    """Each command that does something, by its words."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            _, part, _ = command.resolve_command(context, [name])
            assert part is not None
            yield from leaves(part, *names, name)
    else:
        yield names


def test_every_command_says_what_its_exit_code_means() -> None:
    every = list(leaves(main))
    assert ("users", "list") in every
    assert len(every) > 50
    for words in every:
        told = CliRunner().invoke(main, [*words, "--help"])
        assert told.exit_code == 0
        assert "xit code" in told.output, words


def test_plan_shows_the_statements_and_runs_none(desk: Desk) -> None:
    done = desk("plan", "--user", "claims.json", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 0
    assert said["roles"] == ["admin"]
    assert said["decision"]["effect"] == "allow"
    assert ["X-App-User", "ada"] in said["headers"]
    assert said["account"]["assumed"] is True
    insert = next(call for call in said["account"]["calls"] if call["action"].startswith("INSERT"))
    assert insert["values"] == {"login": "ada", "email": "ada@example.com", "role": "admin"}
    assert desk.rows() == []


def test_plan_runs_no_statement_at_all(desk: Desk) -> None:
    desk.users.unlink()
    assert desk("plan", "--user", "claims.json").returncode == 0
    assert not desk.users.exists()


def test_hooks_test_looks_up_for_real_and_changes_nothing(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.users)) as database, database:
        database.execute("INSERT INTO users (login, email, role) VALUES ('ada', 'old@example.com', 'reader')")
    said = json.loads(desk("hooks", "test", "--user", "claims.json", "--json").stdout)
    assert (said["account"]["found"], said["account"]["assumed"]) == ("found", False)
    assert desk.rows() == [("ada", "old@example.com", "reader")]


def test_somebody_who_may_not_enter_is_1_and_no_account_is_planned(desk: Desk) -> None:
    desk.claims(**{**ADA, "groups": []})
    done = desk("plan", "--user", "claims.json")
    assert done.returncode == 1
    assert "role-missing" in done.stdout
    assert "INSERT" not in done.stdout


def test_what_cannot_be_understood_is_2(desk: Desk) -> None:
    assert desk("fly").returncode == 2
    assert desk("plan").returncode == 2


def test_run_starts_nothing_with_a_bad_configuration(desk: Desk) -> None:
    done = desk("run", SESSION_SECRET="")
    assert done.returncode == 1
    assert "sessions.secrets[0]" in done.stderr


def test_no_command_shows_a_secret(desk: Desk) -> None:
    for words in (("check",), ("check", "--connect"), ("plan", "--user", "claims.json"), ("schema",)):
        done = desk(*words)
        for secret in SECRETS.values():
            assert secret not in done.stdout + done.stderr, words


@pytest.mark.parametrize(
    ("typed", "expected"), [("sidecar ch", "check"), ("sidecar hooks ", "test"), ("sidecar check --con", "--connect")]
)
def test_the_shell_completes_commands_and_options(desk: Desk, typed: str, expected: str) -> None:
    done = desk(_SIDECAR_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(len(typed.split(" ")) - 1))
    assert f"plain,{expected}" in done.stdout.splitlines()

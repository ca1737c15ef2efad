"""What a newcomer types first does what the pages say, output included.

After a change `python -m tests.test_docs_tutorial` writes the real output into docs/tutorial.md.
"""

from __future__ import annotations

import os
import re
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import click.testing
import pytest

from sidecar.cli import main
from sidecar.directory import Directory
from sidecar.model import Identity

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/tutorial.md"
BLOCK = re.compile(r"^```(console|yaml|json)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ALICE = Identity("corp", "https://id.example.com", "a1", "alice")
FILES = {"yaml": "config.yaml", "json": "claims.json"}


def followed(page: str) -> str:
    """*page* with what its commands really print, run in the current folder."""
    Path("secrets").mkdir(mode=0o700)
    Path("secrets/oidc").write_text("an-oidc-secret\n")
    Path("secrets/session").write_text("a-session-secret-that-is-long-enough\n")

    def block(match: re.Match[str]) -> str:
        kind, body = match[1], match[2]
        if kind in FILES:
            Path(FILES[kind]).write_text(body)
            return match[0]
        command = body.splitlines()[0]
        result = click.testing.CliRunner().invoke(main, command.split()[2:], env={"NO_COLOR": "1"})
        return f"```console\n{command}\n{result.output}```"

    return BLOCK.sub(block, page)


def test_the_tutorial_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert followed(PAGE.read_text()) == PAGE.read_text()


def test_the_least_configuration_of_the_readme_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_SECRET", "an-oidc-secret")
    section = (ROOT / "README.md").read_text().partition("The least that is useful:")[2]
    found = BLOCK.search(section)
    assert found
    (tmp_path / "config.yaml").write_text(found[2])
    result = click.testing.CliRunner().invoke(main, ["check", str(tmp_path / "config.yaml")])
    assert result.exit_code == 0, result.output


async def test_a_directory_is_copied_while_it_is_in_use(tmp_path: Path) -> None:
    found = re.search(
        r'^\$ sqlite3 (\S+) "(VACUUM INTO \'(\S+)\')"$', (ROOT / "docs/update.md").read_text(), re.MULTILINE
    )
    assert found
    here, copy = tmp_path / "directory.db", tmp_path / "copy.db"
    directory = await Directory.open(f"sqlite:///{here}", "wiki", 30)
    try:
        person = await directory.admit(ALICE, 1.0)
        with closing(sqlite3.connect(here)) as database:
            database.execute(found[2].replace(found[3], str(copy)))
    finally:
        await directory.close()
    again = await Directory.open(f"sqlite:///{copy}", "wiki", 30)
    try:
        assert await again.person(person.id) == person
    finally:
        await again.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        text = followed(PAGE.read_text())
    PAGE.write_text(text)
    sys.stdout.write(text)

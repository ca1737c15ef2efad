"""The tutorial of docs/sync.md does what it says, output included.

After a change `python -m tests.test_sync_tutorial` writes the real output into the page.
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

PAGE = Path(__file__).parents[1] / "docs/sync.md"
BLOCK = re.compile(r"^```(console|csv|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECRETS = {"OIDC_SECRET": "an-oidc-secret", "SESSION_SECRET": "a-session-secret-that-is-long-enough"}


def followed(page: str) -> str:
    """*page* with what its commands really print, run in the current folder."""
    text = page.partition("\n## Sources")[0]
    seen = ""

    def block(match: re.Match[str]) -> str:
        nonlocal seen
        kind, body = match[1], match[2]
        if kind != "console":
            Path("people.csv" if kind == "csv" else "config.yaml").write_text(body)
            return match[0]
        lines = []
        for command in (line[2:] for line in body.splitlines() if line.startswith("$ ")):
            printed = run(command.replace("HASH", seen))
            found = re.search(r"plan ([0-9a-f]{12})", printed)
            seen = found[1] if found else seen
            lines += [f"$ {command}", *re.sub(r"[0-9a-f]{12}", "HASH", printed).splitlines()]
        return "```console\n" + "\n".join(lines) + "\n```"

    return BLOCK.sub(block, text) + page[len(text) :]


def run(command: str) -> str:
    """What *command* prints."""
    if command.startswith("sqlite3"):
        file, statement = re.fullmatch(r'sqlite3 (\S+) "(.*)"', command).groups()  # type: ignore[union-attr]
        with closing(sqlite3.connect(file)) as database, database:
            return "\n".join("|".join(map(str, row)) for row in database.execute(statement))
    result = click.testing.CliRunner().invoke(main, command.split()[1:], env={**SECRETS, "NO_COLOR": "1"})
    return result.output


def test_the_tutorial_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert followed(PAGE.read_text()) == PAGE.read_text()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        page = followed(PAGE.read_text())
    PAGE.write_text(page)
    sys.stdout.write(page)

"""What the pages on operation, reloading and audit say to type can be typed, beside a sidecar that runs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.test_docs import blocks
from tests.test_journey import users_table
from tests.test_reloading_load import Served, served
from tests.world import PROVISION, World, until

pytestmark = pytest.mark.timeout(400)
PAGES = ("docs/operation.md", "docs/reload.md", "docs/audit.md")
# Lines that install something, or never end; each of those is run by a test of its own.
ELSEWHERE = (
    "pip install", "python3 -m venv", "cp examples/systemd", "systemctl", "journalctl", "sidecar audit tail",
    "sidecar check --connect config.yaml && sidecar run",
)  # fmt: skip
# Somebody who was never here.
CLAIMS = {"sub": "1", "preferred_username": "lin", "groups": ["wiki-admins"]}


def lines() -> list[tuple[str, str]]:
    """Every line of the shell's blocks that is to be tried, with its place; keys are made before they are used."""
    found = [(where, line) for where, text in blocks("sh") if where.startswith(PAGES) for line in text.splitlines()]
    found = [(where, line.partition("  #")[0]) for where, line in found if line and not line.startswith(ELSEWHERE)]
    return sorted(found, key=lambda one: not one[1].startswith("sidecar audit key"))


class Desk:
    """A terminal in the folder of a sidecar that runs."""

    def __init__(self, one: Served, folder: Path) -> None:
        proc = Path(f"/proc/{one.process.process.pid}/environ").read_text()
        self.environment = dict(line.split("=", 1) for line in proc.split("\0")[:-1])
        self.environment["PATH"] = f"{folder}/bin:{os.environ['PATH']}"
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        script = folder / "bin/sidecar"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m sidecar "$@"\n')
        script.chmod(0o755)
        (folder / "config.yaml").symlink_to(one.file)
        (folder / "claims.json").write_text(json.dumps(CLAIMS))

    async def types(self, line: str) -> tuple[int, str]:
        """Exit code and all that is printed."""
        process = await asyncio.create_subprocess_exec(
            *["bash", "-e", "-o", "pipefail", "-c", line],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode()


async def test_every_line_can_be_typed_as_it_stands(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERS_DB", users_table(tmp_path / "users.db"))
    here = tmp_path / "here"
    provision = yaml.load(PROVISION, Loader=yaml.BaseLoader)  # noqa: S506 - of our own
    async with served(world, tmp_path, "memory", provision=provision) as one:
        desk = Desk(one, here)
        todo = lines()
        made = [line for _, line in todo if line.startswith("sidecar audit key")]
        assert len(made) == 2
        for line in made:
            assert (await desk.types(line))[0] == 0
        section = {"file": f"{here}/audit.jsonl", "chain": {"key": {"file": f"{here}/audit.key"}}}
        one.write({"audit": {**section, "database": {"retention": "365d"}}})
        assert (await one.reload())["loaded"]
        async with one.browser() as browser:
            await browser.sign_in("ada", "/page")
        async with one.browser() as browser:
            await browser.sign_in("grace", "/admin/x")
            await browser.page("/admin/x")

        def audited() -> list[dict[str, object]]:
            return [json.loads(line) for line in (here / "audit.jsonl").read_text().splitlines()]

        async def is_refused() -> bool:
            return any(line.get("effect") == "deny" for line in audited())

        await until(is_refused)
        refused = next(str(line["reference"]) for line in audited() if line.get("effect") == "deny")
        wrong = []
        for where, line in todo[len(made) :]:
            # The reference of the pages is somebody's elsewhere; so is a refusal that no rule names.
            typed = line.replace("6928f01c5f2c9ad0", refused).replace("no-rule", "role-missing")
            code, said = await desk.types(typed)
            if code:
                wrong.append(f"{where}: {typed}: {code}: {said}")
        assert not wrong, "\n".join(wrong)
        assert len({where.partition(":")[0] for where, _ in todo}) == len(PAGES)
        assert "whole: " in (await desk.types("sidecar audit verify config.yaml"))[1]
        assert json.loads((here / "sidecar.schema.json").read_text())["properties"]

"""``sidecar reload`` and ``sidecar log-level`` as an operator types them, and the signals, with a process that runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from sidecar.cli import main
from tests.services import commands
from tests.test_reloading_load import Served, served
from tests.world import World, until

pytestmark = pytest.mark.timeout(400)
MINIMAL = "reload: {control: control}\nnonsense: [\n"


async def typed(*words: object, expects: int = 0) -> tuple[str, str]:
    """What ``sidecar`` and *words* print: to standard output, and to standard error."""
    # A process of its own: one that serves logs in this one's name otherwise.
    environment = {**os.environ, "NO_COLOR": "1"}
    done = await asyncio.to_thread(commands.typed, *map(str, words), folder=Path.cwd(), environment=environment)
    assert done.returncode == expects, f"{words}: {done}"
    return done.stdout, done.stderr


async def test_reload_says_what_changed_or_what_is_wrong(world: World, tmp_path: Path) -> None:
    async with served(world, tmp_path, "memory") as one:
        out, err = await typed("reload", one.file)
        assert out.startswith("nothing has changed: ")
        one.write({"pages": {"support": "the desk"}, "app": {"name": "Wiki"}})
        out, err = await typed("reload", one.file)
        *changes, last = out.splitlines()
        assert sorted(changes) == ["app.name: (nothing) → Wiki", "pages.support: (nothing) → the desk"]
        assert last.startswith("in force: ")
        one.write({"pages": {"support": "another desk"}})
        # From elsewhere, by the socket alone, for programs.
        told = json.loads((await typed("reload", "/nowhere.yaml", "--socket", one.socket, "--json"))[0])
        assert (told["loaded"], told["problems"], len(told["digest"])) == (True, [], 64)
        assert max(told["changes"]) == ["pages.support", "the desk", "another desk"]
        one.replace(one.good + "nonsense: 1\n")
        line = len(one.good.splitlines()) + 1
        out, err = await typed("reload", one.file, expects=1)
        assert f"config.yaml:{line}:1: error: nonsense: unknown key" in err
        assert "refused: the former configuration stays in force" in err
        told = json.loads((await typed("reload", one.file, "--json", expects=1))[0])
        assert not told["loaded"]
        assert f":{line}:1:" in told["problems"][0]
        one.write({"server": {"workers": 3}, "sessions": {"redis": "redis://127.0.0.1:1/0"}})
        out, err = await typed("reload", one.file, expects=1)
        assert "server.workers: cannot change while the sidecar runs" in err
        assert "sessions.redis: cannot change" in err


async def test_log_level_says_what_is_set_or_what_is_wrong(world: World, tmp_path: Path) -> None:
    async with served(world, tmp_path, "memory", log={"level": "warning", "format": "json"}) as one:
        assert (await typed("log-level", "debug", one.file, "--for", "5m"))[0] == "debug for 5m\n"
        assert (await typed("log-level", "reset", one.file))[0] == "as configured\n"
        assert (await typed("log-level", "info", one.file, "--logger", "oidc"))[0] == "info for 10m\n"
        assert "24h" in (await typed("log-level", "debug", one.file, "--for", "25h", expects=2))[1]
        assert "--for" in (await typed("log-level", "debug", one.file, "--for", "soon", expects=2))[1]
        assert "'loud' is not one of" in (await typed("log-level", "loud", one.file, expects=2))[1]
        assert "is not one of" in (await typed("log-level", "debug", one.file, "--logger", "aiohttp", expects=2))[1]
        told = [(line["level"], line.get("logger", "")) for line in one.audit("log-level-changed")]
        assert told == [("debug", ""), ("reset", ""), ("info", "oidc")]


@pytest.mark.parametrize("command", [["reload"], ["log-level", "debug"]], ids=["reload", "log-level"])
async def test_where_nobody_can_be_asked_it_is_said_why(command: list[str], tmp_path: Path) -> None:
    runner, file = CliRunner(), tmp_path / "config.yaml"

    def run(*more: object, expects: int) -> str:
        done = runner.invoke(main, [*command, str(file), *map(str, more)])
        assert done.exit_code == expects, done.output
        return done.output

    file.write_text("server: {listen: 127.0.0.1:8080}\n")
    assert "reload.control is not set" in run(expects=2)
    assert "SIGHUP" in run(expects=2)
    # One that is not there, one that its process left behind, and one that is no socket.
    file.write_text("reload: {control: control}\n")
    assert f"no sidecar answers at {tmp_path}/control: No such file or directory" in run(expects=3)
    (tmp_path / "control").write_text("")
    assert "Connection refused" in run(expects=3)
    assert "No such file" in run("--socket", tmp_path / "other", expects=3)
    # What cannot be read at all cannot say where to ask.
    file.write_text(MINIMAL)
    assert "config.yaml:" in run(expects=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_somebody_else_on_this_machine_is_not_answered(world: World, tmp_path: Path) -> None:
    async with served(world, tmp_path, "memory", log={"format": "json"}) as one:
        # The folders on the way, and the socket, opened up by mistake.
        for folder in (tmp_path, *tmp_path.parents):
            if folder.is_relative_to("/tmp/") and folder != Path("/tmp"):
                folder.chmod(0o755)
        ask = f"from sidecar.cli.asking import ask; print(ask({str(one.socket)!r}, 5, do='reload'))"
        code = f"import os; import sidecar.cli.asking; os.setgid(65534); os.setuid(65534); {ask}"

        async def stranger() -> str:
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=subprocess.PIPE)
            return (await process.communicate())[1].decode()

        assert "PermissionError" in await stranger()
        one.socket.chmod(0o777)
        assert "Error" in await stranger()
        assert '"refused at reload.control"' in one.process.log.read_text()
        assert not [line for line in one.audit("configuration-loaded") if line["trigger"] == "command"]


@pytest.mark.parametrize("command", ["reload", "log-level"])
def test_help_says_what_it_does_and_how_it_ends(command: str) -> None:
    done = CliRunner().invoke(main, [command, "--help"])
    assert done.exit_code == 0
    assert "Exit code 0: " in done.output
    assert "3: the sidecar does not answer" in " ".join(done.output.split())
    assert "--socket" in done.output


def levels(one: Served) -> list[tuple[Any, ...]]:
    return [(line["level"], line.get("seconds"), line["by"]) for line in one.audit("log-level-changed")]


@pytest.mark.parametrize("kind", ["memory", "2"])
async def test_a_signal_switches_debug_on_for_ten_minutes_and_off(world: World, tmp_path: Path, kind: str) -> None:
    async with served(world, tmp_path, kind, log={"level": "warning", "format": "json"}) as one:

        def loads() -> int:
            return one.process.log.read_text().count('"event": "the configuration is loaded"')

        one.process.process.send_signal(signal.SIGUSR2)

        async def said(number: int) -> bool:
            return len(levels(one)) == number

        await until(lambda: said(1))
        assert levels(one) == [("debug", 600.0, "signal")]
        one.write({"pages": {"support": "one"}})
        assert (await one.reload())["loaded"]
        assert loads() == 1
        one.process.process.send_signal(signal.SIGUSR2)
        await until(lambda: said(2))
        assert levels(one)[1] == ("reset", None, "signal")
        one.write({"pages": {"support": "two"}})
        assert (await one.reload())["loaded"]
        assert loads() == 1
        assert yaml.safe_load(one.file.read_text())["pages"] == {"support": "two"}

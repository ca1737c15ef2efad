"""systemd hears how the sidecar does, and the unit in examples/ is one that it takes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.cli.notify import Notifier
from tests.test_reloading_load import served
from tests.world import World, until

UNIT = Path(__file__).parent.parent / "examples/systemd/sidecar.service"


class Systemd:
    """Listens where NOTIFY_SOCKET says."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """Everything heard so far."""
        while True:
            try:
                self.heard.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return self.heard

    async def hears(self, *parts: str) -> None:
        """Wait for a message with all of *parts*."""

        async def heard() -> bool:
            return any(all(part in message for part in parts) for message in self.listen())

        await until(heard, within=60)


@contextmanager
def systemd(address: str) -> Iterator[Systemd]:
    one = Systemd(address)
    try:
        yield one
    finally:
        one.socket.close()


@pytest.mark.parametrize("kind", ["memory", "2"])
async def test_it_says_when_it_serves_reloads_lives_and_stops(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with systemd(str(tmp_path / "notify")) as one:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1500000")
        async with served(world, tmp_path, kind) as running:
            await one.hears("READY=1", "STATUS=")
            await one.hears("WATCHDOG=1")
            if kind == "2":
                # Ready with the first of them, and then there are more.
                await one.hears("STATUS=2 of 2 workers serve")
            running.write({"pages": {"support": "somebody"}})
            assert (await running.reload())["loaded"]
            await one.hears("RELOADING=1\nMONOTONIC_USEC=")
            running.replace(running.good + "nonsense: 1\n")
            assert not (await running.reload())["loaded"]
            await one.hears("READY=1", "refused")
            one.heard.clear()
            running.process.process.terminate()
            await one.hears("STOPPING=1")


async def test_no_sign_of_life_comes_from_a_process_that_hangs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with systemd(str(tmp_path / "notify")) as one:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1500000")
        async with served(world, tmp_path, "2") as running:
            await one.hears("WATCHDOG=1")
            for pid in running.workers():
                subprocess.run(["kill", "-STOP", str(pid)], check=True)  # noqa: ASYNC221, S607 - at once
            stopped = set(running.workers())
            await asyncio.sleep(1)
            one.listen()
            one.heard.clear()
            await asyncio.sleep(0.8)
            assert not any("WATCHDOG" in message for message in one.listen())
            # Workers that hang are killed, and others take their places.

            async def are_others() -> bool:
                return len(running.workers()) == 2 and not stopped & set(running.workers())

            await until(are_others, within=60)
            await one.hears("WATCHDOG=1")


def test_an_abstract_socket_is_spoken_to_and_nobody_inherits_it() -> None:
    with systemd("@sidecar-test-notify") as one:
        environment = {"NOTIFY_SOCKET": "@sidecar-test-notify", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}
        notifier = Notifier(environment)
        assert environment == {}
        # It is somebody else's life that is watched.
        assert notifier.watchdog is None
        notifier.ready("two\nlines READY=0")
        assert one.listen() == ["READY=1\nSTATUS=two lines READY=0"]


def test_without_systemd_nothing_is_said() -> None:
    notifier = Notifier({})
    notifier.ready("")
    notifier.alive()
    assert notifier.watchdog is None
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}).stopping()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_is_one_and_lets_it_do_little(tmp_path: Path) -> None:
    unit = tmp_path / "sidecar.service"
    unit.write_text(UNIT.read_text().replace("/opt/sidecar/bin/sidecar", "/bin/true"))
    checked = subprocess.run(["systemd-analyze", "verify", unit], check=False, capture_output=True, text=True)  # noqa: S607
    assert not [line for line in checked.stderr.splitlines() if "sidecar.service" in line]
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", unit],  # noqa: S607
        check=False,
        capture_output=True,
        text=True,
    )
    found = re.search(r"exposure level for sidecar.service: ([0-9.]+)", judged.stdout)
    assert found, judged.stdout
    assert float(found[1]) <= 1.5


SAYS = """
import logging, sys
import structlog
from sidecar.telemetry.log import set_up
set_up("debug", sys.argv[1])
log = structlog.get_logger("app")
log.debug("7"), log.info("6"), log.warning("4"), log.error("3"), log.critical("2")
logging.getLogger("library").warning("4")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("3")
"""


def said(style: str, *, is_journal: bool) -> list[str]:
    """The lines of SAYS, told that they go to the journal if so, and that something else does if not."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        status = os.fstat((theirs if is_journal else ours).fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        command = [sys.executable, "-c", SAYS, style]
        subprocess.run(command, stderr=theirs, env=environment, check=True, timeout=60)
        theirs.close()
        text = b"".join(iter(lambda: ours.recv(65536), b"")).decode()
    return text.splitlines()


def test_the_journal_is_told_the_priority_of_each_line() -> None:
    lines = said("json", is_journal=True)
    assert [line[:3] for line in lines] == [f"<{json.loads(line[3:])['event']}>" for line in lines]
    assert len(lines) == 7
    # As text, with a traceback of several lines.
    lines = said("text", is_journal=True)
    assert len(lines) > 7
    assert all(re.match(r"<[2-7]>", line) for line in lines)
    assert lines[-1].startswith("<3>ZeroDivisionError")


def test_nobody_but_the_journal_is_told_priorities() -> None:
    assert len([json.loads(line) for line in said("json", is_journal=False)]) == 7

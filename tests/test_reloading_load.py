"""``sidecar run`` reloads under load: no request fails, no WebSocket ends, no session is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import yaml

from bench.soak import Client, Tally
from sidecar.cli.asking import ask
from tests.services.process import start_on_free_port
from tests.services.redis import RedisServer
from tests.test_run import PATIENCE, Process, running
from tests.world import Browser, World, merged, until

pytestmark = pytest.mark.timeout(400)
RELOADS = 10
SOCKETS = 6


class Served:
    """A sidecar that was started from the command line, with a way to change its configuration."""

    def __init__(self, process: Process, folder: Path) -> None:
        self.process = process
        self.url = process.url
        self.folder = folder
        self.file = folder / "config.yaml"
        self.socket = folder / "control"
        self.good = self.file.read_text()

    def write(self, changes: dict[str, Any]) -> None:
        """The configuration that it began with, with *changes* over it; put there in one step."""
        config = merged(yaml.load(self.good, Loader=yaml.BaseLoader), changes)  # noqa: S506 - of our own
        self.replace(yaml.safe_dump(config, sort_keys=False))

    def replace(self, text: str) -> None:
        """Put *text* there in one step, as editors do."""
        new = self.folder / "config.new"
        new.write_text(text)
        new.replace(self.file)

    async def reload(self) -> dict[str, Any]:
        """What ``sidecar reload`` is answered."""
        return dict(await asyncio.to_thread(ask, self.socket, 90, do="reload"))

    def browser(self) -> Browser:
        """A browser without cookies."""
        return Browser(SimpleNamespace(url=self.url))  # type: ignore[arg-type]

    def audit(self, event: str) -> list[dict[str, Any]]:
        """The audit lines of *event*."""
        lines = (self.folder / "audit.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        pid = self.process.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def status(self, path: str) -> int:
        """Status of a request by nobody in particular."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}{path}") as answer:
            return answer.status


@asynccontextmanager
async def served(world: World, folder: Path, kind: str, **changes: Any) -> AsyncIterator[Served]:
    """Run it with one worker and sessions in memory ("memory"), or with Redis and so many workers."""
    base = merged({"reload": {"control": "control"}, "log": {"level": "debug"}}, changes)
    if kind == "memory":
        async with running(world, folder, base) as process:
            yield Served(process, folder)
        return
    redis = start_on_free_port(RedisServer)
    try:
        base = merged(base, {"sessions": {"redis": redis.url}, "server": {"workers": kind}})
        async with running(world, folder, base) as process:
            made = Served(process, folder)
            if kind != "1":
                await until(lambda: _count(made, int(kind)), within=PATIENCE)
            yield made
    finally:
        redis.discard()


async def _count(one: Served, number: int) -> bool:
    return len(one.audit("service-started")) >= number


class WithCookie(Client):
    """Sends its requests with the cookies of somebody who is signed in."""

    def __init__(self, port: int, tally: Tally, number: int, cookie: str) -> None:
        super().__init__(port, tally, number)
        head, _, rest = self._request.partition(b"\r\n")
        self._request = b"%s\r\nCookie: sidecar=%s\r\nSec-Fetch-Site: same-origin\r\n%s" % (head, cookie.encode(), rest)


async def talk(browser: Browser, url: str, number: int, stop: asyncio.Event) -> int:
    """Say things over one WebSocket until told to stop, and count the answers."""
    said = 0
    async with browser.http.ws_connect(f"{url}/ws", headers={"Origin": url}) as ws:
        while not stop.is_set():
            await ws.send_str(f"{number} {said}")
            assert await ws.receive_str(timeout=20) == f"echo {number} {said}"
            said += 1
            await asyncio.sleep(0.02)
    return said


@asynccontextmanager
async def under_load(one: Served) -> AsyncIterator[Tally]:
    """Keep it busy by HTTP and WebSockets of somebody who is signed in; nothing of that may fail."""
    tally, stop = Tally(), asyncio.Event()
    port = int(one.url.rpartition(":")[2])
    async with one.browser() as browser:
        assert (await browser.sign_in("ada")).status == 200
        sockets = [asyncio.create_task(talk(browser, one.url, number, stop)) for number in range(SOCKETS)]
        clients = [
            asyncio.create_task(WithCookie(port, tally, number, browser.cookie()).run(time.monotonic() + 600))
            for number in range(4)
        ]
        try:
            yield tally
            stop.set()
            assert all([await task > 0 for task in sockets])
        finally:
            for task in (*clients, *sockets):
                task.cancel()
            await asyncio.gather(*clients, *sockets, return_exceptions=True)
        # The session that began before the first reload.
        assert (await browser.page("/page")).status == 200
    assert tally.done > 100
    assert not tally.failed


@pytest.mark.parametrize("kind", ["memory", "1", "2"])
async def test_ten_reloads_under_load_fail_no_request_and_end_no_websocket(
    world: World, tmp_path: Path, kind: str
) -> None:
    async with served(world, tmp_path, kind) as one, under_load(one) as tally:
        before = one.workers() if kind == "2" else []
        for number in range(RELOADS):
            rules = [{"path": f"/public/{number}", "allow": "nobody"}, *yaml.safe_load(one.good)["access"]]
            one.write({"access": rules})
            done = tally.done
            answer = await one.reload()
            assert answer["loaded"], answer
            # At once, and by every worker.
            assert {await one.status(f"/public/{number}") for _ in range(8)} <= {401, 403}
            if number % 3 == 0:
                one.replace(one.file.read_text() + "nonsense: 1\n")
                answer = await one.reload()
                assert not answer["loaded"]
                assert "nonsense" in answer["problems"][0]
                assert {await one.status(f"/public/{number}") for _ in range(8)} <= {401, 403}
            while tally.done < done + 50:
                assert not tally.failed
                await asyncio.sleep(0.02)
        assert not before or before == one.workers()
    assert len(one.audit("configuration-refused")) == 4
    assert len([line for line in one.audit("configuration-loaded") if line["trigger"] == "command"]) == RELOADS


async def test_a_worker_that_is_killed_in_the_middle_of_a_reload_leaves_all_with_one_configuration(
    world: World, tmp_path: Path
) -> None:
    async with served(world, tmp_path, "2") as one:
        for number in range(3):
            rules = [{"path": f"/public/{number}", "allow": "nobody"}, *yaml.safe_load(one.good)["access"]]
            one.write({"access": rules})
            reload = asyncio.create_task(one.reload())
            await asyncio.sleep(0.02 * (number + 1))
            os.kill(one.workers()[number % 2], signal.SIGKILL)
            await reload

            async def both_are_there(number: int = number) -> bool:
                with suppress(aiohttp.ClientError):
                    found = {await one.status(f"/public/{number}") for _ in range(10)}
                    return len(one.workers()) == 2 and len(one.process.pids()) == 3 + number and found <= {401, 403}
                return False

            # The one that takes its place reads the new file, and then the other one has to.
            await until(both_are_there, within=PATIENCE)


async def test_the_only_process_killed_in_the_middle_of_a_reload_leaves_nothing_behind(
    world: World, tmp_path: Path
) -> None:
    async with served(world, tmp_path, "memory") as one:
        proc = Path(f"/proc/{one.process.process.pid}")
        command = proc.joinpath("cmdline").read_text().split("\0")[:-1]
        environment = dict(line.split("=", 1) for line in proc.joinpath("environ").read_text().split("\0")[:-1])
        one.write({"pages": {"support": "somebody"}})
        reload = asyncio.create_task(one.reload())
        await asyncio.sleep(0.05)
        one.process.process.kill()
        with suppress(OSError, ValueError, TypeError):
            await reload
        await one.process.process.wait()
        again = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.DEVNULL)
        try:

            async def is_there() -> bool:
                with suppress(OSError, ValueError, TypeError):
                    return bool((await one.reload())["loaded"])
                return False

            # The socket that the killed one left is taken over.
            await until(is_there, within=PATIENCE)
        finally:
            again.terminate()
            await again.wait()


async def test_a_signal_reloads_one_process(world: World, tmp_path: Path) -> None:
    async with served(world, tmp_path, "memory") as one:
        one.write({"access": [{"path": "/public/x", "allow": "nobody"}, *yaml.safe_load(one.good)["access"]]})
        one.process.process.send_signal(signal.SIGHUP)

        async def is_loaded() -> bool:
            return await one.status("/public/x") in {401, 403}

        def lines() -> list[dict[str, Any]]:
            return [line for line in one.audit("configuration-loaded") if line["trigger"] == "signal"]

        async def is_noted() -> bool:
            return bool(lines())

        await until(is_loaded)
        await until(is_noted)
        (line,) = lines()
        assert line["changes"]


@pytest.mark.parametrize("kind", ["memory", "2"])
async def test_a_changed_file_is_read_once_it_is_quiet(world: World, tmp_path: Path, kind: str) -> None:
    # As Kubernetes has it: the file is a link into a folder that is a link, which is replaced in one step.
    mount = tmp_path / "mount"
    (mount / "..1").mkdir(parents=True)
    (mount / "..data").symlink_to("..1")
    (mount / "support").symlink_to("..data/support")
    (mount / "..1" / "support").write_text("the first desk")
    watching = {"reload": {"watch": True, "every": "300ms"}, "pages": {"support": {"file": "mount/support"}}}
    async with served(world, tmp_path, kind, **watching) as one:

        async def says(text: str) -> bool:
            async with aiohttp.ClientSession() as http, http.get(f"{one.url}/x", headers={"Accept": "text/html"}):
                pass
            lines = [line for line in one.audit("configuration-loaded") if line["trigger"] == "watch"]
            return any(text in " ".join(line.get("changes", ())) for line in lines)

        (mount / "..2").mkdir()
        (mount / "..2" / "support").write_text("the second desk")
        (mount / "..new").symlink_to("..2")
        (mount / "..new").replace(mount / "..data")
        await until(lambda: says("the second desk"), within=20)
        # Written anew with the same content: no news.
        lines = len(one.audit("configuration-loaded"))
        one.write({})
        await asyncio.sleep(1.5)
        assert len(one.audit("configuration-loaded")) == lines
        # What is wrong is refused, once, and what is mended is taken.
        one.replace(one.good + "nonsense: 1\n")

        async def is_refused() -> bool:
            return len(one.audit("configuration-refused")) == 1

        await until(is_refused, within=20)
        await asyncio.sleep(1)
        assert await is_refused()
        one.write({"app": {"name": "Wiki"}})
        await until(lambda: says("app.name"), within=20)


@pytest.mark.parametrize("kind", ["memory", "2"])
async def test_a_log_level_is_changed_for_a_while_and_no_level_shows_secrets(
    world: World, tmp_path: Path, kind: str
) -> None:
    async with served(world, tmp_path, kind, log={"level": "warning", "format": "json"}) as one:

        def lines(event: str) -> int:
            return one.process.log.read_text().count(f'"event": "{event}"')

        async def level(level: str, **more: Any) -> str:
            asked = {"do": "log-level", "level": level, "seconds": 60, **more}
            return str((await asyncio.to_thread(ask, one.socket, 30, **asked))["problem"])

        assert "no level" in await level("loud")
        # Libraries would log whole requests, queries and their values.
        assert "no logger" in await level("debug", logger="sqlalchemy.engine")
        assert "24h" in await level("debug", seconds=1e9)
        one.write({"pages": {"support": "one"}})
        await one.reload()
        assert not lines("the configuration is loaded")
        assert not await level("debug", logger="reload")
        one.write({"pages": {"support": "two"}})
        await one.reload()
        assert lines("the configuration is loaded") == 1
        assert not await level("reset", logger="reload")
        assert not await level("debug", seconds=2)
        async with one.browser() as browser:
            assert (await browser.sign_in("ada")).status == 200
            cookie = browser.cookie()
            async with browser.http.get(f"{one.url}/page", headers={"Authorization": "Bearer abc.def.ghi"}):
                pass
        one.write({"pages": {"support": "three"}})
        await one.reload()
        assert lines("the configuration is loaded") == 2

        async def is_over() -> bool:
            return lines("the log level is as configured again") >= 1

        await until(is_over, within=30)
        one.write({"pages": {"support": "four"}})
        await one.reload()
        assert lines("the configuration is loaded") == 2
        text = one.process.log.read_text()
        for secret in (cookie, "a client secret", "abc.def.ghi", "long enough for anybody"):
            assert secret not in text
        assert "code=" not in text
        assert len(one.audit("log-level-changed")) == 3
        assert one.audit("log-level-changed")[0]["by"] == f"uid {os.getuid()}"

"""``sidecar run`` as a process of its own: it drains without dropping a request, and keeps its workers alive."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from tests.services.process import free_port
from tests.services.redis import RedisServer
from tests.test_hugepages import needs_huge
from tests.world import BASE, Application, World, merged, until

SLOW = 0.05
# Processes of Python start slowly on a machine that does much else.
PATIENCE = 120

pytestmark = pytest.mark.timeout(400)


async def slowly(request: web.BaseRequest) -> web.StreamResponse:
    """Answer after a while, with what was sent."""
    body = await request.read()
    await asyncio.sleep(SLOW)
    return web.Response(body=body)


class Process:
    """A sidecar that was started from the command line."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    async def is_ready(self) -> bool:
        """True once it says so."""
        assert self.process.returncode is None, self.log.read_text()
        with suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession() as http, http.get(f"{self.url}/-/ready") as answer:
                return answer.status == 200
        return False

    def pids(self) -> set[int]:
        """Processes that said that they listen."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return {line["pid"] for line in lines if line["event"] == "listening"}


@asynccontextmanager
async def running(
    world: World,
    folder: Path,
    changes: dict[str, Any] | None = None,
    application: Application | None = None,
    **more: str,
) -> AsyncIterator[Process]:
    """Run ``sidecar run`` with BASE and *changes* until the block ends."""
    port = free_port()
    url = f"http://localhost:{port}"
    application = application or await world.application()
    provider = await world.provider(url)
    config = merged(yaml.load(BASE, Loader=yaml.BaseLoader), changes or {})  # noqa: S506
    config = merged(config, {"server": {"listen": f"127.0.0.1:{port}", "public_url": url}})
    config["app"] = {"upstream": f"http://127.0.0.1:{application.port}"}
    config["directory"] = f"sqlite:///{folder}/directory.db"
    config["audit"] = {"file": str(folder / "audit.jsonl"), **(changes or {}).get("audit", {})}
    file, log = folder / "config.yaml", folder / "log"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    secret = "a session secret that is long enough for anybody"
    variables = {**os.environ, "ISSUER": provider.issuer, "OIDC_SECRET": "a client secret", "SESSION_SECRET": secret}
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "sidecar", "run", str(file)],
            env={**variables, **more, "NO_COLOR": "1"},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        made = Process(process, url, log)
        await until(made.is_ready, within=PATIENCE)
        yield made
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(PATIENCE):
            await process.wait()


def is_there(pid: int) -> bool:
    """True while that process runs."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def huge(pid: int) -> int:
    """KiB of that process in huge pages."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:"))


async def send_until_refused(url: str, seen: Counter[str]) -> None:
    """Send forms one after the other on one connection, or the next, until nobody listens any more."""
    number = 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http:
        while True:
            number += 1
            sent = f"form {number}"
            try:
                # Nobody repeats a POST by himself: each one that gets lost is seen.
                async with http.post(f"{url}/public/form", data=sent.encode()) as answer:
                    text = await answer.text()
            except aiohttp.ClientConnectorError:
                return
            except aiohttp.ClientError as error:
                seen[f"lost: {type(error).__name__}"] += 1
                return
            seen["answered" if (answer.status, text) == (200, sent) else f"{answer.status}: {text[:60]}"] += 1


async def drained(process: Process) -> Counter[str]:
    """Tell it to stop while 20 clients send; what became of their requests."""
    seen: Counter[str] = Counter()
    clients = [asyncio.create_task(send_until_refused(process.url, seen)) for _ in range(20)]

    async def is_busy() -> bool:
        return seen["answered"] > 100

    await until(is_busy, within=PATIENCE)
    process.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*clients)
        assert await process.process.wait() == 0, process.log.read_text()
    return seen


async def test_sigterm_under_load_drops_no_request(world: World, tmp_path: Path) -> None:
    application = Application(answer=slowly)
    await application.start()
    try:
        async with running(world, tmp_path, application=application) as process:
            assert set(await drained(process)) == {"answered"}
    finally:
        await application.stop()


async def test_several_workers_share_one_port_and_drop_no_request_either(
    world: World, tmp_path: Path, redis_server: RedisServer
) -> None:
    redis_server.renew()
    application = Application(answer=slowly)
    await application.start()
    changes = {"server": {"workers": "2"}, "sessions": {"redis": {"env": "REDIS_URL"}}}
    try:
        async with running(world, tmp_path, changes, application, REDIS_URL=redis_server.url) as process:

            async def both_listen() -> bool:
                return len(process.pids()) == 2

            await until(both_listen, within=PATIENCE)
            assert process.process.pid not in process.pids()
            assert set(await drained(process)) == {"answered"}
    finally:
        await application.stop()


async def test_a_worker_that_dies_is_replaced(world: World, tmp_path: Path, redis_server: RedisServer) -> None:
    redis_server.renew()
    changes = {"server": {"workers": "2"}, "sessions": {"redis": {"env": "REDIS_URL"}}}
    async with running(world, tmp_path, changes, REDIS_URL=redis_server.url) as process:

        async def have_listened(number: int) -> bool:
            return len(process.pids()) == number

        await until(lambda: have_listened(2), within=PATIENCE)
        os.kill(min(process.pids()), signal.SIGKILL)
        await until(lambda: have_listened(3), within=PATIENCE)
        assert await process.is_ready()


async def test_workers_do_not_outlive_their_parent(world: World, tmp_path: Path, redis_server: RedisServer) -> None:
    redis_server.renew()
    changes = {"server": {"workers": "2"}, "sessions": {"redis": {"env": "REDIS_URL"}}}
    async with running(world, tmp_path, changes, REDIS_URL=redis_server.url) as process:

        async def both_listen() -> bool:
            return len(process.pids()) == 2

        async def are_gone() -> bool:
            return not any(is_there(pid) for pid in process.pids())

        await until(both_listen, within=PATIENCE)
        process.process.kill()
        await until(are_gone, within=PATIENCE)


async def test_each_worker_keeps_to_one_core_where_it_is_told_to(
    world: World, tmp_path: Path, redis_server: RedisServer
) -> None:
    cores = sorted(os.sched_getaffinity(0))
    changes = {"server": {"workers": 2, "cpu_affinity": True}, "sessions": {"redis": redis_server.url}}
    async with running(world, tmp_path, changes) as process:

        async def are_two() -> bool:
            return len(process.pids()) == 2

        await until(are_two, within=PATIENCE)
        bound = [os.sched_getaffinity(pid) for pid in process.pids()]
        assert sorted(map(sorted, bound)) == sorted([one] for one in (cores * 2)[:2])
        assert os.sched_getaffinity(process.process.pid) == set(cores)
        first = process.pids()
        # Also those that come in their place.
        os.kill(process.process.pid, signal.SIGUSR1)

        async def are_four() -> bool:
            return len(process.pids()) == 4

        await until(are_four, within=PATIENCE)
        renewed = [os.sched_getaffinity(pid) for pid in process.pids() - first]
        assert sorted(map(sorted, renewed)) == sorted([one] for one in (cores * 2)[:2])


@needs_huge
async def test_memory_is_gathered_in_huge_pages_where_nobody_says_otherwise(world: World, tmp_path: Path) -> None:
    folders = tmp_path / "with", tmp_path / "without"
    for folder in folders:
        folder.mkdir()
    async with (
        running(world, folders[0]) as process,
        running(world, folders[1], {"server": {"huge_pages": False}}) as other,
    ):

        async def is_gathered() -> bool:
            return huge(process.process.pid) > 0

        await until(is_gathered, within=PATIENCE)
        # It would have been by now: it was ready later.
        assert huge(other.process.pid) == 0


async def test_the_parent_says_what_is_wrong_in_its_workers(
    world: World, tmp_path: Path, redis_server: RedisServer
) -> None:
    page = f"127.0.0.1:{free_port()}"
    webhook = {"url": f"http://127.0.0.1:{free_port()}/", "secret": {"file": "key"}, "spool": "spool", "insecure": True}
    (tmp_path / "key").write_text("k" * 40)
    changes = {
        "server": {"workers": 2, "metrics": page},
        "sessions": {"redis": redis_server.url},
        "audit": {"webhook": webhook},
    }
    async with running(world, tmp_path, changes) as _, aiohttp.ClientSession() as http:

        async def told() -> tuple[int, dict[str, str]]:
            async with http.get(f"http://{page}/-/ready") as answer:
                return answer.status, await answer.json()

        async def complains() -> bool:
            status, parts = await told()
            return status == 200 and "not delivered" in parts.get("audit.webhook", "") and "store" in parts

        await until(complains, within=PATIENCE)
        await asyncio.to_thread(redis_server.stop)

        async def is_unready() -> bool:
            status, parts = await told()
            return (status, parts.get("error")) == (503, "store-unavailable")

        await until(is_unready, within=PATIENCE)

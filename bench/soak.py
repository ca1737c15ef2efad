"""Ask at full load for some minutes while the workers are renewed one by one, and count every request that fails.

    .venv/bin/python bench/soak.py --minutes 10

Starts Redis, an application (nginx) and a sidecar with two workers, all on free ports. Clients keep their connections,
send the next request as soon as they have the answer, and never repeat one: whatever fails is counted. Ends with 1 when
something failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.services.nginx import Nginx  # noqa: E402 - found through the line above
from tests.services.process import free_port, start_on_free_port  # noqa: E402
from tests.services.redis import RedisServer  # noqa: E402

CONFIG = """
server: {{listen: "127.0.0.1:{port}", public_url: "http://localhost:{port}", workers: {workers}, drain: 20s}}
app: {{upstream: ["{one}", "{other}"], health: {{path: /}}}}
logins:
  corp: {{type: oidc, issuer: "http://localhost:1", client_id: wiki, client_secret: {{env: SOAK_SECRET}}}}
identity: {{username: "{{{{ claims.sub }}}}"}}
access: [{{path: /**, allow: anyone}}]
sessions: {{redis: "{redis}", secrets: [{{env: SOAK_SECRET}}]}}
audit: {{file: "{folder}/audit.jsonl"}}
log: {{format: text}}
"""
_UPLOAD = 64 * 1024


@dataclass(slots=True)
class Tally:
    """What became of the requests."""

    done: int = 0
    connections: int = 0
    failed: Counter[str] = field(default_factory=Counter)


class Client:
    """Sends one request after another; a connection is left only when the answer said that it closes."""

    def __init__(self, port: int, tally: Tally, number: int) -> None:
        """Every fourth client uploads."""
        self._port = port
        self._tally = tally
        body = b"x" * _UPLOAD if number % 4 == 0 else b""
        lines = f"{'POST' if body else 'GET'} /page HTTP/1.1\r\nHost: localhost:{port}\r\n"
        self._request = f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def run(self, until: float) -> None:
        """Ask until the monotonic time *until*."""
        while time.monotonic() < until:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError as error:
                self._tally.failed[f"connect: {type(error).__name__}"] += 1
                await asyncio.sleep(0.1)
                continue
            self._tally.connections += 1
            try:
                while time.monotonic() < until and await self._ask(reader, writer):
                    self._tally.done += 1
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                self._tally.failed[f"{type(error).__name__}: {error}"[:100]] += 1
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False when the server said that the connection ends after it."""
        writer.write(self._request)
        async with asyncio.timeout(30):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not head.startswith(b"http/1.1 200 "):
                raise ValueError(head.split(b"\r\n")[0].decode())
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        if b"connection: close" in head:
            self._tally.done += 1
            return False
        return True


@asynccontextmanager
async def sidecar(folder: Path, workers: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Run Redis, two servers of an application and the sidecar."""
    page = "x" * 1024
    redis = start_on_free_port(RedisServer)
    services: list[RedisServer | Nginx] = [redis]
    try:
        services += (start_on_free_port(lambda at: Nginx(at, f'location / {{ return 200 "{page}"; }}')) for _ in "12")
        _, one, other = services
        port = free_port()
        file = folder / "config.yaml"
        file.write_text(
            CONFIG.format(port=port, workers=workers, one=one.url, other=other.url, redis=redis.url, folder=folder)
        )
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "sidecar", "run", str(file)),
                cwd=ROOT,
                env=os.environ | {"SOAK_SECRET": "a secret that is long enough for a soak"},
                stderr=log,
            )
        try:
            yield process, port
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
    finally:
        for service in services:
            service.discard()


async def _until_it_listens(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


async def soak(seconds: float, clients: int, workers: int, every: float) -> Tally:
    """Renew the workers every so many seconds under the load of so many clients."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with sidecar(folder, workers) as (process, port):
            await _until_it_listens(port)
            until = time.monotonic() + seconds
            load = [asyncio.create_task(Client(port, tally, number).run(until)) for number in range(clients)]
            while (left := until - time.monotonic()) > 0:
                await asyncio.sleep(min(every, left))
                if until - time.monotonic() > every:
                    process.send_signal(signal.SIGUSR1)
                print(
                    f"{tally.done} answered, {tally.connections} connections, failed: {dict(tally.failed)}", flush=True
                )
            await asyncio.gather(*load)
        renewed = (folder / "log").read_text().count("the workers are new")
        print(f"the workers were renewed {renewed} times")
        if not renewed and seconds > 2 * every:
            tally.failed["the workers were never renewed"] += 1
    return tally


def main() -> None:
    """Read the options, and tell how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=float, default=15, help="seconds between two renewals")
    options = parser.parse_args()
    tally = asyncio.run(soak(options.minutes * 60, options.clients, options.workers, options.every))
    print(f"{tally.done} requests, {sum(tally.failed.values())} failed {dict(tally.failed) or ''}")
    raise SystemExit(bool(tally.failed))


if __name__ == "__main__":
    main()

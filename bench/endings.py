"""How long two replicas hold after sessions were ended: `python -m bench.endings [rounds]`.

A real Redis and OpenID provider, two sidecars, one session that both remember, and a WebSocket at each. Not part of the
tests.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.endings_world import pair, seconds_after
from tests.services.oidc import OidcProvider
from tests.services.process import start_on_free_port
from tests.services.redis import RedisServer
from tests.world import a_world

WAYS = ("sidecar sessions end", "back-channel logout", "SCIM active=false")


async def measured(provider: OidcProvider, redis: RedisServer, way: str, rounds: int) -> list[tuple[float, float]]:
    """Seconds until every socket and every door is closed, of each round."""
    found = []
    for _ in range(rounds):
        redis.renew()
        provider.renew()
        with tempfile.TemporaryDirectory() as folder:
            async with a_world(Path(folder)) as world:
                here = await pair(world, provider, redis.url, Path(folder))
                found.append(await seconds_after(here, provider, way))
    return found


def _said(what: str, seconds: Sequence[float]) -> str:
    return f"{what}: median {statistics.median(seconds) * 1000:6.1f} ms, slowest {max(seconds) * 1000:6.1f} ms"


def main(rounds: int) -> None:
    """Measure all ways."""
    redis, provider = start_on_free_port(RedisServer), start_on_free_port(OidcProvider)
    try:
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {rounds} rounds each")
        for way in WAYS:
            sockets, doors = zip(*asyncio.run(measured(provider, redis, way, rounds)), strict=True)
            print(f"{way:22} {_said('WebSockets', sockets)}   {_said('requests', doors)}", flush=True)
    finally:
        provider.discard()
        redis.discard()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)

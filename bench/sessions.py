"""Many sessions in Redis: what one takes, how fast one is found, and how soon the end of one is heard everywhere."""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import aiohttp
import redis
import uvloop

from bench.peers import Peer, Surroundings
from bench.report import Report, Table
from bench.sign_in import sign_in
from sidecar.config.service import Sessions
from sidecar.model import Identity, SignedIn
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.opening import open_store
from tests.services.process import free_port
from tests.services.redis import RedisServer

_SECRET = b"a secret for the sessions of the bench"
_REAL = 1000
_LOOKED_UP = 2000
_BATCH = 10_000
# Names that are as long as KEYS and end in something of their own; members as long as an id.
_COPIES = """
local function named(key, number)
  local own = redis.sha1hex(number)
  return string.sub(key, 1, #key - #own) .. own
end
for number = ARGV[1], ARGV[2] - 1 do
  redis.call('set', named(KEYS[1], number), ARGV[3], 'EX', 40000)
  for index = 2, 3 do
    local name = named(KEYS[index], number)
    redis.call('zadd', name, 2000000000, string.sub(redis.sha1hex(number) .. 'xxx', 1, 43))
    redis.call('expire', name, 40000)
  end
end
"""


def _person(number: int) -> SignedIn:
    identity = Identity(
        issuer="https://id.example.com/realms/company",
        subject=f"f7b1c1de-0000-4000-8000-{number:012d}",
        provider="corp",
        username=f"person-{number}",
        email=f"person-{number}@example.com",
        name=f"Person Number {number}",
        groups=("wiki-readers", "wiki-editors", "everybody", "building-7", "project-apollo"),
    )
    return SignedIn(identity=identity, auth_time=time.time(), acr="urn:example:loa:2", sid=secrets.token_urlsafe(16))


def measure(here: Surroundings, report: Report) -> None:
    """Fill one Redis, and look sessions up past the cache there and in one that holds few, in turns."""
    many = 50_000 if report.is_quick else 1_000_000
    beside = RedisServer(free_port()).start()
    client = here.redis.client()
    try:
        # Nothing of other peers may be taken for one of ours.
        client.flushall()
        before = client.info("memory")["used_memory"]
        began = time.perf_counter()
        places = [(url, uvloop.run(_opened(url))) for url in (beside.url, here.redis.url)]
        _copy(client, many - _REAL)
        filled = time.perf_counter() - began
        size = (client.info("memory")["used_memory"] - before) / many
        few, full = uvloop.run(_timed(places))
    finally:
        client.flushall(asynchronous=True)
        client.close()
        beside.discard()
    rows = [
        (f"{_REAL}", f"{few[0]:.0f}", f"{few[1]:.0f}", ""),
        (f"{many}", f"{full[0]:.0f}", f"{full[1]:.0f}", f"{size:.0f}"),
    ]
    about = (
        "Look-ups that go past the worker's cache to Redis and open what is sealed. A session has two index entries "
        f"beside its record; all but {_REAL} are copies of one under other names. Filled in {filled:.0f} s."
    )
    report.tables.append(Table("Sessions in Redis", about, ("sessions", "p50 µs", "p99 µs", "bytes each"), rows))
    report.judge(f"a session of {many} takes at most 1024 bytes of Redis", size, 1024, " bytes")
    report.judge(f"a look-up among {many} at most 1.25x one among {_REAL}", full[0] / few[0], 1.25, "x")


def _copy(client: redis.Redis, many: int) -> None:
    """Make *many* sessions as large as one that is there, under names as long as its own, inside Redis."""
    keys = list(client.scan_iter(count=5000))
    indexes = [key for key in keys if b"index:" in key]
    record = next(key for key in keys if key not in indexes)
    # One index entry for the person, and one for the session at the provider.
    names = [
        record,
        next(key for key in indexes if b":person:" in key),
        next(key for key in indexes if b":sid:" in key),
    ]
    copies = client.register_script(_COPIES)
    for first in range(0, many, _BATCH):
        copies(keys=names, args=[first, min(first + _BATCH, many), client.get(record) or b""])


def _keeper(url: str) -> SessionKeeper:
    section = Sessions.model_validate({"redis": url, "idle": "8h", "absolute": "12h", "cache": 0})
    return SessionKeeper(open_store(section, time.time), section, [_SECRET], time.time)


async def _opened(url: str) -> Sequence[str]:
    keeper = _keeper(url)
    tokens = [(await keeper.open(_person(number), time.time()))[0] for number in range(_REAL)]
    await keeper.close()
    return tokens


async def _timed(places: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[float, float]]:
    """Microseconds of a look-up at each of *places* (address, tokens): median and 99th percentile."""
    keepers = [_keeper(url) for url, _ in places]
    took: list[list[float]] = [[] for _ in places]
    for number in range(_LOOKED_UP):
        for keeper, (_, tokens), times in zip(keepers, places, took, strict=True):
            token = tokens[number * 7919 % len(tokens)]
            began = time.perf_counter()
            if await keeper.reread(token, time.time()) is None:
                message = "a session is not found"
                raise RuntimeError(message)
            times.append((time.perf_counter() - began) * 1e6)
    for keeper in keepers:
        await keeper.close()
    return [(statistics.median(times), statistics.quantiles(times, n=100)[98]) for times in took]


def revocation(here: Surroundings, report: Report) -> None:
    """Sign out at one replica, and ask the other until it refuses."""
    rounds = 5 if report.is_quick else 20
    first = here.sidecar()
    replicas = [first, here.replica(first)]
    took = asyncio.run(_ended(replicas, rounds))
    here.end(replicas)
    row = (f"{rounds}", f"{statistics.median(took):.1f}", f"{max(took):.1f}")
    about = (
        "Two replicas behind one Redis, both with the session in their memory. Signed out at one; milliseconds from "
        "its answer until the other refuses a request that is sent again and again."
    )
    report.tables.append(Table("Revocation", about, ("sessions", "median ms", "most ms"), [row]))
    report.judge("a session's end is heard by every worker within 100 ms", max(took), 100, " ms")


async def _ended(replicas: Sequence[Peer], rounds: int) -> list[float]:
    here, there = (replica.place.url for replica in replicas)
    took = []
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:

        async def ask(url: str, method: str, path: str) -> int:
            lines = {"Cookie": cookie, "Origin": here, "Host": urlsplit(here).netloc, "Sec-Fetch-Site": "same-origin"}
            async with http.request(method, url + path, headers=lines, allow_redirects=False) as answer:
                return answer.status

        for _ in range(rounds):
            cookie = await _signed_in(replicas[0])
            for url in (here, there, there):
                if await ask(url, "GET", "/") != 200:
                    message = "the session does not hold at both replicas"
                    raise RuntimeError(message)
            await ask(here, "POST", "/-/logout")
            began = time.perf_counter()
            while await ask(there, "GET", "/") == 200:
                pass
            took.append((time.perf_counter() - began) * 1000)
    return took


async def _signed_in(peer: Peer) -> str:
    return await sign_in(f"{peer.place.url}/")

"""Many sessions in Redis: what one takes, how fast one is found, and how soon the end of one is heard everywhere."""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections.abc import Sequence

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

_SECRET = b"a secret for the sessions of the bench"
_REAL = 1000
_LOOKED_UP = 2000
_BATCH = 2000


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
    """Fill Redis, and look sessions up past the cache before and after."""
    many = 50_000 if report.is_quick else 1_000_000
    client = redis.Redis.from_url(here.redis.url)
    before = client.info("memory")["used_memory"]
    few, filled, tokens = uvloop.run(_filled(here.redis.url, client, many))
    size = (client.info("memory")["used_memory"] - before) / many
    full = uvloop.run(_timed(here.redis.url, tokens))
    client.flushall()
    client.close()
    rows = [
        (f"{_REAL}", f"{few[0]:.0f}", f"{few[1]:.0f}", ""),
        (f"{many}", f"{full[0]:.0f}", f"{full[1]:.0f}", f"{size:.0f}"),
    ]
    about = (
        "Look-ups that go past the worker's cache to Redis and open what is sealed. A session has two index entries "
        f"beside its record; all but {_REAL} are copies of their sizes under other names. Filled in {filled:.0f} s."
    )
    report.tables.append(Table("Sessions in Redis", about, ("sessions", "p50 µs", "p99 µs", "bytes each"), rows))
    report.judge(f"a session of {many} takes at most 1024 bytes of Redis", size, 1024, " bytes")
    report.judge(f"a look-up among {many} at most 1.25x one among {_REAL}", full[0] / few[0], 1.25, "x")


async def _filled(url: str, client: redis.Redis, many: int) -> tuple[tuple[float, float], float, Sequence[str]]:
    began = time.perf_counter()
    tokens = await _opened(url)
    few = await _timed(url, tokens)
    keys: list[bytes] = list(client.scan_iter(count=5000))
    records = [(key, client.get(key)) for key in keys if client.type(key) == b"string"]
    indexes = [key for key in keys if client.type(key) != b"string"]
    left = many - _REAL
    while left > 0:
        pipe = client.pipeline(transaction=False)
        for number in range(min(_BATCH, left)):
            key, value = records[number % len(records)]
            pipe.set(_other(key), value or b"", ex=40_000)
            for index in indexes[2 * (number % _REAL) : 2 * (number % _REAL) + 2]:
                name = _other(index)
                pipe.zadd(name, {secrets.token_urlsafe(32): time.time() + 40_000})
                pipe.expire(name, 40_000)
        pipe.execute()
        left -= _BATCH
    return few, time.perf_counter() - began, tokens


def _other(key: bytes) -> bytes:
    """As long as *key*, and not it."""
    head, colon, tail = key.rpartition(b":")
    return head + colon + secrets.token_urlsafe(64).encode()[: len(tail)]


def _keeper(url: str) -> SessionKeeper:
    section = Sessions.model_validate(
        {"redis": url, "idle": "8h", "absolute": "12h", "cache": 0, "secrets": ["x" * 32]}
    )
    return SessionKeeper(open_store(section, time.time), section, [_SECRET], time.time)


async def _opened(url: str) -> Sequence[str]:
    keeper = _keeper(url)
    tokens = [(await keeper.open(_person(number), time.time()))[0] for number in range(_REAL)]
    await keeper.close()
    return tokens


async def _timed(url: str, tokens: Sequence[str]) -> tuple[float, float]:
    """Microseconds of a look-up: median and 99th percentile."""
    keeper = _keeper(url)
    took: list[float] = []
    for number in range(_LOOKED_UP):
        token = tokens[number * 7919 % len(tokens)]
        began = time.perf_counter()
        if await keeper.reread(token, time.time()) is None:
            message = "a session is not found"
            raise RuntimeError(message)
        took.append((time.perf_counter() - began) * 1e6)
    await keeper.close()
    return statistics.median(took), statistics.quantiles(took, n=100)[98]


def revocation(here: Surroundings, report: Report) -> None:
    """Sign out at one replica, and ask the other until it refuses."""
    rounds = 5 if report.is_quick else 20
    replicas = [here.sidecar(), here.sidecar()]
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
            lines = {"Cookie": cookie, "Origin": url, "Sec-Fetch-Site": "same-origin"}
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

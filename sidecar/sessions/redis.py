"""Keep short-lived bytes in Redis 6.2 or newer: standalone, Sentinel or Cluster, over TCP, TLS or a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sidecar.core.unaccepted import certificate_fault
from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.sessions.redis_watch import Watch

T = TypeVar("T")
# More would help nobody: one event loop does not keep sixteen busy, and after a restart each has to be opened first.
MOST_AT_ONCE = 16

# RuntimeError is uvloop's word for a connection that closes under a write; the cluster's exception is no RedisError.
_FAULTS = (RedisError, RedisClusterException, OSError, TimeoutError, RuntimeError)
_CODE = re.compile(r"[A-Z]{2,20}")
_GLOB = re.compile(r"[\\*?\[\]^]")
_MOST_NAMES = 1000
# GETDEL, and ZADD with GT.
_OLDEST = (6, 2)
_SAMPLED = 10_000
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
_EXCHANGE = """if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[2], 'px', ARGV[3]) return 1"""
_NOW = """local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
# The write that a full Redis refuses comes first: after another one it would be let through.
_ADD = f"""{_NOW}redis.call('zadd', KEYS[1], 'gt', math.ceil(now + ARGV[2]), ARGV[1])
redis.call('zremrangebyscore', KEYS[1], '-inf', now)
if redis.call('pttl', KEYS[1]) < tonumber(ARGV[2]) then redis.call('pexpire', KEYS[1], ARGV[2]) end return 1"""
_MEMBERS = f"{_NOW}return redis.call('zrangebyscore', KEYS[1], '(' .. now, '+inf')"
# One by one: what an ACL has to allow stays as it was.
_COUNT = """local number = 0
for _ = 1, tonumber(ARGV[2]) do number = redis.call('incr', KEYS[1]) end
if number == tonumber(ARGV[2]) then redis.call('pexpire', KEYS[1], ARGV[1]) end return number"""


class Closable(Protocol):
    """Something that holds connections, as redis-py closes it."""

    async def aclose(self) -> None:
        """Let go of the connections."""


class RedisStore:
    """A Store in Redis. Every command touches one key, so that it works in a cluster too."""

    def __init__(
        self, client: Any, prefix: str, timeout: float, watch: Watch | None, beside: Closable | None = None
    ) -> None:
        """*client* is a redis.asyncio client; *timeout* in seconds bounds each call; *watch* None hears of nothing.

        *beside* is closed with the client.
        """
        self._client = client
        self._prefix = prefix
        self._timeout = timeout
        self._watch = watch
        self._beside = beside
        # A cluster's own pools refuse when they are full; here the next one waits.
        self._places = asyncio.Semaphore(MOST_AT_ONCE)

    def _name(self, key: str) -> str:
        return self._prefix + key

    async def _do(self, ask: Callable[[], Awaitable[T]], *, again: bool = False) -> T:
        """Wait for an answer, for so long; translate every fault to Unavailable, without what was asked.

        *again* asks once more after a broken connection. Only what may run twice does so: a GETDEL or SET NX whose
        answer was lost has happened, and asked again it would say "nothing here" or "somebody else was first".
        """
        try:
            async with asyncio.timeout(self._timeout), self._places:
                try:
                    return await ask()
                except (RedisConnectionError, RedisClusterException):
                    if not again:
                        raise
                    return await ask()
        except _FAULTS as error:
            raise Unavailable(Reason.STORE_DOWN, f"redis: {_fault(error)}") from None

    async def get(self, key: str) -> bytes | None:
        """See Store.get."""
        value: bytes | None = await self._do(lambda: self._client.get(self._name(key)), again=True)
        return value

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """See Store.put."""
        await self._do(lambda: self._client.set(self._name(key), value, px=_milliseconds(ttl)), again=True)

    async def replace(self, key: str, value: bytes, ttl: float) -> bool:
        """See Store.replace."""
        name, milliseconds = self._name(key), _milliseconds(ttl)
        return bool(await self._do(lambda: self._client.set(name, value, px=milliseconds, xx=True), again=True))

    async def exchange(self, key: str, held: bytes, value: bytes, ttl: float) -> bool:
        """See Store.exchange."""
        return bool(await self._eval(_EXCHANGE, key, held, value, _milliseconds(ttl)))

    async def take(self, key: str) -> bytes | None:
        """See Store.take."""
        value: bytes | None = await self._do(lambda: self._client.getdel(self._name(key)))
        return value

    async def claim(self, key: str, value: bytes, ttl: float) -> bool:
        """See Store.claim."""
        name, milliseconds = self._name(key), _milliseconds(ttl)
        return bool(await self._do(lambda: self._client.set(name, value, px=milliseconds, nx=True)))

    async def release(self, key: str, value: bytes) -> bool:
        """See Store.release."""
        return bool(await self._eval(_RELEASE, key, value))

    async def delete(self, *keys: str) -> None:
        """See Store.delete."""
        for name in map(self._name, keys):
            await self._do(lambda name=name: self._client.delete(name), again=True)  # type: ignore[misc]

    async def add(self, key: str, member: str, ttl: float) -> None:
        """See Store.add."""
        await self._eval(_ADD, key, member, _milliseconds(ttl), again=True)

    async def discard(self, key: str, member: str) -> None:
        """See Store.discard."""
        await self._do(lambda: self._client.zrem(self._name(key), member), again=True)

    async def members(self, key: str) -> frozenset[str]:
        """See Store.members."""
        found: list[bytes] = await self._eval(_MEMBERS, key, again=True)
        return frozenset(member.decode() for member in found)

    async def names(self, prefix: str) -> frozenset[str]:
        """See Store.names; one step at a time, so that Redis serves others meanwhile."""
        pattern = _GLOB.sub(r"\\\g<0>", self._name(prefix)) + "*"
        walk = self._client.scan_iter(match=pattern, count=_MOST_NAMES)
        found = set()
        while (name := await self._do(lambda: anext(walk, None))) is not None:
            found.add(name.decode()[len(self._prefix) :])
        return frozenset(found)

    async def number(self, prefix: str) -> int:
        """See Store.number: beyond some thousands by their share of those looked at, which Redis walks by hash."""
        wanted, looked_at, found = self._name(prefix).encode(), 0, 0
        walk = self._client.scan_iter(count=_MOST_NAMES)
        while looked_at < _SAMPLED:
            names = await self._do(lambda: _some(walk, _MOST_NAMES))
            looked_at += len(names)
            found += sum(name.startswith(wanted) for name in names)
            if len(names) < _MOST_NAMES:
                return found
        together = int(await self._do(self._client.dbsize, again=True))
        return round(found / looked_at * max(together, looked_at))

    async def count(self, key: str, ttl: float, amount: int = 1) -> int:
        """See Store.count."""
        return int(await self._eval(_COUNT, key, _milliseconds(ttl), amount))

    async def _eval(self, script: str, key: str, *arguments: bytes | str | int, again: bool = False) -> Any:
        return await self._do(lambda: self._client.eval(script, 1, self._name(key), *arguments), again=again)

    async def watch(self, prefix: str, changed: Callable[[str], None], lost: Callable[[], None]) -> None:
        """See Store.watch."""
        if self._watch is None:
            return
        skip = len(self._prefix)
        await self._watch.add(self._name(prefix), lambda key: changed(key[skip:]), lost)

    @property
    def is_watching(self) -> bool:
        """See Store.is_watching."""
        return self._watch is not None and self._watch.is_alive

    async def ping(self) -> str:
        """See Store.ping. One that is too old answers many questions, and lets nobody in."""
        await self._do(self._client.ping, again=True)
        version = await self._version()
        if is_too_old(version):
            raise Unavailable(Reason.STORE_DOWN, f"redis:{version} is too old, 6.2 or newer is needed")
        return f"redis{version}" + (", local cache off" if self._watch is not None and self._watch.is_deaf else "")

    async def inspect(self, *words: str) -> Any:
        """Ask Redis about itself, as the library reads the answer; of a cluster, one node. Raises Unavailable."""
        answer = await self._do(lambda: self._client.execute_command(*words), again=True)
        is_by_node = isinstance(answer, dict) and answer and all(isinstance(one, dict) for one in answer.values())
        return next(iter(answer.values())) if is_by_node else answer

    async def _version(self) -> str:
        # Redis counts INFO as dangerous, so that careful ACLs forbid it: no reason to be unready.
        with contextlib.suppress(Unavailable):
            about: dict[str, Any] = await self._do(lambda: self._client.info("server"), again=True)
            # A cluster answers once for each node.
            one = about if "redis_version" in about else next(iter(about.values()))
            return f" {one['redis_version']}"
        return ""

    async def close(self) -> None:
        """See Store.close."""
        if self._watch is not None:
            await self._watch.close()
        for part in (self._client, self._beside):
            if part is not None:
                await self._do(part.aclose)


# Kind of fault, the narrower first → what it means, where its name does not say it.
_MEANT: Sequence[tuple[type[Exception], str]] = (
    (BusyLoadingError, "it is still loading its data"),
    (AuthenticationError, "the user or the password is wrong or missing"),
    (NoPermissionError, "the ACL does not allow it"),
    (ReadOnlyError, "it is a replica"),
    (OutOfMemoryError, "its memory is full"),
    (RedisConnectionError, "it cannot be reached, or broke off"),
    (RedisTimeoutError, "it does not answer in time"),
)


async def _some(walk: AsyncIterator[bytes], most: int) -> list[bytes]:
    """The next names of a *walk*, fewer than *most* at its end."""
    names: list[bytes] = []
    while len(names) < most and (name := await anext(walk, None)) is not None:
        names.append(name)
    return names


def is_too_old(version: str) -> bool:
    """True for a *version* that lacks commands of ours; one that says nothing may have them."""
    numbers = tuple(int(part) for part in version.strip().split(".")[:2] if part.isdecimal())
    return bool(numbers) and numbers < _OLDEST


def _fault(error: Exception) -> str:
    """Name of a fault, and the code that a server's error begins with; never its text, which may quote anything."""
    name = type(error).__name__
    if type(error) is not ResponseError:
        meant = certificate_fault(error) or next((words for kind, words in _MEANT if isinstance(error, kind)), "")
        return f"{name} ({meant})" if meant else name
    # It has no code of its own, and what follows quotes what was asked.
    if str(error).startswith("unknown command"):
        return f"{name} (it does not know this command: 6.2 or newer is needed)"
    code = str(error).partition(" ")[0]
    return f"{name} {code}" if _CODE.fullmatch(code) else name


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))

"""Keep short-lived bytes in Redis 6.2 or newer: standalone, Sentinel or Cluster, over TCP, TLS or a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.exceptions import RedisError

from sidecar.model import Reason, Unavailable
from sidecar.sessions.redis_watch import Watch

T = TypeVar("T")

_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
_ADD = """redis.call('sadd', KEYS[1], ARGV[1])
if redis.call('pttl', KEYS[1]) < tonumber(ARGV[2]) then redis.call('pexpire', KEYS[1], ARGV[2]) end return 1"""
_COUNT = """local number = redis.call('incr', KEYS[1])
if number == 1 then redis.call('pexpire', KEYS[1], ARGV[1]) end return number"""


class RedisStore:
    """A Store in Redis. Every command touches one key, so that it works in a cluster too."""

    def __init__(self, client: Any, prefix: str, timeout: float, watch: Watch | None) -> None:
        """*client* is a redis.asyncio client; *timeout* in seconds bounds each call; *watch* None hears of nothing."""
        self._client = client
        self._prefix = prefix
        self._timeout = timeout
        self._watch = watch

    def _name(self, key: str) -> str:
        return self._prefix + key

    async def _do(self, what: Awaitable[T]) -> T:
        """Wait for an answer, for so long; translate every fault to Unavailable, without what was asked."""
        try:
            async with asyncio.timeout(self._timeout):
                return await what
        except RedisError as error:
            # A server's error begins with a code (READONLY, OOM, NOAUTH, LOADING …); nothing else of it is told.
            code = str(error).partition(" ")[0]
            detail = code if code.isupper() else type(error).__name__
            raise Unavailable(Reason.STORE_DOWN, f"redis: {detail}") from None
        except (OSError, TimeoutError) as error:
            raise Unavailable(Reason.STORE_DOWN, f"redis: {type(error).__name__}") from None

    async def get(self, key: str) -> bytes | None:
        """See Store.get."""
        value: bytes | None = await self._do(self._client.get(self._name(key)))
        return value

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """See Store.put."""
        await self._do(self._client.set(self._name(key), value, px=_milliseconds(ttl)))

    async def replace(self, key: str, value: bytes, ttl: float) -> bool:
        """See Store.replace."""
        return bool(await self._do(self._client.set(self._name(key), value, px=_milliseconds(ttl), xx=True)))

    async def take(self, key: str) -> bytes | None:
        """See Store.take."""
        value: bytes | None = await self._do(self._client.getdel(self._name(key)))
        return value

    async def claim(self, key: str, value: bytes, ttl: float) -> bool:
        """See Store.claim."""
        return bool(await self._do(self._client.set(self._name(key), value, px=_milliseconds(ttl), nx=True)))

    async def release(self, key: str, value: bytes) -> bool:
        """See Store.release."""
        return bool(await self._do(self._client.eval(_RELEASE, 1, self._name(key), value)))

    async def delete(self, *keys: str) -> None:
        """See Store.delete."""
        for key in keys:
            await self._do(self._client.delete(self._name(key)))

    async def add(self, key: str, member: str, ttl: float) -> None:
        """See Store.add."""
        await self._do(self._client.eval(_ADD, 1, self._name(key), member, _milliseconds(ttl)))

    async def discard(self, key: str, member: str) -> None:
        """See Store.discard."""
        await self._do(self._client.srem(self._name(key), member))

    async def members(self, key: str) -> frozenset[str]:
        """See Store.members."""
        found: set[bytes] = await self._do(self._client.smembers(self._name(key)))
        return frozenset(member.decode() for member in found)

    async def count(self, key: str, ttl: float) -> int:
        """See Store.count."""
        return int(await self._do(self._client.eval(_COUNT, 1, self._name(key), _milliseconds(ttl))))

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
        """See Store.ping."""
        about: dict[str, Any] = await self._do(self._client.info("server"))
        # A cluster answers once for each node.
        one = about if "redis_version" in about else next(iter(about.values()))
        version = one["redis_version"]
        return f"redis {version}" + ("" if self._watch is None or self._watch.is_alive else ", local cache off")

    async def close(self) -> None:
        """See Store.close."""
        if self._watch is not None:
            await self._watch.close()
        await self._client.aclose()


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))

"""Connect to the Redis that the configuration describes: one, by sentinels, or a cluster."""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel as SentinelClient
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff

from sidecar.config.renewing import Renewing
from sidecar.config.secret import Dsn
from sidecar.config.service import Sentinel, Sessions
from sidecar.sessions.redis import MOST_AT_ONCE, RedisStore
from sidecar.sessions.redis_tls import share, tls_of
from sidecar.sessions.redis_watch import Watch
from sidecar.sessions.store import Store

_SCHEMES = ("redis://", "rediss://", "unix://")


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Asks sentinels where the master is, and lets callers wait for a free connection instead of failing."""


def open_redis(section: Sessions, address: Dsn) -> Store:
    """The store at *address*; connects to nothing yet. Raises ValueError for an address that is none."""
    url = address.reveal()
    if not url.startswith(_SCHEMES):
        message = "sessions.redis is no address of Redis: write redis://, rediss:// or unix://"
        raise ValueError(message)
    tls = tls_of(section)
    try:
        return _opened(section, url, tls)
    except (ValueError, TypeError):
        # The library's own message quotes what it could not read, which may be a part of the password.
        message = f"sessions.redis cannot be used: {address.redacted}"
        raise ValueError(message) from None


def _opened(section: Sessions, url: str, tls: Renewing | None) -> Store:
    timeout = section.timeout.total_seconds()
    if section.cluster:
        # Its pushes come from every primary apart; sessions are looked up each time instead.
        return RedisStore(_open_cluster(section, url, tls), section.prefix, timeout, None)
    beside = None if section.sentinel is None else _sentinels(section, section.sentinel, tls)
    pool: Any
    if beside is None or section.sentinel is None:
        pool = BlockingConnectionPool.from_url(url, **_pooled(section))
    else:
        pool = _SentinelPool(section.sentinel.master, beside, **_login(url), **_pooled(section))  # type: ignore[no-untyped-call]
    share(tls, pool)
    # Made once here, so that an option in the address that no connection knows is found at the start.
    pool.make_connection()
    watch = Watch(lambda: _speaking_resp3(pool))
    return RedisStore(Redis.from_pool(pool), section.prefix, timeout, watch, beside)


def _open_cluster(section: Sessions, url: str, tls: Renewing | None) -> RedisCluster:
    client = RedisCluster.from_url(url, **_options(section))
    share(tls, *client.startup_nodes)
    if tls is not None:
        # Of these the nodes are made that are found on the way.
        one = client.startup_nodes[0]
        client.connection_kwargs |= {"connection_class": one.connection_class, "shared": tls}
    return client


def _options(section: Sessions) -> dict[str, Any]:
    timeout = section.timeout.total_seconds()
    options: dict[str, Any] = {
        # RedisStore itself bounds each call. The library's bound for writing loses a cancellation on Python 3.11, where
        # asyncio.wait_for does (https://github.com/python/cpython/issues/86296): whoever waits for its task waits on.
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
        "socket_keepalive": True,
        # RedisStore itself knows what may be asked twice.
        "retry": Retry(NoBackoff(), 0),
        # With 3 the library stops looking for answers left over on a connection before it is used again.
        "protocol": 2,
    }
    url = "" if section.redis is None else section.redis.reveal()
    if url.startswith("unix://"):
        del options["socket_keepalive"]
    if url.startswith("rediss://"):
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    return options


def _pooled(section: Sessions) -> dict[str, Any]:
    timeout = section.timeout.total_seconds()
    return {**_options(section), "max_connections": MOST_AT_ONCE, "timeout": timeout}


def _login(url: str) -> dict[str, Any]:
    """User, password, database and TLS out of an address whose host the sentinels replace."""
    named: dict[str, Any] = {**parse_url(url)}
    login: dict[str, Any] = {name: named[name] for name in ("username", "password", "db") if name in named}
    return {**login, "ssl": url.startswith("rediss://")}


def _sentinels(section: Sessions, sentinel: Sentinel, tls: Renewing | None) -> SentinelClient:
    nodes = [(node.rpartition(":")[0].strip("[]"), int(node.rpartition(":")[2])) for node in sentinel.nodes]
    # They are asked one after the other; a few that do not answer must leave time for the one that does.
    each = section.timeout.total_seconds() / (len(nodes) + 1)
    asking: dict[str, Any] = {**_options(section), "socket_timeout": each, "socket_connect_timeout": each}
    asking["ssl"] = "ssl_cert_reqs" in asking
    if sentinel.username:
        asking["username"] = sentinel.username
    if sentinel.password is not None:
        asking["password"] = sentinel.password.reveal()
    client = SentinelClient(nodes, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    share(tls, *(one.connection_pool for one in client.sentinels))
    return client


def _speaking_resp3(pool: Any) -> Any:
    # The watch bounds its waiting itself: a short time-out for commands must not end a quiet connection.
    own = {"protocol": 3, "socket_timeout": None, "socket_connect_timeout": None}
    return pool.connection_class(**{**pool.connection_kwargs, **own})

"""Make the store that the configuration asks for."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel as SentinelClient
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from sidecar.config.service import Sentinel, Sessions
from sidecar.sessions.memory import MemoryStore
from sidecar.sessions.redis import RedisStore
from sidecar.sessions.redis_watch import Watch
from sidecar.sessions.store import Store

_MOST_CONNECTIONS = 64


def open_store(section: Sessions, clock: Callable[[], float]) -> Store:
    """Memory, or Redis as *section* says; connects to nothing yet. Raises ValueError for an address that is none."""
    if section.redis is None:
        return MemoryStore(clock)
    if section.cluster:
        # Its pushes come from every primary apart; sessions are looked up each time instead.
        client = RedisCluster.from_url(section.redis.reveal(), **_options(section))
        return RedisStore(client, section.prefix, section.timeout.total_seconds(), None)
    client, watch = _with_sentinel(section, section.sentinel) if section.sentinel else _standalone(section)
    return RedisStore(client, section.prefix, section.timeout.total_seconds(), watch)


def server_secrets(section: Sessions) -> tuple[bytes, ...]:
    """Secrets that seal; for a store in this process a random one is enough."""
    if section.secrets:
        return tuple(secret.reveal().encode() for secret in section.secrets)
    if section.redis is not None:
        message = "sessions.secrets is needed with Redis, so that all replicas share it"
        raise ValueError(message)
    return (secrets.token_bytes(32),)


def _options(section: Sessions) -> dict[str, Any]:
    timeout = section.timeout.total_seconds()
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # One more try, on a fresh connection, for one that the server closed while it was idle.
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    }
    if section.redis is not None and section.redis.reveal().startswith("rediss://"):
        options |= _tls(section)
    return options


def _tls(section: Sessions) -> dict[str, Any]:
    files = {
        "ssl_ca_certs": section.redis_ca,
        "ssl_certfile": section.redis_certificate,
        "ssl_keyfile": section.redis_key,
    }
    given = {name: str(path) for name, path in files.items() if path is not None}
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": True, **given}


def _standalone(section: Sessions) -> tuple[Any, Watch]:
    assert section.redis is not None  # noqa: S101 - the caller looked
    pool = BlockingConnectionPool.from_url(
        section.redis.reveal(),
        max_connections=_MOST_CONNECTIONS,
        timeout=section.timeout.total_seconds(),
        **_options(section),
    )
    return Redis(connection_pool=pool), Watch(lambda: _speaking_resp3(pool))


def _with_sentinel(section: Sessions, sentinel: Sentinel) -> tuple[Any, Watch]:
    assert section.redis is not None  # noqa: S101 - the caller looked
    nodes = [(node.rpartition(":")[0], int(node.rpartition(":")[2])) for node in sentinel.nodes]
    template = BlockingConnectionPool.from_url(section.redis.reveal()).connection_kwargs
    login = {name: template[name] for name in ("username", "password", "db") if template.get(name) is not None}
    watcher: dict[str, Any] = {"socket_timeout": section.timeout.total_seconds()}
    if sentinel.username:
        watcher["username"] = sentinel.username
    if sentinel.password is not None:
        watcher["password"] = sentinel.password.reveal()
    options = _options(section)
    if section.redis.reveal().startswith("rediss://"):
        options["ssl"] = True
        watcher |= {"ssl": True, **_tls(section)}
    client = SentinelClient(nodes, sentinel_kwargs=watcher).master_for(  # type: ignore[no-untyped-call]
        sentinel.master, max_connections=_MOST_CONNECTIONS, **login, **options
    )
    return client, Watch(lambda: _speaking_resp3(client.connection_pool))


def _speaking_resp3(pool: Any) -> Any:
    return pool.connection_class(**{**pool.connection_kwargs, "protocol": 3})

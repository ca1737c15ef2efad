"""The servers that other tests stand on really answer."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING

import pytest
import redis as redis_library
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel as SentinelClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.services import process
from tests.services.process import ServiceMissingError, find_program
from tests.services.redis import AclUser

if TYPE_CHECKING:
    from tests.services.databases import Databases
    from tests.services.mariadb import MariadbServer
    from tests.services.postgres import PostgresServer
    from tests.services.redis import RedisServer, RedisServers


async def test_redis_answers_and_starts_every_test_empty(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("left", "behind")


async def test_what_an_earlier_test_left_in_redis_is_gone(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0


async def test_redis_can_be_stopped_and_started_on_the_same_port(redis_servers: RedisServers) -> None:
    server = redis_servers()
    url = server.url
    server.stop()
    async with Redis.from_url(url) as client:
        with pytest.raises(redis_library.ConnectionError):
            await client.ping()
        server.start()
        assert await client.ping()
    assert server.url == url


async def test_a_paused_redis_accepts_connections_and_says_nothing(redis_servers: RedisServers) -> None:
    server = redis_servers()
    server.pause()
    async with Redis.from_url(server.url, socket_timeout=0.2) as client:
        with pytest.raises(redis_library.TimeoutError):
            await client.ping()
        server.resume()
        assert await client.ping()


async def test_a_redis_with_tls_is_trusted_only_by_its_own_authority(redis_servers: RedisServers) -> None:
    server = redis_servers(tls=True)
    assert server.url.startswith("rediss://")
    assert server.certificates is not None
    authority = str(server.certificates.authority)
    async with Redis.from_url(server.url, ssl_ca_certs=authority) as client:
        assert await client.ping()
    async with Redis.from_url(server.url) as stranger:
        with pytest.raises((redis_library.ConnectionError, ssl.SSLError)):
            await stranger.ping()


async def test_a_redis_with_an_acl_admits_only_its_user_to_its_keys(redis_servers: RedisServers) -> None:
    server = redis_servers(acl=AclUser("app", "p/w:d", "~sidecar:* &* +@all"))
    async with Redis.from_url(server.url) as client:
        await client.set("sidecar:x", "1")
        with pytest.raises(redis_library.ResponseError):
            await client.set("other:x", "1")
    async with Redis(host=server.host, port=server.port) as stranger:
        with pytest.raises(redis_library.AuthenticationError):
            await stranger.ping()


async def test_a_redis_with_a_memory_limit_refuses_what_does_not_fit(redis_servers: RedisServers) -> None:
    server = redis_servers(maxmemory="3mb")
    async with Redis.from_url(server.url) as client:
        await client.set("small", b"x")
        with pytest.raises(redis_library.ResponseError, match="maxmemory"):
            for number in range(100):
                await client.set(f"big:{number}", b"x" * 100_000)


async def test_a_sentinel_fails_over_to_the_replica(redis_servers: RedisServers) -> None:
    sentinel = redis_servers.sentinel()
    assert sentinel.current_master_port() == sentinel.master.port
    sentinel.master.stop()
    end = time.monotonic() + 30
    while sentinel.current_master_port() != sentinel.replica.port and time.monotonic() < end:
        time.sleep(0.05)  # noqa: ASYNC251 - nothing else runs in this loop
    finder = SentinelClient([(sentinel.host, sentinel.port)])
    assert await finder.discover_master(sentinel.name) == (sentinel.replica.host, sentinel.replica.port)
    for client in finder.sentinels:
        await client.aclose()


async def test_each_kind_of_database_takes_and_gives_back_a_row(database_url: str) -> None:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE people (name VARCHAR(40))"))
        await connection.execute(text("INSERT INTO people VALUES ('Zoë 🦊')"))
        assert (await connection.execute(text("SELECT name FROM people"))).scalar_one() == "Zoë 🦊"
    await engine.dispose()


async def test_two_databases_of_one_test_are_apart(
    postgres_databases: Databases, mariadb_databases: Databases
) -> None:
    for databases in (postgres_databases, mariadb_databases):
        first, second = create_async_engine(databases()), create_async_engine(databases())
        for engine in (first, second):
            async with engine.begin() as connection:
                await connection.execute(text("CREATE TABLE same_name (id INT)"))
            await engine.dispose()


async def test_a_database_server_keeps_its_rows_over_a_restart(
    postgres_server: PostgresServer, mariadb_server: MariadbServer, postgres_url: str, mariadb_url: str
) -> None:
    for server, url in ((postgres_server, postgres_url), (mariadb_server, mariadb_url)):
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE kept (id INT)"))
        await engine.dispose()
        server.stop()
        assert not server.is_running
        server.start()
        async with engine.begin() as connection:
            assert (await connection.execute(text("SELECT COUNT(*) FROM kept"))).scalar_one() == 0
        await engine.dispose()


def test_a_stopped_or_paused_server_is_brought_back_for_the_next_test(
    redis_server: RedisServer, postgres_server: PostgresServer, mariadb_server: MariadbServer
) -> None:
    redis_server.stop()
    postgres_server.pause()
    mariadb_server.stop()
    for server in (redis_server, postgres_server, mariadb_server):
        server.renew()
        assert server.is_running


def test_a_server_that_is_not_installed_is_a_failure_that_says_so() -> None:
    with pytest.raises(ServiceMissingError, match="no-such-server is not installed; `make test` installs it"):
        find_program("no-such-server")


def test_a_server_that_ends_at_once_is_a_failure_that_shows_its_last_words() -> None:
    server = process.Server("short", ["/bin/sh", "-c", "echo gone >&2; exit 3"], answers=lambda: False)
    with pytest.raises(process.ServiceFailedError, match="short ended while starting:\ngone"):
        server.start()
    server.discard()

"""Real servers as fixtures: Redis, PostgreSQL, MariaDB, an OpenID provider and Chromium.

Session fixtures start a server the first time that a test asks for it (once per pytest worker) and stop it at the end. A server that is
not installed is a failure with one clear sentence, never a skip. Everything below is blocking, quick to call, and usable from
`def` and `async def` tests alike; only the browser is asynchronous.

Redis (tests/services/redis.py)
    redis_server: RedisServer               session. `.url` `.host` `.port`; `.client()` → blocking redis.Redis (use `with`);
                                            `.stop()` `.start()` (same port, empty again) `.pause()` (SIGSTOP) `.resume()`
                                            `.is_running`.
    redis_url: str                          per test: the URL of that server, running and emptied before the test.
    redis_servers: RedisServers             per test: a factory; everything that it started ends with the test.
        redis_servers(*options: str, acl: AclUser | None = None, tls: bool = False, maxmemory: str | None = None) → RedisServer
            e.g. redis_servers(tls=True), redis_servers(acl=AclUser("app", "pw", "~sidecar:* &* +@all -@dangerous")),
            redis_servers(maxmemory="2mb"), redis_servers("--maxclients", "5").
            With tls, `.certificates.authority` is the PEM file to trust (certificate for localhost and 127.0.0.1).
        redis_servers.sentinel() → Sentinel  `.name` `.host` `.port` `.master` `.replica` (RedisServers that can be stopped)
                                            `.current_master_port()` `.client()`; fails over about two seconds after `.master.stop()`.

Databases (tests/services/postgres.py, mariadb.py, databases.py)
    postgres_server: PostgresServer         session. `.host` `.port` `.user` `.password` `.stop()` `.start()` (data stay)
                                            `.pause()` `.resume()` `.is_running`.
    postgres_databases: Databases           per test: `postgres_databases() → str` makes one more fresh database, returns its URL.
    postgres_url: str                       per test: the URL of one fresh database, `postgresql+asyncpg://…`.
    mariadb_server, mariadb_databases, mariadb_url      the same; `mysql+aiomysql://…?charset=utf8mb4`.
    sqlite_url: str                         per test: `sqlite+aiosqlite:///…` in the test's temporary directory.
    database_url: str                       per test and parametrised: the test runs three times, on SQLite, PostgreSQL, MariaDB.

Each test that stops or pauses a shared server may leave it so: the next test's `redis_url` or `…_url` brings it back.

Certificates (tests/services/certificates.py)
    make_certificates(directory, *, host="localhost", days=1) → Certificates(authority, certificate, key), paths of PEM files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.services.databases import Databases
from tests.services.mariadb import MariadbServer
from tests.services.postgres import PostgresServer
from tests.services.process import start_on_free_port
from tests.services.redis import RedisServer, RedisServers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One plain Redis for all tests of this worker."""
    server = start_on_free_port(RedisServer)
    yield server
    server.discard()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis."""
    redis_server.renew()
    return redis_server.url


@pytest.fixture
def redis_servers() -> Iterator[RedisServers]:
    """A factory of Redis servers of this test's own."""
    servers = RedisServers()
    yield servers
    servers.discard()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests of this worker."""
    server = start_on_free_port(PostgresServer)
    yield server
    server.discard()


@pytest.fixture
def postgres_databases(postgres_server: PostgresServer) -> Iterator[Databases]:
    """A factory of fresh PostgreSQL databases."""
    databases = Databases(postgres_server)
    yield databases
    databases.discard()


@pytest.fixture
def postgres_url(postgres_databases: Databases) -> str:
    """The SQLAlchemy URL of a fresh PostgreSQL database."""
    return postgres_databases()


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariadbServer]:
    """One MariaDB for all tests of this worker."""
    server = start_on_free_port(MariadbServer)
    yield server
    server.discard()


@pytest.fixture
def mariadb_databases(mariadb_server: MariadbServer) -> Iterator[Databases]:
    """A factory of fresh MariaDB databases."""
    databases = Databases(mariadb_server)
    yield databases
    databases.discard()


@pytest.fixture
def mariadb_url(mariadb_databases: Databases) -> str:
    """The SQLAlchemy URL of a fresh MariaDB database."""
    return mariadb_databases()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The SQLAlchemy URL of a SQLite file that does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path / 'database.sqlite'}"


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh database, once on each kind of server."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url

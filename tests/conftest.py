"""Real servers as fixtures: Redis, PostgreSQL, MariaDB, an OpenID provider, Keycloak and Chromium.

Session fixtures start a server the first time that a test asks for it (once per pytest worker) and stop it at the end.
A server that is not installed is a failure with one clear sentence, never a skip. Everything below is blocking, quick
to call, and usable from `def` and `async def` tests alike; the browser and what is marked `await` are asynchronous.

Every server has `.stop()`, `.start()` (on the same port), `.pause()` (SIGSTOP), `.resume()` and `.is_running`. A test
that stops or pauses a shared one may leave it so: the next test's `…_url` or `oidc_provider` brings it back.

Redis (tests/services/redis.py)
    redis_server: RedisServer     session. `.url` `.host` `.port`; `.client()` → blocking redis.Redis (use `with`).
                                  Started again, it is empty.
    redis_url: str                per test: the URL of that server, running, and emptied before the test.
    redis_servers: RedisServers   per test: a factory; everything that it started ends with the test.
        redis_servers(*options: str, acl: AclUser | None = None, tls: bool = False, maxmemory: str | None = None)
            → RedisServer. E.g. redis_servers(tls=True), redis_servers(maxmemory="3mb"),
            redis_servers(acl=AclUser("app", "pw", "~sidecar:* &* +@all -@dangerous")),
            redis_servers("--maxclients", "5").
            With tls, `.certificates.authority` is the PEM file to trust (certificate of localhost and 127.0.0.1).
        redis_servers.sentinel() → Sentinel: `.name` `.host` `.port` `.client()` `.current_master_port()`, and `.master`
            and `.replica`, two RedisServers; it fails over about two seconds after `.master.stop()`.

Databases (tests/services/postgres.py, mariadb.py, databases.py)
    postgres_server: PostgresServer     session. `.host` `.port` `.user` `.password`; started again, the rows are there.
    postgres_databases: Databases       per test: `postgres_databases()` makes a fresh database and returns its URL.
    postgres_url: str                   per test: the URL of one fresh database, `postgresql+asyncpg://…`.
    mariadb_server, mariadb_databases, mariadb_url     the same; `mysql+aiomysql://…?charset=utf8mb4`.
    sqlite_url: str                     per test: `sqlite+aiosqlite:///…` in the test's temporary directory.
    database_url: str                   per test, parametrised: the test runs on SQLite, on PostgreSQL and on MariaDB.
    directory: Directory                per test: the directory of the application `wiki` there, open.

OpenID provider (tests/services/oidc.py; npm oidc-provider, over http on localhost)
    oidc_provider: OidcProvider         per test: one server per worker, reset before each test. `.issuer` `.port`
                                        `.log`. Paths: /auth /token /me /jwks /session/end /token/introspection
                                        /token/revocation.
        .client(redirect_uris, *, client_id=None, auth_method="client_secret_basic", secret=None, jwks=None,
                post_logout_redirect_uris=(), backchannel_logout_uri=None,
                grant_types=("authorization_code", "refresh_token"), **metadata) → Client(id, secret, metadata)
        .set_claims(login, {…})         changes some (None removes one), and makes a new person. There are ada
                                        (wiki-admins, staff), bob (staff), eve (no groups, e-mail not verified).
                                        The login is the subject.
        .remove_account(login)
        .configure(access_token_ttl=…, id_token_ttl=…, refresh_token_ttl=…, rotate_refresh_tokens=…,
                   claims_in_id_token=…, pkce_required=…, default_resource="https://api",
                   resources={"https://api": {"audience": …, "scope": …, "alg": …}})
                                        With a default_resource access tokens are JWTs for it, and no good for userinfo.
        .rotate_keys(keep_old=True) → list[str]            the key ids now published, the signing ones first.
        .break_endpoint("/token", status=503, delay=2.0, body=…), .repair()
        .count("/jwks") → int           requests to that path since the test began.
        await .sign_in(http, authorization_url, login, cancel=False) → yarl.URL    the redirect back, not followed.
        await .sign_out(http, end_session_url) → yarl.URL | None
        await .end_sessions(login) → list[dict[str, str]]  back-channel logout of all the person's clients.
        `http` is an aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)).
    oidc_providers: OidcProviders       per test: `oidc_providers(host="localhost")` starts one more.

Keycloak (tests/services/keycloak.py; SAML and OpenID Connect, over http on 127.0.0.1; it takes some 20 s to start)
    keycloak: KeycloakServer            per test: one server per worker, with the people of oidc_provider, reset before
                                        each test; their password is "any". `.issuer` `.metadata_url` `.metadata()`.
        .saml_client(metadata, attributes={…}, **changes) → id     registers us by our metadata
        .oidc_client(client_id, redirect_uris, **attributes) → secret
        .change_client(id, {…}, **changes), .set_groups(login, […]), .change_person(login, enabled=False)
        .end_sessions(login)            an administrator ends them; .session_count(login)
        .rotate_keys(), .admin(method, path, body)      anything else of the administration API

SAML provider (tests/services/saml.py; pysaml2, over http on 127.0.0.1)
    saml_provider: SamlProvider         per test: one server per worker, reset before each test. `.metadata_url` (its
                                        entityID, too) `.metadata()`. There are ada and bob; no passwords.
        .register(metadata), .configure(name_id="transient", sign_response=True, encrypt=True, …)
        .set_attributes(login, {…}), .seen() → what came, in words
        Pages: /sso /slo; /start?sp=…&relay=… begins a sign-in there, /end?sp=…&binding=post|redirect a sign-out.

Browser (tests/services/browser.py; Debian's Chromium, headless)
    browser: playwright.async_api.Browser     per test, since each test has its own event loop.
    page: playwright.async_api.Page           per test, without cookies; 127.0.0.1 and localhost are two sites.

A whole sidecar (tests/world.py)
    world: World                    per test: `running = await world({changes}, provision=True)` → Running: `.url`
                                    `.browser()` `.raw(bytes)` `.audit()` `.application.seen`.

A SCIM client (tests/scim_world.py)
    scim: ScimClient                per test: "okta", tolerant, of a sidecar with accounts (`.running`): `.make(name)`
                                    `.group(name, *ids)` `.patch(path, …)` `.ids(query)`, or `await scim(method, path)`.

Engines of fine-grained policy (tests/services/engines.py): OpenFga and Opa, started by tests/test_engines_real.py

nginx (tests/services/nginx.py)
    nginxes: Nginxes                per test: `nginxes("location / { return 200; }")` → Nginx: `.url` `.port`;
                                    `.proxy(url)` passes all on, `.saying(["one", "two"])` are two that answer so.

Certificates (tests/services/certificates.py)
    make_certificates(directory, *, host="localhost", days=1) → Certificates(authority, certificate, key): PEM files.
"""

from __future__ import annotations

import itertools
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from joserfc.jwk import RSAKey

import sidecar
from sidecar.demo import signer
from sidecar.directory import Directory, upgrading
from tests.scim_world import ScimClient, with_scim
from tests.services.browser import open_browser
from tests.services.databases import Databases
from tests.services.keycloak import KeycloakServer
from tests.services.mariadb import MariadbServer
from tests.services.nginx import Nginxes
from tests.services.oidc import OidcProvider, OidcProviders
from tests.services.postgres import PostgresServer
from tests.services.process import start_on_free_port
from tests.services.redis import RedisServer, RedisServers
from tests.services.saml import SamlProvider
from tests.services.sqlite import NewFiles
from tests.world import World, a_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser, Page


# Files that take the longest, begun first, so that no worker is left alone with one of them at the end.
_LONGEST = (
    "test_upstream_variants.py", "test_killed.py", "test_journey_saml.py", "test_reloading_load.py",
    "test_journey_pysaml2.py", "test_manual.py", "test_sync_kill.py", "test_sync.py", "test_journey_keycloak.py",
    "test_renewal.py", "test_console_browser.py", "test_docs_operation.py", "test_directory_migration.py",
    "test_config_example.py", "test_cli.py", "test_scim_conformance.py",
)  # fmt: skip

# More than any test needs.
_KEYS = 8

# Of what a failed test said, as many lines are said again at the very end.
_LINES_OF_FAILED = 12

# Tests start hundreds of processes; without compiled files each of them compiles the whole package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# To read all of the system's authorities takes 30 ms, and every sidecar does so twice or more. Without that,
# OpenSSL looks for an authority in the folder of them when it needs one; nothing here is signed by any of them.
if ssl.get_default_verify_paths().capath is not None:
    os.environ["SSL_CERT_FILE"] = os.devnull


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know of --failed-to."""
    parser.addoption("--failed-to", help="add to this file a paragraph for each test that failed")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Keep what failed, for whoever runs the tests in two halves and says at the very end what failed in the first."""
    to = config.getoption("--failed-to")
    failed = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
    if to is None or not failed or hasattr(config, "workerinput"):
        return
    with Path(to).open("a", encoding="utf-8") as file:
        for report in failed:
            end = report.longreprtext.rstrip().splitlines()[-_LINES_OF_FAILED:]
            file.write("\n".join([f"{report.nodeid} ({report.when})", *("    " + line for line in end), ""]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take the longest; leave out what compiled modules do not let a test do."""
    if sidecar.is_compiled():
        for item in items:
            if item.get_closest_marker("uncompiled") is not None:
                item.add_marker(pytest.mark.skip("puts something in the place of a part that is compiled here"))
    places = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="session", autouse=True)
def keys_of_demo_providers() -> Iterator[None]:
    """Let the demo's providers take turns with a few keys, which take long to make; those of one test all differ."""
    make, made, turn = signer._new_key, list[RSAKey](), itertools.count()

    def next_key() -> RSAKey:
        if len(made) < _KEYS:
            made.append(make())
            return made[-1]
        return made[next(turn) % _KEYS]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signer, "_new_key", next_key)
        yield


@pytest.fixture(scope="session", autouse=True)
def tables_of_new_files() -> Iterator[None]:
    """Let the migrations make the tables of a new SQLite file once, and have those that follow made like them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upgrading, "upgrade", NewFiles(upgrading.upgrade).upgrade)
        yield


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Start sidecars, applications and providers for one test; see tests/world.py."""
    async with a_world(tmp_path) as made:
        yield made


@pytest.fixture
async def scim(world: World, tmp_path: Path) -> AsyncIterator[ScimClient]:
    """A tolerant SCIM client, "okta", of a sidecar with accounts."""
    async with ScimClient(await with_scim(world, tmp_path)) as client:
        yield client


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


@pytest.fixture
async def directory(database_url: str) -> AsyncIterator[Directory]:
    """The directory of the application `wiki`, made anew on each kind of server."""
    opened = await Directory.open(database_url, "wiki", 15)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def oidc_server() -> Iterator[OidcProvider]:
    """One OpenID provider for all tests of this worker; ask for `oidc_provider`, which is reset."""
    provider = start_on_free_port(OidcProvider)
    yield provider
    provider.discard()


@pytest.fixture
def oidc_provider(oidc_server: OidcProvider) -> OidcProvider:
    """An OpenID provider as new."""
    oidc_server.renew()
    return oidc_server


@pytest.fixture
def oidc_providers() -> Iterator[OidcProviders]:
    """A factory of OpenID providers of this test's own."""
    providers = OidcProviders()
    yield providers
    providers.discard()


@pytest.fixture(scope="session")
def keycloak_server() -> Iterator[KeycloakServer]:
    """One Keycloak for all tests of this worker; ask for `keycloak`, which is reset."""
    server = start_on_free_port(KeycloakServer)
    yield server
    server.discard()


@pytest.fixture
def keycloak(keycloak_server: KeycloakServer) -> KeycloakServer:
    """A Keycloak whose realm is as new."""
    keycloak_server.renew()
    return keycloak_server


@pytest.fixture(scope="session")
def saml_server() -> Iterator[SamlProvider]:
    """One SAML provider for all tests of this worker; ask for `saml_provider`, which is reset."""
    provider = start_on_free_port(SamlProvider)
    yield provider
    provider.discard()


@pytest.fixture
def saml_provider(saml_server: SamlProvider) -> SamlProvider:
    """A SAML provider as new."""
    saml_server.renew()
    return saml_server


@pytest.fixture
def nginxes() -> Iterator[Nginxes]:
    """A factory of nginx servers of this test's own."""
    started = Nginxes()
    yield started
    started.discard()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    async with open_browser() as opened:
        yield opened


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """An empty page of a browser without cookies."""
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()

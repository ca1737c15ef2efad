"""Databases over TLS: whom the sidecar believes, what it shows, what it says of a certificate, and renewed files."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import text

from sidecar.config.renewing import Renewing
from sidecar.config.trust import Trust, trust_of
from sidecar.config.values import Dsn
from sidecar.directory.database import Database
from sidecar.faults import Unavailable
from sidecar.hooks.sql import Database as Application
from tests.services.certificates import Certificates, make_certificates
from tests.services.mariadb import MariadbServer
from tests.services.postgres import PostgresServer
from tests.services.process import start_on_free_port

Server = PostgresServer | MariadbServer
OURS = "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
Ask = Callable[[str], Awaitable[str]]


def made(folder: Path, **changes: Any) -> Certificates:
    folder.mkdir(parents=True)
    return make_certificates(folder, **changes)


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one: Server
    if request.param == "postgresql":
        one = start_on_free_port(PostgresServer)
    else:
        first = made(tmp_path_factory.mktemp("mysql") / "first")
        one = start_on_free_port(lambda port: MariadbServer(port, first))
    yield one
    one.discard()


def address(server: Server, authority: Path | str, *more: str, host: str = "127.0.0.1") -> str:
    is_postgres = isinstance(server, PostgresServer)
    kind, ca = ("postgresql", "sslrootcert") if is_postgres else ("mysql", "ssl_ca")
    words = "&".join([*(["sslmode=verify-full"] if is_postgres else []), f"{ca}={authority}", *more])
    name = "postgres" if is_postgres else "mysql"
    return f"{kind}://{server.user}:{server.password}@{host}:{server.port}/{name}?{words}"


async def directory(url: str) -> str:
    try:
        database = Database(url, 5)
        try:
            await database.read(lambda connection: connection.execute(text("SELECT 1")))
        finally:
            await database.close()
    except Unavailable as fault:
        return fault.detail
    return "ok"


async def application(url: str) -> str:
    try:
        database = Application("app", Dsn(url), timedelta(seconds=5))
        try:
            await database.probe()
        finally:
            await database.close()
    except (Unavailable, ValueError) as fault:
        return str(fault)
    return "ok"


@pytest.mark.parametrize("ask", [directory, application])
async def test_a_certificate_is_believed_or_its_fault_is_named(server: Server, ask: Ask, tmp_path: Path) -> None:
    good, foreign, old = made(tmp_path / "good"), made(tmp_path / "foreign"), made(tmp_path / "old", days=-1)
    server.speak_tls(good)
    assert await until("ok", ask, address(server, good.authority)) == "ok"
    assert "its certificate is not accepted" in await ask(address(server, foreign.authority))
    assert "its certificate is not accepted" in await ask(address(server, "system"))
    # The same address by a name that is not in the certificate.
    assert "not accepted: Hostname mismatch" in await ask(address(server, good.authority, host="127.1"))
    missing = await ask(address(server, tmp_path / "none.pem"))
    assert f"{tmp_path}/none.pem cannot be used: No such file or directory" in missing
    server.speak_tls(old)
    assert "certificate has expired" in await until("expired", ask, address(server, old.authority))


async def until(word: str, ask: Ask, url: str) -> str:
    """What is said, once the server has read its new certificate."""
    said = ""
    for _ in range(50):
        said = await ask(url)
        if word in said:
            break
        await asyncio.sleep(0.1)
    return said


async def test_an_authority_that_was_renewed_on_disk_is_believed_without_a_restart(
    server: Server, tmp_path: Path
) -> None:
    first, second = made(tmp_path / "first"), made(tmp_path / "second")
    ca = tmp_path / "ca.pem"
    shutil.copy(first.authority, ca)
    server.speak_tls(first)
    url = address(server, ca)
    assert await until("ok", directory, url) == "ok"
    database = Database(url, 5)

    async def asked() -> str:
        try:
            await database.engine.dispose()  # what is pooled has shaken hands already
            await database.read(lambda connection: connection.execute(text("SELECT 1")))
        except Unavailable as fault:
            return fault.detail
        return "ok"

    assert await asked() == "ok"
    server.speak_tls(second)
    assert "not accepted" in await until("not accepted", lambda _url: asked(), url)
    # Half of a file is none: the former stays, and it is said.
    ca.write_bytes(second.authority.read_bytes()[:300])
    with structlog.testing.capture_logs() as lines:
        assert "not accepted" in await asked()
    assert [(one["event"], one["setting"]) for one in lines] == [("cannot be used, the former stays", "directory")]
    shutil.copy(second.authority, ca)
    assert await asked() == "ok"
    await database.close()


async def test_our_own_certificate_is_shown_where_one_is_asked_for(server: Server, tmp_path: Path) -> None:
    ours = made(tmp_path / "ours", host="sidecar")
    server.speak_tls(ours)
    names = ("sslcert", "sslkey") if isinstance(server, PostgresServer) else ("ssl_cert", "ssl_key")
    pair = [f"{name}={path}" for name, path in zip(names, (ours.certificate, ours.key), strict=True)]
    query = address(server, ours.authority, *pair)
    assert await until("ok", directory, query) == "ok"
    assert await application(query) == "ok"
    database = Database(query, 5)
    if isinstance(server, PostgresServer):
        seen = await database.read(lambda one: one.scalar(text(OURS)))
        assert seen == "/CN=sidecar"
    else:
        await database.write(lambda one: one.execute(text("CREATE USER shown IDENTIFIED BY 'x' REQUIRE X509")))
        await database.write(lambda one: one.execute(text("GRANT SELECT ON mysql.* TO shown")))
        assert await directory(query.replace(f"{server.user}:{server.password}", "shown:x")) == "ok"
        without = address(server, ours.authority).replace(f"{server.user}:{server.password}", "shown:x")
        assert "28000" in await directory(without)
    await database.close()
    # A key of another certificate is found before anybody is asked.
    other = made(tmp_path / "other")
    mixed = address(server, ours.authority, pair[0], f"{names[1]}={other.key}")
    assert "key values mismatch" in await directory(mixed)
    assert "belong together" in await directory(address(server, ours.authority, pair[0]))
    assert "belong together" in await application(address(server, ours.authority, pair[0]))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h/d", None),
        ("postgresql://u:p@h/d?sslmode=require", None),
        ("postgres://h/d?sslmode=verify-ca&sslrootcert=/a", Trust(Path("/a"), is_host_checked=False)),
        ("postgresql://h/d?sslrootcert=/a", Trust(Path("/a"))),
        # Anybody has a certificate of a public authority.
        ("postgresql://h/d?sslmode=verify-ca&sslrootcert=system", Trust()),
        (
            "postgresql://h/d?sslmode=require&sslcert=/c&sslkey=/k",
            Trust(None, Path("/c"), Path("/k"), is_verified=False),
        ),
        ("mysql://h/d?ssl_ca=/a&charset=utf8mb4", Trust(Path("/a"))),
        ("mariadb+aiomysql://h/d?ssl_ca=system", Trust()),
        ("sqlite:///a?ssl_ca=/a", None),
    ],
)
def test_words_about_tls_in_an_address(url: str, expected: Trust | None) -> None:
    assert trust_of(url) == expected


def test_a_mode_that_there_is_none_is_said() -> None:
    with pytest.raises(ValueError, match="sslmode is one of disable"):
        trust_of("postgresql://h/d?sslmode=verify_full")


def test_verify_full_without_authorities_of_its_own_believes_those_of_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trust_of("postgresql://h/d?sslmode=verify-full") == Trust()
    # Who has libpq's file keeps being served by it.
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql/root.crt").touch()
    assert trust_of("postgresql://h/d?sslmode=verify-full") is None


def test_a_certificate_and_its_key_are_taken_together_once_both_are_there(tmp_path: Path) -> None:
    first, second = made(tmp_path / "first"), made(tmp_path / "second")
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    shutil.copy(first.certificate, certificate)
    shutil.copy(first.key, key)
    tls = Renewing("sessions", Trust(None, certificate, key))
    before = tls.current()
    assert tls.current() is before
    shutil.copy(second.certificate, certificate)
    assert tls.current() is before
    shutil.copy(second.key, key)
    assert tls.current() is not before

"""A real PostgreSQL on a free port, with its data in a temporary directory."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.services.process import (
    HOST,
    Server,
    ServiceFailedError,
    find_program,
    handed_over,
    new_directory,
    run_once,
    unprivileged,
)

if TYPE_CHECKING:
    from tests.services.certificates import Certificates

USER = "sidecar"
PASSWORD = "not-so-secret"

# The data are thrown away, so nothing needs to reach the disk; commits reach the kernel, and so survive a stop.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "jit": "off",
}


def _newest_directory() -> str:
    """Return Debian's directory of the newest PostgreSQL's programs, which are not on PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return str(found[-1]) if found else ""


class PostgresServer:
    """One running PostgreSQL; the user `sidecar` is a superuser who signs in with a password (SCRAM)."""

    def __init__(self, port: int) -> None:
        self.host = HOST
        self.port = port
        self.user = USER
        self.password = PASSWORD
        self._programs = _newest_directory()
        self._account = unprivileged("postgres")
        self._directory = new_directory("sidecar-postgres", self._account)
        settings = {**SETTINGS, "unix_socket_directories": str(self._directory)}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        postgres = [self._program("postgres"), "-D", str(self._data), "-h", self.host, "-p", str(port)]
        self._server = Server(
            "postgres",
            [*postgres, *words],
            answers=self._answers,
            account=self._account,
            # SIGQUIT is PostgreSQL's immediate shutdown: it waits for nobody and frees its shared memory.
            stop_signal=signal.SIGQUIT,
        )

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _program(self, name: str) -> str:
        return find_program(name, self._programs)

    def _initialise(self) -> None:
        password = self._directory / "password"
        password.write_text(self.password)
        password.chmod(0o644)
        command = [self._program("initdb"), "-D", str(self._data), "-U", self.user, "--pwfile", str(password)]
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        run_once([*command, *options], self._account)

    def _psql(self, *statements: str) -> str:
        words = [word for statement in statements for word in ("-c", statement)]
        where = f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/postgres"
        return run_once([self._program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", where, *words])

    def _answers(self) -> bool:
        try:
            return self._psql("SELECT 1").strip() == "1"
        except ServiceFailedError:
            return False

    def create_database(self, name: str) -> str:
        """Make an empty database and return its SQLAlchemy URL (asyncpg)."""
        self._psql(f'CREATE DATABASE "{name}"')
        return f"postgresql+asyncpg://{self.user}:{self.password}@{self.host}:{self.port}/{name}"

    def drop_database(self, name: str) -> None:
        """Delete a database, even when somebody is still connected."""
        self._psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def speak_tls(self, certificates: Certificates) -> None:
        """Show this certificate to whoever connects from now on."""
        handed_over(certificates.certificate, self._data / "server.crt", self._account)
        handed_over(certificates.key, self._data / "server.key", self._account)
        handed_over(certificates.authority, self._data / "root.crt", self._account)
        # With authorities it asks clients for a certificate, too.
        self._psql("ALTER SYSTEM SET ssl = on", "ALTER SYSTEM SET ssl_ca_file = 'root.crt'", "SELECT pg_reload_conf()")

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._server.is_running

    def start(self) -> Self:
        """Start (again) on the same port and wait until it answers; the databases are still there."""
        if not self._data.exists():
            self._initialise()
        self._server.start()
        return self

    def stop(self) -> None:
        """End the server at once."""
        self._server.stop()

    def pause(self) -> None:
        """Freeze the server with all its connections."""
        self._server.pause()

    def resume(self) -> None:
        """Let a paused server go on."""
        self._server.resume()

    def renew(self) -> None:
        """Undo what an earlier test did: resume or start the server."""
        self.resume()
        if not self.is_running:
            self.start()

    def discard(self) -> None:
        """Stop for good and delete everything."""
        self._server.discard()
        shutil.rmtree(self._directory, ignore_errors=True)

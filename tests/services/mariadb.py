"""A real MariaDB on a free port, with its data in a temporary directory."""

from __future__ import annotations

import contextlib
import shutil
import signal
from typing import TYPE_CHECKING, Self

import pymysql

from tests.services.process import HOST, Server, find_program, handed_over, new_directory, run_once, unprivileged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.services.certificates import Certificates

USER = "sidecar"
PASSWORD = "not-so-secret"

# The data are thrown away, so nothing needs to reach the disk; commits reach the kernel, and so survive a stop.
# `loose`: a version that lacks such a setting starts without it.
SETTINGS = (
    "--skip-log-bin",
    "--skip-name-resolve",
    "--loose-innodb-flush-log-at-trx-commit=2",
    "--loose-innodb-flush-method=nosync",
    "--loose-innodb-doublewrite=OFF",
    "--loose-innodb-buffer-pool-size=32M",
    "--loose-innodb-log-file-size=8M",
    "--loose-performance-schema=OFF",
    "--max-connections=200",
    "--character-set-server=utf8mb4",
)


class MariadbServer:
    """One running MariaDB; the user `sidecar` may do everything and signs in with a password."""

    def __init__(self, port: int, certificates: Certificates | None = None) -> None:
        self.host = HOST
        self.port = port
        self.user = USER
        self.password = PASSWORD
        self._account = unprivileged("mysql")
        self._directory = new_directory("sidecar-mariadb", self._account)
        self._has_tls = certificates is not None
        if certificates is not None:
            self._take(certificates)
        # Killed rather than asked: an orderly shutdown takes seconds, and InnoDB recovers committed rows at a restart.
        self._server = Server(
            "mariadbd",
            self._command(),
            answers=self._answers,
            account=self._account,
            stop_signal=signal.SIGKILL,
        )

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    @property
    def _init_file(self) -> Path:
        return self._directory / "init.sql"

    def _command(self) -> Sequence[str]:
        # `--no-defaults` must be first: the distribution's own settings name its own directories and users.
        words = [find_program("mariadbd"), "--no-defaults", f"--datadir={self._data}"]
        words += [f"--bind-address={self.host}", f"--port={self.port}", f"--socket={self._directory}/s"]
        words += [f"--pid-file={self._directory}/pid", f"--init-file={self._init_file}"]
        if self._has_tls:
            words += [f"--ssl-cert={self._directory}/server.pem", f"--ssl-key={self._directory}/server.key"]
            words += [f"--ssl-ca={self._directory}/authority.pem"]
        return [*words, *SETTINGS]

    def _take(self, certificates: Certificates) -> None:
        handed_over(certificates.certificate, self._directory / "server.pem", self._account)
        handed_over(certificates.key, self._directory / "server.key", self._account)
        handed_over(certificates.authority, self._directory / "authority.pem", self._account)

    def speak_tls(self, certificates: Certificates) -> None:
        """Show this certificate to whoever connects from now on, where there were some from the beginning."""
        self._take(certificates)
        self._execute("FLUSH SSL")

    def _initialise(self) -> None:
        self._init_file.write_text(
            f"CREATE USER IF NOT EXISTS '{self.user}'@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO '{self.user}'@'%' WITH GRANT OPTION;\n"
        )
        command = [find_program("mariadb-install-db"), "--no-defaults", f"--datadir={self._data}"]
        run_once([*command, "--skip-test-db", "--auth-root-authentication-method=normal"], self._account)

    def _execute(self, statement: str, *values: str) -> Sequence[tuple[object, ...]]:
        connection = pymysql.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, connect_timeout=5
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    def _answers(self) -> bool:
        try:
            self._execute("SELECT 1")
        except (pymysql.MySQLError, OSError):
            return False
        return True

    def create_database(self, name: str) -> str:
        """Make an empty database (utf8mb4) and return its SQLAlchemy URL (aiomysql)."""
        self._execute(f"CREATE DATABASE `{name}`")
        return f"mysql+aiomysql://{self.user}:{self.password}@{self.host}:{self.port}/{name}?charset=utf8mb4"

    def drop_database(self, name: str) -> None:
        """Delete a database, even when somebody is still connected."""
        # An open transaction on one of its tables would hold the DROP up.
        for (connection,) in self._execute("SELECT id FROM information_schema.processlist WHERE db = %s", name):
            # One that ended meanwhile is as good.
            with contextlib.suppress(pymysql.err.OperationalError):
                self._execute(f"KILL {connection}")
        self._execute(f"DROP DATABASE IF EXISTS `{name}`")

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

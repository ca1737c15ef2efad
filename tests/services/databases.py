"""What PostgreSQL and MariaDB have in common for tests: a fresh database by name, and its SQLAlchemy URL."""

from __future__ import annotations

import itertools
from typing import Protocol

_numbers = itertools.count(1)


class DatabaseServer(Protocol):
    """A running database server."""

    host: str
    port: int

    def renew(self) -> None:
        """Undo what an earlier test did: resume or start the server."""
        ...

    def create_database(self, name: str) -> str:
        """Make an empty database and return its SQLAlchemy URL."""
        ...

    def drop_database(self, name: str) -> None:
        """Delete a database, even when somebody is still connected."""
        ...


class Databases:
    """Makes fresh databases on one server, and drops them at the end of the test."""

    def __init__(self, server: DatabaseServer) -> None:
        self.server = server
        server.renew()
        self._names: list[str] = []

    def __call__(self) -> str:
        """Create an empty database; return its SQLAlchemy URL with an asynchronous driver, password included."""
        name = f"test_{next(_numbers)}"
        url = self.server.create_database(name)
        self._names.append(name)
        return url

    def discard(self) -> None:
        """Drop what was created."""
        self.server.renew()
        for name in self._names:
            self.server.drop_database(name)
        self._names.clear()

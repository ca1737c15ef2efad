"""The legacy application's own tables: users as it has always kept them, and notes."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

Answer = TypeVar("Answer")

_TABLES = """
CREATE TABLE users (
  id INTEGER PRIMARY KEY,
  login TEXT NOT NULL UNIQUE,
  email TEXT NOT NULL DEFAULT '',
  full_name TEXT NOT NULL DEFAULT '',
  role TEXT NOT NULL DEFAULT 'reader' CHECK (role IN ('admin', 'editor', 'reader')),
  active INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
  password_hash TEXT NOT NULL DEFAULT '!',
  created TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ'))
);
CREATE TABLE notes (id INTEGER PRIMARY KEY, author TEXT NOT NULL, text TEXT NOT NULL, created TEXT NOT NULL);
INSERT INTO users (login, email, full_name, role, active, created) VALUES
  ('root', 'it@example.com', 'Local administrator', 'admin', 1, '2009-03-02T08:00:00Z'),
  ('jsmith', 'john.smith@example.com', 'John Smith', 'editor', 0, '2011-10-17T09:12:44Z');
INSERT INTO notes (author, text, created) VALUES
  ('root', 'Welcome. Please do not ask for new accounts by telephone.', '2009-03-02T08:05:00Z');
"""

COLUMNS = ("email", "full_name", "role", "active")
_PUBLIC = "id, login, email, full_name, role, active, created"
_EVERYBODY = f"SELECT {_PUBLIC} FROM users ORDER BY id"  # noqa: S608 - our own names only


@dataclass(frozen=True, slots=True)
class User:
    """One row of the users table, without the password hash."""

    id: int
    login: str
    email: str
    full_name: str
    role: str
    active: bool
    created: str


@dataclass(frozen=True, slots=True)
class Note:
    """One row of the notes table."""

    author: str
    text: str
    created: str


class Taken(Exception):  # noqa: N818 - the domain's word
    """There is a user of this login already."""


class LegacyTables:
    """SQLite in a thread, one connection per act, so that others may write to the same file meanwhile."""

    def __init__(self, database: Path) -> None:
        """Create the tables, with two old users, when the file is new. Raises sqlite3.Error."""
        self._database = database
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'users'").fetchone()
            if known is None:
                connection.executescript(_TABLES)

    async def users(self) -> list[User]:
        """Return every user."""
        return await self._do(lambda connection: [_user(row) for row in connection.execute(_EVERYBODY)])

    async def find(self, login: str) -> User | None:
        """Return the user of this exact login."""
        return await self._one("SELECT {} FROM users WHERE login = ?", login)

    async def add(self, login: str, values: Mapping[str, object]) -> User:
        """Insert a user; `values` has keys of COLUMNS only.

        Raises Taken.
        """
        columns = ["login", *(column for column in COLUMNS if column in values)]
        given = [login, *(values[column] for column in columns[1:])]
        marks = ", ".join("?" * len(columns))
        insert = f"INSERT INTO users ({', '.join(columns)}) VALUES ({marks}) RETURNING {_PUBLIC}"  # noqa: S608 - the names are those of COLUMNS
        try:
            return await self._do(lambda connection: _user(connection.execute(insert, given).fetchone()))
        except sqlite3.IntegrityError as error:
            raise Taken(login) from error

    async def change(self, user_id: int, values: Mapping[str, object]) -> User | None:
        """Update a user, None when there is none; `values` has keys of COLUMNS only."""
        changes = {column: values[column] for column in COLUMNS if column in values}
        if changes:
            pairs = ", ".join(f"{column} = ?" for column in changes)
            update = f"UPDATE users SET {pairs} WHERE id = ?"  # noqa: S608 - the names are those of COLUMNS
            await self._do(lambda connection: connection.execute(update, [*changes.values(), user_id]))
        return await self._one("SELECT {} FROM users WHERE id = ?", user_id)

    async def remove(self, user_id: int) -> bool:
        """Delete a user and tell whether there was one."""
        delete = "DELETE FROM users WHERE id = ?"
        return await self._do(lambda connection: connection.execute(delete, [user_id]).rowcount == 1)

    async def notes(self) -> list[Note]:
        """Return the newest notes, newest first."""
        select = "SELECT author, text, created FROM notes ORDER BY id DESC LIMIT 50"
        return await self._do(lambda connection: [Note(*row) for row in connection.execute(select)])

    async def write(self, author: str, text: str) -> None:
        """Add a note."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        insert = "INSERT INTO notes (author, text, created) VALUES (?, ?, ?)"
        await self._do(lambda connection: connection.execute(insert, [author, text, now]))

    async def _one(self, select: str, value: object) -> User | None:
        query = select.format(_PUBLIC)
        row = await self._do(lambda connection: connection.execute(query, [value]).fetchone())
        return None if row is None else _user(row)

    async def _do(self, act: Callable[[sqlite3.Connection], Answer]) -> Answer:
        def in_one_transaction() -> Answer:
            with closing(self._connect()) as connection, connection:
                return act(connection)

        return await asyncio.to_thread(in_one_transaction)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._database, timeout=5)


def _user(row: tuple[int, str, str, str, str, int, str]) -> User:
    return User(*row[:5], active=bool(row[5]), created=row[6])

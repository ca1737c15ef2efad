"""Open the databases of applications: addresses, drivers, and how each of them takes and gives values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sidecar.config.renewing import Renewing
from sidecar.config.sqlite import open_file
from sidecar.config.trust import OF_MYSQL, OF_POSTGRESQL, Trust, trust_of_mysql, trust_of_postgresql
from sidecar.config.values import Dsn

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mariadb+aiomysql",
}
_POOL_SIZE = 5
_RECYCLE_SECONDS = 1800
WRITES = "sidecar_writes"

# PostgreSQL types that travel as text, so that the server itself reads "5" into an integer column and "2026-01-01"
# into a date, as it does for a literal. asyncpg on its own refuses text for them.
_TEXT_TYPES = [
    "text",
    "varchar",
    "bpchar",
    "name",
    "numeric",
    "uuid",
    "timestamp",
    "timestamptz",
    "date",
    "time",
    "timetz",
    "interval",
    "json",
    "jsonb",
    "inet",
    "cidr",
    "macaddr",
]
_NUMBER_TYPES: Mapping[str, type] = {"int2": int, "int4": int, "int8": int, "float4": float, "float8": float}

_MYSQL_STATES = {
    1022: "23000",
    1062: "23505",
    1169: "23505",
    1205: "HYT00",
    1366: "22007",
    1406: "22001",
    1451: "23503",
    1452: "23503",
    1586: "23505",
    3819: "23514",
    4025: "23514",
}
_SQLITE_READING = ("SQLITE_ERROR", "SQLITE_SCHEMA")
_SQLITE_UNKNOWN = re.compile(
    r"no such (table|column|function|module|collation sequence): [^\n]{1,200}"
    r"|table [^\n]{1,200} has no column named [^\n]{1,200}|near \"[^\n]{1,200}\": syntax error"
)
_SQLITE_STATES = {
    "SQLITE_CONSTRAINT_UNIQUE": "23505",
    "SQLITE_CONSTRAINT_PRIMARYKEY": "23505",
    "SQLITE_CONSTRAINT_ROWID": "23505",
    "SQLITE_CONSTRAINT_FOREIGNKEY": "23503",
    "SQLITE_CONSTRAINT_NOTNULL": "23502",
    "SQLITE_CONSTRAINT_CHECK": "23514",
    "SQLITE_BUSY": "55P03",
    "SQLITE_LOCKED": "55P03",
    "SQLITE_READONLY": "25006",
}


def address_of(dsn: Dsn) -> URL:
    """Parse *dsn* and name the asynchronous driver; raises ValueError that does not repeat it."""
    try:
        url = make_url(dsn.reveal())
    except ArgumentError:
        message = "a database is written like postgresql://user@host/name or sqlite:///path"
        raise ValueError(message) from None
    kind = url.drivername.partition("+")[0]
    driver = _DRIVERS.get(kind)
    if driver is None:
        message = f"{kind} is none of sqlite, postgresql, mysql and mariadb"
        raise ValueError(message)
    url = url.set(drivername=driver)
    if kind in ("mysql", "mariadb"):
        # Its driver writes values into the statement itself, which is only safe in an encoding without surprises.
        return url.update_query_dict({"charset": "utf8mb4"})
    if kind == "sqlite":
        return _existing_file(url)
    return url


def _existing_file(url: URL) -> URL:
    """Never make a new, empty database because of a typing mistake in a path."""
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        return url
    return url.set(database=f"file:{url.database}").update_query_dict({"mode": "rw", "uri": "true"})


def open_engine(dsn: Dsn, timeout: timedelta) -> AsyncEngine:
    """Make the engine of one connection; connects to nothing yet. Raises ValueError for a wrong address."""
    url = address_of(dsn)
    seconds = timeout.total_seconds()
    url, trust = _trust_in(url)
    arguments = _driver_arguments(url, seconds)
    if isinstance(trust, str):
        arguments["ssl"] = trust
    pool: dict[str, Any] = {}
    if url.get_backend_name() != "sqlite" or url.database not in (None, "", ":memory:"):
        pool = {"pool_size": _POOL_SIZE, "max_overflow": 0, "pool_timeout": seconds}
    engine = create_async_engine(
        url,
        connect_args=arguments,
        pool_pre_ping=True,
        pool_recycle=_RECYCLE_SECONDS,
        hide_parameters=True,
        **pool,
    )
    if isinstance(trust, Trust):
        event.listen(engine.sync_engine, "do_connect", Renewing("the database's address", trust).give)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "begin", _begin)
    elif engine.dialect.name == "postgresql":
        event.listen(engine.sync_engine, "connect", _speak_text)
    return engine


def _trust_in(url: URL) -> tuple[URL, Trust | str | None]:
    """The address without its words about TLS, and what they mean."""
    if url.get_backend_name() == "postgresql":
        return url.difference_update_query(OF_POSTGRESQL), trust_of_postgresql(url.query)
    if url.get_backend_name() in ("mysql", "mariadb"):
        return url.difference_update_query(OF_MYSQL), trust_of_mysql(url.query)
    return url, None


def _driver_arguments(url: URL, seconds: float) -> dict[str, Any]:
    backend = url.get_backend_name()
    if backend == "sqlite":
        # Waiting for a lock ends before the statement's own time does, so that the reason is known.
        return {"timeout": seconds * 0.8, "async_creator_fn": open_file}
    if backend == "postgresql":
        return {"timeout": seconds, "server_settings": {"application_name": "sidecar"}}
    return {
        "connect_timeout": max(1, round(seconds)),
        # A server that is not strict cuts long values off, and one person's name becomes another's.
        "init_command": "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",
    }


def _begin(connection: Connection) -> None:
    # Left alone, Python's driver opens no transaction for statements such as WITH … INSERT.
    # A transaction that starts with reading and then writes fails at once, without waiting, when somebody wrote.
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _speak_text(connection: Any, _record: object) -> None:
    connection.run_async(_set_codecs)


async def _set_codecs(driver: Any) -> None:
    for name in _TEXT_TYPES:
        await driver.set_type_codec(name, schema="pg_catalog", encoder=_literal, decoder=str)
    for name, read in _NUMBER_TYPES.items():
        await driver.set_type_codec(name, schema="pg_catalog", encoder=_literal, decoder=read)
    await driver.set_type_codec("bool", schema="pg_catalog", encoder=_literal, decoder="t".__eq__)


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def sqlite_words_of(error: DBAPIError) -> str:
    """SQLite's name for *error*, which has no SQLSTATE, and what of the statement it does not know; "" for others.

    Other words of SQLite may hold values, such as a path into JSON or what a trigger raises.
    """
    name = getattr(error.orig, "sqlite_errorname", None)
    if not isinstance(name, str):
        return ""
    text = str(error.orig)
    # Made while the statement is read, when no value is bound: names of the configuration and of the application.
    return f"{name}: {text}" if name in _SQLITE_READING and _SQLITE_UNKNOWN.fullmatch(text) else name


def sqlstate_of(error: DBAPIError) -> str:
    """SQLSTATE of *error*, "" when there is none; MySQL's and SQLite's own codes are translated.

    A violated unique key is 23505 on every database, although MySQL itself says 23000.
    """
    arguments = error.orig.args if error.orig is not None else ()
    if arguments and isinstance(arguments[0], int) and arguments[0] in _MYSQL_STATES:
        return _MYSQL_STATES[arguments[0]]
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(state, str):
        return state
    name = getattr(error.orig, "sqlite_errorname", None)
    if not isinstance(name, str):
        return ""
    return _SQLITE_STATES.get(name) or _SQLITE_STATES.get("_".join(name.split("_")[:2]), "")

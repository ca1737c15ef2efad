"""Turn the configured address of a database into what SQLAlchemy connects with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from sidecar.config.renewing import Renewing
from sidecar.config.sqlite import open_file
from sidecar.config.trust import OF_MYSQL, OF_POSTGRESQL, Trust, trust_of_mysql, trust_of_postgresql
from sidecar.faults import Unavailable
from sidecar.reason import Reason

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mysql+aiomysql",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is: ``kind`` is sqlite, postgresql or mysql. ``options`` and ``tls`` are for connecting."""

    kind: str
    url: URL
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tls: Renewing | None = field(default=None, repr=False)

    @property
    def file(self) -> Path:
        """The file of a SQLite database."""
        return Path(self.url.database or "")


def address_of(text: str, timeout: float) -> Address:
    """Read ``sqlite:///path``, ``postgresql://…`` or ``mysql://…``; *timeout* in seconds bounds connecting.

    Raises Unavailable(DIRECTORY_DOWN) that says what is wrong with it, without the password.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise Unavailable(Reason.DIRECTORY_DOWN, "the directory's address is not a URL") from None
    kind = url.drivername.partition("+")[0]
    if kind not in _DRIVERS:
        raise Unavailable(Reason.DIRECTORY_DOWN, f"no directory can be kept in {kind}; use sqlite, postgresql or mysql")
    url = url.set(drivername=_DRIVERS[kind])
    build = {"sqlite": _sqlite, "postgresql": _postgresql}.get(_DRIVERS[kind].partition("+")[0], _mysql)
    try:
        return build(url, timeout)
    except ValueError as error:
        raise Unavailable(Reason.DIRECTORY_DOWN, str(error)) from None


def _sqlite(url: URL, timeout: float) -> Address:
    if not url.database or url.database == ":memory:":
        raise Unavailable(Reason.DIRECTORY_DOWN, "a directory in SQLite needs a file: sqlite:///path/directory.db")
    return Address("sqlite", url, {"timeout": timeout, "async_creator_fn": open_file})


def _postgresql(url: URL, timeout: float) -> Address:
    options: dict[str, Any] = {"timeout": timeout, "command_timeout": timeout}
    trust = trust_of_postgresql(url.query)
    if isinstance(trust, str):
        options["ssl"] = trust
    return Address("postgresql", url.difference_update_query(OF_POSTGRESQL), options, _renewing(trust))


def _mysql(url: URL, timeout: float) -> Address:
    trust = trust_of_mysql(url.query)
    url = url.difference_update_query(OF_MYSQL).update_query_dict({"charset": "utf8mb4"})
    return Address("mysql", url, {"connect_timeout": timeout}, _renewing(trust))


def _renewing(trust: Trust | str | None) -> Renewing | None:
    return Renewing("directory", trust) if isinstance(trust, Trust) else None

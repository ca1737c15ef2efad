"""Turn the configured address of a database into what SQLAlchemy connects with."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from sidecar.model import Unavailable
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
    """Where a database is: ``kind`` is sqlite, postgresql or mysql; ``options`` go to the driver's connect."""

    kind: str
    url: URL
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

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
    return build(url, timeout)


def _sqlite(url: URL, timeout: float) -> Address:
    if not url.database or url.database == ":memory:":
        raise Unavailable(Reason.DIRECTORY_DOWN, "a directory in SQLite needs a file: sqlite:///path/directory.db")
    return Address("sqlite", url, {"timeout": timeout})


def _postgresql(url: URL, timeout: float) -> Address:
    # libpq's names, which asyncpg takes only inside its own kind of address.
    mode, authority = url.query.get("sslmode"), url.query.get("sslrootcert")
    options: dict[str, Any] = {"timeout": timeout, "command_timeout": timeout}
    if isinstance(authority, str):
        options["ssl"] = _trusting(authority, host_checked=mode != "verify-ca")
    elif isinstance(mode, str):
        options["ssl"] = mode
    return Address("postgresql", url.difference_update_query(["sslmode", "sslrootcert"]), options)


def _mysql(url: URL, timeout: float) -> Address:
    options: dict[str, Any] = {"connect_timeout": timeout}
    authority = url.query.get("ssl_ca")
    if isinstance(authority, str):
        options["ssl"] = _trusting(authority, host_checked=True)
    url = url.difference_update_query(["ssl_ca"])
    return Address("mysql", url.update_query_dict({"charset": "utf8mb4"}), options)


def _trusting(authority: str, *, host_checked: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise Unavailable(Reason.DIRECTORY_DOWN, f"the file {authority} cannot be read: {error}") from None
    context.check_hostname = host_checked
    return context

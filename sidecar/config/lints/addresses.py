"""Judge addresses as people write them: URLs, listeners, host names, databases."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from sidecar.core.addresses import Network

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
DATABASES = frozenset(["sqlite", "postgresql", "postgres", "mysql", "mariadb"])
_LARGEST_PORT = 65535
_WIDEST = {4: 8, 6: 32}


def split_url(text: str) -> SplitResult | None:
    """Parts of an absolute http or https address, None when it is none."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or any(letter in text for letter in ' \t\n\\"<>'):
        return None
    return parts


def origin_problem(text: str) -> str:
    """What is wrong with *text* as an origin: scheme, host and port; "" when nothing is."""
    parts = split_url(text)
    if parts is None:
        return "must begin with http:// or https:// and a host"
    if "@" in parts.netloc:
        return "must not have a user name in it"
    if parts.path not in ("", "/") or parts.query or parts.fragment or text.endswith(("?", "#")):
        return "must be scheme, host and port only, without a path"
    return ""


def is_loopback(host: str) -> bool:
    """True for names and addresses of this very machine (RFC 6761, section 6.3)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_host(text: str) -> bool:
    """True for a host name or IP address without scheme and port."""
    return _HOST.fullmatch(text) is not None or is_address(text)


def is_address(text: str) -> bool:
    """True for an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def far_reach(network: Network) -> str:
    """What *network* is, when that is surely more than a few machines of one's own; "" otherwise."""
    if network.prefixlen < _WIDEST[network.version]:
        return "very large network"
    return "public network" if network.num_addresses > 1 and not network.is_private else ""


def listen_problem(text: str, *, takes_unix: bool = True) -> str:
    """What is wrong with ``host:port``, ``[v6]:port`` or ``unix:/path``; "" when nothing is."""
    if takes_unix and text.startswith("unix:"):
        return "" if text.startswith("unix:/") else "a Unix socket needs an absolute path"
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > _LARGEST_PORT:
        return "must be host:port"
    if ":" in host and not (host.startswith("[") and host.endswith("]") and is_address(host[1:-1])):
        return "an IPv6 address stands in brackets before its port"
    return "" if not host or is_host(host.strip("[]")) else "must begin with a host name or an address"


def database_problem(text: str) -> str:
    """What is wrong with the address of a database, without repeating it; "" when nothing is."""
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - only for those who name a database: it is large
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - as above

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        return "is no address of a database"
    kind = url.drivername.partition("+")[0]
    if kind not in DATABASES:
        return "names a kind of database that is not known"
    return "" if kind == "sqlite" or url.host or url.query else "has no host"

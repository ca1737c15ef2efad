"""Check where sessions and the directory are kept, and the cookie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from sidecar.config.document import Document
from sidecar.config.lints.addresses import database_problem, is_address, is_host, listen_problem
from sidecar.config.models import Config
from sidecar.config.problem import Problem

# RFC 9110, section 5.6.2: the letters of a token.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Not the public suffix list: the second level that most registries with two letters sell below.
_SHARED = frozenset(["ac", "co", "com", "edu", "gob", "gov", "mil", "net", "ne", "nom", "or", "org", "sch"])
_MAKE_SECRET = "Make one with: openssl rand -base64 32, and name it with {env: NAME} or {file: PATH}"


def store(config: Config, document: Document) -> Iterator[Problem]:
    """Several processes need what they share."""
    sessions = config.sessions
    if config.server.workers > 1 and sessions.redis is None:
        message = "several workers cannot share sessions that are kept in memory"
        yield document.error(("server", "workers"), message, "Set sessions.redis, or workers: 1")
    if sessions.redis is not None and not sessions.secrets:
        message = "is missing: with Redis all replicas must share one secret"
        yield document.error(("sessions", "secrets"), message, _MAKE_SECRET)


def redis(config: Config, document: Document) -> Iterator[Problem]:
    """The address of Redis, and what else belongs to it."""
    sessions = config.sessions
    if sessions.redis is None:
        for name in ("sentinel", "cluster", "redis_ca", "redis_certificate", "redis_key"):
            if getattr(sessions, name):
                fix = "Add redis: redis://host:6379/0"
                yield document.error(("sessions", name), "has no effect without sessions.redis", fix)
        return
    scheme = sessions.redis.reveal().partition("://")[0]
    if scheme not in ("redis", "rediss", "unix"):
        yield document.error(("sessions", "redis"), "is no address of Redis", "Write redis://, rediss:// or unix://")
    if sessions.redis.has_inline_password:
        yield document.warning(
            ("sessions", "redis"), "a password stands in the file", "Use {env: NAME} or {file: PATH}"
        )
    if scheme != "rediss" and (sessions.redis_ca or sessions.redis_certificate or sessions.redis_key):
        yield document.error(("sessions", "redis"), "certificates have no effect without TLS", "Write rediss://")
    if (sessions.redis_certificate is None) != (sessions.redis_key is None):
        yield document.error(("sessions",), "redis_certificate and redis_key belong together", "Give both")


def sentinel(config: Config, document: Document) -> Iterator[Problem]:
    """Who watches Redis."""
    section = config.sessions.sentinel
    if section is None:
        return
    if config.sessions.cluster:
        yield document.error(("sessions", "cluster"), "Sentinel and Cluster exclude each other", "Remove one of them")
    for number, node in enumerate(section.nodes):
        if listen_problem(node, takes_unix=False) or node.startswith(":") or node.endswith(":0"):
            yield document.error(("sessions", "sentinel", "nodes", number), "must be host:port", "Usual is port 26379")


def cookie(config: Config, document: Document) -> Iterator[Problem]:
    """A cookie that browsers take, and that nobody else gets."""
    section = config.sessions.cookie
    address = urlsplit(config.server.public_url) if "://" in config.server.public_url else None
    if not _TOKEN.fullmatch(section.name):
        yield document.error(("sessions", "cookie", "name"), "is no name of a cookie", "Use letters, digits, - and _")
    elif section.name.lower().startswith(("__host-", "__secure-")):
        yield document.error(("sessions", "cookie", "name"), "the prefix is put in front by itself", "Leave it out")
    if section.same_site == "none" and address is not None and address.scheme != "https":
        message = "browsers take a cookie with same_site none over https only"
        yield document.error(("sessions", "cookie", "same_site"), message, "Write lax, or an https public_url")
    if section.domain is not None:
        problem = _domain_problem(section.domain.lower(), (address.hostname or "") if address else "")
        if problem:
            yield document.error(("sessions", "cookie", "domain"), problem, "Leave it out: the cookie is safest then")


def _domain_problem(domain: str, host: str) -> str:
    if domain.startswith(".") or not is_host(domain) or is_address(domain):
        return "must be a plain domain such as example.com"
    labels = domain.split(".")
    if len(labels) == 1 or (len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _SHARED):
        return "is shared with strangers, so no browser takes the cookie"
    if host != domain and not host.endswith("." + domain):
        return "is not a parent of the host in server.public_url"
    return ""


def lifetimes(config: Config, document: Document) -> Iterator[Problem]:
    """Idle ends before absolute."""
    if config.sessions.idle > config.sessions.absolute:
        message = "is longer than sessions.absolute, so it never ends a session"
        yield document.error(("sessions", "idle"), message, "Make idle the shorter one")


def directory(config: Config, document: Document) -> Iterator[Problem]:
    """The database that remembers accounts; used only where accounts are made."""
    if config.provision is None and config.tokens is None and "directory" not in config.model_fields_set:
        return
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - only for those who name a database: it is large

    url, place = config.directory.url, ("directory", "url")
    problem = database_problem(url.reveal())
    if problem:
        yield document.error(place, problem, "Write sqlite:///path, postgresql://… or mysql://…")
        return
    address = make_url(url.reveal())
    is_sqlite = address.drivername.startswith("sqlite")
    if is_sqlite and address.database in (None, "", ":memory:"):
        yield document.error(place, "a directory in memory forgets who has which account", "Write sqlite:///path")
    elif is_sqlite and config.sessions.redis is not None and (config.provision or config.tokens):
        message = "SQLite cannot be shared, while sessions in Redis mean several replicas"
        yield document.warning(place, message, "Use PostgreSQL or MySQL, unless there is one replica only")
    if url.has_inline_password:
        yield document.warning(place, "a password stands in the file", "Use {env: NAME} or {file: PATH}")

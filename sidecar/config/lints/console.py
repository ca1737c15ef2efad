"""Check the operators' console: its address, and that somebody, but not everybody, can use it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from sidecar.config.console import Console
from sidecar.config.document import Document, Location
from sidecar.config.lints.addresses import is_loopback, listen_problem, origin_problem
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.wording import closest
from sidecar.core.addresses import host_of

_EVERYWHERE = frozenset(["", "0.0.0.0", "[::]"])  # noqa: S104 - this is what is looked for


def address(config: Config, document: Document) -> Iterator[Problem]:
    """Where it listens and what it is called."""
    section = config.console
    if section is None:
        return
    problem = listen_problem(section.listen)
    if problem:
        fix = "Write 127.0.0.1:9443, [::1]:9443 or unix:/run/console.sock"
        yield document.error(("console", "listen"), problem, fix)
    elif section.listen in (config.server.listen, config.server.metrics) and not section.listen.endswith(":0"):
        message = "is an address that server has already"
        yield document.error(("console", "listen"), message, "Choose another port")
    elif section.tls is None and section.listen.rpartition(":")[0] in _EVERYWHERE:
        message = "reachable from everywhere, without TLS"
        yield document.warning(("console", "listen"), message, "Listen on 127.0.0.1, or set console.tls")
    yield from _public_url(section, config.server.public_url, document)


def _public_url(section: Console, other: str, document: Document) -> Iterator[Problem]:
    place = ("console", "public_url")
    problem = origin_problem(section.public_url)
    if problem:
        yield document.error(place, problem, "Write what operators type, such as https://console.example.com")
        return
    parts = urlsplit(section.public_url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        message = "an insecure cookie over http: everybody on the way can take it"
        yield document.error(place, message, "Write https://; http is possible for localhost only")
    if parts.scheme == "http" and section.tls is not None:
        yield document.error(place, "says http, but console.tls serves https", "Write https://")
    theirs = "" if origin_problem(other) else urlsplit(other).netloc
    if theirs and parts.netloc.lower() == theirs.lower():
        yield document.error(place, "is the address of the application", "Give the console an address of its own")
    elif theirs and host_of(theirs) == host_of(parts.netloc) and not is_loopback(host_of(theirs)):
        message = "shares its host with the application: to browsers they are one site"
        yield document.warning(place, message, "Give the console a host name of its own")


def operators(config: Config, document: Document) -> Iterator[Problem]:
    """Somebody must be let in, by names that are known."""
    section = config.console
    if section is None:
        return
    if not any(who for _, who in section.operators.levels):
        message = "nobody may enter the console"
        fix = "Write operators: {administer: {group: GROUP}}, or remove console"
        yield document.error(("console", "operators"), message, fix)
    for number, login in enumerate(section.logins):
        yield from _unknown(document, ("console", "logins", number), "login", login, config.logins)
    for level, whos in section.operators.levels:
        for index, who in enumerate(whos):
            for kind, known in (("role", config.roles), ("login", config.logins)):
                for name in getattr(who, kind):
                    yield from _unknown(document, ("console", "operators", level, index, kind), kind, name, known)


def _unknown(document: Document, place: Location, kind: str, name: str, known: object) -> Iterator[Problem]:
    assert isinstance(known, dict)  # noqa: S101 - both are mappings of the configuration
    if name not in known:
        fix = closest(name, sorted(known), "There are")
        yield document.error(place, f"there is no {kind} {name!r}", fix)

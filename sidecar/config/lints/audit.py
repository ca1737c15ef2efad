"""Check where audit lines go."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from sidecar.config.audit import Audit, Chosen, Syslog, Webhook
from sidecar.config.document import Document
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.core.audit import Event

# What people with power over the sidecar do: an audit that does not hold it proves nothing about them.
_OF_THE_POWERFUL = (
    *(Event.BREAK_GLASS_USED, Event.CONSOLE_ACT, Event.CONFIGURATION_LOADED, Event.CONFIGURATION_REFUSED),
    *(Event.LOG_LEVEL_CHANGED, Event.SYNC_APPROVED, Event.DRIFT_APPROVED, Event.TOKEN_CREATED, Event.PERSON_ENABLED),
    Event.PERSON_RELEASED,
)
_SCHEMES = ("tls", "tcp", "udp", "unix")
_SHORTEST_SECRET = 32
_SMALLEST_SPOOL = 1 << 20
_LONGEST_TIMEOUT = 60.0
_SHORTEST_RETENTION = 86400.0


def audit(config: Config, document: Document) -> Iterator[Problem]:
    """Nobody should find out after an incident that nothing was written, or that it proves nothing."""
    section = config.audit
    kept = _kept(section)
    if not kept:
        yield document.warning(("audit",), "no audit lines are kept", "Set audit.file, or audit.stdout: true")
        if section.on_failure == "refuse":
            yield document.error(
                ("audit", "on_failure"), "there is nothing that could fail", "Set audit.file, or remove on_failure"
            )
    for name in section.events:
        if name not in kept:
            yield document.error(
                ("audit", "events", name), f"audit.{name} is not set", f"Set audit.{name}, or remove this"
            )
    yield from _unwritten(section, kept, document)
    if section.webhook is not None:
        yield from webhook(section.webhook, ("audit", "webhook"), document)
    if section.database is not None and section.database.retention is not None:
        yield from _retention(section, document)
    if section.rotate is not None and section.file is None:
        yield document.error(("audit", "rotate"), "there is no file to rotate", "Set audit.file, or remove rotate")
    if section.syslog is not None:
        yield from _syslog(section.syslog, document)
    yield from _chain(config, document)
    yield from _personal(config, document)


def _kept(section: Audit) -> frozenset[str]:
    """Names of the sinks that there are."""
    sinks = {
        "file": section.file is not None,
        "stdout": section.stdout,
        "syslog": section.syslog is not None,
        "database": section.database is not None,
        "webhook": section.webhook is not None,
    }
    return frozenset(name for name, is_there in sinks.items() if is_there)


def _unwritten(section: Audit, kept: frozenset[str], document: Document) -> Iterator[Problem]:
    written = frozenset[Event]().union(*(section.events.get(name, Chosen()).events for name in kept))  # type: ignore[call-overload]
    missing = [event.value for event in _OF_THE_POWERFUL if event not in written]
    if kept and missing:
        message = f"no sink gets {', '.join(missing)}: what operators do would be nowhere"
        yield document.warning(("audit", "events"), message, "Let one sink have all events")


def webhook(section: Webhook, place: tuple[str, ...], document: Document) -> Iterator[Problem]:
    """What is posted names people, so it is sealed on its way, and signed by something that cannot be guessed."""
    try:
        parts = urlsplit(section.url.reveal())
        _ = parts.port
    except ValueError:
        yield document.error((*place, "url"), f"{section.url.redacted} is no address", "Write https://…")
        return
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.fragment:
        yield document.error((*place, "url"), "must begin with https:// and name a host", "Write https://host/path")
    elif parts.username is not None:
        yield document.error((*place, "url"), "must not carry a password", "Leave it out; the signature is the proof")
    elif parts.scheme == "http" and not section.insecure:
        yield document.error(
            (*place, "url"), "messages that name people would cross the network in the clear",
            "Write https://, or set insecure: true for a receiver on this machine",
        )  # fmt: skip
    elif parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        yield document.warning(
            (*place, "insecure"), "messages that name people cross the network in the clear", "Use https://"
        )
    if section.ca is not None and parts.scheme != "https":
        yield document.error((*place, "ca"), "is for https:// only", "Write https://, or remove ca")
    secret = section.secret.reveal()
    if secret and len(secret) < _SHORTEST_SECRET:
        yield document.error(
            (*place, "secret"), f"is shorter than {_SHORTEST_SECRET} characters", "Make one: openssl rand -hex 32"
        )
    if section.spool_size < _SMALLEST_SPOOL:
        yield document.error((*place, "spool_size"), "must be at least 1MiB", "Write 64MiB")
    if not 0 < section.timeout.total_seconds() <= _LONGEST_TIMEOUT:
        yield document.error((*place, "timeout"), "must be between 1ms and 1m", "Write 10s")


def _retention(section: Audit, document: Document) -> Iterator[Problem]:
    assert section.database is not None  # noqa: S101 - the caller looked
    retention, place = section.database.retention, ("audit", "database", "retention")
    if retention is not None and retention.total_seconds() < _SHORTEST_RETENTION:
        yield document.error(place, "must be at least 1d", "Write 90d")
    elif retention is not None and section.chain is not None and section.chain.every * 2 > retention:
        yield document.error(
            ("audit", "chain", "every"), "anchors must come more often than lines are deleted", "Write 1m"
        )


def _syslog(section: Syslog, document: Document) -> Iterator[Problem]:
    place = ("audit", "syslog", "url")
    try:
        parts = urlsplit(section.url)
        _ = parts.port
    except ValueError:
        yield document.error(place, f"{document.quoted(place, section.url)} is no address", "Write tls://host:6514")
        return
    if parts.scheme not in _SCHEMES:
        yield document.error(place, "must begin with tls://, tcp://, udp:// or unix://", "Write tls://host:6514")
    elif parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/"):
            yield document.error(place, "a socket is an absolute path", "Write unix:///dev/log")
    elif not parts.hostname or parts.path not in {"", "/"} or parts.username is not None:
        yield document.error(place, "must be scheme, host and port only", "Write tls://host:6514")
    elif parts.scheme in {"tcp", "udp"} and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        yield document.warning(
            place, "audit lines, which name people, cross the network in the clear", "Use tls:// where the server can"
        )
    if section.ca is not None and parts.scheme != "tls":
        yield document.error(("audit", "syslog", "ca"), "is for tls:// only", "Write tls://, or remove ca")


def _chain(config: Config, document: Document) -> Iterator[Problem]:
    chain = config.audit.chain
    if chain is None:
        return
    if chain.anchors is not None and chain.anchors == config.audit.file:
        yield document.error(
            ("audit", "chain", "anchors"),
            "whoever cuts the file cuts the copies, too",
            "Name a file elsewhere, best on another machine's disk",
        )
    if chain.every.total_seconds() < 1:
        yield document.error(("audit", "chain", "every"), "must be at least 1s", "Write 1m")


def _personal(config: Config, document: Document) -> Iterator[Problem]:
    personal = config.audit.personal
    for name, treatment in personal.fields.items():
        if treatment == "network" and name != "client":
            yield document.error(
                ("audit", "personal", "fields", name), "network is for addresses only", "Write pseudonym or drop"
            )
    if "pseudonym" in personal.fields.values() and personal.key is None:
        yield document.warning(
            ("audit", "personal", "key"),
            "without a key each process has pseudonyms of its own, and nobody can follow a person",
            "Set audit.personal.key: {file: PATH}",
        )

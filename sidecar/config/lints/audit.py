"""Check where audit lines go."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from sidecar.config.audit import Syslog
from sidecar.config.document import Document
from sidecar.config.models import Config
from sidecar.config.problem import Problem

_SCHEMES = ("tls", "tcp", "udp", "unix")


def audit(config: Config, document: Document) -> Iterator[Problem]:
    """Nobody should find out after an incident that nothing was written, or that it proves nothing."""
    section = config.audit
    if section.file is None and not section.stdout and section.syslog is None:
        yield document.warning(("audit",), "no audit lines are kept", "Set audit.file, or audit.stdout: true")
        if section.on_failure == "refuse":
            yield document.error(
                ("audit", "on_failure"), "there is nothing that could fail", "Set audit.file, or remove on_failure"
            )
    if section.rotate is not None and section.file is None:
        yield document.error(("audit", "rotate"), "there is no file to rotate", "Set audit.file, or remove rotate")
    if section.syslog is not None:
        yield from _syslog(section.syslog, document)
    yield from _chain(config, document)
    yield from _personal(config, document)


def _syslog(section: Syslog, document: Document) -> Iterator[Problem]:
    place = ("audit", "syslog", "url")
    try:
        parts = urlsplit(section.url)
        _ = parts.port
    except ValueError:
        yield document.error(place, f"{section.url} is no address", "Write tls://host:6514")
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

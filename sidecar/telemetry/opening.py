"""Open the audit log that a configuration describes."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from sidecar.config.audit import Audit, Syslog
from sidecar.core.audit import EVERY
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.chaining import Anchoring, signer
from sidecar.telemetry.personal import Policy
from sidecar.telemetry.sinks import FileSink, Sink, StdoutSink, SyslogSink

# RFC 5424, section 6.2.1.
_FACILITIES = {"user": 1, "auth": 4, "authpriv": 10, "audit": 13, **{f"local{n}": 16 + n for n in range(8)}}


def open_audit(
    section: Audit,
    clock: Callable[[], float],
    others: Mapping[str, Sink] | None = None,
    *,
    is_command: bool = False,
) -> AuditLog:
    """The log that *section* describes, with *others* that were opened elsewhere.

    A command does not look after what others left to be delivered. Raises OSError or ValueError that names the setting.
    """
    sinks: dict[str, Sink] = dict(others or {})
    if section.file is not None:
        rotation = section.rotate
        rotated = (rotation.size, rotation.keep) if rotation is not None else ()
        sinks["file"] = FileSink(section.file, *rotated)
    if section.stdout:
        sinks["stdout"] = StdoutSink()
    if section.syslog is not None:
        sinks["syslog"] = open_syslog(section.syslog)
    if section.webhook is not None:
        from sidecar.telemetry.webhook import Sender, WebhookSink  # noqa: PLC0415 - an HTTP client is for who needs one

        sender = Sender(section.webhook, "audit", setting="audit.webhook")
        if not is_command:
            sender.start()
        sinks["webhook"] = WebhookSink(sender)
    wanted = [section.events[name].events if name in section.events else EVERY for name in sinks]
    return AuditLog(list(sinks.values()), clock, _anchoring(section), _policy(section), wanted, tuple(sinks))


def open_syslog(section: Syslog) -> SyslogSink:
    """The sink that *section* describes. Raises OSError that names the setting."""
    tls = None
    if urlsplit(section.url).scheme == "tls":
        try:
            tls = ssl.create_default_context(cafile=section.ca)
        except OSError as error:
            message = f"audit.syslog.ca: {section.ca}: {error.strerror or error}"
            raise OSError(message) from None
    return SyslogSink(section.url, _FACILITIES[section.facility], tls, section.timeout.total_seconds())


def _anchoring(section: Audit) -> Anchoring | None:
    chain = section.chain
    if chain is None:
        return None
    try:
        sign = None if chain.key is None else signer(chain.key.reveal())
    except ValueError as error:
        message = f"audit.chain.key: {error}"
        raise ValueError(message) from None
    return Anchoring(chain.every.total_seconds(), sign, chain.anchors)


def _policy(section: Audit) -> Policy | None:
    personal = section.personal
    if all(treatment == "keep" for treatment in personal.fields.values()):
        return None
    # A key of this process's own: who somebody is cannot be worked out later by trying names.
    key = secrets.token_bytes(32) if personal.key is None else personal.key.reveal().encode()
    return Policy({str(name): str(kind) for name, kind in personal.fields.items()}, key)

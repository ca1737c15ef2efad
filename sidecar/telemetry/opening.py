"""Open the audit log that a configuration describes."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from sidecar.config.audit import Audit, Syslog
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.chaining import Anchoring, signer
from sidecar.telemetry.personal import Policy
from sidecar.telemetry.sinks import FileSink, Sink, StdoutSink, SyslogSink

# RFC 5424, section 6.2.1.
_FACILITIES = {"user": 1, "auth": 4, "authpriv": 10, "audit": 13, **{f"local{n}": 16 + n for n in range(8)}}


def open_audit(section: Audit, clock: Callable[[], float]) -> AuditLog:
    """The log that *section* describes. Raises OSError or ValueError that names the setting."""
    sinks: list[Sink] = []
    if section.file is not None:
        rotation = section.rotate
        rotated = (rotation.size, rotation.keep) if rotation is not None else ()
        sinks.append(FileSink(section.file, *rotated))
    if section.stdout:
        sinks.append(StdoutSink())
    if section.syslog is not None:
        sinks.append(_syslog(section.syslog))
    return AuditLog(sinks, clock, _anchoring(section), _policy(section))


def _syslog(section: Syslog) -> SyslogSink:
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

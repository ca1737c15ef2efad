"""The section about audit: where lines go, how they are chained, what they say of people."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from sidecar.config.section import Section
from sidecar.config.values import Duration, FilePath, SecretText, Size, Text

Treatment = Literal["keep", "pseudonym", "network", "drop"]
PersonalField = Literal["person", "subject", "username", "account", "client", "path", "detail"]
Facility = Literal[
    "user", "auth", "authpriv", "audit",
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
]  # fmt: skip


class Rotation(Section):
    """Let the sidecar rotate its audit file; log rotation of the system works without this."""

    size: Size = Field(description="from this size on the file becomes file.1, that file.2, and so on")
    keep: int = Field(10, ge=1, le=1000, description="how many of them stay")


class Syslog(Section):
    """A syslog server (RFC 5424)."""

    url: Text = Field(description="tls://host:6514, tcp://host:601, udp://host:514 or unix:///dev/log")
    facility: Facility = Field("audit", description="facility of the messages")
    ca: FilePath | None = Field(None, description="PEM file of the authorities to trust; the system's when left out")
    timeout: Duration = Field(timedelta(seconds=5), description="longest wait for the server")


class AuditChain(Section):
    """Number and hash the lines, so that none can be changed or taken away unnoticed."""

    key: SecretText | None = Field(
        None, description="Ed25519 private key (PEM) that signs; sidecar audit key makes one"
    )
    every: Duration = Field(timedelta(minutes=1), description="how often an anchor is written while lines come")
    anchors: FilePath | None = Field(None, description="file elsewhere that gets a copy of each anchor")


class PersonalData(Section):
    """What audit lines say of people."""

    fields: dict[PersonalField, Treatment] = Field(
        default_factory=dict,
        description="field → keep, pseudonym (the same person has the same one), network (/24 or /48) or drop",
    )
    key: SecretText | None = Field(None, description="key of the pseudonyms; without it they cannot be told again")


class Audit(Section):
    """Where the audit lines go, and what becomes of requests when they cannot be written."""

    file: FilePath | None = Field(None, description="append JSON lines to this file")
    rotate: Rotation | None = Field(None, description="let the sidecar rotate the file")
    stdout: bool = Field(default=False, description="write JSON lines to standard output")
    syslog: Syslog | None = Field(None, description="send the lines to a syslog server")
    chain: AuditChain | None = Field(AuditChain(), description="number and hash the lines; null writes them bare")
    personal: PersonalData = Field(PersonalData(), description="what audit lines say of people")
    on_failure: Literal["serve", "refuse"] = Field(
        "serve", description="refuse: 503 for everybody while a line cannot be written; serve: lines wait in memory"
    )

"""The section about audit: where lines go, how they are chained, what they say of people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from sidecar.config.section import Section
from sidecar.config.values import DsnText, Duration, FilePath, SecretText, Size, Text
from sidecar.core.audit import EVERY, Event

Treatment = Literal["keep", "pseudonym", "network", "drop"]
PersonalField = Literal["person", "subject", "username", "account", "client", "path", "detail"]
Facility = Literal[
    "user", "auth", "authpriv", "audit",
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which events are meant."""

    events: frozenset[Event] = EVERY

    def __repr__(self) -> str:
        """As the file has it, the shorter way; in the same order in every process."""
        if self.events == EVERY:
            return "all"
        missing = EVERY - self.events
        if len(missing) < len(self.events):
            return ", ".join(sorted(f"!{event.value}" for event in missing))
        return ", ".join(sorted(event.value for event in self.events))


def _chosen(value: Any) -> Chosen:
    """Names of events; or, each with a ``!`` before it, all but those."""
    if isinstance(value, Chosen):
        return value
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        message = "name events of the catalogue, such as [login-failed, token-refused], or all but some: [!decision]"
        raise ValueError(message)
    but = [name for name in names if name.startswith("!")]
    if but and len(but) < len(names):
        message = "name the events that are wanted, or those that are not, each with a !; not both"
        raise ValueError(message)
    events = frozenset(_events(name.removeprefix("!") for name in names))
    return Chosen(EVERY - events if but else events)


def _events(names: Iterable[str]) -> Iterable[Event]:
    for name in names:
        try:
            yield Event(name)
        except ValueError:
            near = difflib.get_close_matches(name, [event.value for event in Event], n=1)
            way_out = f"did you mean `{near[0]}`?" if near else "see docs/audit.md for those that there are"
            message = f"there is no event {name}; {way_out}"
            raise ValueError(message) from None


SinkName = Literal["file", "stdout", "syslog", "database", "webhook"]
_EVENT_NAMES = [mark + event.value for mark in ("", "!") for event in Event]
Events = Annotated[
    Chosen,
    PlainValidator(_chosen),
    WithJsonSchema({"type": "array", "items": {"enum": _EVENT_NAMES}, "minItems": 1}),
]


class AuditDatabase(Section):
    """Audit lines in the directory's database."""

    retention: Duration | None = Field(None, description="how long lines are kept; for ever when left out")


class Webhook(Section):
    """Where signed messages are posted to, from a spool on disk that survives a kill."""

    url: DsnText = Field(description="https://…; each batch is one POST of JSON")
    secret: SecretText = Field(description="key of the signature (HMAC-SHA256)")
    spool: FilePath = Field(description="folder of what is not delivered yet; each process has a part of it")
    spool_size: Size = Field(64 << 20, description="the most that each process puts there")
    timeout: Duration = Field(timedelta(seconds=10), description="longest wait for one answer")
    ca: FilePath | None = Field(None, description="PEM file of the authorities to trust; the system's when left out")
    insecure: bool = Field(default=False, description="allow http://, for a receiver on the same machine")


class Rotation(Section):
    """Let the sidecar rotate its audit file; log rotation of the system works without this."""

    size: Size = Field(description="from this size on the file becomes file.1, that file.2, and so on")
    keep: int = Field(10, ge=1, le=1000, description="how many of them stay")


class Syslog(Section):
    """A syslog server (RFC 5424), or the socket of the one of this machine."""

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
    database: AuditDatabase | None = Field(None, description="keep the lines in the directory's database")
    webhook: Webhook | None = Field(None, description="post the lines to a receiver, in order, at least once")
    events: dict[SinkName, Events] = Field(
        default_factory=dict, description="sink → the events that it gets, or all but some: [!decision]; all by default"
    )
    chain: AuditChain | None = Field(AuditChain(), description="number and hash the lines; null writes them bare")
    personal: PersonalData = Field(PersonalData(), description="what audit lines say of people")
    on_failure: Literal["serve", "refuse"] = Field(
        "serve", description="refuse: 503 for everybody while a line cannot be written; serve: lines wait in memory"
    )

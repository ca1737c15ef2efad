"""One request of a SCIM client, and the answer to it, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sidecar.core.audit import Event
from sidecar.core.scim.fault import Fault
from sidecar.reason import Reason
from sidecar.scim_api.client import Client

_TAG = re.compile(r'\s*(?:W/)?"([^"]*)"\s*')
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked: ``path`` are the parts behind the base address; ``query`` has its names in lower case."""

    client: Client
    method: str
    path: Sequence[str]
    now: float
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    address: str = ""
    reference: str = ""
    if_match: str = ""
    if_none_match: str = ""

    def refuse_stale(self, version: int) -> None:
        """Raise Fault(412) unless the client knows this version, where it said which one it knows."""
        if self.if_match and not _names(self.if_match, version):
            raise Fault("", "the resource has changed", 412, Reason.CHANGED_MEANWHILE)

    def knows(self, version: int) -> bool:
        """True when the client has this version already."""
        return bool(self.if_none_match) and _names(self.if_none_match, version)


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered, and with *note* the fields of the audit line *event* about it."""

    status: int
    body: Mapping[str, Any] | None = None
    version: int | None = None
    location: str = ""
    retry_after: int = 0
    note: Mapping[str, object] | None = None
    event: Event = Event.SCIM_CHANGED


def _names(header: str, version: int) -> bool:
    if header.strip() == "*":
        return True
    return str(version) in [match[1] for part in header.split(",") if (match := _TAG.fullmatch(part))]


def etag(version: int) -> str:
    """Entity tag of a version; weak, because what the server adds may change beside it."""
    return f'W/"{version}"'


def moment(seconds: float) -> str:
    """Epoch seconds as an xsd:dateTime, to the millisecond."""
    return datetime.fromtimestamp(round(seconds, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def error(status: int, detail: str, scim_type: str = "") -> dict[str, Any]:
    """Body of an error (RFC 7644, section 3.12)."""
    body: dict[str, Any] = {"schemas": [ERROR], "status": str(status), "detail": detail}
    if scim_type:
        body["scimType"] = scim_type
    return body

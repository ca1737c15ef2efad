"""Read what a security event says: of whom, and what is to follow (RFC 8417, RFC 9493, CAEP 1.0, RISC 1.0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from sidecar.faults import Refused
from sidecar.reason import Reason

_MOST_EVENTS = 10
_MOST_ALIASES = 20
_LONGEST = 1024
_CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
_RISC = "https://schemas.openid.net/secevent/risc/event-type/"
_SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
VERIFICATION = "verification"
STREAM_UPDATED = "stream-updated"
UNKNOWN = "unknown"


class Consequence(Enum):
    """What follows from an event; the values are the words of the configuration."""

    END_SESSIONS = "end_sessions"
    DISABLE = "disable"
    ENABLE = "enable"
    DELETE = "delete"
    STEP_UP = "step_up"
    REFRESH = "refresh"
    IGNORE = "ignore"


DEFAULTS: Mapping[str, Consequence] = {
    "session-revoked": Consequence.END_SESSIONS,
    "sessions-revoked": Consequence.END_SESSIONS,
    "credential-change": Consequence.END_SESSIONS,
    "credential-compromise": Consequence.END_SESSIONS,
    "account-credential-change-required": Consequence.END_SESSIONS,
    "assurance-level-change": Consequence.STEP_UP,
    "token-claims-change": Consequence.REFRESH,
    "account-disabled": Consequence.DISABLE,
    "account-enabled": Consequence.ENABLE,
    # Deleting is for those who say so: there is no way back from it.
    "account-purged": Consequence.DISABLE,
}
"""What each event leads to unless the configuration says otherwise."""
_NAMES: Mapping[str, str] = {
    **{
        _CAEP + name: name
        for name in ("session-revoked", "credential-change", "assurance-level-change", "token-claims-change")
    },
    **{
        _RISC + name: name
        for name in (
            "sessions-revoked",
            "credential-compromise",
            "account-credential-change-required",
            "account-disabled",
            "account-enabled",
            "account-purged",
        )
    },
    **{_SSF + name: name for name in (VERIFICATION, STREAM_UPDATED)},
}
REQUESTED = tuple(uri for uri, name in _NAMES.items() if name in DEFAULTS)
"""The full names of events that a stream is asked for."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom an event is about; empty texts say nothing. ``kind`` is the RFC 9493 format that named the person.

    ``issuer`` is empty for an identifier that is the transmitter's own. ``session`` is a session at the provider.
    ``members`` are the parts of a complex subject.
    """

    kind: str = ""
    issuer: str = ""
    subject: str = ""
    email: str = ""
    session: str = ""
    members: frozenset[str] = frozenset()

    @property
    def names_somebody(self) -> bool:
        """True when a person or a session can be found by it."""
        return bool(self.subject or self.email or self.session)


@dataclass(frozen=True, slots=True)
class Signal:
    """One event: its short name, whom it is about, when it happened (epoch seconds), and what else it says."""

    name: str
    subject: Subject
    at: float
    details: Mapping[str, Any] = field(default_factory=dict)


def signals_of(claims: Mapping[str, Any], issued: float) -> tuple[Signal, ...]:
    """Every event of a verified token that was *issued* then; raises Refused(SIGNAL_INVALID)."""
    events = claims.get("events")
    if not isinstance(events, Mapping) or not 0 < len(events) <= _MOST_EVENTS:
        raise _bad("events is missing, empty or too long")
    return tuple(_signal(uri, details, claims, issued) for uri, details in events.items())


def _signal(uri: str, details: Any, claims: Mapping[str, Any], issued: float) -> Signal:
    if not isinstance(details, Mapping):
        raise _bad("an event is not an object")
    name = _NAMES.get(uri, UNKNOWN)
    # Events of before the final Shared Signals Framework carry their subject inside.
    shared, inside = claims.get("sub_id"), details.get("subject")
    if shared is not None and inside is not None and shared != inside:
        raise _bad("sub_id and the event's subject differ")
    said = shared if shared is not None else inside
    subject = Subject() if name == UNKNOWN or said is None else subject_of(said)
    return Signal(name, subject, _moment(details.get("event_timestamp", claims.get("toe")), issued), details)


def _moment(value: Any, otherwise: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Nothing happens after it was told, and a whole number may be too large for any other.
    return float(min(value, otherwise)) if is_number and value >= 0 else otherwise


def subject_of(value: Any, *, is_part: bool = False) -> Subject:
    """Read a subject identifier (RFC 9493, section 3); formats that name nobody here give an empty one.

    Raises Refused(SIGNAL_INVALID) for what is no subject identifier.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("format"), str):
        raise _bad("a subject without a format")
    match value["format"]:
        case "iss_sub":
            return Subject("iss_sub", issuer=_text(value, "iss"), subject=_text(value, "sub"))
        case "opaque":
            return Subject("opaque", subject=_text(value, "id"))
        case "email":
            return Subject("email", email=_text(value, "email"))
        case "aliases" if not is_part:
            return _first_usable(value.get("identifiers"))
        case "complex" if not is_part:
            return _complex(value)
        case "aliases" | "complex":
            raise _bad("a subject inside of a subject")
        case _:
            return Subject()


def _first_usable(identifiers: Any) -> Subject:
    if not isinstance(identifiers, list) or not 0 < len(identifiers) <= _MOST_ALIASES:
        raise _bad("aliases without a list of identifiers")
    read = [subject_of(one, is_part=True) for one in identifiers]
    # An address may be given to another person one day; what the provider calls somebody may not.
    read.sort(key=lambda one: ["iss_sub", "opaque", "email", ""].index(one.kind))
    return read[0]


def _complex(value: Mapping[str, Any]) -> Subject:
    user = subject_of(value["user"], is_part=True) if "user" in value else Subject()
    session = subject_of(value["session"], is_part=True) if "session" in value else Subject()
    if user.issuer and session.issuer and user.issuer != session.issuer:
        raise _bad("a person of one issuer with a session of another")
    issuer = user.issuer or session.issuer
    return replace(user, issuer=issuer, session=session.subject, members=frozenset(value) - {"format"})


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST:
        raise _bad(f"{name} of the subject is missing, too long or not text")
    return text


def _bad(detail: str) -> Refused:
    return Refused(Reason.SIGNAL_INVALID, 400, detail)


def consequence_of(signal: Signal, chosen: Mapping[str, Consequence]) -> Consequence:
    """What follows from *signal*, *chosen* by the configuration where it says something."""
    if signal.name == "credential-change" and signal.details.get("change_type") == "create":
        # One more way to sign in takes nothing away from those that were used.
        return Consequence.IGNORE
    if signal.name == "assurance-level-change" and signal.details.get("change_direction") == "increase":
        return Consequence.IGNORE
    default = DEFAULTS.get(signal.name, Consequence.IGNORE)
    return chosen.get(signal.name, default)

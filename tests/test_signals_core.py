"""What events say, and what follows: pure."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.signals import Consequence, Signal, Subject, consequence_of, signals_of, subject_of
from sidecar.faults import Refused
from sidecar.reason import Reason
from tests.signals_world import CAEP, RISC

ADA = {"format": "iss_sub", "iss": "https://id.example.com", "sub": "ada"}
READ = Subject("iss_sub", issuer="https://id.example.com", subject="ada")


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (ADA, READ),
        ({"format": "opaque", "id": "ada"}, Subject("opaque", subject="ada")),
        ({"format": "email", "email": "ada@example.com"}, Subject("email", email="ada@example.com")),
        ({"format": "aliases", "identifiers": [{"format": "email", "email": "a@b"}, ADA]}, READ),
        ({"format": "phone_number", "phone_number": "+1"}, Subject()),
        (
            {"format": "complex", "user": ADA, "session": {"format": "opaque", "id": "s1"}},
            Subject("iss_sub", READ.issuer, "ada", session="s1", members=frozenset(["user", "session"])),
        ),
        (
            {
                "format": "complex",
                "session": {"format": "opaque", "id": "s1"},
                "tenant": {"format": "opaque", "id": "t"},
            },
            Subject(session="s1", members=frozenset(["session", "tenant"])),
        ),
    ],
)
def test_subjects_are_read_by_their_format(said: dict[str, Any], read: Subject) -> None:
    assert subject_of(said) == read


@pytest.mark.parametrize(
    "said",
    [
        "ada",
        {},
        {"format": 7},
        {"format": "iss_sub", "iss": "https://id.example.com"},
        {"format": "iss_sub", "iss": "https://id.example.com", "sub": ""},
        {"format": "iss_sub", "iss": "https://id.example.com", "sub": ["ada"]},
        {"format": "opaque", "id": "x" * 1025},
        {"format": "aliases", "identifiers": []},
        {"format": "aliases", "identifiers": [ADA] * 21},
        {"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": [ADA]}]},
        {"format": "complex", "user": {"format": "complex", "user": ADA}},
    ],
)
def test_what_is_no_subject_is_refused(said: Any) -> None:
    with pytest.raises(Refused) as refused:
        subject_of(said)
    assert refused.value.reason is Reason.SIGNAL_INVALID


def test_a_subject_may_stand_in_the_token_or_in_the_event_but_not_differ() -> None:
    inside = {"events": {CAEP + "session-revoked": {"subject": ADA, "event_timestamp": 90}}}
    assert signals_of(inside, 100.0) == (
        Signal("session-revoked", READ, 90.0, inside["events"][CAEP + "session-revoked"]),
    )
    outside = {"events": {RISC + "account-disabled": {}}, "sub_id": ADA, "toe": 95}
    assert signals_of(outside, 100.0) == (Signal("account-disabled", READ, 95.0),)
    with pytest.raises(Refused):
        signals_of({**inside, "sub_id": {**ADA, "sub": "bob"}}, 100.0)


def test_an_event_cannot_have_happened_after_it_was_told() -> None:
    for stamp in (200, -1, True, "90", None):
        events = {CAEP + "session-revoked": {"event_timestamp": stamp}}
        assert signals_of({"events": events, "sub_id": ADA}, 100.0)[0].at == 100.0


@pytest.mark.parametrize("events", [None, {}, [], {CAEP + "session-revoked": 1}, {f"urn:{n}": {} for n in range(11)}])
def test_events_that_cannot_be_read_are_refused(events: Any) -> None:
    with pytest.raises(Refused):
        signals_of({"events": events, "sub_id": ADA}, 100.0)


def test_an_event_of_another_kind_is_no_mistake() -> None:
    [signal] = signals_of({"events": {"https://example.com/other": {}}, "sub_id": "anything"}, 1.0)
    assert consequence_of(signal, {}) is Consequence.IGNORE


@pytest.mark.parametrize(
    ("name", "details", "what"),
    [
        ("session-revoked", {}, Consequence.END_SESSIONS),
        ("credential-change", {"change_type": "revoke"}, Consequence.END_SESSIONS),
        ("credential-change", {"change_type": "create"}, Consequence.IGNORE),
        ("credential-change", {}, Consequence.END_SESSIONS),
        ("assurance-level-change", {"change_direction": "decrease"}, Consequence.STEP_UP),
        ("assurance-level-change", {"change_direction": "increase"}, Consequence.IGNORE),
        ("assurance-level-change", {}, Consequence.STEP_UP),
        ("token-claims-change", {}, Consequence.REFRESH),
        ("account-disabled", {}, Consequence.DISABLE),
        ("account-purged", {}, Consequence.DISABLE),
        ("account-enabled", {}, Consequence.ENABLE),
    ],
)
def test_what_follows_from_an_event(name: str, details: dict[str, str], what: Consequence) -> None:
    assert consequence_of(Signal(name, READ, 1.0, details), {}) is what
    if what is not Consequence.IGNORE:
        chosen = {name: Consequence.DELETE}
        assert consequence_of(Signal(name, READ, 1.0, details), chosen) is Consequence.DELETE

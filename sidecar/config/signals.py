"""Sections about shared signals: who tells us of ended sessions and disabled accounts, and what follows."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from sidecar.config.login import Algorithm
from sidecar.config.section import Section
from sidecar.config.values import Duration, FilePath, Network, OneOrMany, SecretText, Text, Texts

EventName = Literal[
    "session-revoked",
    "sessions-revoked",
    "credential-change",
    "credential-compromise",
    "account-credential-change-required",
    "assurance-level-change",
    "token-claims-change",
    "account-disabled",
    "account-enabled",
    "account-purged",
]
Following = Literal["end_sessions", "disable", "enable", "delete", "step_up", "refresh", "ignore"]


class SignalPoll(Section):
    """Fetch events from the transmitter (RFC 8936); one replica does it for all."""

    endpoint: Text | None = Field(None, description="where; asked of the transmitter when left out")
    every: Duration = Field(timedelta(seconds=5), description="pause while there is nothing new")
    most: int = Field(50, ge=1, le=200, description="most events at once")


class SignalTransmitter(Section):
    """One transmitter of security events; pushes come to {prefix}/signals/NAME."""

    issuer: Text = Field(description="its issuer, exactly as it stands in events (iss)")
    discovery: Text | None = Field(None, description="address of its ssf-configuration; derived from issuer by default")
    login: Text = Field(description="the OpenID Connect login whose people it speaks of, and of nobody else")
    audience: Texts = Field((), description="who its events are for (aud); public_url when left out")
    token: Annotated[tuple[SecretText, ...], OneOrMany] = Field(
        (), description="what it shows when it pushes events (RFC 8935); two while one is being replaced"
    )
    poll: SignalPoll | None = Field(None, description="fetch events; nothing is fetched when left out")
    access: SecretText | None = Field(
        None, description="bearer token that we show to fetch events and manage the stream"
    )
    scopes: Texts = Field(
        (), description="in place of access: a token with these scopes, given to the login's own client at its provider"
    )
    algorithms: Annotated[tuple[Algorithm, ...], OneOrMany] = Field(
        ("RS256",), min_length=1, description="accepted signatures of events"
    )
    subjects: Annotated[tuple[Literal["iss_sub", "opaque", "email"], ...], OneOrMany] = Field(
        ("iss_sub", "opaque"),
        min_length=1,
        description="by what it may name people; email only if nobody chooses theirs",
    )
    effects: dict[EventName, Following] = Field(
        default_factory=dict, description="event → what follows, where that differs from the default"
    )
    max_age: Duration = Field(timedelta(days=7), description="how old an event may be, and how long it counts once")
    leeway: Duration = Field(timedelta(seconds=30), description="tolerated clock difference")
    timeout: Duration = Field(timedelta(seconds=10), description="longest wait for an answer of the transmitter")
    networks: Annotated[tuple[Network, ...], OneOrMany] = Field(
        (), description="where its pushes may come from; anywhere when left out"
    )
    rate: int = Field(3000, ge=1, description="most pushes in a minute")
    ca: FilePath | None = Field(None, description="PEM file of the authorities to trust; the system's when left out")


class Signals(Section):
    """Who tells us when something happens to people elsewhere (Shared Signals Framework)."""

    transmitters: dict[str, SignalTransmitter] = Field(min_length=1, description="name → one transmitter")

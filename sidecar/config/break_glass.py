"""Sections about break-glass: local accounts for the day on which nobody can sign in at the provider."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationInfo, WithJsonSchema

from sidecar.config.section import Section
from sidecar.config.values import (
    TEXT_SCHEMA,
    Duration,
    Network,
    OneOrMany,
    RateText,
    Secret,
    SecretText,
    Text,
    Texts,
    secret_of,
)
from sidecar.core.rates import Rate


def _hash(value: Any, info: ValidationInfo) -> Secret:
    """Allow a hash in the file itself, and never print it: whoever reads it can try passwords on it."""
    return Secret(value) if isinstance(value, str) else secret_of(value, info)


HashText = Annotated[Secret, PlainValidator(_hash), WithJsonSchema(TEXT_SCHEMA)]


class BreakGlassAccount(Section):
    """One emergency account: its password, and who it is for rules and for the application."""

    hash: HashText = Field(description="argon2id hash of its password; make one with: sidecar break-glass hash")
    totp: SecretText | None = Field(None, description="base32 secret of an authenticator app (RFC 6238) asked for too")
    username: Text = Field("", description="user name; the account's own name when left out")
    email: Text = Field("", description="e-mail address")
    name: Text = Field("", description="full name")
    groups: Texts = Field((), description="groups that it is in: rules and roles treat it as anybody else")
    account: Text = Field("", description="key of the application's account that it uses; hooks never touch that one")


class BreakGlass(Section):
    """Local sign-in for emergencies; there is none without this section."""

    accounts: dict[str, BreakGlassAccount] = Field(min_length=1, description="name → an emergency account")
    networks: Annotated[tuple[Network, ...], OneOrMany] = Field(
        (), description="where it may be used from; elsewhere the page is not there"
    )
    while_: Literal["always", "outage"] = Field(
        "always",
        alias="while",
        description="outage: only while no provider works, and one that did before cannot be reached",
    )
    lifetime: Duration = Field(timedelta(hours=1), description="such a session ends after this long in any case")
    offered: bool = Field(default=False, description="link to it where people choose a provider, and where one is down")
    provision: bool = Field(default=False, description="make and change accounts in the application for it, too")
    tries: RateText = Field(
        Rate(5, 900.0), description="passwords that one client may try; an account takes 4, all together 10 times that"
    )

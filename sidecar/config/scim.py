"""Sections about SCIM clients: who may manage people here, and who those people are when they sign in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from sidecar.config.login import IdentityTemplates
from sidecar.config.section import Section
from sidecar.config.values import Network, OneOrMany, Secret, SecretText, Shorthand, TemplateText, Texts


class ScimToken(Section):
    """One token; a secret alone is one that may do everything and does not end."""

    value: SecretText = Field(description="what the client shows")
    expires: date | None = Field(None, description="the last day on which it is good (UTC), such as 2027-06-30")
    scope: Literal["write", "read"] = Field("write", description="read: it may look, and change nothing")


def _as_token(value: Any) -> Any:
    is_reference = isinstance(value, Mapping) and len(value) == 1 and set(value) <= {"env", "file"}
    return {"value": value} if is_reference or isinstance(value, Secret) else value


_SECRET_SCHEMA = TypeAdapter(SecretText).json_schema()


class ScimClient(Section):
    """One program that manages people and groups (RFC 7644), at {prefix}/scim/NAME/v2."""

    token: Annotated[tuple[Annotated[ScimToken, Shorthand(_as_token, _SECRET_SCHEMA)], ...], OneOrMany] = Field(
        min_length=1, description="what it shows; two while one is being replaced"
    )
    profile: Literal["strict", "entra", "okta"] = Field(
        "strict", description="how tolerantly its messages are read; strict takes the RFC's word"
    )
    on: Literal["externalId", "userName"] = Field(
        "externalId", description="the attribute by which somebody who signs in is found"
    )
    join: dict[str, TemplateText] = Field(
        default_factory=dict, description="login → the value of that attribute, from claims; others join nobody"
    )
    groups: Literal["add", "replace"] = Field(
        "add", description="whether its groups are added to those of the sign-in, or stand in their place"
    )
    identity: IdentityTemplates = Field(IdentityTemplates(), description="who its people are, read from its attributes")
    domains: Texts = Field((), description="e-mail domains that it may speak for; every address is believed without")
    networks: Annotated[tuple[Network, ...], OneOrMany] = Field(
        (), description="where its requests may come from; anywhere when left out"
    )
    rate: int = Field(3000, ge=1, description="most requests in a minute")


class Scim(Section):
    """Programs that manage people and groups by SCIM."""

    clients: dict[str, ScimClient] = Field(min_length=1, description="name → one program, with a source of its own")

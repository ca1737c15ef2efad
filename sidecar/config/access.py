"""Sections about who may do what: the ordered list of rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from sidecar.config.section import Section
from sidecar.config.values import Duration, Text, Texts


def _kind_of_allow(value: Any) -> str:
    # Told apart by shape, so that a mistake gets one message and not one for each alternative.
    return "lines" if isinstance(value, Mapping | Allow) else "word"


class Allow(Section):
    """Who passes; every line given must hold, any value within a line is enough."""

    role: Texts = Field((), description="roles, as named under roles")
    group: Texts = Field((), description="groups, as the provider names them")
    login: Texts = Field((), description="logins that people must have come through")
    bearer: Texts = Field((), description="logins whose bearer tokens are accepted here")


class Require(Section):
    """How fresh or strong the sign-in must be."""

    max_age: Duration | None = Field(None, description="sign in again when the sign-in is older than this")
    acr: Texts = Field((), description="accepted classes of sign-in (acr claim)")


class AccessRule(Section):
    """One rule; the first whose path, methods and host fit decides."""

    path: Text = Field(description="/exact, /prefix/** or with * for one segment")
    methods: Texts = Field((), description="all methods when left out")
    host: Texts = Field((), description="all hosts when left out")
    allow: Annotated[
        Annotated[Literal["anyone", "signed_in", "nobody"], Tag("word")] | Annotated[Allow, Tag("lines")],
        Discriminator(_kind_of_allow),
    ] = Field(description="anyone, signed_in, nobody, or who")
    require: Require = Field(Require(), description="how fresh or strong the sign-in must be")
    name: Text = Field("", description="what audit lines call this rule; number and path when left out")

    @field_validator("path")
    @classmethod
    def _path_pattern(cls, path: str) -> str:
        if path.startswith("^"):
            message = "a path pattern is no regular expression; write /exact, /prefix/** or * for one segment"
            raise ValueError(message)
        if not path.startswith("/"):
            message = "a path pattern starts with /; write /admin/** for /admin and all below it"
            raise ValueError(message)
        segments = path.split("/")[1:]
        if any("**" in segment and segment != "**" for segment in segments) or "**" in segments[:-1]:
            message = "** stands alone, at the end of a pattern; write it like /admin/**"
            raise ValueError(message)
        return path

    @field_validator("methods")
    @classmethod
    def _upper(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if any(not method.isalpha() or method != method.upper() for method in methods):
            message = "methods are written in capitals: [GET, POST]"
            raise ValueError(message)
        return methods

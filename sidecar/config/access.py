"""Sections about who may do what: the ordered list of rules."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from sidecar.config.section import Section
from sidecar.config.values import Duration, OneOrMany, Text

Many = Annotated[tuple[Text, ...], OneOrMany]


class Allow(Section):
    """Who passes; every line given must hold, any value within a line is enough."""

    role: Many = ()
    group: Many = ()
    login: Many = ()
    bearer: Many = Field((), description="logins whose bearer tokens are accepted here")


class Require(Section):
    """How fresh or strong the sign-in must be."""

    max_age: Duration | None = None
    acr: Many = ()


class AccessRule(Section):
    """One rule; the first whose path, methods and host fit decides."""

    path: Text = Field(description="/exact, /prefix/** or with * for one segment")
    methods: Annotated[tuple[Text, ...], OneOrMany] = Field((), description="all methods when left out")
    host: Many = ()
    allow: Literal["anyone", "signed_in", "nobody"] | Allow
    require: Require = Require()
    name: Text = ""

    @field_validator("path")
    @classmethod
    def _path_pattern(cls, path: str) -> str:
        if not path.startswith("/"):
            message = "a path pattern starts with /, so that it is anchored"
            raise ValueError(message)
        segments = path.split("/")[1:]
        if any("**" in segment and segment != "**" for segment in segments) or "**" in segments[:-1]:
            message = "** stands alone at the end of a pattern: /admin/**"
            raise ValueError(message)
        return path

    @field_validator("methods")
    @classmethod
    def _upper(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if any(not method.isalpha() or method != method.upper() for method in methods):
            message = "methods are written in capitals: [GET, POST]"
            raise ValueError(message)
        return methods

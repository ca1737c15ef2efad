"""Sections about the operators' console: where it listens, and who may do what in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field, model_validator

from sidecar.config.access import Require
from sidecar.config.section import Section
from sidecar.config.service import ServerTls
from sidecar.config.values import Duration, OneOrMany, TemplateText, Text, Texts


class Operator(Section):
    """Who has a level: every line given must hold, any value within a line is enough."""

    role: Texts = Field((), description="roles, as named under roles")
    group: Texts = Field((), description="groups, as the provider names them")
    login: Texts = Field((), description="logins that they must have come through")
    when: TemplateText | None = Field(None, description="a condition on user, groups, claims and roles")

    @model_validator(mode="after")
    def _says_something(self) -> Operator:
        if not (self.role or self.group or self.login or self.when):
            message = "says nobody; write role, group, login or when"
            raise ValueError(message)
        return self


class Operators(Section):
    """Who may do what; each level includes those before it, and whoever has none may not enter."""

    view: Annotated[tuple[Operator, ...], OneOrMany] = Field((), description="who may look, and change nothing")
    operate: Annotated[tuple[Operator, ...], OneOrMany] = Field(
        (), description="who may end sessions and try again what is owed to the application"
    )
    administer: Annotated[tuple[Operator, ...], OneOrMany] = Field(
        (), description="who may switch people off and on and cancel what is owed"
    )

    @property
    def levels(self) -> tuple[tuple[str, tuple[Operator, ...]], ...]:
        """(key, who) of each level."""
        return (("view", self.view), ("operate", self.operate), ("administer", self.administer))


class Console(Section):
    """The operators' web pages, on a listener of their own; there are none without this section."""

    listen: Text = Field("127.0.0.1:9443", description="host:port, [v6]:port or unix:/path; never the public one")
    public_url: Text = Field(description="what operators type: scheme, host and port; a host of its own is best")
    tls: ServerTls | None = Field(None, description="serve TLS itself; leave it out behind a proxy that does")
    logins: Texts = Field((), description="logins by which operators come; all when left out")
    operators: Operators = Field(description="who may do what; nobody may by default")
    require: Require = Field(Require(), description="how fresh or strong an operator's sign-in must be")
    idle: Duration = Field(timedelta(minutes=15), description="an operator's session ends after this long unused")
    absolute: Duration = Field(timedelta(hours=8), description="it ends after this long in any case")

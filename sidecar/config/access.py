"""Sections about who may do what: the ordered list of rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from sidecar.config.engines import EngineAsk
from sidecar.config.section import Section
from sidecar.config.values import Duration, Network, OneOrMany, TemplateText, Text, Texts


def _kind_of_allow(value: Any) -> str:
    # Told apart by shape, so that a mistake gets one message and not one for each alternative.
    if isinstance(value, list | tuple):
        return "several"
    return "lines" if isinstance(value, Mapping | Allow) else "word"


class Allow(Section):
    """Who passes; every line given must hold, any value within a line is enough."""

    who: Literal["signed_in", "anyone"] = Field("signed_in", description="anyone: nobody needs to be signed in")
    role: Texts = Field((), description="roles, as named under roles")
    group: Texts = Field((), description="groups, as the provider names them")
    login: Texts = Field((), description="logins that people must have come through")
    bearer: Texts = Field(
        (), description="logins whose bearer tokens are accepted here; tokens: API tokens; certificates: as they say"
    )
    network: Annotated[tuple[Network, ...], OneOrMany] = Field((), description="networks of the client's address")
    when: TemplateText | None = Field(None, description="a condition on user, groups, claims and roles")


class Deny(Section):
    """Who is refused, whatever else holds; every line given must hold, any value within a line is enough."""

    role: Texts = Field((), description="roles, as named under roles")
    group: Texts = Field((), description="groups; somebody whose groups are unknown is taken for a member")
    login: Texts = Field((), description="logins that they came through, with a token or without")
    bearer: Texts = Field((), description="logins whose bearer tokens they came with; tokens, certificates")
    network: Annotated[tuple[Network, ...], OneOrMany] = Field((), description="networks of the client's address")
    when: TemplateText | None = Field(None, description="a condition; one that cannot be told counts as true")


class Require(Section):
    """How fresh or strong the sign-in must be."""

    max_age: Duration | None = Field(None, description="sign in again when the sign-in is older than this")
    acr: Texts = Field((), description="accepted classes of sign-in (acr claim)")
    amr: Texts = Field((), description="methods that must all have been used (amr claim), such as mfa or otp")


Word = Literal["anyone", "signed_in", "nobody"]
Several = Annotated[
    Annotated[Literal["anyone", "signed_in"], Tag("word")] | Annotated[Allow, Tag("lines")],
    Discriminator(_kind_of_allow),
]


class AccessRule(Section):
    """One rule; the first whose path, methods and host fit decides.

    A rule with ``deny`` alone speaks only about those whom it refuses; the rules after it decide about all others.
    """

    path: Text = Field(description="/exact, /prefix/** or with * for one segment")
    methods: Texts = Field((), description="all methods when left out")
    host: Texts = Field((), description="all hosts when left out")
    allow: (
        Annotated[
            Annotated[Word, Tag("word")]
            | Annotated[Allow, Tag("lines")]
            | Annotated[tuple[Several, ...], Tag("several")],
            Discriminator(_kind_of_allow),
        ]
        | None
    ) = Field(None, description="anyone, signed_in, nobody, or who; of a list, one is enough")
    deny: Annotated[tuple[Deny, ...], OneOrMany] = Field((), description="who is refused all the same")
    require: Require = Field(Require(), description="how fresh or strong the sign-in must be")
    engine: EngineAsk | None = Field(None, description="an engine that must say yes, too")
    name: Text = Field("", description="what audit lines call this rule; number and path when left out")

    @property
    def alternatives(self) -> tuple[Allow, ...]:
        """Everybody who passes, as sets of lines; none for ``nobody`` and for a rule that only denies."""
        if self.allow is None or self.allow == "nobody":
            return ()
        several = self.allow if isinstance(self.allow, tuple) else (self.allow,)
        return tuple(one if isinstance(one, Allow) else Allow(who=one) for one in several)

    @property
    def line_sets(self) -> Iterator[tuple[str, int, Allow | Deny]]:
        """Every set of lines with its key and number."""
        yield from (("allow", number, one) for number, one in enumerate(self.alternatives))
        yield from (("deny", number, one) for number, one in enumerate(self.deny))

    @property
    def only_denies(self) -> bool:
        """True when it leaves everybody whom it does not refuse to the rules after it."""
        return self.allow is None

    @property
    def is_public(self) -> bool:
        """True when nobody who passes needs to be signed in."""
        return bool(self.alternatives) and all(one.who == "anyone" for one in self.alternatives)

    @model_validator(mode="after")
    def _says_something(self) -> AccessRule:
        if self.allow is None and not self.deny:
            message = "allow is missing; write allow: signed_in, or who, or a deny"
            raise ValueError(message)
        return self

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

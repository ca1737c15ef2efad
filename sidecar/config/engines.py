"""Sections about engines of fine-grained policy: where they are, and what a rule asks them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from sidecar.config.section import Section
from sidecar.config.values import Duration, FilePath, JsonTemplate, OneOrMany, SecretText, Size, TemplateText, Text
from sidecar.core.template import Compiler

_USERNAME = Compiler().compile("{{ user.username }}")
_ATTRIBUTES = {
    name: Compiler().compile(f"{{{{ {source} }}}}")
    for name, source in (
        ("username", "user.username"),
        ("email", "user.email"),
        ("groups", "groups"),
        ("roles", "roles"),
    )
}


class _Remembering(Section):
    remember: Duration = Field(timedelta(seconds=5), description="how long an answer is good for; 0s asks every time")


class _OverHttp(_Remembering):
    url: Text = Field(description="its address, such as http://127.0.0.1:8181")
    token: SecretText | None = Field(None, description="sent as bearer token")
    ca: FilePath | None = Field(None, description="PEM file of the authorities to trust, for https")
    timeout: Duration = Field(timedelta(seconds=2), description="longest wait for an answer")
    max_answer: Size = Field(64 * 1024, description="largest answer that is read")


class CedarEngine(_Remembering):
    """Cedar, inside the sidecar: policies in files. Needs `pip install '.[cedar]'`."""

    type: Literal["cedar"] = Field(description="kind of engine")
    policies: Annotated[tuple[FilePath, ...], OneOrMany] = Field(min_length=1, description="files of policies")
    schema_file: FilePath | None = Field(None, alias="schema", description="file of the schema, in Cedar or JSON")
    entities: FilePath | None = Field(None, description="JSON file of entities that are always there")
    principal: Text = Field("User", description="type of the entity that the person is")
    id: TemplateText = Field(_USERNAME, description="its id")
    attributes: dict[str, JsonTemplate] = Field(
        default_factory=lambda: dict(_ATTRIBUTES),
        description="its attributes; by default username, email, groups and roles",
    )
    groups: Text = Field("Group", description='type of the groups that it is in; "" for none')
    roles: Text = Field("Role", description='type of the roles that it is in; "" for none')


class OpenFgaEngine(_OverHttp):
    """OpenFGA, asked whether a relationship holds."""

    type: Literal["openfga"] = Field(description="kind of engine")
    store: Text = Field(description="id of the store")
    model: Text = Field(description="id of the authorization model")


class OpaEngine(_OverHttp):
    """Open Policy Agent, asked for a decision: true, or an object with allow: true."""

    type: Literal["opa"] = Field(description="kind of engine")
    path: Text = Field(description="the decision, such as wiki/allow for data.wiki.allow")


EngineSection = Annotated[CedarEngine | OpenFgaEngine | OpaEngine, Field(discriminator="type")]


class AskedTuple(Section):
    """The relationship that must hold, in OpenFGA. Values with `:`, `#`, `*` or white space are refused."""

    user: TemplateText = Field(description='such as "user:{{ user.username }}"')
    relation: TemplateText = Field(description="such as viewer")
    object: TemplateText = Field(description='such as "document:{{ request.captured[0] }}"')


class ContextualTuple(AskedTuple):
    """A relationship that holds for this question alone."""

    each: TemplateText | None = Field(None, description='a list, such as "{{ groups }}": one for each `item` of it')


class Resource(Section):
    """An entity of Cedar."""

    type: Text = Field(description="its type")
    id: TemplateText = Field(description="its id")


class EngineAsk(Section):
    """What the engine is asked once the rule has let somebody in; only with its yes the request goes on."""

    name: Text = Field(description="one of engines")
    asked: AskedTuple | None = Field(None, alias="tuple", description="OpenFGA: the relationship that must hold")
    contextual: Annotated[tuple[ContextualTuple, ...], OneOrMany] = Field(
        (), description="OpenFGA: relationships that hold for this question alone"
    )
    action: TemplateText | None = Field(None, description="Cedar: id of the Action")
    resource: Resource | None = Field(None, description="Cedar: what is acted upon")
    context: dict[str, JsonTemplate] = Field(default_factory=dict, description="Cedar, OpenFGA: what conditions read")
    input: JsonTemplate | None = Field(None, description="OPA: the input document")

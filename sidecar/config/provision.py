"""Sections about the account inside the application: its key, attributes, roles, connections and hooks."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sidecar.config.section import Section
from sidecar.config.values import (
    DsnText,
    Duration,
    FilePath,
    JsonTemplate,
    OneOrMany,
    SecretText,
    Size,
    TemplateText,
    Text,
)

StatusList = Annotated[tuple[int | str, ...], OneOrMany]


class AccountKey(Section):
    """What ties a person to an account, and what to do when one is already there."""

    key: TemplateText
    protected: tuple[Text, ...] = Field(
        (), description="account keys that are never linked, changed or created"
    )
    existing: Literal["deny", "link_verified"] = "deny"


class Attribute(Section):
    """One attribute of the account; ``sync`` says when it is written."""

    value: TemplateText = Field(alias="from")
    required: bool = False
    sync: Literal["create", "login", "never"] = "login"


class AccountRoles(Section):
    """Which of the application's roles the sidecar looks after, and how strictly."""

    mode: Literal["create_only", "additive", "authoritative"] = "authoritative"
    managed: tuple[Text, ...] = ()
    default: Text | None = None


class OnError(Section):
    """What a failing hook means for the person at the door."""

    lookup: Literal["deny"] = "deny"
    create: Literal["deny"] = "deny"
    update: Literal["deny", "allow_existing"] = "allow_existing"
    set_roles: Literal["deny", "allow_existing"] = "deny"
    deactivate: Literal["retry"] = "retry"


class LoginToken(Section):
    """Fetch an API token by signing in as a service account; repeated when the API answers 401."""

    path: Text
    method: Literal["POST", "PUT", "GET"] = "POST"
    json_body: JsonTemplate = Field(None, alias="json")
    form: dict[str, TemplateText] = Field(default_factory=dict)
    username: Text = ""
    password: SecretText | None = None
    token: TemplateText = Field(description="where the token stands in the answer, e.g. {{ body.token }}")
    header: Text = "Authorization"
    scheme: Text = "Bearer"
    lifetime: Duration = timedelta(minutes=30)


class BasicAuth(Section):
    """User name and password of a service account."""

    username: Text
    password: SecretText


class RestConnection(Section):
    """One REST API: its address, which templates cannot change, and how to authenticate."""

    base_url: Text
    bearer: SecretText | None = None
    basic: BasicAuth | None = None
    login: LoginToken | None = None
    headers: dict[str, SecretText | Text] = Field(default_factory=dict)
    timeout: Duration = timedelta(seconds=10)
    max_answer: Size = 1 << 20
    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None
    verify: bool = True
    allow_link_local: bool = Field(
        False, description="permit 169.254.0.0/16 and fe80::/10 (cloud metadata lives there)"
    )

    @model_validator(mode="after")
    def _one_way(self) -> RestConnection:
        if sum(way is not None for way in (self.bearer, self.basic, self.login)) > 1:
            message = "choose one of bearer, basic and login"
            raise ValueError(message)
        return self


class Connection(Section):
    """Something that hooks talk to: exactly one of ``sql`` and ``rest``."""

    sql: DsnText | None = None
    rest: RestConnection | None = None
    timeout: Duration = Field(timedelta(seconds=10), description="longest wait for one statement")

    @model_validator(mode="after")
    def _exactly_one(self) -> Connection:
        if (self.sql is None) == (self.rest is None):
            message = "a connection has exactly one of sql and rest"
            raise ValueError(message)
        return self


class OutcomeMatch(Section):
    """When an answer means this outcome: by status, SQLSTATE and a condition on the body."""

    status: StatusList = Field((), description="codes or classes such as 2xx")
    sqlstate: Annotated[tuple[Text, ...], OneOrMany] = ()
    when: TemplateText | None = None


OutcomeName = Literal[
    "found", "not_found", "ambiguous", "created", "updated", "conflict", "refused", "failed"
]


class RestStep(Section):
    """One call of a REST API."""

    on: Text
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    path: TemplateText
    query: dict[str, TemplateText] = Field(default_factory=dict)
    headers: dict[str, TemplateText] = Field(default_factory=dict)
    json_body: JsonTemplate = Field(None, alias="json")
    form: dict[str, TemplateText] = Field(default_factory=dict)
    outcomes: dict[OutcomeName, OutcomeMatch] = Field(default_factory=dict)
    save: dict[str, TemplateText] = Field(default_factory=dict)
    timeout: Duration | None = None
    idempotency_header: Text | None = Field(
        None, description="header that carries a key stable across repetitions"
    )


class SqlStep(Section):
    """One SQL statement; its text is static, values go through binds only."""

    on: Text
    query: str | None = None
    execute: str | None = Field(None, alias="exec")
    params: dict[str, TemplateText] = Field(default_factory=dict)
    affected: int | None = Field(None, ge=0, description="rows that the statement must touch")
    outcomes: dict[OutcomeName, OutcomeMatch] = Field(default_factory=dict)
    save: dict[str, TemplateText] = Field(default_factory=dict)

    @field_validator("query", "execute")
    @classmethod
    def _static(cls, text: str | None) -> str | None:
        if text is not None and ("{{" in text or "{%" in text):
            message = "SQL text is static: put values into params and write :name here"
            raise ValueError(message)
        return text

    @model_validator(mode="after")
    def _exactly_one(self) -> SqlStep:
        if (self.query is None) == (self.execute is None):
            message = "a statement is exactly one of query (reads) and exec (writes)"
            raise ValueError(message)
        return self


class Step(Section):
    """One step of a hook: exactly one of ``rest`` and ``sql``, optionally conditional or repeated."""

    rest: RestStep | None = None
    sql: SqlStep | None = None
    when: TemplateText | None = Field(None, description="skip the step unless this is true")
    foreach: TemplateText | None = Field(None, description="repeat the step for each item of this list")

    @model_validator(mode="after")
    def _exactly_one(self) -> Step:
        if (self.sql is None) == (self.rest is None):
            message = "a step is exactly one of sql and rest"
            raise ValueError(message)
        return self


Steps = Annotated[tuple[Step, ...], OneOrMany]


class Provision(Section):
    """How accounts are made and kept true inside the application."""

    account: AccountKey
    attributes: dict[str, Attribute] = Field(default_factory=dict)
    roles: AccountRoles = AccountRoles()
    on_error: OnError = OnError()
    connections: dict[str, Connection] = Field(min_length=1)
    lookup: Steps = Field(min_length=1)
    create: Steps = ()
    update: Steps = ()
    set_roles: Steps = ()
    deactivate: Steps = ()
    reactivate: Steps = ()
    delete: Steps = ()
    listing: Steps = Field((), alias="list")
    verify: Steps = Field((), description="read back after a change; must come out as found")
    wait: Duration = Field(
        timedelta(seconds=15), description="longest wait for somebody else's provisioning of the same person"
    )

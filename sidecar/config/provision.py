"""Sections about the account inside the application: its key, attributes, roles, connections and hooks."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from sidecar.config.section import Section
from sidecar.config.values import (
    DsnText,
    Duration,
    FilePath,
    JsonTemplate,
    OneOrMany,
    SecretOrText,
    SecretText,
    Size,
    Status,
    TemplateText,
    Text,
    Texts,
)

StatusList = Annotated[tuple[Status, ...], OneOrMany]


class AccountKey(Section):
    """What ties a person to an account, and what to do when one is already there."""

    key: TemplateText = Field(description="what the application knows the person by, made from user, groups, claims")
    protected: Texts = Field((), description="account keys that are never linked, changed or created")
    existing: Literal["deny", "link_verified"] = Field(
        "deny",
        description="link_verified: take over the account with the same verified e-mail, for a login's domains",
    )
    other_login: Literal["deny", "join_verified"] = Field(
        "deny",
        description="join_verified: who has the account already may also come by another login, with the same "
        "verified e-mail in that login's domains",
    )


class Attribute(Section):
    """One attribute of the account; ``sync`` says when it is written."""

    value: TemplateText = Field(alias="from", description="text made from user, groups, claims, roles")
    required: bool = Field(default=False, description="refuse people for whom it is empty")
    sync: Literal["create", "login", "never"] = Field("login", description="when it is written; never only checks")


class AccountRoles(Section):
    """Which of the application's roles the sidecar looks after, and how strictly."""

    mode: Literal["create_only", "additive", "authoritative"] = Field(
        "authoritative", description="set once, only ever add, or also take away what is managed"
    )
    managed: Texts = Field((), description="roles that the sidecar looks after, strongest first")
    default: Text | None = Field(None, description="given to whoever has none of them")


class OnError(Section):
    """What a failing hook means for the person at the door."""

    lookup: Literal["deny"] = Field("deny", description="nobody enters unseen")
    create: Literal["deny"] = Field("deny", description="nobody enters without an account")
    update: Literal["deny", "allow_existing"] = Field("allow_existing", description="enter with old attributes, or not")
    set_roles: Literal["deny", "allow_existing"] = Field("deny", description="enter with old roles, or not")
    deactivate: Literal["retry"] = Field("retry", description="until it is done")


class LoginToken(Section):
    """Fetch an API token by signing in as a service account; repeated when the API answers 401."""

    path: Text = Field(description="below base_url")
    method: Literal["POST", "PUT", "GET"] = Field("POST", description="HTTP method")
    json_body: JsonTemplate = Field(None, alias="json", description="body, made from username and password")
    form: dict[str, TemplateText] = Field(default_factory=dict, description="form body instead of json")
    username: Text = Field("", description="user name of the service account")
    password: SecretText | None = Field(None, description="its password")
    token: TemplateText = Field(description="where the token stands in the answer, e.g. {{ body.token }}")
    header: Text = Field("Authorization", description="header that carries the token afterwards")
    scheme: Text = Field("Bearer", description="word before the token; may be empty")
    lifetime: Duration = Field(timedelta(minutes=30), description="how long a token is used")


class BasicAuth(Section):
    """User name and password of a service account."""

    username: Text = Field(description="user name")
    password: SecretText = Field(description="password")


class RestConnection(Section):
    """One REST API: its address, which templates cannot change, and how to authenticate."""

    base_url: Text = Field(description="http:// or https://, host, and the path that all calls have in common")
    bearer: SecretText | None = Field(None, description="API token")
    basic: BasicAuth | None = Field(None, description="user name and password (HTTP basic authentication)")
    login: LoginToken | None = Field(None, description="sign in first, and use the token that the API answers")
    headers: dict[str, SecretOrText] = Field(default_factory=dict, description="sent with every call")
    timeout: Duration = Field(timedelta(seconds=10), description="longest wait for one answer")
    max_answer: Size = Field(1 << 20, description="largest answer")
    ca: FilePath | None = Field(None, description="PEM file of the authorities to trust; the system's when left out")
    certificate: FilePath | None = Field(None, description="PEM file of our own certificate, where one is asked for")
    key: FilePath | None = Field(None, description="PEM file of its private key")
    verify: bool = Field(default=True, description="false accepts any certificate: only for trying things out")
    allow_link_local: bool = Field(
        default=False, description="permit 169.254.0.0/16 and fe80::/10 (cloud metadata lives there)"
    )

    @model_validator(mode="after")
    def _one_way(self) -> RestConnection:
        if sum(way is not None for way in (self.bearer, self.basic, self.login)) > 1:
            message = "more than one way to authenticate; choose one of bearer, basic and login"
            raise ValueError(message)
        return self


class Connection(Section):
    """Something that hooks talk to: exactly one of ``sql`` and ``rest``."""

    sql: DsnText | None = Field(None, description="address of the application's database")
    rest: RestConnection | None = Field(None, description="the application's API")
    timeout: Duration = Field(timedelta(seconds=10), description="longest wait for one statement")

    @model_validator(mode="after")
    def _exactly_one(self) -> Connection:
        if (self.sql is None) == (self.rest is None):
            message = "a connection is exactly one of sql and rest; make two connections for both"
            raise ValueError(message)
        return self


class OutcomeMatch(Section):
    """When an answer means this outcome: by status, SQLSTATE and a condition on the body."""

    status: StatusList = Field((), description="codes or classes such as 2xx")
    sqlstate: Texts = Field((), description="codes of SQL errors such as 23505")
    when: TemplateText | None = Field(None, description="condition on the answer")


OutcomeName = Literal["found", "not_found", "ambiguous", "created", "updated", "conflict", "refused", "failed"]


class RestStep(Section):
    """One call of a REST API."""

    on: Text = Field(description="name of the connection")
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field("GET", description="HTTP method")
    path: TemplateText = Field(description="begins with /; every value is encoded as one segment")
    query: dict[str, TemplateText] = Field(default_factory=dict, description="parameters after the ?; a list repeats")
    headers: dict[str, TemplateText] = Field(default_factory=dict, description="further headers of this call")
    json_body: JsonTemplate = Field(None, alias="json", description="body; a lone expression keeps its type")
    form: dict[str, TemplateText] = Field(default_factory=dict, description="form body instead of json")
    outcomes: dict[OutcomeName, OutcomeMatch] = Field(default_factory=dict, description="what answers mean, in order")
    save: dict[str, TemplateText] = Field(default_factory=dict, description="values to keep from the answer")
    timeout: Duration | None = Field(None, description="the connection's when left out")
    idempotency_header: Text | None = Field(None, description="header that carries a key stable across repetitions")


class SqlStep(Section):
    """One SQL statement; its text is static, values go through binds only."""

    on: Text = Field(description="name of the connection")
    query: str | None = Field(None, description="a statement that reads")
    execute: str | None = Field(None, alias="exec", description="a statement that writes")
    params: dict[str, TemplateText] = Field(default_factory=dict, description="values for the :names in the statement")
    affected: int | None = Field(None, ge=0, description="rows that the statement must touch")
    outcomes: dict[OutcomeName, OutcomeMatch] = Field(default_factory=dict, description="what answers mean, in order")
    save: dict[str, TemplateText] = Field(
        default_factory=dict, description="values to keep from the answer; all columns of the one row when left out"
    )

    @field_validator("query", "execute")
    @classmethod
    def _static(cls, text: str | None) -> str | None:
        if text is not None and ("{{" in text or "{%" in text):
            message = "SQL text is static, no template can be in it; put values into params and write :name here"
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

    rest: RestStep | None = Field(None, description="a call of a REST API")
    sql: SqlStep | None = Field(None, description="an SQL statement")
    when: TemplateText | None = Field(None, description="skip the step unless this is true")
    foreach: TemplateText | None = Field(None, description="repeat the step for each item of this list")

    @model_validator(mode="after")
    def _exactly_one(self) -> Step:
        if (self.sql is None) == (self.rest is None):
            message = "a step is exactly one of sql and rest; write two steps for both"
            raise ValueError(message)
        return self


Steps = Annotated[tuple[Step, ...], OneOrMany]


class Outbox(Section):
    """How patiently what is owed to the application is tried, and when somebody should look."""

    attempts: int = Field(200, ge=1, description="tries until a duty is put aside for people to look at")
    pause: Duration = Field(timedelta(seconds=5), description="after the first failure; it doubles each time")
    longest: Duration = Field(timedelta(hours=1), description="longest pause between two tries")
    overdue: Duration = Field(timedelta(hours=1), description="warn when something has waited for longer")
    keep: Duration = Field(timedelta(days=30), description="how long what is done is remembered")


class Provision(Section):
    """How accounts are made and kept true inside the application."""

    account: AccountKey = Field(description="what ties a person to an account")
    attributes: dict[str, Attribute] = Field(default_factory=dict, description="name → what is written there")
    roles: AccountRoles = Field(AccountRoles(), description="the application's own roles")
    on_error: OnError = Field(OnError(), description="what a failing hook means for the person at the door")
    connections: dict[str, Connection] = Field(min_length=1, description="name → the application's API or database")
    lookup: Steps = Field(min_length=1, description="find the account")
    create: Steps = Field((), description="make it")
    update: Steps = Field((), description="write changed attributes")
    set_roles: Steps = Field((), description="give and take roles")
    deactivate: Steps = Field((), description="lock it")
    reactivate: Steps = Field((), description="unlock it")
    delete: Steps = Field((), description="remove it")
    verify: Steps = Field((), description="read back after a change; must come out as found")
    rename: Steps = Field((), description="give the account the key that its person has by now: {{ new_key }}")
    outbox: Outbox = Field(Outbox(), description="what is owed to the application, and how long it is tried")
    wait: Duration = Field(
        timedelta(seconds=15), description="longest wait for somebody else's provisioning of the same person"
    )

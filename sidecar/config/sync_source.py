"""Sections about where a synchronisation reads people from: files, databases, directories and programs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sidecar.config.provision import RestConnection
from sidecar.config.section import Section
from sidecar.config.values import (
    TEXT_SCHEMA,
    DsnText,
    Duration,
    FilePath,
    SecretText,
    Shorthand,
    Size,
    TemplateText,
    Text,
    Texts,
)


class FileSource(Section):
    """What files of people have in common: where they are, and how they say that they are whole."""

    path: FilePath = Field(description="the file; with * in its last part the newest file that fits")
    encoding: Text = Field("utf-8-sig", description="encoding of the text")
    rename: dict[str, Text] = Field(default_factory=dict, description="name in the file → name in templates")
    largest: Size = Field(1 << 30, description="largest file that is read")


class CsvSource(FileSource):
    """A table as text: CSV or, with a tab between the columns, TSV."""

    delimiter: Literal[",", ";", "\t", "|"] = Field(",", description="what stands between columns; \\t for TSV")
    header: Texts = Field((), description="names of the columns, for a file whose first line has none")
    trailer: Text | None = Field(
        None, description="first column of the last line, whose second column is the number of people"
    )


class JsonSource(FileSource):
    """People as JSON: one list, or one object on each line."""

    lines: bool = Field(default=False, description="one JSON object on each line (JSONL)")
    at: Text = Field("", description="where the list is, such as result.people; the whole file when left out")
    count: Text = Field("", description="where the number of people is that the list must have; not with lines")


class SqlSource(Section):
    """A query that reads people page by page, in the order of their key."""

    url: DsnText = Field(description="address of the database")
    query: Text = Field(description="one page: WHERE key > :after ORDER BY key LIMIT :limit")
    key: Text = Field(description="the column that the pages go by")
    first: int | str = Field(0, description="what :after is for the first page; '' for a key that is text")
    page: int = Field(1000, ge=1, le=1000, description="people on a page")
    count: Text | None = Field(None, description="a query for how many there must be")
    changes: Text | None = Field(None, description="a query for those changed since :since, with :after and :limit")
    changed: Text = Field("", description="the column that says when somebody was changed, for changes")
    timeout: Duration = Field(timedelta(seconds=30), description="longest wait for one page")


class Paging(Section):
    """How the next page is asked for."""

    by: Literal["page", "offset", "cursor", "link"] = Field("link", description="the way; link is RFC 8288")
    parameter: Text = Field("page", description="name of the parameter for page, offset or cursor")
    first: int = Field(1, ge=0, description="number of the first page")
    size: int = Field(100, ge=1, description="people on a page")
    size_parameter: Text = Field("", description="name of the parameter that says the size")
    cursor: TemplateText | None = Field(None, description="where the next cursor stands; empty on the last page")


class RestSource(RestConnection):
    """An API that lists people."""

    path: Text = Field(description="below base_url")
    query: dict[str, Text] = Field(default_factory=dict, description="parameters of every page")
    people: TemplateText = Field(description="the list of people in an answer, e.g. {{ body.people }}")
    total: TemplateText | None = Field(None, description="how many there must be in all, e.g. {{ body.total }}")
    paging: Paging = Field(Paging(), description="how the next page is asked for")
    most_pages: int = Field(10_000, ge=1, description="most pages; more are no end, but a mistake")


class ScimSource(RestConnection):
    """A SCIM 2.0 server: base_url with /v2 or what it is there."""

    filter: Text = Field("", description="a SCIM filter on users")
    page: int = Field(100, ge=1, le=1000, description="people on a page")
    with_groups: bool = Field(default=True, description="read the groups, too; claims.groups are their names")


class LdapGroups(Section):
    """Groups of an LDAP server; claims.groups are their names."""

    base: Text = Field(description="where groups are searched")
    filter: Text = Field("(|(objectClass=groupOfNames)(objectClass=group))", description="which entries are groups")
    member: Text = Field("member", description="the attribute with the DNs of members (or user names: memberUid)")
    name: Text = Field("cn", description="the attribute that names the group")
    nested: bool = Field(default=True, description="members of a group in a group are members of both")


class LdapSource(Section):
    """An LDAP server, OpenLDAP or Active Directory."""

    url: Text = Field(description="ldaps://host, ldap://host or ldapi://socket")
    start_tls: bool = Field(default=False, description="encrypt an ldap:// connection before anything is said")
    ca: FilePath | None = Field(None, description="PEM file of the authorities to trust; the system's when left out")
    bind: Text = Field("", description="DN of the service account; nobody when left out")
    password: SecretText | None = Field(None, description="its password")
    base: Text = Field(description="where people are searched")
    filter: Text = Field("(objectClass=inetOrgPerson)", description="which entries are people")
    attributes: Texts = Field(("*",), description="attributes that are read; * for all that users may read")
    groups: LdapGroups | None = Field(None, description="where their groups are")
    page: int = Field(500, ge=0, description="entries on a page (RFC 2696); 0, and syncrepl, ask for all at once")
    changes: Literal["none", "modifyTimestamp", "uSNChanged", "syncrepl"] = Field(
        "none", description="read only what was changed since the last run, by this attribute or by RFC 4533"
    )
    timeout: Duration = Field(timedelta(seconds=30), description="longest wait for one answer")


def _as_file(value: Any) -> Any:
    is_reference = isinstance(value, dict) and len(value) == 1 and set(value) <= {"env", "file"}
    return {"path": value} if isinstance(value, str | Path) or is_reference else value


class SourceSection(Section):
    """Where people come from: exactly one kind."""

    csv: Annotated[CsvSource, Shorthand(_as_file, TEXT_SCHEMA)] | None = Field(
        None, description="a table as text; its path alone is enough"
    )
    json_file: Annotated[JsonSource, Shorthand(_as_file, TEXT_SCHEMA)] | None = Field(
        None, alias="json", description="a JSON file; its path alone is enough"
    )
    sql: SqlSource | None = Field(None, description="a query")
    ldap: LdapSource | None = Field(None, description="LDAP or Active Directory")
    rest: RestSource | None = Field(None, description="an API")
    scim: ScimSource | None = Field(None, description="a SCIM 2.0 server")

    @model_validator(mode="after")
    def _exactly_one(self) -> SourceSection:
        kinds = (self.csv, self.json_file, self.sql, self.ldap, self.rest, self.scim)
        if sum(kind is not None for kind in kinds) != 1:
            message = "a source is exactly one of csv, json, sql, ldap, rest and scim"
            raise ValueError(message)
        return self

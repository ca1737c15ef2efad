"""Check the sources of people that are read regularly: names, timetables, queries, and how their people are found."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sidecar.config.document import Document, Location
from sidecar.config.lints.addresses import database_problem, is_host, is_loopback, split_url
from sidecar.config.lints.joins import join_problems, joins_nobody
from sidecar.config.lints.templates import CLAIMS, no_condition, unknown_names
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.provision import RestConnection
from sidecar.config.sync import Sync
from sidecar.config.sync_source import FileSource, LdapSource, RestSource, SourceSection, SqlSource
from sidecar.config.wording import closest
from sidecar.core.statement import bind_problems
from sidecar.core.sync.timetable import parse_cron

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_ANSWER = frozenset(["status", "body", "headers"])
_LDAP = ("ldap://", "ldaps://", "ldapi://")


def sources(config: Config, document: Document) -> Iterator[Problem]:
    """Each source by itself."""
    for name, section in config.sync.items():
        place: Location = ("sync", name)
        if not _NAME.fullmatch(name):
            yield document.error(place, "is the name of a source", "Use letters, digits, - and _")
        yield from _people(section, place, document)
        yield from _timetable(section, place, document)
        yield from source(section.source, (*place, "source"), document)
        if section.watch and section.source.csv is None and section.source.json_file is None:
            yield document.error((*place, "watch"), "only a file can be watched", "Write every in its place")


def _people(section: Sync, place: Location, document: Document) -> Iterator[Problem]:
    for key in ("username", "email", "name", "groups"):
        template = getattr(section.identity, key)
        if template is not None:
            yield from unknown_names(document, (*place, "identity", key), template, CLAIMS, {})
    if section.identity.username is None:
        fix = 'Add username: "{{ claims.login }}", the column with the user name'
        yield document.error((*place, "identity", "username"), "is missing: nothing says what they are called", fix)
    if section.active is not None:
        yield from unknown_names(document, (*place, "active"), section.active, CLAIMS, {})
        yield from no_condition(document, (*place, "active"), section.active)
    for number, domain in enumerate(section.domains):
        here = (*place, "domains", number)
        if not is_host(domain):
            yield document.error(here, f"{document.quoted(here, domain)} is no domain", "Write example.com")


def cron(text: str | None, place: Location, document: Document) -> Iterator[Problem]:
    """A timetable that can be read and comes round."""
    if text is not None:
        try:
            parse_cron(text).after(0.0)
        except ValueError as error:
            yield document.error((*place, "cron"), str(error), "Write 30 2 * * mon-fri, in UTC")


def _timetable(section: Sync, place: Location, document: Document) -> Iterator[Problem]:
    yield from cron(section.cron, place, document)
    if section.every is None and section.cron is None and not section.watch:
        message = "is read only by hand: sidecar sync run"
        yield document.warning(place, message, "Add every: 1h, or cron")


def source(section: SourceSection, place: Location, document: Document) -> Iterator[Problem]:
    """Addresses, queries and templates of whatever kind of source it is."""
    for file, kind in ((section.csv, "csv"), (section.json_file, "json")):
        if file is not None:
            yield from _file(file, (*place, kind, "path"), document)
    if section.sql is not None:
        yield from _sql(section.sql, (*place, "sql"), document)
    if section.ldap is not None:
        yield from _ldap(section.ldap, (*place, "ldap"), document)
    for api, kind in ((section.rest, "rest"), (section.scim, "scim")):
        if api is not None:
            yield from _address(api, (*place, kind, "base_url"), document)
    if section.rest is not None:
        yield from _rest(section.rest, (*place, "rest"), document)


def _ldap(section: LdapSource, place: Location, document: Document) -> Iterator[Problem]:
    if not section.url.startswith(_LDAP):
        yield document.error((*place, "url"), "is no LDAP address", "Write ldaps://host")
    elif section.url.startswith("ldap://") and not section.start_tls and not _is_here(section.url):
        message = "the password and all people go over the network in the clear"
        yield document.warning((*place, "url"), message, "Write ldaps://, or start_tls: true")
    if bool(section.bind) != (section.password is not None):
        yield document.error((*place, "bind"), "bind and password go together", "Give both, or neither")


def _address(section: RestConnection, place: Location, document: Document) -> Iterator[Problem]:
    parts = split_url(section.base_url)
    if parts is None or parts.query or parts.fragment or "@" in parts.netloc:
        yield document.error(place, "is no plain address", "Write https://host/path")
    elif parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield document.warning(place, "without https nobody knows who answers", "Write https://")


def _rest(section: RestSource, place: Location, document: Document) -> Iterator[Problem]:
    yield from unknown_names(document, (*place, "people"), section.people, _ANSWER, {})
    if section.total is not None:
        yield from unknown_names(document, (*place, "total"), section.total, _ANSWER, {})
    if section.paging.cursor is not None:
        yield from unknown_names(document, (*place, "paging", "cursor"), section.paging.cursor, _ANSWER, {})
    elif section.paging.by == "cursor":
        yield document.error((*place, "paging", "cursor"), "is missing", 'Add cursor: "{{ body.next }}"')


def _is_here(url: str) -> bool:
    host = url.partition("://")[2].partition("/")[0].rpartition(":")[0] or url.partition("://")[2].partition("/")[0]
    return is_loopback(host)


def _file(section: FileSource, place: Location, document: Document) -> Iterator[Problem]:
    if not section.path.parent.is_dir():
        shown = document.quoted(place, str(section.path.parent))
        yield document.warning(place, f"the folder {shown} is not there", "Make it, or correct the path")


def _sql(section: SqlSource, place: Location, document: Document) -> Iterator[Problem]:
    problem = database_problem(section.url.reveal())
    if problem:
        yield document.error((*place, "url"), problem, "Write postgresql://user@host/name")
    for key, query, binds in (
        ("query", section.query, {"after", "limit"}),
        ("changes", section.changes, {"after", "limit", "since"}),
        ("count", section.count, set()),
    ):
        if query is None:
            continue
        for wrong in bind_problems(query, frozenset(binds)):
            message = wrong.replace("the param ", ":").replace(" is not in the statement", " is missing")
            yield document.error((*place, key), message, "One page: WHERE key > :after ORDER BY key LIMIT :limit")
    if (section.changes is None) != (not section.changed):
        yield document.error((*place, "changes"), "changes and changed go together", "Give both, or neither")


def people(config: Config, document: Document) -> Iterator[Problem]:
    """Whoever signs in must be found among the people of a source."""
    for name, section in config.sync.items():
        place: Location = ("sync", name)
        yield from join_problems(config, document, (*place, "join"), section.join)
        example = f'Add join: {{corp: "{{{{ claims.sub }}}}"}}, the claim that equals {section.on or section.id}'
        yield from joins_nobody(document, place, section.join, example)


def together(config: Config, document: Document) -> Iterator[Problem]:
    """All sources say in the same way whether their groups are added; and people come for their accounts."""
    clients = config.scim.clients.values() if config.scim is not None else ()
    ways = {one.groups for one in (*clients, *config.sync.values())}
    for name, section in config.sync.items():
        if len(ways) > 1:
            fix = "Write the same for all of them"
            yield document.error(("sync", name, "groups"), "differs between sources of people", fix)
        for number, role in enumerate(section.limits.privileged):
            if role not in config.roles:
                here = ("sync", name, "limits", "privileged", number)
                fix = closest(role, sorted(config.roles), "There are")
                yield document.error(here, f"there is no role {document.quoted(here, role)}", fix)
    if config.sync and config.provision is None:
        message = "people come for the sake of their accounts, and provision is missing"
        yield document.error(("sync",), message, "Add provision")

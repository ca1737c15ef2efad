"""Find what is wrong with the steps and connections of a configuration, all at once and without connecting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from sidecar.config.lints.templates import STEP_SECTIONS
from sidecar.config.provision import Connection, OutcomeMatch, OutcomeName, Provision, RestStep, SqlStep, Step
from sidecar.core.statement import bind_problems
from sidecar.core.template import Template
from sidecar.hooks.databases import address_of
from sidecar.hooks.matching import SUCCESSES
from sidecar.hooks.order import ANSWER_NAMES, ORDER_NAMES
from sidecar.hooks.request import FRAMING_HEADERS, base_problem
from sidecar.hooks.step import request_templates, templates_in
from sidecar.hooks.token import LOGIN_NAMES
from sidecar.model import Result

# RFC 9110, section 5.6.2
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REST_ANSWER = frozenset(["status", "body", "headers"])
_SQL_ANSWER = ANSWER_NAMES - _REST_ANSWER

Problem = tuple[str, str]


def problems(section: Provision) -> tuple[Problem, ...]:
    """Give (path below ``provision``, what is wrong) of everything that cannot work."""
    return tuple(_problems(section))


def _problems(section: Provision) -> Iterator[Problem]:
    for name, connection in section.connections.items():
        yield from _connection(f"connections.{name}", connection)
    for name in STEP_SECTIONS:
        for number, step in enumerate(getattr(section, name)):
            yield from _step(f"{name}[{number}]", step, section.connections)


def _connection(path: str, connection: Connection) -> Iterator[Problem]:
    if connection.sql is not None:
        try:
            address_of(connection.sql)
        except ValueError as error:
            yield f"{path}.sql", str(error)
    if connection.rest is None:
        return
    problem = base_problem(connection.rest.base_url)
    if problem:
        yield f"{path}.rest.base_url", problem
    yield from _header_names(f"{path}.rest.headers", connection.rest.headers)
    login = connection.rest.login
    if login is not None:
        if not login.path.startswith("/"):
            yield f"{path}.rest.login.path", "a path begins with /"
        templates = [*login.form.values(), *templates_in(login.json_body)]
        yield from _names(f"{path}.rest.login", templates, LOGIN_NAMES)
        yield from _names(f"{path}.rest.login.token", [login.token], _REST_ANSWER)


def _step(path: str, step: Step, connections: Mapping[str, Connection]) -> Iterator[Problem]:
    names = ORDER_NAMES if step.foreach is not None else ORDER_NAMES - {"item"}
    if step.foreach is not None:
        yield from _names(f"{path}.foreach", [step.foreach], ORDER_NAMES - {"item"})
    if step.when is not None:
        yield from _names(f"{path}.when", [step.when], names)
    yield from _names(path, request_templates(step), names)
    if step.sql is not None:
        yield from _known(f"{path}.sql.on", step.sql.on, connections, wants_sql=True)
        yield from _sql(f"{path}.sql", step.sql)
        yield from _answers(f"{path}.sql", step.sql, names | _SQL_ANSWER)
    if step.rest is not None:
        yield from _known(f"{path}.rest.on", step.rest.on, connections, wants_sql=False)
        yield from _rest(f"{path}.rest", step.rest)
        yield from _answers(f"{path}.rest", step.rest, names | _REST_ANSWER)


def _known(path: str, name: str, connections: Mapping[str, Connection], *, wants_sql: bool) -> Iterator[Problem]:
    kind = "sql" if wants_sql else "rest"
    connection = connections.get(name)
    if connection is None:
        yield path, f"there is no connection {name}; there are: {', '.join(connections)}"
    elif (connection.sql is not None) != wants_sql:
        yield path, f"the connection {name} is not of the kind {kind}"


def _sql(path: str, step: SqlStep) -> Iterator[Problem]:
    for message in bind_problems(step.query or step.execute or "", frozenset(step.params)):
        yield path, message
    for name, match in step.outcomes.items():
        if match.sqlstate and Result(name) in SUCCESSES:
            # After an error the statement had no effect, and PostgreSQL gives the whole transaction up.
            yield f"{path}.outcomes.{name}.sqlstate", "an SQLSTATE never means success: write ON CONFLICT DO NOTHING"
        if match.status:
            yield f"{path}.outcomes.{name}.status", "a statement has no status"


def _rest(path: str, step: RestStep) -> Iterator[Problem]:
    if not step.path.source.startswith("/"):
        yield f"{path}.path", "a path begins with /; the host is that of the connection"
    if step.json_body is not None and step.form:
        yield path, "a body is either json or form"
    if step.method == "GET" and (step.json_body is not None or step.form):
        yield path, "GET has no body: use query, or another method"
    headers = [*step.headers, *([step.idempotency_header] if step.idempotency_header else [])]
    yield from _header_names(f"{path}.headers", headers)
    for name, match in step.outcomes.items():
        if match.sqlstate:
            yield f"{path}.outcomes.{name}.sqlstate", "a REST answer has no SQLSTATE"


def _header_names(path: str, names: Iterable[str]) -> Iterator[Problem]:
    for name in names:
        if not _HEADER_NAME.fullmatch(name):
            yield path, f"{name!r} is no name of a header"
        elif name.lower() in FRAMING_HEADERS:
            yield path, f"{name} is written by the client itself"


def _answers(path: str, step: SqlStep | RestStep, names: frozenset[str]) -> Iterator[Problem]:
    for name, template in step.save.items():
        yield from _names(f"{path}.save.{name}", [template], names)
    outcomes: Mapping[OutcomeName, OutcomeMatch] = step.outcomes
    for outcome, match in outcomes.items():
        if match.when is not None:
            yield from _names(f"{path}.outcomes.{outcome}.when", [match.when], names)


def _names(path: str, templates: Iterable[Template], known: frozenset[str]) -> Iterator[Problem]:
    for template in templates:
        unknown = sorted(template.names - known)
        if unknown:
            yield path, f"{template.source!r} reads {', '.join(unknown)}; there are: {', '.join(sorted(known))}"

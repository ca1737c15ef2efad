"""Check each step of the hooks: its connection, its statement or call, and what its templates read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sidecar.config.claims import templates_of
from sidecar.config.document import Document, Location
from sidecar.config.lints.provision import FRAMING
from sidecar.config.lints.templates import (
    ORDER,
    REST_ANSWER,
    SQL_ANSWER,
    STEP_SECTIONS,
    USER_FIELDS,
    Fields,
    account_fields,
    no_condition,
    saved_names,
    unknown_names,
)
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.provision import Connection, OutcomeMatch, OutcomeName, Provision, RestStep, SqlStep, Step
from sidecar.config.wording import closest
from sidecar.core.headers import is_header_name
from sidecar.core.statement import bind_problems
from sidecar.core.template import Template

_GENERATED = frozenset(["password", "uuid"])
_SUCCESSES = frozenset(["found", "created", "updated"])
_READING = frozenset(["lookup", "verify"])


def steps(config: Config, document: Document) -> Iterator[Problem]:
    """All steps of all changes."""
    section = config.provision
    if section is None:
        return
    for name in STEP_SECTIONS:
        fields = _fields(section, name)
        for number, step in enumerate(getattr(section, name)):
            place: Location = ("provision", name, number)
            yield from _step(step, place, section.connections, fields, document)
            if step.sql is not None and step.sql.execute is not None and name in _READING:
                yield document.error((*place, "sql", "exec"), f"{name} only reads", "Write query")
            if name == "lookup" and any("generated" in template.names for _, template in templates_of(step)):
                yield document.error(place, "generated values are made for changes, not for lookup", "Remove them")


def _fields(section: Provision, name: str) -> Fields:
    saved = saved_names(getattr(section, name))
    return {
        **USER_FIELDS,
        **account_fields(section),
        "attributes": frozenset(section.attributes),
        "generated": _GENERATED,
        **({} if saved is None else {"saved": saved}),
    }


def _step(
    step: Step, place: Location, connections: Mapping[str, Connection], fields: Fields, document: Document
) -> Iterator[Problem]:
    names = ORDER if step.foreach is not None else ORDER - {"item"}
    for key, template, known in (("foreach", step.foreach, ORDER - {"item"}), ("when", step.when, names)):
        if template is not None:
            yield from unknown_names(document, (*place, key), template, known, fields)
            yield from no_condition(document, (*place, key), template)
    if step.sql is not None:
        here: Location = (*place, "sql")
        yield from _known(step.sql.on, (*here, "on"), connections, document, wants_sql=True)
        yield from _sql(step.sql, here, document)
        yield from _read(step.sql, here, names, SQL_ANSWER, fields, document)
    if step.rest is not None:
        here = (*place, "rest")
        yield from _known(step.rest.on, (*here, "on"), connections, document, wants_sql=False)
        yield from _rest(step.rest, here, document)
        yield from _read(step.rest, here, names, REST_ANSWER, fields, document)


def _read(  # noqa: PLR0917 - what is checked, where, and against what
    part: SqlStep | RestStep,
    place: Location,
    names: frozenset[str],
    answer: frozenset[str],
    fields: Fields,
    document: Document,
) -> Iterator[Problem]:
    # In a call of a REST API the request has headers too, but no name of its own for them.
    for location, template in templates_of(part, place):
        key = location[len(place)]
        known = names | answer if key in ("save", "outcomes") else names
        yield from unknown_names(document, location, template, known, fields)
        if location[-1] == "when" and key == "outcomes":
            yield from no_condition(document, location, template)
        if key == "save":
            yield from _saving(location, template, document)


def _saving(place: Location, template: Template, document: Document) -> Iterator[Problem]:
    if "generated" in template.names:
        message = "generated values must not be kept: they are secrets of one order"
        yield document.error(place, message, "Save what the application answers")


def _known(
    name: str, place: Location, connections: Mapping[str, Connection], document: Document, *, wants_sql: bool
) -> Iterator[Problem]:
    kind, other = ("sql", "rest") if wants_sql else ("rest", "sql")
    fitting = [one for one, connection in connections.items() if (connection.sql is not None) == wants_sql]
    if name not in connections:
        fix = closest(name, fitting, "There are") or f"Define it under connections: {{{name}: {{{kind}: …}}}}"
        if document.refers(place):
            fix = "Write its name"
        yield document.error(place, f"there is no connection {document.quoted(place, name)}", fix)
    elif name not in fitting:
        yield document.error(
            place, f"the connection is {other}, the step is {kind}", closest(name, fitting, "There are")
        )


def _sql(step: SqlStep, place: Location, document: Document) -> Iterator[Problem]:
    text = "query" if step.query is not None else "exec"
    for message in bind_problems(step.query or step.execute or "", frozenset(step.params)):
        where = (*place, "params" if message.startswith("the param") else text)
        yield document.error(where, message, "Let params and the :names in the statement be the same")
    for name, match in step.outcomes.items():
        here: Location = (*place, "outcomes", name)
        if match.status:
            yield document.error((*here, "status"), "a statement has no status", "Use sqlstate or when")
        if match.sqlstate and name in _SUCCESSES:
            message = "an SQL error is never a success: the transaction is lost with it"
            yield document.error((*here, "sqlstate"), message, "Write ON CONFLICT DO NOTHING in the statement")


def _rest(step: RestStep, place: Location, document: Document) -> Iterator[Problem]:
    if not step.path.source.startswith("/") or step.path.source.startswith("//"):
        message = "must begin with one / that is no template: the host is that of the connection"
        yield document.error((*place, "path"), message, "Write /users/{{ account.id }}")
    if step.json_body is not None and step.form:
        yield document.error((*place, "form"), "a body is either json or form", "Remove one")
    if step.method == "GET" and (step.json_body is not None or step.form):
        yield document.error((*place, "method"), "GET has no body", "Use query, or another method")
    headers = [((*place, "headers", name), name) for name in step.headers]
    if step.idempotency_header is not None:
        headers.append(((*place, "idempotency_header"), step.idempotency_header))
    for here, name in headers:
        if not is_header_name(name) or name.lower() in FRAMING:
            yield document.error(here, "cannot be a header of ours", "Remove it, or use letters, digits and -")
    outcomes: Mapping[OutcomeName, OutcomeMatch] = step.outcomes
    for outcome, match in outcomes.items():
        if match.sqlstate:
            where = (*place, "outcomes", outcome, "sqlstate")
            yield document.error(where, "a REST answer has no SQLSTATE", "Use status or when")

"""Check roles, connections, and which changes of accounts are possible at all."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.claims import templates_of
from sidecar.config.document import Document, Location
from sidecar.config.lints.addresses import database_problem, is_loopback, split_url
from sidecar.config.lints.templates import LOGIN, REST_ANSWER, STEP_SECTIONS, saved_names, unknown_names
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.provision import Provision, RestConnection
from sidecar.core.headers import is_header_name

_CREDENTIALS = frozenset(["authorization", "cookie", "x-api-key", "api-key", "apikey", "x-auth-token", "private-token"])
# The HTTP client writes these; a second one would change where the request ends or to whom it goes.
FRAMING = frozenset(
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect", "keep-alive"]
)


def roles(config: Config, document: Document) -> Iterator[Problem]:
    """Managed roles are those that somebody can get."""
    if config.provision is None:
        return
    section = config.provision.roles
    if section.default is not None and section.default not in section.managed:
        place: Location = ("provision", "roles", "default")
        yield document.error(place, f"{document.quoted(place, section.default)} is not among managed", "Add it there")
    for number, name in enumerate(section.managed):
        if name not in config.roles and name != section.default:
            place = ("provision", "roles", "managed", number)
            message = f"nobody ever gets {document.quoted(place, name)}, because roles does not define it"
            yield document.warning(place, message, "Add a condition of this name under roles")
        if name in section.managed[:number]:
            yield document.warning(("provision", "roles", "managed", number), "stands here twice", "Remove one")


def changes(config: Config, document: Document) -> Iterator[Problem]:
    """Changes that are wanted, but have no steps."""
    section = config.provision
    if section is None:
        return
    if not section.create:
        yield _no_steps(document, "create", "nobody gets an account who has none", "create: steps that make it")
    if not section.update and any(attribute.sync == "login" for attribute in section.attributes.values()):
        yield _no_steps(document, "update", "changed attributes are never written", "update, or sync: create")
    if not section.set_roles and section.roles.managed and section.roles.mode != "create_only":
        yield _no_steps(document, "set_roles", "changed roles are never written", "set_roles, or mode: create_only")
    if not section.deactivate:
        yield _no_steps(document, "deactivate", "accounts of people who leave stay open", "deactivate")
    elif not section.reactivate:
        yield _no_steps(document, "reactivate", "a locked account stays locked when its person returns", "reactivate")
    yield from _id(section, document)
    yield from _rename(section, document)


def _rename(section: Provision, document: Document) -> Iterator[Problem]:
    if not section.rename:
        return
    saved = saved_names(section.lookup)
    if saved is not None and "id" not in saved:
        message = "the lookup saves no id, so nobody can tell a renamed account from another one: nothing is renamed"
        yield document.error(("provision", "rename"), message, 'Add save: {id: "{{ row.id }}"} to lookup')
    if not any("new_key" in template.names for _, template in templates_of(section.rename)):
        message = "no step reads new_key, which is what the account shall be known by"
        yield document.error(("provision", "rename"), message, "Write {{ new_key }} where the new name goes")


def _no_steps(document: Document, name: str, message: str, what: str) -> Problem:
    return document.warning(("provision", name), f"there are no steps: {message}", f"Add {what}")


def _id(section: Provision, document: Document) -> Iterator[Problem]:
    saved = saved_names(step for name in STEP_SECTIONS for step in getattr(section, name))
    if saved is None or "id" in saved:
        return
    message = "no step saves the account's id, so nobody notices when another account takes its key"
    yield document.warning(("provision", "lookup"), message, 'Add save: {id: "{{ body.id }}"} or "{{ row.id }}"')


def connections(config: Config, document: Document) -> Iterator[Problem]:
    """Addresses of the application's API and databases."""
    section = config.provision
    if section is None:
        return
    steps = [step for name in STEP_SECTIONS for step in getattr(section, name)]
    used = {part.on for step in steps for part in (step.sql, step.rest) if part is not None}
    for name, connection in section.connections.items():
        place: Location = ("provision", "connections", name)
        if name not in used:
            yield document.warning(place, "no step uses this connection", "Remove it")
        if connection.sql is not None:
            problem = database_problem(connection.sql.reveal())
            if problem:
                fix = "Write sqlite:///path, postgresql://…, mysql://… or mariadb://…"
                yield document.error((*place, "sql"), problem, fix)
            elif connection.sql.has_inline_password:
                fix = "Use {env: NAME} or {file: PATH}"
                yield document.warning((*place, "sql"), "a password stands in the file", fix)
        if connection.rest is not None:
            yield from _rest(connection.rest, (*place, "rest"), document)


def _rest(section: RestConnection, place: Location, document: Document) -> Iterator[Problem]:
    yield from _base_url(section, (*place, "base_url"), document)
    if not section.verify:
        yield document.warning((*place, "verify"), "accepts any certificate", "Name the authority with ca")
    if (section.certificate is None) != (section.key is None):
        yield document.error(place, "certificate and key belong together", "Give both")
    for name, value in section.headers.items():
        here = (*place, "headers", name)
        if not is_header_name(name) or name.lower() in FRAMING:
            yield document.error(here, "cannot be a header of ours", "Remove it, or use letters, digits and -")
        elif isinstance(value, str) and name.lower() in _CREDENTIALS:
            yield document.warning(here, "a secret stands in the file", "Use {env: NAME} or {file: PATH}")
    if section.login is None:
        return
    login, here = section.login, (*place, "login")
    if not login.path.startswith("/"):
        yield document.error((*here, "path"), "must begin with /", "It stands below base_url")
    if login.json_body is not None and login.form:
        yield document.error((*here, "form"), "a body is either json or form", "Remove one")
    bodies = [*templates_of(login.json_body, (*here, "json")), *templates_of(login.form, (*here, "form"))]
    for where, template in bodies:
        yield from unknown_names(document, where, template, LOGIN, {})
    yield from unknown_names(document, (*here, "token"), login.token, REST_ANSWER, {})


def _base_url(section: RestConnection, place: Location, document: Document) -> Iterator[Problem]:
    if "{{" in section.base_url:
        message = "a template here could lead to another host"
        yield document.error(place, message, "Write the address itself; templates go into path")
        return
    parts = split_url(section.base_url)
    if parts is None:
        yield document.error(
            place, "must begin with http:// or https:// and a host", "Write https://app.example.com/api"
        )
    elif "@" in parts.netloc:
        yield document.error(place, "must not have a user name in it", "Use basic: {username: …, password: …}")
    elif parts.query or parts.fragment:
        yield document.error(place, "must not have a query or fragment", "Use query in the steps")
    elif parts.scheme == "http" and not is_loopback(parts.hostname or "") and _has_secret(section):
        message = "credentials travel over http, where everybody on the way can read them"
        yield document.warning(place, message, "Write https://, unless the network between is your own")


def _has_secret(section: RestConnection) -> bool:
    return section.bearer is not None or section.basic is not None or section.login is not None

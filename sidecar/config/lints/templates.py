"""Check that templates read only what there is at their place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import jinja2
from jinja2 import nodes

from sidecar.config.claims import templates_of
from sidecar.config.document import Document, Location
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.provision import Provision
from sidecar.config.wording import closest
from sidecar.core.template import Template

Fields = Mapping[str, frozenset[str]]

CLAIMS = frozenset(["claims"])
PERSON = frozenset(["user", "groups", "claims"])
ACCOUNT = PERSON | {"roles"}
STATEMENT = PERSON | {"roles", "account", "session"}
QUESTION = ACCOUNT | {"subject", "request"}
# The same as ORDER_NAMES and ANSWER_NAMES of the hooks, which are above this room; a test compares them.
ORDER = frozenset(
    [
        "user", "claims", "account", "attributes", "changed", "roles", "role", "roles_added", "roles_removed",
        "generated", "saved", "item", "change", "now", "idempotency", "new_key",
    ]
)  # fmt: skip
REST_ANSWER = frozenset(["status", "body", "headers"])
SQL_ANSWER = frozenset(["row", "rows", "affected"])
LOGIN = frozenset(["username", "password"])

USER_FIELDS: Fields = {"user": frozenset(["username", "email", "name", "groups"])}
_SESSION_FIELDS: Fields = {"session": frozenset(["id", "provider", "acr", "amr", "issuer"])}
_WHY = {
    "item": "`item` is there only in a step with foreach, or beside each",
    **dict.fromkeys(REST_ANSWER | SQL_ANSWER, "the answer is known only in save and in outcomes"),
    "attributes": "attributes are known only in steps",
    "account": "the account is not known yet here",
    "user": "the user is only made here, out of claims",
}
_PLAIN = jinja2.Environment(autoescape=False)  # noqa: S701 - parses, never renders


def unknown_names(
    document: Document, place: Location, template: Template, known: frozenset[str], fields: Fields
) -> Iterator[Problem]:
    """Names, and names within names, that *template* reads and that are not there."""
    for name in sorted(template.names - known):
        reason = f"there is no `{name}` here" + (f": {_WHY[name]}" if name in _WHY else "")
        yield document.error(place, reason, closest(name, sorted(known), "There are"))
    for name, part in _parts_read(template):
        if name in known and name in fields and part not in fields[name]:
            fix = closest(part, sorted(fields[name]), "There are")
            yield document.error(place, f"{name} has no `{part}`", fix)


def _parts_read(template: Template) -> list[tuple[str, str]]:
    """(name, part) of every ``name.part`` and ``name['part']``; methods of mappings are no parts."""
    found: dict[tuple[str, str], None] = {}
    for node in _PLAIN.parse(template.source).find_all((nodes.Getattr, nodes.Getitem)):
        if not isinstance(node.node, nodes.Name):  # type: ignore[attr-defined]
            continue
        name = node.node.name  # type: ignore[attr-defined]
        if isinstance(node, nodes.Getattr) and not hasattr(dict, node.attr):
            found[name, node.attr] = None
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            found[name, node.arg.value] = None
    return list(found)


def no_condition(document: Document, place: Location, template: Template) -> Iterator[Problem]:
    """A condition or list must be one expression: with text around it, it is text."""
    source = template.source.removesuffix("\n")
    if not (source.startswith("{{") and source.endswith("}}")):
        message = "must be one expression: with text around it, it is never true or false"
        yield document.error(place, message, 'Write "{{ … }}" alone, such as "{{ \'admins\' in groups }}"')


def identity(config: Config, document: Document) -> Iterator[Problem]:
    """Identities are made of claims alone."""
    places: list[tuple[Location, object]] = [(("identity",), config.identity)]
    places += [(("logins", name, "identity"), login.identity) for name, login in config.logins.items()]
    for place, section in places:
        for key in ("username", "email", "name", "groups"):
            template = getattr(section, key)
            if template is not None:
                yield from unknown_names(document, (*place, key), template, CLAIMS, {})


def roles(config: Config, document: Document) -> Iterator[Problem]:
    """Roles are conditions on the person."""
    for name, line in config.roles.items():
        if line.when is not None:
            place: Location = ("roles", name, "when")
            yield from unknown_names(document, place, line.when, PERSON, USER_FIELDS)
            yield from no_condition(document, place, line.when)


def rules(config: Config, document: Document) -> Iterator[Problem]:
    """Rules ask for conditions on the person and their roles."""
    for number, rule in enumerate(config.access):
        for kind, item, lines in rule.line_sets:
            if lines.when is not None:
                place: Location = ("access", number, kind, item, "when")
                yield from unknown_names(document, place, lines.when, ACCOUNT, USER_FIELDS)
                yield from no_condition(document, place, lines.when)


def single_values(config: Config, document: Document) -> Iterator[Problem]:
    """``'a' in claims.b``: by SAML one value is a text, in which parts are found as well."""
    if not config.saml_logins:
        return
    for name, line in config.roles.items():
        if line.when is not None:
            yield from _found_in_text(document, ("roles", name, "when"), line.when)
    for number, rule in enumerate(config.access):
        for kind, item, lines in rule.line_sets:
            if lines.when is not None:
                yield from _found_in_text(document, ("access", number, kind, item, "when"), lines.when)


def _found_in_text(document: Document, place: Location, template: Template) -> Iterator[Problem]:
    tree = _PLAIN.parse(template.source)
    asked = [test.node for test in tree.find_all(nodes.Test) if test.name == "string"]
    for operand in tree.find_all(nodes.Operand):
        claim = operand.expr
        is_claim = isinstance(claim, nodes.Getattr | nodes.Getitem) and claim.node == nodes.Name("claims", "load")
        if operand.op in ("in", "notin") and is_claim and claim not in asked:
            message = "one value comes as a text by SAML, and parts of it are found, too: 'admins' in 'no-admins'"
            yield document.warning(place, message, 'Read `groups`, or put "claims.… is not string and" before it')


def statements(config: Config, document: Document) -> Iterator[Problem]:
    """What the application is told, by headers and by the assertion."""
    lines: list[tuple[Location, Template]] = []
    for name, line in config.headers.items():
        lines += [(("headers", name, *place), template) for place, template in templates_of(line)]
    if config.assertion is not None:
        lines += [(("assertion", "claims", name), claim) for name, claim in config.assertion.claims.items()]
    fields = {**USER_FIELDS, **_SESSION_FIELDS, **account_fields(config.provision)}
    for place, template in lines:
        yield from unknown_names(document, place, template, STATEMENT, fields)
        if "account" in template.names and config.provision is None:
            message = "reads the account, which is empty without provision"
            yield document.warning(place, message, "Add provision, or read user")


def account_fields(section: Provision | None) -> Fields:
    """What an account has, as far as the steps say it; nothing when a whole row may be saved."""
    if section is None:
        return {}
    saved = saved_names(step for name in STEP_SECTIONS for step in getattr(section, name))
    return {} if saved is None else {"account": frozenset(["key", "id"]) | saved}


STEP_SECTIONS = (
    "lookup",
    "create",
    "update",
    "set_roles",
    "deactivate",
    "reactivate",
    "delete",
    "verify",
    "rename",
)


def saved_names(steps: Iterable[object]) -> frozenset[str] | None:
    """Names that *steps* save; None when a query saves every column that it finds."""
    names: set[str] = set()
    for step in steps:
        sql, rest = getattr(step, "sql", None), getattr(step, "rest", None)
        if sql is not None and sql.query is not None and not sql.save:
            return None
        names.update(sql.save if sql is not None else rest.save if rest is not None else ())
    return frozenset(names)


def accounts(config: Config, document: Document) -> Iterator[Problem]:
    """The account's key and attributes are made of the person."""
    if config.provision is None:
        return
    key, place = config.provision.account.key, ("provision", "account", "key")
    # Not of roles: they change, and a key that changes is another account.
    yield from unknown_names(document, place, key, PERSON, USER_FIELDS)
    if not key.names:
        fix = 'Write "{{ user.username }}" or the like'
        yield document.error(place, "is the same for everybody, so all would share one account", fix)
    for name, attribute in config.provision.attributes.items():
        here = ("provision", "attributes", name, "from")
        yield from unknown_names(document, here, attribute.value, ACCOUNT, USER_FIELDS)

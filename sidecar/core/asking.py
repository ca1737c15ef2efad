"""Make the question that a rule puts to an engine of fine-grained policy, or refuse to ask for this person or path."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.core.conditions import Facts, reads_groups
from sidecar.core.policy import Standing, asked_method
from sidecar.core.template import MissingValueError, Template, TemplateError
from sidecar.faults import Refused
from sidecar.model import Identity, Session, Visit
from sidecar.reason import Reason

# The longest that OpenFGA takes.
_LONGEST = {"user": 512, "relation": 50, "object": 256}
_MOST_TUPLES = 100
# Signs that mean something in a tuple: type:id, object#relation, and everybody of a type.
_MEANING = re.compile(r"[:#*\s\x00-\x20\x7f-\x9f\ud800-\udfff]")
# In Cedar's JSON an object with one of these is an entity, or a value of another type: not what a claim may become.
_CEDAR_ESCAPES = frozenset(["__entity", "__extn", "__expr"])

Question = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """What templates of a question see: ``names``, and whether the groups in them are known."""

    names: Mapping[str, Any]
    has_groups: bool

    def with_item(self, item: Any) -> Given:
        """The same with ``item``, one of a list."""
        return Given({**self.names, "item": item}, self.has_groups)


Framing = Callable[[Given], dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """What a rule asks the engine called ``engine``: ``frame`` fills its templates, ``pattern`` captures by stars."""

    engine: str
    pattern: re.Pattern[str]
    frame: Framing

    def question(self, session: Session, standing: Standing, visit: Visit) -> dict[str, Any]:
        """The question as JSON values.

        Raises Refused: ENGINE_NOT_ASKED when something is missing or cannot stand in a question, PATH_AMBIGUOUS when
        it would be another one with the path's parameters.
        """
        question = self._framed(session, standing, visit, visit.path)
        if visit.literal in ("", visit.path) or self._framed(session, standing, visit, visit.literal) == question:
            return question
        # Servers differ on ;parameters: what one takes for document 1 is document "1;2" to another.
        raise Refused(Reason.PATH_AMBIGUOUS, 400, f"parameters change what {self.engine} is asked")

    def _framed(self, session: Session, standing: Standing, visit: Visit, path: str) -> dict[str, Any]:
        match = self.pattern.fullmatch(path)
        captured = [part or "" for part in match.groups()] if match is not None else []
        try:
            question = self.frame(_given(session.identity, standing.facts, visit, path, captured))
            # What cannot be written is found here, not in the engine.
            json.dumps(question, allow_nan=False, ensure_ascii=False).encode()
        except (TemplateError, ValueError, RecursionError) as error:
            said = str(error) if isinstance(error, TemplateError) else "a value that JSON cannot hold"
            raise Refused(Reason.ENGINE_NOT_ASKED, 403, f"{self.engine}: {said}") from None
        return question


def _given(identity: Identity, facts: Facts, visit: Visit, path: str, captured: list[str]) -> Given:
    return Given(
        {
            **facts.names,
            "subject": {"id": identity.subject, "issuer": identity.issuer, "login": identity.provider},
            "request": {
                "method": asked_method(visit.method),
                "path": path,
                "host": visit.host,
                "client": visit.client,
                "segments": path[1:].split("/"),
                "captured": captured,
            },
        },
        facts.has_groups,
    )


def _sure(template: Template, given: Given) -> Template:
    """Give *template* back unless it reads groups that nobody knows. Raises TemplateError."""
    if not given.has_groups and reads_groups(template):
        message = f"{template.source!r} reads groups, which are not known for this person"
        raise TemplateError(message)
    return template


def filled(tree: Any, given: Given, escapes: frozenset[str] = frozenset()) -> Any:
    """Evaluate the templates of a JSON tree; one that is a single expression keeps its type. Raises TemplateError.

    So it does for an object with one of *escapes* as a name, which means more to the engine than it says: only the
    tree itself, which the operator wrote, may have them.
    """
    if isinstance(tree, Template):
        return _plain(_sure(tree, given).value(given.names), tree.source, escapes)
    if isinstance(tree, Mapping):
        return {name: filled(part, given, escapes) for name, part in tree.items()}
    if isinstance(tree, list | tuple):
        return [filled(part, given, escapes) for part in tree]
    return tree


def _plain(value: Any, source: str, escapes: frozenset[str]) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        named = {str(name): _plain(part, source, escapes) for name, part in value.items()}
        if escapes.isdisjoint(named):
            return named
        message = f"{source!r}: an object that the engine would take for something else"
        raise TemplateError(message)
    if isinstance(value, list | tuple):
        return [_plain(part, source, escapes) for part in value]
    message = f"{source!r}: a {type(value).__name__} cannot stand in a question; add | list"
    raise TemplateError(message)


@dataclass(frozen=True, slots=True, eq=False)
class TupleLine:
    """One relationship of OpenFGA. With ``each``, a list, there is one for each ``item`` of it."""

    user: Template
    relation: Template
    object: Template
    each: Template | None = None


def tuple_framing(asked: TupleLine, contextual: tuple[TupleLine, ...], context: Any) -> Framing:
    """Question for OpenFGA: the tuple, tuples that hold for this question alone, and the context of conditions."""

    def frame(given: Given) -> dict[str, Any]:
        question: dict[str, Any] = {"tuple": _tuple(asked, given)}
        assumed = [one for line in contextual for one in _tuples(line, given)]
        if len(assumed) > _MOST_TUPLES:
            message = f"more than {_MOST_TUPLES} contextual tuples"
            raise TemplateError(message)
        if assumed:
            question["contextual"] = assumed
        if context:
            question["context"] = filled(context, given)
        return question

    return frame


def _tuples(line: TupleLine, given: Given) -> list[dict[str, str]]:
    if line.each is None:
        return [_tuple(line, given)]
    items = _sure(line.each, given).value(given.names)
    if not isinstance(items, list | tuple):
        message = f"{line.each.source!r} is no list"
        raise TemplateError(message)
    return [_tuple(line, given.with_item(item)) for item in items]


def _tuple(line: TupleLine, given: Given) -> dict[str, str]:
    made = {
        name: _sure(template, given).spliced(given.names, _inert)
        for name, template in (("user", line.user), ("relation", line.relation), ("object", line.object))
    }
    for name, text in made.items():
        if len(text) > _LONGEST[name]:
            message = f"{name} has more than {_LONGEST[name]} characters"
            raise TemplateError(message)
    return made


def _inert(value: str) -> str:
    """Give *value* back when it can be nothing but a part of a name in a tuple. Raises TemplateError."""
    if not value or _MEANING.search(value):
        message = "a value in a tuple is empty, or has : # * or white space in it; add | urlencode where that is right"
        raise TemplateError(message)
    return value


def input_framing(tree: Any) -> Framing:
    """Question for OPA: its input document."""
    return lambda given: {"input": filled(tree, given)}


@dataclass(frozen=True, slots=True, eq=False)
class Entity:
    """An entity of Cedar by its type and a template for its id."""

    type: str
    id: Template

    def uid(self, given: Given) -> dict[str, str]:
        """Its name, in which the id is one value whatever is in it. Raises TemplateError."""
        text = _sure(self.id, given).text(given.names)
        if not text:
            message = f"{self.id.source!r} is empty"
            raise TemplateError(message)
        return {"type": self.type, "id": text}


@dataclass(frozen=True, slots=True, eq=False)
class Principal:
    """How the person becomes an entity of Cedar: groups and roles as parents of these types ("" for none)."""

    entity: Entity
    attributes: Mapping[str, Any]
    group_type: str
    role_type: str

    def made(self, given: Given) -> dict[str, Any]:
        """The entity in Cedar's JSON. An attribute that is missing for this person is left out."""
        if self.group_type and not given.has_groups:
            message = "groups are not known for this person"
            raise TemplateError(message)
        parents = [{"type": self.group_type, "id": str(name)} for name in given.names["groups"] if self.group_type]
        parents += [{"type": self.role_type, "id": name} for name in given.names.get("roles", ()) if self.role_type]
        attributes: dict[str, Any] = {}
        for name, tree in self.attributes.items():
            try:
                attributes[name] = filled(tree, given, _CEDAR_ESCAPES)
            except MissingValueError:
                continue
        return {"uid": self.entity.uid(given), "attrs": attributes, "parents": parents}


def cedar_framing(principal: Principal, action: Entity, resource: Entity, context: Any) -> Framing:
    """Question for Cedar: the principal as an entity, action, resource and context."""

    def frame(given: Given) -> dict[str, Any]:
        return {
            "principal": principal.made(given),
            "action": action.uid(given),
            "resource": resource.uid(given),
            "context": filled(context, given, _CEDAR_ESCAPES),
        }

    return frame

"""Check engines of fine-grained policy: where they are, and that rules ask what they can answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from sidecar.config.access import AccessRule
from sidecar.config.claims import templates_of
from sidecar.config.document import Document, Location
from sidecar.config.engines import AskedTuple, CedarEngine, ContextualTuple, EngineAsk, OpaEngine, OpenFgaEngine
from sidecar.config.lints.addresses import is_loopback, split_url
from sidecar.config.lints.templates import QUESTION, USER_FIELDS, no_condition, unknown_names
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.wording import closest

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DECISION = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*")
_TYPE = re.compile(r"[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*")
_TYPED = re.compile(r"[^:#@\s{}]{1,254}:")
_FIELDS = {
    **USER_FIELDS,
    "subject": frozenset(["id", "issuer", "login"]),
    "request": frozenset(["method", "path", "host", "client", "segments", "captured"]),
}
# Kind → the keys of a rule's engine that are for it, and those that it cannot do without.
_KEYS = {
    "cedar": (("action", "resource", "context"), ("action", "resource")),
    "openfga": (("tuple", "contextual", "context"), ("tuple",)),
    "opa": (("input",), ("input",)),
}


def sections(config: Config, document: Document) -> Iterator[Problem]:
    """Addresses, ids, and the templates that make the person an entity."""
    for name, section in config.engines.items():
        place: Location = ("engines", name)
        if isinstance(section, CedarEngine):
            yield from _cedar(section, place, document)
        else:
            yield from _over_http(section, place, document)
        if not any(rule.engine is not None and rule.engine.name == name for rule in config.access):
            yield document.warning(place, "no rule asks it", f"Write engine: {{name: {name}, …}} in a rule of access")


def _cedar(section: CedarEngine, place: Location, document: Document) -> Iterator[Problem]:
    for key in ("principal", "groups", "roles"):
        text = getattr(section, key)
        if not _TYPE.fullmatch(text) and (text or key == "principal"):
            yield document.error((*place, key), "is no type of Cedar", "Write a name such as User, or Wiki::User")
    yield from unknown_names(document, (*place, "id"), section.id, QUESTION - {"request"}, _FIELDS)
    if not section.id.names:
        yield document.error((*place, "id"), "is the same for everybody", 'Write "{{ user.username }}" or the like')
    for where, template in templates_of(section.attributes, (*place, "attributes")):
        yield from unknown_names(document, where, template, QUESTION, _FIELDS)


def _over_http(section: OpenFgaEngine | OpaEngine, place: Location, document: Document) -> Iterator[Problem]:
    parts = split_url(section.url)
    where: Location = (*place, "url")
    if parts is None or "@" in parts.netloc or parts.query or parts.fragment:
        fix = "Write http://host:port or https://host, without user name and query"
        yield document.error(where, "must be an http or https address", fix)
    elif section.token is not None and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield document.warning(where, "the token goes over the network in the clear", "Write https://")
    if section.ca is not None and urlsplit(section.url).scheme == "http":
        yield document.warning((*place, "ca"), "has no effect over http", "Write https:// in url")
    if isinstance(section, OpaEngine):
        segments = section.path.split("/")
        if not _DECISION.fullmatch(section.path) or "." in segments or ".." in segments:
            fix = "Write wiki/allow for data.wiki.allow"
            yield document.error((*place, "path"), "must be the path of a decision below data", fix)
        return
    for key in ("store", "model"):
        if not _ID.fullmatch(getattr(section, key)):
            fix = "Write the id that OpenFGA gave it, such as 01HVMMBCMGZNT3SED4Z17ECXCA"
            yield document.error((*place, key), "must be an id", fix)


def questions(config: Config, document: Document) -> Iterator[Problem]:
    """A rule asks an engine that exists, about people, and what an engine of its kind understands."""
    for number, rule in enumerate(config.access):
        if rule.engine is None:
            continue
        place: Location = ("access", number, "engine")
        section = config.engines.get(rule.engine.name)
        if section is None:
            fix = closest(rule.engine.name, sorted(config.engines), "There are")
            yield document.error((*place, "name"), f"there is no engine `{rule.engine.name}`", fix)
        else:
            yield from _kind(rule.engine, section.type, place, document)
        yield from _people(rule, place, document)
        yield from _names(rule, place, document)
        for where, line in _tuples(rule.engine, place):
            yield from _tuple(line, where, document)


def _kind(ask: EngineAsk, kind: str, place: Location, document: Document) -> Iterator[Problem]:
    possible, needed = _KEYS[kind]
    given = {EngineAsk.model_fields[name].alias or name for name in ask.model_fields_set} - {"name"}
    for key in sorted(given - set(possible)):
        yield document.error((*place, key), f"is not for an engine of type {kind}", f"Write {', '.join(possible)}")
    for key in needed:
        if key not in given:
            yield document.error(place, f"{key} is missing: it is what an engine of type {kind} is asked", "Add it")


def _people(rule: AccessRule, place: Location, document: Document) -> Iterator[Problem]:
    if not rule.alternatives:
        yield document.error(place, "has no effect where nobody is let in", "Write allow: signed_in, or remove it")
    elif any(one.who == "anyone" for one in rule.alternatives):
        yield document.error(place, "is asked about people, but anyone may be nobody", "Write allow: signed_in")


def _names(rule: AccessRule, place: Location, document: Document) -> Iterator[Problem]:
    stars = sum(segment.count("*") for segment in rule.path.removesuffix("/**").split("/"))
    stars += rule.path.endswith("/**")
    for where, template in templates_of(rule.engine, place):
        known = QUESTION | {"item"} if "contextual" in where and where[-1] != "each" else QUESTION
        yield from unknown_names(document, where, template, known, _FIELDS)
        for index in re.findall(r"request\.captured\[(\d+)\]", template.source):
            if int(index) >= stars:
                message = f"reads request.captured[{index}], but the path has {stars} star(s)"
                yield document.error(where, message, "They are counted from 0; /** at the end is the last")


def _tuples(ask: EngineAsk, place: Location) -> Iterator[tuple[Location, AskedTuple]]:
    if ask.asked is not None:
        yield (*place, "tuple"), ask.asked
    for number, line in enumerate(ask.contextual):
        yield (*place, "contextual", number), line


def _tuple(line: AskedTuple, place: Location, document: Document) -> Iterator[Problem]:
    for key in ("user", "object"):
        if not _TYPED.match(getattr(line, key).source):
            message = "must begin with its type: a value cannot bring one along"
            yield document.error((*place, key), message, f'Write it like "{key}:{{{{ … }}}}"')
    if isinstance(line, ContextualTuple):
        reads = any("item" in getattr(line, key).names for key in ("user", "relation", "object"))
        if line.each is not None:
            yield from no_condition(document, (*place, "each"), line.each)
        elif reads:
            yield document.error(place, "reads item, but has no each", 'Add each: "{{ groups }}"')

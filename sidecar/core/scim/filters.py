"""Read filters, and say which resources they mean (RFC 7644, section 3.4.2.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sidecar.core.scim.fault import Fault
from sidecar.core.scim.paths import Place, can_be_kept, place_of
from sidecar.core.scim.schema import Attribute, Kind
from sidecar.core.wanted import folded

_TOKEN = re.compile(r'\s*(\(|\)|\[|\]|"(?:[^"\\]|\\.)*"|[^\s()\[\]"]+)')
_LONGEST = 8192
_MOST_TERMS = 200
# Each of these is compared with every resource: 200 parts of names took a database of 100,000 people over a second.
_MOST_WIDE = 20
_DEEPEST = 20
_OPERATORS = frozenset(["eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le"])
_ORDERS = frozenset(["gt", "ge", "lt", "le"])
_WORDS: Mapping[str, Any] = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Compare:
    """One attribute compared with a value; ``operator`` is "pr" for "is there". A path to nowhere fits nothing."""

    place: Place
    operator: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Both:
    """All of them."""

    terms: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of them."""

    terms: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Negated:
    """Not this."""

    term: Filter


@dataclass(frozen=True, slots=True)
class Within:
    """One value of a list for which all of ``term`` holds; places inside have the list's parts as attributes."""

    place: Place
    term: Filter


Filter = Compare | Both | Either | Negated | Within


def parse_filter(text: str, kind: Kind) -> Filter:
    """Read a filter on resources of *kind*. Raises Fault(invalidFilter)."""
    return _Reader(text, kind).whole()


def parse_inner(text: str, attribute: Attribute) -> Filter:
    """Read the filter between the brackets of a path to *attribute*. Raises Fault(invalidFilter)."""
    return _Reader(text, attribute).whole()


def _wrong(detail: str) -> Fault:
    return Fault("invalidFilter", detail)


class _Reader:
    """One pass over one filter, by recursive descent."""

    def __init__(self, text: str, scope: Kind | Attribute) -> None:
        if len(text) > _LONGEST:
            raise _wrong("the filter is too long")
        self._tokens = _tokens(text)
        self._at = 0
        self._terms = 0
        # Between the brackets of a path it is one resource's values that are compared, and others count those.
        self._wide_left = _MOST_WIDE if isinstance(scope, Kind) else _MOST_TERMS
        self._negations = 0
        self._depth = 0
        self._scope = scope

    def whole(self) -> Filter:
        found = self._either()
        if self._at != len(self._tokens):
            raise _wrong(f"unexpected {self._tokens[self._at]}")
        return found

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        if not token:
            raise _wrong("the filter ends too early")
        self._at += 1
        return token

    def _expect(self, wanted: str) -> None:
        if self._take() != wanted:
            raise _wrong(f"{wanted} is missing")

    def _either(self) -> Filter:
        terms = [self._both()]
        while self._peek().lower() == "or":
            self._take()
            terms.append(self._both())
        return terms[0] if len(terms) == 1 else Either(tuple(terms))

    def _both(self) -> Filter:
        terms = [self._term()]
        while self._peek().lower() == "and":
            self._take()
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else Both(tuple(terms))

    def _term(self) -> Filter:
        self._terms += 1
        if self._terms > _MOST_TERMS:
            raise _wrong("the filter has too many terms")
        token = self._take()
        if token.lower() == "not" and self._peek() == "(":
            self._take()
            self._negations += 1
            negated = Negated(self._closed())
            self._negations -= 1
            return negated
        if token == "(":
            return self._closed()
        return self._compared(token)

    def _closed(self) -> Filter:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _wrong("the filter is too deep")
        found = self._either()
        self._expect(")")
        self._depth -= 1
        return found

    def _compared(self, path: str) -> Filter:
        place = self._place(path)
        if self._peek() == "[":
            return self._within(place)
        operator = self._take().lower()
        self._count_wide(place, operator)
        if operator == "pr":
            return Compare(place, "pr")
        if operator not in _OPERATORS:
            raise _wrong(f"there is no operator {operator}")
        return Compare(place, operator, _literal(self._take()))

    def _count_wide(self, place: Place, operator: str) -> None:
        """Refuse too many terms that lead an index to no few resources."""
        kind = "" if place.leaf is None else place.leaf.kind
        is_narrow = operator == "eq" and not self._negations and kind not in ("boolean", "dateTime")
        self._wide_left -= not is_narrow
        if self._wide_left < 0:
            raise _wrong(f"more than {_MOST_WIDE} terms of the filter are other than eq with a text")

    def _within(self, place: Place) -> Filter:
        self._take()
        outer, self._scope = self._scope, place.attribute or Attribute("", "")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _wrong("the filter is too deep")
        inner = self._either()
        self._expect("]")
        self._depth -= 1
        if self._peek().startswith("."):
            # Not in the RFC, but sent: emails[type eq "work"].value eq "…"
            inner = Both((inner, self._compared(self._take()[1:])))
        self._scope = outer
        return Within(place, inner)

    def _place(self, path: str) -> Place:
        if isinstance(self._scope, Kind):
            return place_of(self._scope, path) or Place()
        return Place("", self._scope.part(path))


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _wrong("a quotation mark is missing")
        found.append(match[1])
        at = match.end()
    return found


def _literal(token: str) -> Any:
    if token.lower() in _WORDS:
        return _WORDS[token.lower()]
    try:
        value = json.loads(token)
    except ValueError:
        raise _wrong(f"{token} is no value; texts stand in quotation marks") from None
    if not isinstance(value, str | int | float):
        raise _wrong(f"{token} is no value")
    if isinstance(value, str) and not can_be_kept(value):
        raise _wrong("a value has letters in it that nothing can have")
    return value


def fits(term: Filter, resource: Mapping[str, Any]) -> bool:
    """True when *term* means *resource* (or, inside brackets, this value of a list)."""
    match term:
        case Both(terms):
            return all(fits(one, resource) for one in terms)
        case Either(terms):
            return any(fits(one, resource) for one in terms)
        case Negated(inner):
            return not fits(inner, resource)
        case Within(place, inner):
            return any(fits(inner, one) for one in _entries(place, resource))
        case Compare():
            return _holds(term, resource)


def _entries(place: Place, resource: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if place.attribute is None:
        return []
    found = (resource.get(place.urn) or {}) if place.urn else resource
    value = found.get(place.attribute.name)
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, Mapping)]


def _holds(term: Compare, resource: Mapping[str, Any]) -> bool:
    leaf = term.place.leaf
    if leaf is None:
        return False
    values = [one for one in term.place.values(resource) if one not in ("", [], {})]
    if term.operator == "pr":
        return bool(values)
    if term.value is None:
        return bool(values) is (term.operator == "ne")
    if term.operator == "ne":
        return not any(_is_so(one, "eq", term.value, leaf) for one in values)
    return any(_is_so(one, term.operator, term.value, leaf) for one in values)


def _is_so(found: Any, operator: str, wanted: Any, leaf: Attribute) -> bool:
    if isinstance(found, bool) or isinstance(wanted, bool):
        return operator == "eq" and _truth(found) is not None and _truth(found) is _truth(wanted)
    if leaf.kind == "dateTime":
        return _ordered(_instant(found), operator, _instant(wanted))
    left, right = str(found), str(wanted)
    if not leaf.exact:
        left, right = folded(left), folded(right)
    match operator:
        case "eq":
            return left == right
        case "co":
            return right in left
        case "sw":
            return left.startswith(right)
        case "ew":
            return left.endswith(right)
        case _:
            return _ordered(left, operator, right)


def _truth(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _ordered(left: Any, operator: str, right: Any) -> bool:
    match operator:
        case "eq":
            return bool(left == right)
        case "gt":
            return bool(left > right)
        case "ge":
            return bool(left >= right)
        case "lt":
            return bool(left < right)
        case "le":
            return bool(left <= right)
        case _:
            return False


def _instant(value: Any) -> float:
    moment = instant_of(value)
    if moment is None:
        raise _wrong("that is no date and time")
    return moment


def instant_of(value: Any) -> float | None:
    """Epoch seconds of an xsd:dateTime, None for anything else."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None

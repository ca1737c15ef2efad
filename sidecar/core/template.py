"""Compile and evaluate the ``{{ expressions }}`` of the configuration in a sandbox.

A template is text with any number of ``{{ expression }}`` in it. When the whole text is one expression its own value
comes out (a list stays a list); otherwise the pieces are joined as text. Statements (``{% %}``) do not exist here.
Jinja2's NativeEnvironment is deliberately not used: it turns the user name ``1e5`` into a number.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.filters import make_attrgetter
from jinja2.sandbox import ImmutableSandboxedEnvironment

_MAX_TEXT = 64 * 1024
_MOST_KNOWN = 2000
_ARITHMETIC_THAT_GROWS = frozenset(["*", "**"])


class TemplateError(ValueError):
    """A template that cannot be compiled, or that could not be evaluated for this person."""


class MissingValueError(TemplateError):
    """A name, claim or attribute that the template reads is not there for this person."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = _ARITHMETIC_THAT_GROWS

    def call_binop(self, _context: Any, operator: str, _left: Any, _right: Any) -> Any:
        # "x" * 10**9 would take the process down from inside the sandbox.
        message = f"the operator {operator} is not available in templates"
        raise TemplateError(message)


def _lower(value: object) -> str:
    return str(value).casefold()


def _slug(value: object) -> str:
    """Letters and digits of ASCII, everything else as one hyphen."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in str(value).lower())
    return "-".join(part for part in kept.split("-") if part)


def _domain(value: object) -> str:
    """Part after the last ``@``, "" when there is not exactly one."""
    local, _, domain = str(value).rpartition("@")
    return domain.lower() if local and "@" not in local else ""


def _json(value: object) -> str:
    """JSON in ASCII without spaces, so that it can stand in a header as it is."""
    try:
        return json.dumps(value, separators=(",", ":"))
    except jinja2.UndefinedError:
        raise
    except (TypeError, ValueError) as error:
        if isinstance(value, jinja2.Undefined):
            message = "a value in it is missing"
            raise MissingValueError(message) from None
        message = f"not expressible in JSON: {type(error).__name__}"
        raise TemplateError(message) from None


def _integer(value: object) -> int:
    """Whole number; anything else is an error, where Jinja2's own filter would quietly give 0."""
    try:
        return int(str(value).strip())
    except ValueError:
        message = "not a whole number"
        raise TemplateError(message) from None


@jinja2.pass_environment
def _join(environment: jinja2.Environment, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    """Text of all items with *d* between them; TemplateError where whoever parts them would get another list."""
    items = list(value if attribute is None else map(make_attrgetter(environment, attribute), value))
    texts = [str(text) for text in items]
    # Else a group that somebody called "users,admins" would be two of them. Blanks stand between words, too.
    mark = d.strip()
    # Nor " admins" be "admins", as whoever parts them takes blanks off.
    if mark and any(mark in text or text != text.strip() for text in texts):
        message = f"a value has {mark}, which is to part it from the next, in it, or blanks at an end: use another sign"
        raise TemplateError(message)
    return d.join(texts)


def _environment(filters: Mapping[str, Callable[..., Any]]) -> _Environment:
    environment = _Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    environment.globals.clear()
    # Filters that build unbounded text, or whose output is HTML, have no use in values.
    for name in (
        "pprint",
        "center",
        "indent",
        "wordwrap",
        "xmlattr",
        "tojson",
        "urlize",
        "forceescape",
        "escape",
    ):
        environment.filters.pop(name, None)
    environment.filters.update(
        {"casefold": _lower, "slug": _slug, "domain": _domain, "int": _integer, "json": _json, "join": _join, **filters}
    )
    return environment


@dataclass(frozen=True, slots=True)
class Template:
    """One compiled template; equal when the source is equal.

    ``names`` are the variables that it needs from its context; ``claims`` the claim names it reads, or None
    when it reads the claims as a whole (``claims[x]``), so that all of them must be kept; ``filters`` the names
    of the filters it uses (some are slow by design and belong in a thread).
    """

    source: str
    names: frozenset[str]
    filters: frozenset[str]
    claims: frozenset[str] | None
    _pieces: tuple[str | Callable[..., Any], ...]

    def __eq__(self, other: object) -> bool:
        """Compare by source."""
        return isinstance(other, Template) and other.source == self.source

    def __hash__(self) -> int:
        """Hash by source."""
        return hash(self.source)

    def __repr__(self) -> str:
        """Show the source only."""
        return f"Template({self.source!r})"

    @property
    def is_static(self) -> bool:
        """True when there is no expression in it."""
        return all(isinstance(piece, str) for piece in self._pieces)

    def value(self, context: Mapping[str, Any]) -> Any:
        """Evaluate: the expression's own value when the template is one expression, text otherwise.

        Raises TemplateError when a name or claim is missing or the evaluation fails. The message names the template,
        never a value.
        """
        values = [piece if isinstance(piece, str) else self._evaluate(piece, context) for piece in self._pieces]
        if len(values) == 1:
            return values[0]
        return _bounded("".join(_text(value) for value in values), self.source)

    def text(self, context: Mapping[str, Any]) -> str:
        """Evaluate to text: None is "", booleans are lower case, lists are refused (use ``join``)."""
        return _bounded(_text(self.value(context)), self.source)

    def spliced(self, context: Mapping[str, Any], encode: Callable[[str], str]) -> str:
        """Evaluate to text in which every expression's text went through *encode*; fixed pieces stay as they are."""
        pieces = (
            piece if isinstance(piece, str) else encode(_text(self._evaluate(piece, context))) for piece in self._pieces
        )
        return _bounded("".join(pieces), self.source)

    def is_true(self, context: Mapping[str, Any]) -> bool:
        """Evaluate a condition; anything but True or False is an error, so that a typing mistake never grants."""
        value = self.value(context)
        if not isinstance(value, bool):
            message = f"{self.source!r} is not a condition: it gave {type(value).__name__}"
            raise TemplateError(message)
        return value

    def _evaluate(self, expression: Callable[..., Any], context: Mapping[str, Any]) -> Any:
        try:
            value = expression(context)
        except TemplateError:
            raise
        except jinja2.UndefinedError as error:
            message = f"{self.source!r}: {error.message}"
            raise MissingValueError(message) from None
        except Exception as error:  # noqa: BLE001 - an expression can raise anything
            message = f"{self.source!r}: {type(error).__name__}"
            raise TemplateError(message) from None
        if isinstance(value, jinja2.Undefined):
            # compile_expression hands a missing value back instead of raising.
            message = f"{self.source!r}: a value in it is missing"
            raise MissingValueError(message)
        return value


def _bounded(text: str, source: str) -> str:
    if len(text) > _MAX_TEXT:
        message = f"{source!r}: the text is longer than {_MAX_TEXT} characters"
        raise TemplateError(message)
    return text


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    message = f"a {type(value).__name__} cannot stand in text; use a filter such as join(',')"
    raise TemplateError(message)


@lru_cache(maxsize=8)
def _shared(filters: frozenset[tuple[str, Callable[..., Any]]]) -> tuple[_Environment, dict[str, Template]]:
    """The environment with these *filters*, and what was compiled in it."""
    return _environment(dict(filters)), {}


class Compiler:
    """Compiles templates with one set of filters; the process remembers them, as every reload needs the same again."""

    def __init__(self, filters: Mapping[str, Callable[..., Any]] | None = None) -> None:
        """Add *filters* (name → function) to the built-in ones."""
        self._environment, self._known = _shared(frozenset((filters or {}).items()))

    def compile(self, source: str) -> Template:
        """Compile *source*; raises TemplateError that says what is wrong with it."""
        known = self._known.get(source)
        if known is None:
            known = self._compile(source)
            # What operators changed long ago must not pile up.
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[source] = known
        return known

    def _compile(self, source: str) -> Template:
        try:
            pieces = tuple(self._pieces(source))
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(error.message or "template syntax") from None
        trees = [tree for _, tree in pieces if tree is not None]
        names: set[str] = set()
        for tree in trees:
            names |= {node.name for node in tree.find_all(nodes.Name) if node.ctx == "load"}
        return Template(
            source=source,
            names=frozenset(names),
            filters=frozenset(node.name for tree in trees for node in tree.find_all(nodes.Filter)),
            claims=_claims_read(trees),
            _pieces=tuple(piece for piece, _ in pieces) or ("",),
        )

    def _pieces(self, source: str) -> list[tuple[str | Callable[..., Any], nodes.Template | None]]:
        pieces: list[tuple[str | Callable[..., Any], nodes.Template | None]] = []
        expression: list[str] | None = None
        for _, token, text in self._environment.lex(source):
            if token == "variable_begin":
                expression = []
            elif token == "variable_end":
                pieces.append(self._expression("".join(expression or [])))
                expression = None
            elif expression is not None:
                expression.append(text)
            elif token == "data":
                pieces.append((text, None))
            else:
                message = "only {{ expressions }} are possible, no {% statements %} and no {# comments #}"
                raise TemplateError(message)
        if expression is not None:
            message = "a {{ without its }}"
            raise TemplateError(message)
        return pieces

    def _expression(self, text: str) -> tuple[Callable[..., Any], nodes.Template]:
        if not text.strip():
            message = "an empty {{ }}"
            raise TemplateError(message)
        tree = self._environment.parse("{{" + text + "}}")
        known = set(self._environment.filters)
        for node in tree.find_all(nodes.Filter):
            if node.name not in known:
                near = difflib.get_close_matches(node.name, known, n=1)
                way_out = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join(sorted(known))}"
                message = f"there is no filter `{node.name}`. {way_out}"
                raise TemplateError(message)
        return self._environment.compile_expression(text, undefined_to_none=False), tree


def _claims_read(trees: list[nodes.Template]) -> frozenset[str] | None:
    names: set[str] = set()
    for tree in trees:
        whole = sum(node.name == "claims" for node in tree.find_all(nodes.Name))
        for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Call)):
            name = _claim_name(node)
            if name is not None:
                names.add(name)
                whole -= 1
        if whole > 0:
            return None
    return frozenset(names)


def _claim_name(node: nodes.Node) -> str | None:
    """Name of the claim in ``claims.x``, ``claims['x']``; ``claims.get('x')`` reads as the attribute ``get``."""
    if not isinstance(node, nodes.Getattr | nodes.Getitem):
        return None
    if not (isinstance(node.node, nodes.Name) and node.node.name == "claims"):
        return None
    if isinstance(node, nodes.Getattr):
        # claims.get(...) and its like read the mapping itself: which claim, nobody can tell.
        return None if hasattr(dict, node.attr) else node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str) else None

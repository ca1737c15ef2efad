"""Read a YAML file strictly, and remember where everything stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sidecar.config.bounded import read_at_most
from sidecar.config.problem import ConfigError, Problem, Severity

_LARGEST = 1 << 20
_MOST_NODES = 50_000
_DEEPEST = 64
_TAG = "tag:yaml.org,2002:"
_TAGS = frozenset(_TAG + kind for kind in ("str", "int", "float", "bool", "null", "map", "seq"))
_QUOTE_TEMPLATES = 'Put text with {{ }} in quotes: "{{ user.email }}"'
Location = tuple[str | int, ...]
Place = tuple[int, int]

# What the parser says → what is meant, and the way out.
_SYNTAX = (
    ("'\\t'", "a tab stands where only spaces may", "Indent with spaces"),
    ("found another document", "there is more than one document in the file", "Remove the line with ---"),
    ("unexpected end of stream", "a quote is never closed", "Close the quote"),
    ("mapping values are not allowed", "a colon is not possible here", "Check the indentation, or use quotes"),
    ("could not find expected ':'", "a line without a colon", "Write key: value"),
    ("expected <block end>", "the indentation does not fit the lines above", "Indent it like its neighbours"),
    ("expected ',' or '}'", "a mapping in braces is never closed, or lacks a comma", _QUOTE_TEMPLATES),
    ("expected ',' or ']'", "a list in brackets is never closed, or lacks a comma", "Write [one, two]"),
    ("found unknown escape", "an unknown escape in double quotes", "Use single quotes where a backslash is meant"),
    ("found undefined alias", "an alias (*name) without its anchor (&name) before it", "Define the anchor first"),
    ("cannot start any token", "a character that text cannot begin with", "Put the text in quotes"),
    ("expected alphabetic or numeric", "a lone * or & begins the text", "Put the text in quotes"),
)  # fmt: skip


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of plain scalars: ``on``, ``yes``, dates and numbers with leading zeros are text."""


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF"))
_Loader.add_implicit_resolver(f"{_TAG}null", re.compile(r"(?:null|Null|NULL|~|)\Z"), ["n", "N", "~", ""])
# More digits than these are an identifier that somebody forgot to quote, and Python bounds the length itself.
_Loader.add_implicit_resolver(f"{_TAG}int", re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\Z"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    f"{_TAG}float", re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}\Z"), list("-+0123456789")
)


@dataclass(slots=True)
class Document:
    """The plain data of a file, and the place of each of its parts.

    ``marks`` gives (line, column), counted from 1, of the value at a location; ``keys`` of the key that names it.
    """

    file: str
    content: str = field(repr=False)
    data: Any = field(default=None, repr=False)
    marks: dict[Location, Place] = field(default_factory=dict, repr=False)
    keys: dict[Location, Place] = field(default_factory=dict, repr=False)
    problems: list[Problem] = field(default_factory=list)

    def trace(self, location: Location, *, keeps_absent: bool = True) -> Location:
        """Find *location*, as the models see it, in the file.

        Left out is what the file does not have because it was written shorter: the number of an only item, the key
        of a text that stands for a whole section. With *keeps_absent* False every other absent part is left out too.
        """
        node: Any = self.data
        found: Location = ()
        for number, part in enumerate(location):
            if _has(node, part):
                node, found = node[part], (*found, part)
            elif _is_reference(node):
                break
            elif keeps_absent and isinstance(node, Mapping) and isinstance(part, str):
                return (*found, *location[number:])
        return found

    def at(self, location: Location) -> Any:
        """What the file itself says at a traced *location*, None when nothing."""
        node: Any = self.data
        for part in location:
            if not _has(node, part):
                return None
            node = node[part]
        return node

    def refers(self, location: Location) -> bool:
        """True when ``{env: NAME}`` or ``{file: PATH}`` stands at *location*."""
        return _is_reference(self.at(self.trace(location)))

    def references(self) -> frozenset[str]:
        """Written locations of everything that comes from the environment or from files."""
        return frozenset(written(location) for location in self.marks if self.refers(location))

    def quoted(self, location: Location, value: str) -> str:
        """Show *value* in a message, unless it came from elsewhere and may be a secret that went astray."""
        return "the value from elsewhere" if self.refers(location) else f"`{value[:200]}`"

    def place(self, location: Location) -> Place:
        """Best place for *location*: its key, else its value, else the nearest thing around it."""
        for end in range(len(location), -1, -1):
            part = location[:end]
            found = self.keys.get(part) or self.marks.get(part)
            if found is not None:
                return found
        return (1, 1)

    def error(self, location: Location, message: str, fix: str = "") -> Problem:
        """Make an error at *location*."""
        return self._problem("error", location, message, fix)

    def warning(self, location: Location, message: str, fix: str = "") -> Problem:
        """Make a warning at *location*."""
        return self._problem("warning", location, message, fix)

    def _problem(self, severity: Severity, location: Location, message: str, fix: str) -> Problem:
        traced = self.trace(location)
        line, column = self.place(traced)
        return Problem(severity, self.file, line, column, written(traced), message, fix)


def _has(node: Any, part: str | int) -> bool:
    if isinstance(node, Mapping):
        return part in node
    return isinstance(node, list) and isinstance(part, int) and part < len(node)


def _is_reference(node: Any) -> bool:
    return isinstance(node, Mapping) and len(node) == 1 and next(iter(node)) in ("env", "file")


def written(location: Location) -> str:
    """Location as people write it: ``provision.create[0].rest.path``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read_document(path: Path) -> Document:
    """Read *path*; duplicate keys are in ``problems``. Raises ConfigError for what is no YAML mapping."""
    document = Document(str(path), _content(path))
    try:
        loader = _Loader(document.content)
        node = loader.get_single_node()
        if node is None:
            raise _unusable(path, "the file is empty", "Begin with config.example.yaml")
        document.data = _Walker(document, loader).value(node, ())
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax(document, error)]) from None
    except yaml.reader.ReaderError as error:
        line = document.content.count("\n", 0, error.position) + 1
        raise _unusable(path, "a control character", "Remove it", line=line) from None
    except RecursionError:
        raise _unusable(path, "nested too deeply", f"More than {_DEEPEST} levels are not needed") from None
    if not isinstance(document.data, Mapping):
        raise ConfigError([document.error((), "the file must be a mapping", "Begin with server:")])
    return document


def _unusable(path: Path, message: str, fix: str, *, line: int = 1) -> ConfigError:
    return ConfigError([Problem("error", str(path), line, 1 if line else 0, "", message, fix)])


def _content(path: Path) -> str:
    try:
        raw = read_at_most(path, _LARGEST + 1)
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}", "Name a file that exists", line=0) from None
    if len(raw) > _LARGEST:
        raise _unusable(path, f"larger than {_LARGEST} bytes", "Is this the right file?", line=0)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _unusable(path, "a character that is not UTF-8", "Save the file as UTF-8", line=line) from None


def _syntax(document: Document, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    told = error.problem or error.context or "not YAML"
    message, fix = next(((text, way) for sign, text, way in _SYNTAX if sign in told), (told, error.note or ""))
    return Problem("error", document.file, line, column, "", message, fix)


def _mistake(node: yaml.Node, message: str, fix: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark, note=fix)


def _place(node: yaml.Node) -> Place:
    return (node.start_mark.line + 1, node.start_mark.column + 1)


def _is_merge(key: yaml.Node) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value == "<<" and key.style is None


class _Walker:
    """Turns nodes into plain data; counts them, so that aliases cannot multiply without end."""

    def __init__(self, document: Document, loader: _Loader) -> None:
        self._document = document
        self._loader = loader
        self._count = 0
        self._open: set[int] = set()

    def value(self, node: yaml.Node, location: Location) -> Any:
        self._spend(node, 1)
        if len(location) > _DEEPEST:
            raise _mistake(node, "nested too deeply", f"At most {_DEEPEST} levels")
        if node.tag not in _TAGS:
            raise _mistake(
                node, f"the tag {node.tag.removeprefix(_TAG)} is not possible", "Remove it, or quote the text"
            )
        self._document.marks[location] = _place(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise _mistake(node, "an alias stands inside its own anchor", "Remove it")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, location)
            return [self.value(part, (*location, number)) for number, part in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            return self._loader.construct_object(node, deep=True)
        except (ValueError, LookupError):
            raise _mistake(node, "the value does not fit its tag", "Remove the tag") from None

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key in result:
                self._repeated(key_node, (*location, key))
            elif not _is_merge(key_node):
                self._document.keys[*location, key] = _place(key_node)
                result[key] = self.value(value_node, (*location, key))
        for key_node, value_node in self._merged(node):
            key = self._key(key_node)
            if key not in result:
                self._document.keys[*location, key] = _place(key_node)
                result[key] = self.value(value_node, (*location, key))
        return result

    def _merged(self, node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """What ``<<`` takes in; the mapping's own keys, and those of earlier ones, come before."""
        for key_node, value_node in node.value:
            if not _is_merge(key_node):
                continue
            for part in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                if not isinstance(part, yaml.MappingNode):
                    raise _mistake(part, "<< takes in a mapping", "Write <<: *name")
                self._spend(part, len(part.value))
                yield from (pair for pair in part.value if not _is_merge(pair[0]))
                yield from self._merged(part)

    def _spend(self, node: yaml.Node, count: int) -> None:
        self._count += count
        if self._count > _MOST_NODES:
            raise _mistake(node, "aliases or lists make the file too large", f"At most {_MOST_NODES} values")

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise _mistake(node, "a key must be text", _QUOTE_TEMPLATES)
        return str(node.value)

    def _repeated(self, node: yaml.Node, location: Location) -> None:
        line, column = _place(node)
        message = f"the key stands here twice: first in line {self._document.keys[location][0]}"
        self._document.problems.append(
            Problem("error", self._document.file, line, column, written(location), message, "Remove one of them")
        )

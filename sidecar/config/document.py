"""Read a YAML file strictly, and remember where everything stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sidecar.config.problem import ConfigError, Problem

_LARGEST = 1 << 20
_MOST_NODES = 100_000
Location = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of plain scalars: ``on``, ``yes`` and ``012`` are text or decimal, not booleans and octals."""


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|false)\Z"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:null|~|)\Z"), ["n", "~", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"-?(?:0|[1-9][0-9]*)\Z"), list("-0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+\Z"), list("-0123456789")
)


@dataclass(slots=True)
class Document:
    """The plain data of a file, and the place of each of its parts.

    ``marks`` gives (line, column), counted from 1, of the value at a location; ``keys`` of the key that names it.
    """

    file: str
    content: str
    data: Any = None
    marks: dict[Location, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Location, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, location: Location) -> tuple[int, int]:
        """Best place for *location*: its key, else its value, else the nearest thing around it."""
        for end in range(len(location), -1, -1):
            part = location[:end]
            found = self.keys.get(part) or self.marks.get(part)
            if found is not None:
                return found
        return (1, 1)

    def has(self, location: Location) -> bool:
        """True when the file has something at *location*."""
        return location in self.marks

    def problem(self, location: Location, message: str, fix: str = "", *, is_warning: bool = False) -> Problem:
        """Make a problem at *location*."""
        line, column = self.place(location)
        return Problem("warning" if is_warning else "error", self.file, line, column, written(location), message, fix)


def written(location: Location) -> str:
    """Location as people write it: ``provision.create[0].rest.path``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read_document(path: Path) -> Document:
    """Read *path*. Raises ConfigError for what is no YAML mapping, with line and column."""
    document = Document(str(path), _content(path))
    loader = _Loader(document.content)
    try:
        node = loader.get_single_node()
        if node is None:
            raise ConfigError([Problem("error", str(path), 1, 1, "", "the file is empty", "See config.example.yaml")])
        document.data = _Walker(document, loader).value(node, ())
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax(document, error)]) from None
    except yaml.YAMLError as error:
        raise ConfigError([Problem("error", str(path), 1, 1, "", f"not YAML: {error}")]) from None
    except RecursionError:
        raise ConfigError([Problem("error", str(path), 1, 1, "", "nested too deeply")]) from None
    finally:
        loader.dispose()
    if not isinstance(document.data, Mapping):
        raise ConfigError([document.problem((), "the file must be a mapping", "See config.example.yaml")])
    return document


def _content(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(
            [Problem("error", str(path), 0, 0, "", f"cannot be read: {error.strerror}", "Name a file that exists")]
        ) from None
    if len(raw) > _LARGEST:
        raise ConfigError([Problem("error", str(path), 0, 0, "", f"larger than {_LARGEST} bytes")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem("error", str(path), line, 1, "", "not UTF-8", "Save the file as UTF-8")]) from None


def _syntax(document: Document, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    text = " ".join(part for part in (error.problem, error.context) if part)
    fix = ""
    lines = document.content.split("\n")
    if line <= len(lines) and "\t" in lines[line - 1][:column]:
        fix = "Indent with spaces, not tabs"
    elif "{{" in document.content and "unhashable" in text:
        fix = 'Put text with {{ }} in quotes: "{{ user.email }}"'
    return Problem("error", document.file, line, column, "", text, fix)


class _Walker:
    """Turns nodes into plain data; counts them, so that aliases cannot multiply without end."""

    def __init__(self, document: Document, loader: _Loader) -> None:
        self._document = document
        self._loader = loader
        self._count = 0
        self._open: set[int] = set()

    def value(self, node: yaml.Node, location: Location) -> Any:
        self._count += 1
        if self._count > _MOST_NODES or id(node) in self._open:
            raise yaml.MarkedYAMLError(problem="aliases expand to too much", problem_mark=node.start_mark)
        self._document.marks[location] = (node.start_mark.line + 1, node.start_mark.column + 1)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, location)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(part, (*location, number)) for number, part in enumerate(node.value)]
            return self._loader.construct_object(node, deep=True)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem='a key must be text; put text with {{ }} in quotes: "{{ user.email }}"',
                    problem_mark=key_node.start_mark,
                )
            key = key_node.value
            here = (*location, key)
            place = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if key in result:
                first = self._document.keys[here][0]
                problem = Problem(
                    "error", self._document.file, *place, written(here), f"the key stands here twice (also in line {first})",
                    "Remove one",
                )  # fmt: skip
                self._document.problems.append(problem)
            self._document.keys[here] = place
            result[key] = self.value(value_node, here)
        return result

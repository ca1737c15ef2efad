"""Load a configuration: everything that is wrong at once, or a frozen Config."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sidecar.config.document import Document, Location, read_document
from sidecar.config.lint import lint
from sidecar.config.models import Config
from sidecar.config.problem import ConfigError, Problem
from sidecar.config.values import Surroundings
from sidecar.core.template import Compiler, Template

__all__ = ["Config", "ConfigError", "Loaded", "Problem", "claims_read", "load"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used, what was noticed about it, and a digest of the file's content."""

    config: Config
    warnings: tuple[Problem, ...]
    digest: str


def load(
    path: Path,
    *,
    environment: Mapping[str, str],
    filters: Mapping[str, Callable[..., Any]] | None = None,
    needs_secrets: bool = True,
) -> Loaded:
    """Load the file at *path*; secrets come from *environment* and files next to it.

    *filters* are the template filters beyond the built-in ones. With *needs_secrets* False unresolved secrets pass as
    empty. Raises ConfigError with all problems.
    """
    document = read_document(path)
    around = Surroundings(path.resolve().parent, environment, Compiler(filters or {}), needs_secrets)
    problems = list(document.problems)
    config: Config | None = None
    try:
        config = Config.model_validate(document.data, context=around)
    except ValidationError as error:
        problems += [_plain(document, details) for details in error.errors(include_url=False, include_input=False)]
    if config is not None:
        problems += lint(config, document)
    problems = _in_order(problems)
    if config is None or any(problem.severity == "error" for problem in problems):
        raise ConfigError(problems)
    digest = hashlib.sha256(document.content.encode()).hexdigest()
    return Loaded(config, tuple(problems), digest)


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.column, problem.severity))


def _plain(document: Document, details: ErrorDetails) -> Problem:
    """A validation error in the words and places of the file."""
    location = _in_file(document, details["loc"])
    kind = details["type"]
    if kind == "extra_forbidden":
        known = _known_keys(location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        fix = f"Did you mean {close[0]!r}?" if close else f"Known here: {', '.join(known)}" if known else ""
        return document.problem(location, f"unknown key {location[-1]!r}", fix)
    if kind == "missing":
        return document.problem(location, "is required", f"Add {location[-1]}: …")
    message = str(details["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return document.problem(location, message[:1].lower() + message[1:])


def _in_file(document: Document, location: Sequence[str | int]) -> Location:
    """Keep the parts of a validation location that are keys of the file; names of union members are not."""
    found: Location = ()
    for number, part in enumerate(location):
        is_last = number == len(location) - 1
        if document.has((*found, part)) or (is_last and part not in ("[key]",) and not _is_member(str(part))):
            found = (*found, part)
    return found


def _is_member(part: str) -> bool:
    return "[" in part or part in ("str", "int", "bool", "Allow", "literal", "function-plain", "function-before")


def _known_keys(location: Sequence[str | int]) -> list[str]:
    """Keys that the section at *location* knows, "" when nobody can tell."""
    model: Any = Config
    for part in location:
        fields = getattr(model, "model_fields", None)
        if fields is None:
            model = _inner(model)
            continue
        named = next((one for name, one in fields.items() if (one.alias or name) == part), None)
        model = None if named is None else _section(named.annotation)
    model = _section(model) if model is not None and not hasattr(model, "model_fields") else model
    if model is None or not hasattr(model, "model_fields"):
        return []
    return sorted(one.alias or name for name, one in model.model_fields.items())


def _section(annotation: Any) -> Any:
    """The model inside an annotation (optional, union, mapping or list of it), or the annotation itself."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in get_args(annotation):
        found = _section(part)
        if isinstance(found, type) and issubclass(found, BaseModel):
            # A mapping or a list keeps its wrapping, so that the name or number in between is stepped over.
            return annotation if getattr(annotation, "__origin__", None) in (dict, tuple, list) else found
    return annotation


def _inner(annotation: Any) -> Any:
    for part in get_args(annotation):
        found = _section(part)
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return None


def templates_of(section: Any) -> Iterable[Template]:
    """All templates inside a section, however deep."""
    if isinstance(section, Template):
        yield section
    elif isinstance(section, BaseModel):
        for name in type(section).model_fields:
            yield from templates_of(getattr(section, name))
    elif isinstance(section, Mapping):
        for part in section.values():
            yield from templates_of(part)
    elif isinstance(section, list | tuple):
        for part in section:
            yield from templates_of(part)


def claims_read(config: Config, login: str) -> frozenset[str] | None:
    """Claims that must be kept for people of *login*: what roles, headers and provisioning read; None for all."""
    del login  # the same for every login today; each may have its own
    names: set[str] = set()
    for section in (config.roles, config.headers, config.assertion, config.provision):
        for template in templates_of(section):
            if template.claims is None:
                return None
            names |= template.claims
    return frozenset(names)

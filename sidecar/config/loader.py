"""Load a configuration: a frozen Config, or everything that is wrong with it at once."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from sidecar.config.claims import claims_read
from sidecar.config.document import Document, read_document
from sidecar.config.files import file_problems
from sidecar.config.lint import lint
from sidecar.config.models import Config
from sidecar.config.problem import ConfigError, Problem, explain_problem
from sidecar.config.redaction import redacted
from sidecar.config.saml_presets import with_presets
from sidecar.config.values import Surroundings
from sidecar.config.wording import problems_of
from sidecar.core.template import Compiler

__all__ = ["Config", "ConfigError", "Loaded", "Problem", "claims_read", "explain_problem", "load", "redacted"]

_NO_FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used, what was noticed about it, a digest of the file's content, and the file."""

    config: Config
    warnings: tuple[Problem, ...]
    digest: str
    document: Document = field(repr=False)


def load(
    path: Path,
    *,
    environment: Mapping[str, str],
    filters: Mapping[str, Callable[..., Any]] = _NO_FILTERS,
    needs_secrets: bool = True,
) -> Loaded:
    """Load the file at *path*; secrets come from *environment* and from files, relative ones next to it.

    *filters* are the template filters beyond the built-in ones. With *needs_secrets* False unresolved secrets pass as
    empty. Raises ConfigError with all problems.
    """
    document = read_document(path)
    around = Surroundings(path.resolve().parent, environment, Compiler(filters), needs_secrets)
    problems = list(document.problems)
    data = with_presets(document.data)
    try:
        config, usable = Config.model_validate(data, context=around), frozenset(Config.model_fields)
    except ValidationError as error:
        own = problems_of(document, error.errors(include_url=False, include_input=False))
        problems += own
        config, usable = _sound_sections(document, data, around, error)
        said = {problem.path for problem in own}
    else:
        said = set()
    # Nothing more is said about what has been found wrong already: its value is made up.
    noticed = _noticed(config, document, usable, needs_secrets=needs_secrets)
    problems += [problem for problem in noticed if problem.path not in said]
    problems = sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.column, problem.severity))
    if any(problem.severity == "error" for problem in problems):
        raise ConfigError(problems)
    return Loaded(config, tuple(problems), hashlib.sha256(document.content.encode()).hexdigest(), document)


def _sound_sections(
    document: Document, data: Any, around: Surroundings, error: ValidationError
) -> tuple[Config, frozenset[str]]:
    """The sections without a mistake of their own, so that checks across them still say what they see.

    A key that nobody knows, or a secret that is not set, spoils no section: the rest of it can be judged.
    """
    data = _without_unknown_keys(document, data, error)
    around = replace(around, needs_secrets=False)
    try:
        return Config.model_validate(data, context=around), frozenset(Config.model_fields)
    except ValidationError as left:
        broken = {
            details["loc"][0] for details in left.errors(include_url=False, include_input=False) if details["loc"]
        }
    sound: dict[str, Any] = {}
    for name, section in Config.model_fields.items():
        if name in data and name not in broken:
            kind: Any = Annotated[(section.annotation, None, *section.metadata)]
            sound[name] = TypeAdapter(kind).validate_python(data[name], context=around)
    usable = frozenset(Config.model_fields) - {str(name) for name in broken}
    return Config.model_construct(_fields_set=None, **sound), usable


def _without_unknown_keys(document: Document, data: Any, error: ValidationError) -> Any:
    data = copy.deepcopy(data)
    for details in error.errors(include_url=False, include_input=False):
        way = document.trace(details["loc"], keeps_absent=False)
        if details["type"] == "extra_forbidden" and way[-1:] == details["loc"][-1:]:
            part: Any = data
            for step in way[:-1]:
                part = part[step]
            part.pop(way[-1], None)
    return data


def _noticed(config: Config, document: Document, usable: frozenset[str], *, needs_secrets: bool) -> Iterable[Problem]:
    found = lint(config, document, usable)
    if needs_secrets:
        return [*found, *file_problems(config, document, usable)]
    # Nobody can judge a value that is not there yet.
    unknown = document.references()
    return [problem for problem in found if problem.path not in unknown]

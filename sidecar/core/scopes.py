"""What a token is good for: some rules or paths of all that its owner may do, never more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.core.patterns import compile_pattern
from sidecar.model import Visit

_WITH_METHODS = re.compile(r"([A-Z]+(?:,[A-Z]+)*) (/.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ScopedPath:
    """A path pattern, and the methods that it is about; none for all."""

    pattern: re.Pattern[str]
    text: str
    methods: frozenset[str]

    def covers(self, method: str, visit: Visit) -> bool:
        """True when both readings of the path are within."""
        if self.methods and method not in self.methods:
            return False
        literal = visit.literal or visit.path
        return self.pattern.fullmatch(visit.path) is not None and self.pattern.fullmatch(literal) is not None


@dataclass(frozen=True, slots=True)
class Scope:
    """Names of rules and patterns of paths, of which one is enough. An empty one covers nothing."""

    rules: frozenset[str] = frozenset()
    paths: tuple[ScopedPath, ...] = ()

    def covers(self, rule: str, visit: Visit) -> bool:
        """True when a request that *rule* lets in is among what this is about."""
        method = "GET" if visit.method == "HEAD" else visit.method
        return rule in self.rules or any(path.covers(method, visit) for path in self.paths)


def scope_of(texts: Sequence[str]) -> Scope:
    """Read ``/path/**``, ``GET,POST /path/**`` and names of rules.

    Case matters in paths, also where the application does not care: a scope can only narrow.
    """
    rules, paths = [], []
    for text in texts:
        methods, path = _parts(text)
        if path:
            paths.append(ScopedPath(compile_pattern(path), path, methods))
        else:
            rules.append(text)
    return Scope(frozenset(rules), tuple(paths))


def path_in(text: str) -> str:
    """The path pattern in one entry of a scope, "" when it is the name of a rule."""
    return _parts(text)[1]


def _parts(text: str) -> tuple[frozenset[str], str]:
    if text.startswith("/"):
        return frozenset(), text
    match = _WITH_METHODS.fullmatch(text)
    if match is None:
        return frozenset(), ""
    return frozenset("GET" if one == "HEAD" else one for one in match[1].split(",")), match[2]

"""Decide who may do what: an ordered list of rules, the first that fits decides, none means no."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from sidecar.model import Decision, Effect, Reason

# A method outside this list never passes by a rule that is open to anyone, unless the rule names it.
ORDINARY_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
REFUSED_METHODS = frozenset(["CONNECT", "TRACE", "TRACK"])

_DENIED = Decision(Effect.DENY, Reason.NO_RULE)


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of the caller when deciding: ``via`` is "cookie" or "bearer"; times in epoch seconds."""

    login: str
    via: str
    roles: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    auth_time: float = 0.0
    acr: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule. ``pattern`` is a full match; empty sets of methods, hosts and lines do not restrict."""

    name: str
    pattern: re.Pattern[str]
    methods: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    anyone: bool = False
    nobody: bool = False
    roles: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    logins: frozenset[str] = frozenset()
    bearer: frozenset[str] = frozenset()
    max_age: float | None = None
    acr: frozenset[str] = frozenset()
    text: str = field(default="", compare=False)

    def fits(self, method: str, host: str, path: str) -> bool:
        """True when this rule speaks about the request."""
        if self.methods and method not in self.methods:
            return False
        if self.hosts and host not in self.hosts:
            return False
        if self.anyone and not self.methods and method not in ORDINARY_METHODS:
            return False
        return self.pattern.fullmatch(path) is not None


def compile_pattern(path: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """Compile ``/exact``, ``/one/*/segment`` and ``/prefix/**`` to a full match.

    ``/admin/**`` covers ``/admin`` and everything below it, but never ``/administrator``.
    """
    segments = path.split("/")[1:]
    open_end = segments[-1] == "**"
    parts = [_segment_expression(segment) for segment in (segments[:-1] if open_end else segments)]
    text = "".join("/" + part for part in parts)
    if open_end:
        text += "(?:/.*)?" if parts else "/.*"
    return re.compile(text, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _segment_expression(segment: str) -> str:
    """Expression for one segment of a pattern, which may have stars in it.

    What stands between two stars is looked for once, from the left, and never again (an atomic group): the first place
    is as good as any later one. Else a path of many hyphens would take minutes to be compared with ``*-*-*``.
    """
    first, *rest = map(re.escape, segment.split("*"))
    if not rest:
        return first
    return first + "".join(f"(?>[^/]*?{part})" for part in rest[:-1]) + "[^/]*" + rest[-1]


def match(rules: Sequence[Rule], method: str, host: str, path: str) -> Rule | None:
    """First rule that speaks about this request; HEAD follows GET."""
    asked = "GET" if method == "HEAD" else method
    for rule in rules:
        if rule.fits(asked, host, path):
            return rule
    return None


def decide(rule: Rule | None, standing: Standing | None, now: float) -> Decision:
    """Decide by *rule* (from match) on a caller, None when nobody is signed in; *now* in epoch seconds."""
    if rule is None:
        return _DENIED
    if rule.nobody:
        return Decision(Effect.DENY, Reason.RULE_DENIES, rule.name)
    if rule.anyone:
        return _allowed(Reason.PUBLIC, rule.name)
    if standing is None:
        return Decision(Effect.CHALLENGE, Reason.NOT_SIGNED_IN, rule.name)
    if not _is_admitted(rule, standing):
        return Decision(Effect.DENY, Reason.ROLE_MISSING, rule.name)
    if not _is_fresh(rule, standing, now):
        return Decision(Effect.STEP_UP, Reason.REAUTHENTICATION, rule.name)
    return _allowed(Reason.RULE, rule.name)


@lru_cache(maxsize=1024)
def _allowed(reason: Reason, rule: str) -> Decision:
    return Decision(Effect.ALLOW, reason, rule)


def _is_admitted(rule: Rule, standing: Standing) -> bool:
    if standing.via == "bearer":
        came_in = standing.login in rule.bearer
    elif rule.logins:
        came_in = standing.login in rule.logins
    else:
        # A rule whose only line is bearer is for tokens alone.
        came_in = not rule.bearer or bool(rule.roles or rule.groups)
    has_role = not rule.roles or bool(rule.roles & standing.roles)
    has_group = not rule.groups or bool(rule.groups & standing.groups)
    return came_in and has_role and has_group


def _is_fresh(rule: Rule, standing: Standing, now: float) -> bool:
    if rule.max_age is not None and now - standing.auth_time > rule.max_age:
        return False
    return not rule.acr or standing.acr in rule.acr

"""Say rule by rule how a decision comes about; the decision itself is made by the very functions that the gate uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sidecar.core.conditions import Answer, answer
from sidecar.core.policy import (
    Line,
    Rule,
    Standing,
    Who,
    asked_method,
    decide,
    hits,
    is_enough,
    passes_unknown,
)
from sidecar.core.rulebook import Rulebook
from sidecar.model import NOTHING_NEEDED, Decision, Requirement, Visit


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing that was compared: what the rule says, what there is, and whether they agree.

    ``holds`` is None when nobody can tell, because nobody is signed in.
    """

    part: str
    wants: str
    has: str
    holds: bool | None


@dataclass(frozen=True, slots=True)
class Considered:
    """One rule: whether it speaks about the request, whether it decided, and what was compared."""

    rule: str
    speaks: bool
    decided: bool
    criteria: tuple[Criterion, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and the rules that were considered for it, in their order; those after the deciding one are not."""

    decision: Decision
    considered: tuple[Considered, ...]


def explain(rules: Rulebook, visit: Visit, standing: Standing | None, now: float) -> Explanation:
    """Decide as the gate does, and say why; raises Refused as it does for a path that is ambiguous."""
    chain = rules.about(visit)
    decision = decide(chain, visit, standing, now)
    last = _deciding(chain, visit, standing)
    considered = []
    for rule in rules:
        speaks = any(rule is one for one in chain)
        criteria = (*_request_criteria(rule, visit),)
        if speaks:
            criteria += (*_person_criteria(rule, visit, standing, now),)
        considered.append(Considered(rule.name, speaks, rule is last, criteria))
        if rule is last:
            break
    return Explanation(decision, tuple(considered))


def _deciding(chain: Sequence[Rule], visit: Visit, standing: Standing | None) -> Rule | None:
    for rule in chain:
        if not rule.only_denies or any(hits(who, visit, standing) for who in rule.deny):
            return rule
    return None


def _request_criteria(rule: Rule, visit: Visit) -> Iterator[Criterion]:
    yield Criterion("path", rule.text, visit.path, rule.pattern.fullmatch(visit.path) is not None)
    method = asked_method(visit.method)
    if rule.methods:
        yield Criterion("methods", " or ".join(sorted(rule.methods)), method, method in rule.methods)
    elif not rule.speaks_of(method, visit.host) and (not rule.hosts or visit.host in rule.hosts):
        yield Criterion("methods", "an ordinary method, as it is open to anyone", method, holds=False)
    if rule.hosts:
        yield Criterion("host", " or ".join(sorted(rule.hosts)), visit.host, visit.host in rule.hosts)


def _person_criteria(rule: Rule, visit: Visit, standing: Standing | None, now: float) -> Iterator[Criterion]:
    for number, who in enumerate(rule.deny, 1):
        yield from _who(f"deny{_ordinal(number, rule.deny)}", who, visit, standing)
    if rule.nobody:
        yield Criterion("allow", "nobody", _caller(standing), holds=False)
    for number, who in enumerate(rule.allow, 1):
        part = f"allow{_ordinal(number, rule.allow)}"
        if who.anyone:
            yield Criterion(part, "anyone", _caller(standing), passes_unknown(rule, visit))
        yield from _who(part, who, visit, standing)
    if standing is not None and standing.scope is not None and rule.allow:
        wants = " or ".join([*sorted(standing.scope.rules), *(path.text for path in standing.scope.paths)])
        yield Criterion("scope", wants, f"{visit.method} {visit.path}", standing.scope.covers(rule.name, visit))
    if rule.require != NOTHING_NEEDED and standing is not None:
        yield from _sign_in(rule.require, standing, now)


def _ordinal(number: int, sets: Sequence[Who]) -> str:
    return f"[{number}]" if len(sets) > 1 else ""


def _who(part: str, who: Who, visit: Visit, standing: Standing | None) -> Iterator[Criterion]:
    if who.networks:
        wants = " or ".join(map(str, who.networks))
        yield Criterion(f"{part}.network", wants, visit.client or "no address", who.is_near(visit))
    for line in who.lines:
        holds = None if standing is None else line.holds(standing)
        yield Criterion(f"{part}.{line.key}", line.wants, _has(line, standing), holds)


def _sign_in(needed: Requirement, standing: Standing, now: float) -> Iterator[Criterion]:
    if needed.max_age is not None:
        age = f"signed in {now - standing.auth_time:.0f} s ago" if standing.auth_time else "nobody knows when"
        only = Requirement(max_age=needed.max_age)
        yield Criterion("require.max_age", f"{needed.max_age:.0f} s", age, is_enough(only, standing, now))
    if needed.acr:
        only = Requirement(acr=needed.acr)
        yield Criterion("require.acr", " or ".join(needed.acr), standing.acr or "none", is_enough(only, standing, now))
    if needed.amr:
        has = ", ".join(sorted(standing.amr)) or "none"
        only = Requirement(amr=needed.amr)
        yield Criterion("require.amr", " and ".join(needed.amr), has, is_enough(only, standing, now))


def _caller(standing: Standing | None) -> str:
    if standing is None:
        return "nobody is signed in"
    words = {"bearer": "a token of", "token": "an API token of somebody of", "certificate": "a certificate, known as"}
    return f"{words.get(standing.via, 'signed in at')} {standing.login}"


def _has(line: Line, standing: Standing | None) -> str:
    if standing is None:
        return "nobody is signed in"
    if line.key == "role":
        return ", ".join(sorted(standing.roles)) or "no role"
    if line.key == "group":
        return "unknown" if standing.groups is None else ", ".join(sorted(standing.groups)) or "no group"
    if line.condition is not None:
        said = answer(line.condition, standing.facts)
        return said.value if said in (Answer.YES, Answer.NO) else f"it {said.value}"
    return _caller(standing)

"""Decide who may do what: of the rules that speak about a request, in their order, the first that decides."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sidecar.core.addresses import Network, parse_address
from sidecar.core.conditions import Answer, Facts, answer
from sidecar.core.scopes import Scope
from sidecar.core.template import Template
from sidecar.model import NOTHING_NEEDED, Decision, Effect, Reason, Requirement, Visit

if TYPE_CHECKING:
    from sidecar.core.asking import Ask

# A method outside this list never passes by a line that is open to anyone, unless the rule names it.
ORDINARY_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
REFUSED_METHODS = frozenset(["CONNECT", "TRACE", "TRACK"])

# What ``bearer`` calls callers whom no login vouches for.
_ISSUED = {"token": "tokens", "certificate": "certificates"}
_DENIED = Decision(Effect.DENY, Reason.NO_RULE)


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of the caller when deciding; times in epoch seconds.

    ``via`` is "cookie", "bearer" (a provider's token), "token" (one of ours) or "certificate". ``groups`` is None when
    the provider did not say which there are. ``scope`` is all that the caller's token is good for, None for no limit.
    """

    login: str
    via: str
    roles: frozenset[str] = frozenset()
    groups: frozenset[str] | None = frozenset()
    auth_time: float = 0.0
    acr: str = ""
    amr: frozenset[str] = frozenset()
    facts: Facts = field(default=Facts({}), compare=False, repr=False)
    scope: Scope | None = None

    @property
    def brought(self) -> str:
        """What rules call the kind of token that the caller came with; "" for a session of a browser."""
        return "" if self.via == "cookie" else _ISSUED.get(self.via, self.login)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of ``allow`` or ``deny``: its key in the file, what it wants, and whether it holds for somebody.

    ``condition`` is what a ``when`` evaluates.
    """

    key: str
    wants: str
    holds: Callable[[Standing], bool]
    condition: Template | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Who:
    """One set of lines, all of which must hold. ``anyone`` asks for nobody to be signed in."""

    lines: tuple[Line, ...] = ()
    networks: tuple[Network, ...] = ()
    anyone: bool = False

    def is_near(self, visit: Visit) -> bool:
        """True when the client's address is in one of the networks, or none are asked for."""
        return not self.networks or is_within(visit.client, self.networks)

    def fits(self, standing: Standing) -> bool:
        """True when every line about the person holds."""
        for line in self.lines:  # noqa: SIM110 - twice as fast as all() over a generator, and every request does it
            if not line.holds(standing):
                return False
        return True


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One compiled rule. ``pattern`` is a full match; empty sets of methods and hosts do not restrict.

    With no ``allow`` and not ``nobody`` it only denies, and leaves everybody else to the rules after it. ``spoken`` are
    the methods that it is about, None for all. ``ask`` is what an engine must say yes to besides.
    """

    name: str
    pattern: re.Pattern[str]
    text: str
    methods: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    nobody: bool = False
    allow: tuple[Who, ...] = ()
    deny: tuple[Who, ...] = ()
    require: Requirement = NOTHING_NEEDED
    ask: Ask | None = None
    # Worked out once, since every request asks for them.
    only_denies: bool = field(init=False)
    is_public: bool = field(init=False)
    spoken: frozenset[str] | None = field(init=False)
    let_in: Decision = field(init=False)

    def __post_init__(self) -> None:
        """Work out whether it lets anybody in, and whether without a sign-in; the methods that it speaks of.

        Raises ValueError when an engine is to be asked about nobody.
        """
        if self.ask is not None and any(who.anyone for who in self.allow):
            message = f"{self.name}: an engine is asked about people, and anyone may be nobody"
            raise ValueError(message)
        is_public = bool(self.allow) and all(who.anyone for who in self.allow)
        object.__setattr__(self, "only_denies", not self.allow and not self.nobody)
        object.__setattr__(self, "is_public", is_public)
        object.__setattr__(self, "spoken", self.methods or (ORDINARY_METHODS if is_public else None))
        object.__setattr__(self, "let_in", Decision(Effect.ALLOW, Reason.RULE, self.name))

    def speaks_of(self, method: str, host: str) -> bool:
        """True when *method* (GET for HEAD) and *host* are among those of this rule."""
        return (self.spoken is None or method in self.spoken) and (not self.hosts or host in self.hosts)


def asked_method(method: str) -> str:
    """Method that rules are looked up by: HEAD follows GET."""
    return "GET" if method == "HEAD" else method


def fitting(rules: Sequence[Rule], method: str, host: str, path: str) -> tuple[Rule, ...]:
    """Rules that speak about this request, in their order, up to the first that does not only deny.

    The plain reading of the list; ``core.rulebook`` finds the same faster.
    """
    asked, found = asked_method(method), []
    for rule in rules:
        if rule.speaks_of(asked, host) and rule.pattern.fullmatch(path):
            found.append(rule)
            if not rule.only_denies:
                break
    return tuple(found)


def decide(rules: Sequence[Rule], visit: Visit, standing: Standing | None, now: float) -> Decision:
    """Decide by *rules* (from fitting) on a caller, None when nobody is signed in; *now* in epoch seconds."""
    for rule in rules:
        if rule.deny and any(hits(who, visit, standing) for who in rule.deny):
            return Decision(Effect.DENY, Reason.EXCLUDED, rule.name)
        if not rule.only_denies:
            return _admit(rule, visit, standing, now)
    return _DENIED


def is_open(rules: Sequence[Rule], visit: Visit) -> bool:
    """True when *visit* is let in whoever it is, so that nobody need ask: no store, no token is looked at."""
    for rule in rules:
        if rule.deny and any(who.lines or who.is_near(visit) for who in rule.deny):
            return False
        if rule.only_denies:
            continue
        for who in rule.allow:
            if not who.anyone:
                return False
            if who.is_near(visit) and passes_unknown(rule, visit):
                return True
        return False
    return False


def hits(who: Who, visit: Visit, standing: Standing | None) -> bool:
    """True when a ``deny`` is about this caller; nobody knows a stranger's roles, so only networks are."""
    if not who.is_near(visit):
        return False
    return not who.lines or (standing is not None and who.fits(standing))


def passes_unknown(rule: Rule, visit: Visit) -> bool:
    """True unless the method is one that nobody thought of when opening this to anyone."""
    return bool(rule.methods) or visit.method in ORDINARY_METHODS


def is_enough(needed: Requirement, standing: Standing, now: float) -> bool:
    """True when the sign-in is as fresh and as strong as *needed*."""
    return needed.is_met_by(standing.auth_time, standing.acr, standing.amr, now)


def _admit(rule: Rule, visit: Visit, standing: Standing | None, now: float) -> Decision:
    if rule.nobody:
        return Decision(Effect.DENY, Reason.RULE_DENIES, rule.name)
    is_near = False
    for who in rule.allow:
        if who.networks and not who.is_near(visit):
            continue
        if who.anyone:
            if passes_unknown(rule, visit):
                return Decision(Effect.ALLOW, Reason.PUBLIC, rule.name)
            continue
        is_near = True
        if standing is not None and who.fits(standing):
            if standing.scope is not None and not standing.scope.covers(rule.name, visit):
                return Decision(Effect.DENY, Reason.TOKEN_SCOPE, rule.name)
            return _let_in(rule, standing, now)
    if not is_near:
        return Decision(Effect.DENY, Reason.NETWORK, rule.name)
    if standing is None:
        return Decision(Effect.CHALLENGE, Reason.NOT_SIGNED_IN, rule.name, rule.require)
    return Decision(Effect.DENY, Reason.ROLE_MISSING, rule.name)


def _let_in(rule: Rule, standing: Standing, now: float) -> Decision:
    if rule.require is not NOTHING_NEEDED and not is_enough(rule.require, standing, now):
        return Decision(Effect.STEP_UP, Reason.REAUTHENTICATION, rule.name, rule.require)
    return rule.let_in


def is_within(client: str, networks: Sequence[Network]) -> bool:
    """True when *client* is an address in one of *networks*; a client without one (a Unix socket) is in none."""
    address = parse_address(client)
    return address is not None and any(address in network for network in networks)


def role_line(roles: frozenset[str]) -> Line:
    """Wants one of *roles*."""
    return Line("role", _one_of(roles), lambda standing: not roles.isdisjoint(standing.roles))


def group_line(groups: frozenset[str], *, denies: bool = False) -> Line:
    """Wants one of *groups*. Who may be in any group is in none when allowing, and in all when denying."""

    def holds(standing: Standing) -> bool:
        return denies if standing.groups is None else not groups.isdisjoint(standing.groups)

    return Line("group", _one_of(groups), holds)


def came_in_line(logins: frozenset[str], bearer: frozenset[str], *, tokens_alone: bool) -> Line:
    """Wants a sign-in (at one of *logins*, where there are any), or a token of *bearer*.

    Tokens are only ever good where *bearer* names their login.
    """

    def holds(standing: Standing) -> bool:
        if standing.via != "cookie":
            return standing.brought in bearer
        return standing.login in logins if logins else not tokens_alone

    wants = [f"signed in at {_one_of(logins)}"] if logins else [] if tokens_alone else ["signed in"]
    wants += [f"a token of {_one_of(bearer)}"] if bearer else []
    return Line("bearer" if bearer and not logins else "login", " or ".join(wants), holds)


def origin_line(key: str, logins: frozenset[str]) -> Line:
    """Tells by where somebody comes from, for ``deny``: *key* "login" is about all of them, "bearer" about tokens."""

    def holds(standing: Standing) -> bool:
        return (standing.login if key == "login" else standing.brought) in logins

    return Line(key, _one_of(logins), holds)


def when_line(condition: Template, *, denies: bool = False) -> Line:
    """Wants *condition* to hold; one that cannot be told lets nobody in, and denies."""

    def holds(standing: Standing) -> bool:
        said = answer(condition, standing.facts)
        return said is not Answer.NO if denies else said is Answer.YES

    return Line("when", condition.source, holds, condition)


def _one_of(names: frozenset[str]) -> str:
    return " or ".join(sorted(names))

"""The index answers as the plain list does, and what explain says is what decides: on thousands of generated cases."""

from __future__ import annotations

import ipaddress
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.config.access import AccessRule
from sidecar.config.values import Surroundings
from sidecar.core.conditions import facts_of
from sidecar.core.explanation import explain
from sidecar.core.policy import Rule, Standing, decide, fitting, is_open
from sidecar.core.rulebook import Rulebook
from sidecar.core.template import Compiler
from sidecar.model import Effect, Identity, Visit
from sidecar.plans import rules_of
from sidecar.reason import Reason

NOW = 1_000_000.0
AROUND = Surroundings(Path(), {}, Compiler())
# Few words, so that rules meet; letters that only some ways of ignoring case call the same.
WORDS = ["a", "b", "A", "Kk", "ſ", "s", "K", "ı", "i", "İ", "ß", "", "x.y", "ab"]
METHODS = ["GET", "HEAD", "POST", "PUT", "OPTIONS", "PROPFIND", "get"]
HOSTS = ["wiki.example.com", "other.example.com"]
CLIENTS = ["10.1.2.3", "192.0.2.1", "::ffff:10.1.2.3", "2001:db8::1", ""]

segments = st.sampled_from([*WORDS, "*", "a*", "*b", "a*b", "s*"])
patterns = st.builds(
    lambda parts, end: "/" + "/".join([*parts, *end]) if parts or end else "/",
    st.lists(segments, max_size=3),
    st.sampled_from([[], ["**"]]),
)
PATHS = [
    "/",
    *(f"/{word}" for word in [*WORDS, "aXb"]),
    "/a/",
    "/a/b",
    "/A/b",
    "/aXb/s/b",
    "/b/a/ſ",
    "/a/b/s/i",
    "/a/n\nb",
]
names = st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True)
networks = st.lists(st.sampled_from(["10.0.0.0/8", "2001:db8::/32"]), max_size=1)
conditions = st.sampled_from(
    [
        None,
        "{{ claims.department == 'X' }}",
        "{{ 'a' in groups }}",
        "{{ 'a' not in groups }}",
        "{{ claims.department }}",
    ]
)
lines = st.fixed_dictionaries(
    {},
    optional={"role": names, "group": names, "login": names, "bearer": names, "network": networks, "when": conditions},
).map(lambda found: {key: value for key, value in found.items() if value})
public = networks.map(lambda found: {"who": "anyone", "network": found})
alternatives = st.one_of(st.just("signed_in"), st.just("anyone"), lines, public)
allows = st.one_of(
    st.sampled_from(["anyone", "signed_in", "nobody"]), lines, public, st.lists(alternatives, min_size=1, max_size=3)
)
requires = st.sampled_from([{}, {"max_age": "60s"}, {"acr": ["mfa"]}, {"amr": ["otp", "pwd"]}])


@st.composite
def sections(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {"path": draw(patterns), "require": draw(requires)}
    found["methods"] = draw(st.lists(st.sampled_from(["GET", "POST", "PROPFIND"]), max_size=2))
    found["host"] = draw(st.lists(st.sampled_from(HOSTS), max_size=1))
    deny = draw(st.lists(lines.filter(bool), max_size=2))
    allow = draw(st.one_of(st.none(), allows))
    return {**found, "deny": deny, **({} if allow is None and deny else {"allow": allow or "signed_in"})}


def compiled(found: list[dict[str, Any]], *, ignore_case: bool = False) -> tuple[Rule, ...]:
    return rules_of([AccessRule.model_validate(one, context=AROUND) for one in found], ignore_case=ignore_case)


def standing_of(
    *, groups: tuple[str, ...] | None, claims: dict[str, Any], login: str, via: str, strong: bool
) -> Standing:
    identity = Identity(login, "i", "s", "u", groups=groups, claims=claims)
    roles = ("a",) if strong else ("b",)
    return Standing(
        login=login,
        via=via,
        roles=frozenset(roles),
        groups=None if groups is None else frozenset(groups),
        auth_time=NOW - 10 if strong else NOW - 100,
        acr="mfa" if strong else "",
        amr=frozenset(("pwd", "otp", "x") if strong else ("pwd",)),
        facts=facts_of(identity, roles),
    )


STANDINGS = [
    None,
    *(
        standing_of(groups=groups, claims=claims, login=login, via=via, strong=strong)
        for (groups, claims), login, via, strong in itertools.product(
            [(None, {}), ((), {"department": "X"}), (("a",), {"department": "Y"}), (("a", "b"), {})],
            ["a", "c"],
            ["cookie", "bearer"],
            [True, False],
        )
    ),
]
VISITS = [
    Visit(method, path, host, client, literal=path)
    for method, path, host, client in itertools.product(METHODS, PATHS, HOSTS, CLIENTS)
]
CASES = [(VISITS[number % len(VISITS)], STANDINGS[number % len(STANDINGS)]) for number in range(0, 7 * len(VISITS), 41)]
several = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@several
@given(found=st.lists(sections(), max_size=8), ignore_case=st.booleans())
@example(found=[{"path": "/s", "allow": "nobody"}, {"path": "/k/**", "allow": "nobody"}], ignore_case=True)
def test_the_index_finds_what_the_list_says(found: list[dict[str, Any]], *, ignore_case: bool) -> None:
    rules = compiled(found, ignore_case=ignore_case)
    book = Rulebook(rules, ignore_case=ignore_case)
    for method, host, path in itertools.product(METHODS, HOSTS, PATHS):
        assert book.fitting(method, host, path) == fitting(rules, method, host, path), (method, host, path)


@several
@given(found=st.lists(sections(), max_size=6))
def test_explain_names_the_rule_that_decides_and_what_it_was_decided_by(found: list[dict[str, Any]]) -> None:
    rules = compiled(found)
    book = Rulebook(rules)
    for visit, standing in CASES:
        seen = explain(book, visit, standing, NOW)
        decision = decide(fitting(rules, visit.method, visit.host, visit.path), visit, standing, NOW)
        assert seen.decision == decision
        decided = [rule.rule for rule in seen.considered if rule.decided]
        assert decided == ([decision.rule] if decision.rule else [])
        for rule in seen.considered:
            of_request = [one.holds for one in rule.criteria if one.part in ("path", "methods", "host")]
            assert rule.speaks == all(of_request)


@several
@given(found=st.lists(sections(), max_size=6))
def test_what_is_open_is_open_whoever_comes(found: list[dict[str, Any]]) -> None:
    rules = compiled(found)
    for visit, standing in CASES:
        chain = fitting(rules, visit.method, visit.host, visit.path)
        if is_open(chain, visit):
            assert decide(chain, visit, standing, NOW).is_public


@several
@given(found=st.lists(sections(), max_size=6))
def test_nobody_is_let_in_whom_a_deny_is_about(found: list[dict[str, Any]]) -> None:
    """An own reading of ``deny``: role, group and network of the rules that were asked, without the code for it."""
    rules = compiled(found)
    for visit, standing in CASES:
        chain = fitting(rules, visit.method, visit.host, visit.path)
        if decide(chain, visit, standing, NOW).effect is not Effect.ALLOW:
            continue
        for rule in chain:
            section = found[next(number for number, one in enumerate(rules) if one is rule)]
            for deny in section["deny"]:
                assert not set(deny) <= {"role", "group", "network"} or not denied_by(deny, visit, standing)


def denied_by(deny: dict[str, Any], visit: Visit, standing: Standing | None) -> bool:
    if "network" in deny:
        address = ipaddress.ip_address(visit.client.removeprefix("::ffff:")) if visit.client else None
        if address is None or not any(address in ipaddress.ip_network(one) for one in deny["network"]):
            return False
    if not set(deny) & {"role", "group"}:
        return True
    if standing is None:
        return False
    has_role = "role" not in deny or bool(set(deny["role"]) & standing.roles)
    has_group = "group" not in deny or standing.groups is None or bool(set(deny["group"]) & standing.groups)
    return has_role and has_group


def someone(*groups: str, known: bool = True, claims: dict[str, Any] | None = None, via: str = "cookie") -> Standing:
    identity = Identity("corp", "i", "s", "u", groups=groups if known else None, claims=claims or {})
    has = frozenset(groups) if known else None
    return Standing("corp", via, groups=has, auth_time=NOW, facts=facts_of(identity, ()))


def decided(rule: dict[str, Any], standing: Standing | None, method: str = "GET", client: str = "192.0.2.1") -> Reason:
    rules = compiled([{"path": "/**", **rule}, {"path": "/**", "allow": "signed_in"}])
    visit = Visit(method, "/x", HOSTS[0], client)
    return decide(fitting(rules, method, HOSTS[0], "/x"), visit, standing, NOW).reason


DEPARTMENT = "{{ claims.department == 'X' }}"
TABLE = [
    # A deny overrides within its rule, and a rule that only denies leaves the others to those after it.
    ({"allow": "signed_in", "deny": {"group": "out"}}, someone("out"), Reason.EXCLUDED),
    ({"allow": "signed_in", "deny": {"group": "out"}}, someone("in"), Reason.RULE),
    ({"deny": {"group": "out"}}, someone("out"), Reason.EXCLUDED),
    ({"deny": {"group": "out"}}, someone("in"), Reason.RULE),
    ({"deny": {"group": "out"}}, None, Reason.NOT_SIGNED_IN),
    ({"deny": {"bearer": "corp"}}, someone(via="cookie"), Reason.RULE),
    ({"allow": {"bearer": "corp"}, "deny": {"bearer": "corp"}}, someone(via="bearer"), Reason.EXCLUDED),
    # Unknown groups give nothing, and spare nobody.
    ({"allow": {"group": "in"}}, someone(known=False), Reason.ROLE_MISSING),
    ({"deny": {"group": "out"}}, someone(known=False), Reason.EXCLUDED),
    ({"allow": {"when": "{{ 'out' not in groups }}"}}, someone(known=False), Reason.ROLE_MISSING),
    ({"allow": {"when": "{{ 'out' not in groups }}"}}, someone("in"), Reason.RULE),
    ({"deny": {"when": "{{ 'out' in groups }}"}}, someone(known=False), Reason.EXCLUDED),
    ({"deny": {"when": "{{ 'a' in groups and 'b' not in groups }}"}}, someone(known=False), Reason.EXCLUDED),
    # A condition that cannot be told lets nobody in, and denies.
    ({"allow": {"when": DEPARTMENT}}, someone(claims={"department": "X"}), Reason.RULE),
    ({"allow": {"when": DEPARTMENT}}, someone(claims={"department": "Y"}), Reason.ROLE_MISSING),
    ({"allow": {"when": DEPARTMENT}}, someone(), Reason.ROLE_MISSING),
    ({"allow": {"when": "{{ claims.department }}"}}, someone(claims={"department": "X"}), Reason.ROLE_MISSING),
    ({"deny": {"when": DEPARTMENT}}, someone(), Reason.EXCLUDED),
    ({"deny": {"when": "{{ claims.department }}"}}, someone(claims={"department": ""}), Reason.EXCLUDED),
    ({"deny": {"when": DEPARTMENT}}, someone(claims={"department": "Y"}), Reason.RULE),
    # One of a list is enough; all lines of one must hold.
    ({"allow": [{"group": "a"}, {"group": "b"}]}, someone("b"), Reason.RULE),
    ({"allow": {"group": "a", "when": DEPARTMENT}}, someone("a"), Reason.ROLE_MISSING),
    # Elsewhere a sign-in would not help, so nobody is sent to one.
    ({"allow": {"network": "10.0.0.0/8"}}, None, Reason.NETWORK),
    ({"allow": [{"network": "10.0.0.0/8"}, {"group": "a"}]}, None, Reason.NOT_SIGNED_IN),
    ({"allow": {"network": "192.0.2.0/24"}}, None, Reason.NOT_SIGNED_IN),
    ({"allow": {"network": "192.0.2.0/24"}}, someone(), Reason.RULE),
    ({"allow": {"who": "anyone", "network": "192.0.2.0/24"}}, None, Reason.PUBLIC),
    ({"allow": {"who": "anyone", "network": "10.0.0.0/8"}}, None, Reason.NETWORK),
    ({"deny": {"network": "192.0.2.0/24"}}, None, Reason.EXCLUDED),
]


@pytest.mark.parametrize(("rule", "standing", "reason"), TABLE)
def test_what_a_rule_says_of_somebody(rule: dict[str, Any], standing: Standing | None, reason: Reason) -> None:
    assert decided(rule, standing) is reason


def test_t18_an_unknown_method_gets_the_strictest_reading() -> None:
    mixed = {"allow": ["anyone", {"group": "in"}]}
    assert decided({"allow": "anyone"}, None, "BREW") is Reason.NOT_SIGNED_IN
    assert decided(mixed, None, "BREW") is Reason.NOT_SIGNED_IN
    assert decided(mixed, someone("in"), "BREW") is Reason.RULE
    assert decided(mixed, None) is Reason.PUBLIC


@pytest.mark.parametrize(("asked", "fits"), [("GET", True), ("HEAD", True), ("POST", False)])
def test_t18_head_follows_get(asked: str, *, fits: bool) -> None:
    reason = decided({"methods": ["GET"], "allow": "nobody"}, someone(), asked)
    assert (reason is Reason.RULE_DENIES) is fits


def test_a_client_without_an_address_is_in_no_network() -> None:
    everywhere = {"allow": {"network": ["0.0.0.0/0", "::/0"]}}
    assert decided(everywhere, someone(), client="") is Reason.NETWORK
    assert decided(everywhere, someone(), client="no address") is Reason.NETWORK

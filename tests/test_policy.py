"""Decisions follow from the rules alone."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.access import AccessRule
from sidecar.core.patterns import compile_pattern
from sidecar.core.policy import Standing, decide, fitting
from sidecar.model import Decision, Effect, Visit
from sidecar.plans import rules_of
from sidecar.reason import Reason

RULES = rules_of(
    [
        AccessRule.model_validate(rule)
        for rule in (
            {"path": "/health", "allow": "anyone"},
            {"path": "/dav/**", "methods": ["PROPFIND"], "allow": "anyone"},
            {"path": "/public/**", "allow": "anyone"},
            {"path": "/closed/**", "allow": "nobody"},
            {"path": "/admin/**", "allow": {"role": "admin"}, "require": {"max_age": "15m"}},
            {"path": "/api/**", "methods": ["GET"], "allow": {"bearer": "corp"}},
            {"path": "/api/**", "allow": {"role": ["admin", "editor"], "bearer": ["corp"]}},
            {"path": "/partners/*/files", "allow": {"login": "partners", "group": "files"}},
            {"path": "/intranet/**", "host": "wiki.example.com", "allow": "signed_in"},
        )
    ]
)
NOW = 1_000_000.0


def someone(**changes: object) -> Standing:
    return Standing(**{"login": "corp", "via": "cookie", "auth_time": NOW - 60, **changes})  # type: ignore[arg-type]


def decided(path: str, who: Standing | None = None, method: str = "GET", host: str = "wiki.example.com") -> Decision:
    visit = Visit(method, path, host, "192.0.2.1")
    return decide(fitting(RULES, method, host, path), visit, who, NOW)


def test_a_decision_that_nobody_made_denies() -> None:
    assert Decision().effect is Effect.DENY


ADMIN = someone(roles=frozenset(["admin"]))
EDITOR = someone(roles=frozenset(["editor"]))
TABLE = [
    ("GET", "/health", None, Effect.ALLOW, Reason.PUBLIC),
    ("HEAD", "/health", None, Effect.ALLOW, Reason.PUBLIC),
    ("GET", "/health/x", None, Effect.DENY, Reason.NO_RULE),
    ("GET", "/unknown", ADMIN, Effect.DENY, Reason.NO_RULE),
    ("GET", "/public", None, Effect.ALLOW, Reason.PUBLIC),
    ("GET", "/public/a/b", None, Effect.ALLOW, Reason.PUBLIC),
    ("GET", "/publicity", None, Effect.DENY, Reason.NO_RULE),
    ("BREW", "/public/a", None, Effect.DENY, Reason.NO_RULE),
    ("PROPFIND", "/dav/x", None, Effect.ALLOW, Reason.PUBLIC),
    ("GET", "/closed/x", ADMIN, Effect.DENY, Reason.RULE_DENIES),
    ("GET", "/admin", None, Effect.CHALLENGE, Reason.NOT_SIGNED_IN),
    ("GET", "/admin/x", EDITOR, Effect.DENY, Reason.ROLE_MISSING),
    ("GET", "/admin/x", ADMIN, Effect.ALLOW, Reason.RULE),
    ("BREW", "/admin/x", EDITOR, Effect.DENY, Reason.ROLE_MISSING),
    ("GET", "/administrator", ADMIN, Effect.DENY, Reason.NO_RULE),
    ("GET", "/Admin", ADMIN, Effect.DENY, Reason.NO_RULE),
    ("GET", "/api/x", someone(via="bearer"), Effect.ALLOW, Reason.RULE),
    ("HEAD", "/api/x", someone(via="bearer"), Effect.ALLOW, Reason.RULE),
    ("GET", "/api/x", ADMIN, Effect.DENY, Reason.ROLE_MISSING),
    ("GET", "/api/x", someone(via="bearer", login="other"), Effect.DENY, Reason.ROLE_MISSING),
    ("POST", "/api/x", EDITOR, Effect.ALLOW, Reason.RULE),
    ("POST", "/api/x", someone(via="bearer"), Effect.DENY, Reason.ROLE_MISSING),
    ("GET", "/admin/x", someone(via="bearer", roles=frozenset(["admin"])), Effect.DENY, Reason.ROLE_MISSING),
    ("GET", "/partners/a/files", someone(login="partners", groups=frozenset(["files"])), Effect.ALLOW, Reason.RULE),
    ("GET", "/partners/a/files", someone(login="partners"), Effect.DENY, Reason.ROLE_MISSING),
    ("GET", "/partners/a/files", someone(groups=frozenset(["files"])), Effect.DENY, Reason.ROLE_MISSING),
    ("GET", "/partners/a/b/files", someone(login="partners"), Effect.DENY, Reason.NO_RULE),
]


@pytest.mark.parametrize(("method", "path", "who", "effect", "reason"), TABLE)
def test_the_first_rule_that_fits_decides(
    method: str, path: str, who: Standing | None, effect: Effect, reason: Reason
) -> None:
    decision = decided(path, who, method)
    assert (decision.effect, decision.reason) == (effect, reason)


def test_an_old_sign_in_must_be_repeated_where_the_rule_says_so() -> None:
    old = someone(roles=frozenset(["admin"]), auth_time=NOW - 901)
    assert decided("/admin/x", old).effect is Effect.STEP_UP


def test_a_rule_for_one_host_does_not_hold_for_another() -> None:
    assert decided("/intranet/x", ADMIN).effect is Effect.ALLOW
    assert decided("/intranet/x", ADMIN, host="other.example.com").effect is Effect.DENY


@pytest.mark.parametrize("path", ["/a.b", "/a+b", "/(x)", "/a$"])
def test_t14_patterns_are_full_matches_of_literal_text(path: str) -> None:
    pattern = compile_pattern(path)
    assert pattern.fullmatch(path)
    assert not pattern.fullmatch(path + "x")
    assert not pattern.fullmatch("/aXb")


def test_t14_case_matters_unless_the_application_ignores_it() -> None:
    assert not compile_pattern("/admin/**").fullmatch("/ADMIN/x")
    assert compile_pattern("/admin/**", ignore_case=True).fullmatch("/ADMIN/x")


def test_a_star_stands_for_one_segment_only() -> None:
    assert compile_pattern("/a/*/c").fullmatch("/a/b/c")
    assert not compile_pattern("/a/*/c").fullmatch("/a/b/b/c")
    assert compile_pattern("/**").fullmatch("/")
    assert compile_pattern("/a/**").fullmatch("/a/line\nbreak")


@given(st.text("ab*", min_size=1, max_size=8).filter(lambda text: "**" not in text), st.text("ab", max_size=12))
def test_a_star_stands_for_any_text_wherever_it_is(segment: str, text: str) -> None:
    expected = fnmatchcase(text, segment)
    assert bool(compile_pattern(f"/{segment}").fullmatch(f"/{text}")) is expected
    assert bool(compile_pattern(f"/{segment}/x").fullmatch(f"/{text}/x")) is expected
    assert not compile_pattern(f"/{segment}").fullmatch(f"/{text}/{text}")


@pytest.mark.parametrize("pattern", ["/*-*/edit", "/*-*-*/edit", "/*-*-*-*/edit", "/*--*--*/edit"])
def test_a_path_made_for_it_does_not_keep_a_pattern_busy(pattern: str) -> None:
    # Tried place by place, the second one takes hours.
    assert not compile_pattern(pattern).fullmatch("/" + "-" * 16_000)
    assert compile_pattern(pattern).fullmatch("/" + "-" * 16_000 + "/edit")

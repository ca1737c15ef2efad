"""What a rule asks an engine: filled from the person and the path, never more than that, or not asked at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.asks import ask_of
from sidecar.config.access import AccessRule
from sidecar.config.engines import CedarEngine, EngineSection, OpaEngine, OpenFgaEngine
from sidecar.core.patterns import compile_pattern
from sidecar.core.policy import Rule, Who
from sidecar.core.standing import standing_of
from sidecar.faults import Refused
from sidecar.model import Identity, Session, Visit
from sidecar.reason import Reason

ENGINES: dict[str, EngineSection] = {
    "fga": OpenFgaEngine(type="openfga", url="http://h", store="S", model="M"),
    "opa": OpaEngine(type="opa", url="http://h", path="p"),
    "cedar": CedarEngine.model_validate(
        {"type": "cedar", "policies": "p.cedar", "attributes": {"team": "{{ claims.team }}", "name": "{{ user.name }}"}}
    ),
}
ADA = Identity("corp", "https://id", "s1", "ada", name="Ada", groups=("staff",), claims={"team": "red"})
FGA = {"name": "fga", "tuple": {"user": "user:{{ user.username }}", "relation": "viewer"}}


def question(engine: dict[str, Any], path: str, who: Identity = ADA, rule: str = "/d/*/**", **visit: str) -> Any:
    section = AccessRule.model_validate({"path": rule, "allow": "signed_in", "engine": engine})
    ask = ask_of(section, ENGINES)
    assert ask is not None
    session = Session("sid", who, 0.0, 9.0, 0.0, 0.0)
    seen = Visit(**{"method": "GET", "path": path, "host": "h", "client": "10.0.0.1", **visit})  # type: ignore[arg-type]
    return ask.question(session, standing_of(session, "cookie", ("editor",)), seen)


def about(object_: str, **more: Any) -> dict[str, Any]:
    return {**FGA, "tuple": {**FGA["tuple"], "object": object_}, **more}  # type: ignore[dict-item]


def reason(engine: dict[str, Any], path: str, who: Identity = ADA, **visit: str) -> Reason:
    with pytest.raises(Refused) as refused:
        question(engine, path, who, **visit)
    return refused.value.reason


def test_a_tuple_is_filled_from_the_person_and_the_stars_of_the_path() -> None:
    asked = question(about("document:{{ request.captured[0] }}-{{ request.captured[1] }}"), "/d/7/x")
    assert asked == {"tuple": {"user": "user:ada", "relation": "viewer", "object": "document:7-x"}}


SIGNS = ["a:b", "a#viewer", "*", "a b", "a\tb", "a\nb", "", "\u00a0", "a\x7f", "a\x9f"]


@pytest.mark.parametrize("value", SIGNS)
def test_t71_a_value_that_means_something_in_a_tuple_is_not_asked(value: str) -> None:
    assert reason(about("document:1"), "/d/1", replace(ADA, username=value)) is Reason.ENGINE_NOT_ASKED
    if value:
        assert reason(about("document:{{ request.captured[0] }}"), f"/d/{value}") is Reason.ENGINE_NOT_ASKED
    more = about(
        "document:1", contextual={"each": "{{ groups }}", "user": "user:x", "relation": "r", "object": "g:{{ item }}"}
    )
    assert reason(more, "/d/1", replace(ADA, groups=("fine", value))) is Reason.ENGINE_NOT_ASKED


@given(st.text(min_size=1, max_size=20).filter(lambda text: "/" not in text))
def test_t71_no_value_makes_another_tuple(value: str) -> None:
    try:
        asked = question(about("document:{{ request.captured[0] }}"), f"/d/{value}")
    except Refused:
        return
    assert asked["tuple"]["object"] == f"document:{value}"
    assert not set(":#*") & set(value)


@given(st.text(min_size=1, max_size=20))
def test_what_is_encoded_is_asked_and_stays_apart(value: str) -> None:
    who = replace(ADA, subject=value)
    try:
        asked = question(about("document:{{ subject.id | urlencode }}"), "/d/1", who)["tuple"]["object"]
    except Refused:
        return
    assert not set(":#* ") & set(asked.removeprefix("document:"))


def test_too_long_or_too_many_is_not_asked() -> None:
    assert reason(about("document:{{ request.captured[0] }}"), "/d/" + "x" * 256) is Reason.ENGINE_NOT_ASKED
    more = about(
        "document:1", contextual={"each": "{{ groups }}", "user": "user:x", "relation": "r", "object": "g:{{ item }}"}
    )
    many = tuple(f"g{number}" for number in range(101))
    assert reason(more, "/d/1", replace(ADA, groups=many)) is Reason.ENGINE_NOT_ASKED
    assert len(question(more, "/d/1", replace(ADA, groups=many[1:]))["contextual"]) == 100


def test_something_missing_is_not_asked() -> None:
    assert reason(about("document:{{ request.captured[5] }}"), "/d/1") is Reason.ENGINE_NOT_ASKED
    assert reason(about("document:{{ claims.nothing }}"), "/d/1") is Reason.ENGINE_NOT_ASKED
    assert reason({"name": "opa", "input": {"a": ["{{ claims.nothing }}"]}}, "/d/1") is Reason.ENGINE_NOT_ASKED
    assert reason({"name": "opa", "input": {"a": "{{ groups.append }}"}}, "/d/1") is Reason.ENGINE_NOT_ASKED


NOT_KNOWN = replace(ADA, groups=None)
CEDAR = {"name": "cedar", "action": "View", "resource": {"type": "Document", "id": "{{ request.captured[0] }}"}}


@pytest.mark.parametrize(
    "engine",
    [
        {"name": "opa", "input": {"groups": "{{ groups }}"}},
        {"name": "opa", "input": {"user": "{{ user }}", "its": "{{ user.groups }}"}},
        about("d:1", contextual={"each": "{{ groups }}", "user": "user:x", "relation": "r", "object": "g:{{ item }}"}),
        CEDAR,
    ],
)
def test_groups_that_are_unknown_are_never_asked_as_none(engine: dict[str, Any]) -> None:
    assert reason(engine, "/d/1", NOT_KNOWN) is Reason.ENGINE_NOT_ASKED
    question(engine, "/d/1", replace(ADA, groups=()))


def test_an_input_keeps_its_types_and_quotes_nothing() -> None:
    asked = {"name": "opa", "input": {"who": "{{ user.username }}", "roles": "{{ roles }}", "fixed": [1, True, None]}}
    nasty = 'x", "allow": true, "y": "{{ 7 * 7 }}'
    assert question(asked, "/d/1", replace(ADA, username=nasty)) == {
        "input": {"who": nasty, "roles": ["editor"], "fixed": [1, True, None]}
    }


def test_the_person_is_an_entity_with_groups_and_roles_for_parents() -> None:
    assert question(CEDAR, '/d/x"}', replace(ADA, claims={})) == {
        "principal": {
            "uid": {"type": "User", "id": "ada"},
            "attrs": {"name": "Ada"},
            "parents": [{"type": "Group", "id": "staff"}, {"type": "Role", "id": "editor"}],
        },
        "action": {"type": "Action", "id": "View"},
        "resource": {"type": "Document", "id": 'x"}'},
        "context": {},
    }


def test_head_is_asked_as_get() -> None:
    asked = {"name": "opa", "input": {"method": "{{ request.method }}"}}
    assert question(asked, "/d/1", method="HEAD") == {"input": {"method": "GET"}}


def test_t13_parameters_that_change_the_question_are_refused() -> None:
    asked = about("document:{{ request.captured[0] }}")
    assert reason(asked, "/d/1", literal="/d/1;2") is Reason.PATH_AMBIGUOUS
    # Where they do not, they do no harm.
    assert question(asked, "/d/1/view", literal="/d/1/view;session=3")["tuple"]["object"] == "document:1"


def test_a_rule_with_an_engine_cannot_be_open_to_anyone() -> None:
    section = AccessRule.model_validate({"path": "/d/*", "allow": "signed_in", "engine": about("document:1")})
    ask = ask_of(section, ENGINES)
    with pytest.raises(ValueError, match="anyone may be nobody"):
        Rule("r", compile_pattern("/d/*"), "/d/*", allow=(Who(anyone=True),), ask=ask)


SEGMENT = st.text("ab*", max_size=4)
PATTERN = st.builds(
    lambda parts, end: "/" + "/".join([*parts, *end]), st.lists(SEGMENT, max_size=3), st.sampled_from([[], ["**"]])
).filter(lambda path: "**" not in path.removesuffix("/**"))


@given(PATTERN, st.lists(st.text("ab", max_size=4), min_size=1, max_size=4))
def test_capturing_changes_nothing_about_what_fits(pattern: str, parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    plain, capturing = compile_pattern(pattern).fullmatch(path), compile_pattern(pattern, captures=True).fullmatch(path)
    assert (plain is None) == (capturing is None)
    if capturing is not None:
        rest = list(capturing.groups())
        filled = "".join(piece if piece != "*" else rest.pop(0) for piece in pattern.removesuffix("/**"))
        assert path == filled + ("" if not rest or rest[0] is None else f"/{rest[0]}")

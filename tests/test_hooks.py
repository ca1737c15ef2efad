"""What hooks decide without an application: plans, problems of the configuration, binds, values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.provision import Provision
from sidecar.config.values import Surroundings
from sidecar.core.statement import bind_problems, parse_statement
from sidecar.core.template import Compiler, TemplateError
from sidecar.hooks.check import problems
from sidecar.hooks.context import Fields, order_context
from sidecar.hooks.hook import StepHook
from sidecar.hooks.order import ORDER_NAMES, Hook, Order
from sidecar.hooks.passwords import FILTERS
from sidecar.hooks.request import base_problem, segment
from sidecar.hooks.step import section_steps, transactions
from sidecar.model import Account, Change, Identity

FIND = {
    "sql": {"on": "db", "query": "SELECT id FROM users WHERE login = :login", "params": {"login": "{{ account.key }}"}}
}
CONNECTIONS: Mapping[str, Any] = {
    "db": {"sql": "sqlite:///:memory:"},
    "other": {"sql": "sqlite:///:memory:"},
    "api": {"rest": {"base_url": "http://127.0.0.1:1"}},
}


def section(**parts: Any) -> Provision:
    plain = {"account": {"key": "{{ user.username }}"}, "connections": CONNECTIONS, "lookup": FIND, **parts}
    return Provision.model_validate(plain, context=Surroundings(Path("/"), {}, Compiler(FILTERS)))


def order(change: Change, **rest: Any) -> Order:
    person = Identity("corp", "https://id.example.com", "7", "ann", "ann@example.com", "Ann", None, {"dept": "IT"})
    return Order(change, person, Account("ann", rest.pop("id", "")), **rest)


def test_a_hook_is_what_the_seam_asks_for() -> None:
    hook: Hook = StepHook(section(create=FIND))
    assert [change for change in Change if hook.has(change)] == [Change.LOOKUP, Change.CREATE]


def test_the_context_has_exactly_the_names_that_the_configuration_is_checked_against() -> None:
    assert set(order_context(order(Change.CREATE), {})) | {"item"} == ORDER_NAMES


def test_an_output_never_replaces_the_binding() -> None:
    bound = Order(
        Change.UPDATE, order(Change.UPDATE).identity, Account("ann", "7", {"id": "1", "key": "root", "home": "/h"})
    )
    assert order_context(bound, {})["account"] == {"id": "7", "key": "ann", "home": "/h"}


def test_fields_named_like_a_method_can_be_read() -> None:
    template = Compiler().compile("{{ body.items[0].keys }}|{{ body.get('x') }}")
    assert template.text({"body": Fields(items=[Fields(keys=5)], x=1)}) == "5|1"


def test_a_plan_shows_every_call_and_makes_none() -> None:
    create = [
        {
            "rest": {
                "on": "api",
                "method": "POST",
                "path": "/users",
                "json": {
                    "login": "{{ account.key }}",
                    "password": "{{ generated.password }}",
                    "dept": "{{ claims.dept }}",
                },
                "save": {"id": "{{ body.id }}"},
            }
        },
        {
            "rest": {"on": "api", "method": "PUT", "path": "/users/{{ saved.id }}/roles/{{ item }}"},
            "foreach": "{{ roles }}",
            "when": "{{ item != 'reader' }}",
        },
        {
            "sql": {
                "on": "db",
                "exec": "UPDATE users\n  SET password = :hash, team = :team WHERE id = :id",
                "params": {
                    "hash": "{{ generated.password | bcrypt }}",
                    "team": "{{ claims.team }}",
                    "id": "{{ saved.id }}",
                },
            },
            "when": "{{ saved.id != '' }}",
        },
    ]
    asked = order(Change.CREATE, roles=("a/b", "reader"), generated={"password": "geheim"})
    calls = StepHook(section(create=create)).plan(asked)
    assert [(call.step, call.target, call.action) for call in calls] == [
        ("create[0]", "api", "POST /users"),
        ("create[1]", "api", "PUT /users/<body.id>/roles/a%2Fb"),
        ("create[2]", "db", "UPDATE users SET password = :hash, team = :team WHERE id = :id"),
    ]
    assert calls[0].values == {"json": {"login": "ann", "password": "***", "dept": "IT"}}
    assert calls[2].values == {
        "only when": "{{ saved.id != '' }}",
        "hash": "***",
        "team": "<missing claims.team>",
        "id": "<body.id>",
    }
    assert "geheim" not in repr(calls)


def test_a_plan_names_values_of_a_query_that_saves_its_columns() -> None:
    step = {
        "sql": {
            "on": "db",
            "exec": "UPDATE t SET a = :a, b = :b",
            "params": {"a": "{{ saved.id }}", "b": "{{ account.id }}"},
        }
    }
    calls = StepHook(section(create=[FIND, step])).plan(order(Change.CREATE))
    assert calls[1].values == {"a": "<id>", "b": "<account.id>"}


def test_neighbouring_statements_of_one_database_are_one_transaction() -> None:
    other = {"sql": {**FIND["sql"], "on": "other"}}
    call = {"rest": {"on": "api", "path": "/"}}
    steps = section_steps(section(create=[FIND, FIND, other, call, call, FIND]))[Change.CREATE]
    places = [[step.place for step in group] for group in transactions(steps)]
    assert places == [["create[0]", "create[1]"], ["create[2]"], ["create[3]"], ["create[4]"], ["create[5]"]]


def rest(**parts: Any) -> dict[str, Any]:
    return {"rest": {"on": "api", "path": "/", **parts}}


def sql(text: str, **parts: Any) -> dict[str, Any]:
    return {"sql": {"on": "db", "exec": text, **parts}}


@pytest.mark.parametrize(
    ("step", "where", "what"),
    [
        (rest(on="nowhere"), "create[0].rest.on", "there is no connection nowhere; there are: db, other, api"),
        (rest(on="db"), "create[0].rest.on", "the connection db is not of the kind rest"),
        (sql("SELECT 1", on="api"), "create[0].sql.on", "the connection api is not of the kind sql"),
        (
            rest(path="{{ account.key }}"),
            "create[0].rest.path",
            "a path begins with /; the host is that of the connection",
        ),
        (
            rest(path="@evil.example/"),
            "create[0].rest.path",
            "a path begins with /; the host is that of the connection",
        ),
        (rest(json={}), "create[0].rest", "GET has no body: use query, or another method"),
        (rest(method="PUT", json={}, form={"a": "b"}), "create[0].rest", "a body is either json or form"),
        (rest(headers={"Host": "x"}), "create[0].rest.headers", "Host is written by the client itself"),
        (rest(headers={"a b": "x"}), "create[0].rest.headers", "'a b' is no name of a header"),
        (rest(idempotency_header="TE"), "create[0].rest.headers", "TE is written by the client itself"),
        (
            rest(outcomes={"created": {"sqlstate": "23505"}}),
            "create[0].rest.outcomes.created.sqlstate",
            "a REST answer has no SQLSTATE",
        ),
        (
            sql("SELECT 1", outcomes={"created": {"sqlstate": "23505"}}),
            "create[0].sql.outcomes.created.sqlstate",
            "an SQLSTATE never means success: write ON CONFLICT DO NOTHING",
        ),
        (sql("DELETE FROM t WHERE a = :a"), "create[0].sql", ":a is in the statement, but not in params"),
        (sql("SELECT ':a'", params={"a": "1"}), "create[0].sql", "the param a is not in the statement (write :a)"),
        (
            sql("SELECT 1; SELECT 2"),
            "create[0].sql",
            "one step is one statement: write two steps in place of the semicolon",
        ),
        (sql(" ; "), "create[0].sql", "the statement is empty"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(step: dict[str, Any], where: str, what: str) -> None:
    assert (where, what) in problems(section(create=step))


@pytest.mark.parametrize(
    ("step", "where"),
    [
        (rest(path="/{{ body.id }}"), "create[0]"),
        (rest(path="/{{ item }}"), "create[0]"),
        ({**rest(), "when": "{{ row.x }}"}, "create[0].when"),
        (rest(save={"x": "{{ row.x }}"}), "create[0].rest.save.x"),
        (sql("SELECT 1", save={"x": "{{ body.x }}"}), "create[0].sql.save.x"),
    ],
)
def test_names_that_do_not_exist_there_are_found(step: dict[str, Any], where: str) -> None:
    assert [path for path, _ in problems(section(create=step))] == [where]


def test_wrong_addresses_are_found_and_not_repeated() -> None:
    connections = {
        **CONNECTIONS,
        "a": {"sql": "oracle://u:geheim@h/x"},
        "b": {"sql": "geheim"},
        "c": {"rest": {"base_url": "http://u:geheim@h"}},
    }
    found = problems(section(connections=connections))
    assert [path for path, _ in found] == ["connections.a.sql", "connections.b.sql", "connections.c.rest.base_url"]
    assert "geheim" not in repr(found)
    with pytest.raises(ValueError, match="oracle is none of") as caught:
        StepHook(section(connections=connections))
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["ftp://h", "h:80", "http://", "http://h?x", "http://h#x", "http://u@h", "http://h:x"]
)
def test_a_base_address_is_scheme_host_and_path(address: str) -> None:
    assert base_problem(address)
    assert not base_problem("https://[::1]:8443/api/v1/")


@given(st.text())
def test_no_value_ever_leaves_its_segment(value: str) -> None:
    try:
        encoded = segment(value)
    except TemplateError:
        return
    assert encoded.isascii()
    assert not set(encoded) & set("/\\?#@:;")
    assert encoded not in ("", ".", "..")


@pytest.mark.parametrize(
    ("statement", "binds"),
    [
        ("SELECT a::int, b FROM t WHERE c = :c::int", {"c"}),
        ("SELECT 'it''s :x', \"q:y\", `z:z` FROM t -- :k\n WHERE a = :a /* :l */", {"a"}),
        ("SELECT $$ :no $$, $t$ :no $t$, :yes", {"yes"}),
        ("SELECT arr[1:2], '12:30:40', :b_1", {"b_1"}),
        ("SET @x := :v;", {"v"}),
    ],
)
def test_only_real_binds_are_binds(statement: str, binds: set[str]) -> None:
    assert parse_statement(statement).binds == binds
    assert bind_problems(statement, frozenset(binds)) == ()

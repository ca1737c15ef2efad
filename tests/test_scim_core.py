"""SCIM without I/O: filters, paths, changes and projections, with what Entra, Okta and others really send."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.scim.claims import claims_of
from sidecar.core.scim.fault import Fault
from sidecar.core.scim.filters import fits, parse_filter
from sidecar.core.scim.moves import moves_of
from sidecar.core.scim.patch import patched
from sidecar.core.scim.projection import projection_of
from sidecar.core.scim.resource import read_resource
from sidecar.core.scim.schema import ENTERPRISE, GROUPS, USERS

ADA: dict[str, Any] = {
    "id": "1a",
    "userName": "Ada@Example.com",
    "externalId": "E-1",
    "active": True,
    "name": {"givenName": "Ada", "familyName": "Lovelace"},
    "emails": [
        {"value": "ada@example.com", "type": "work", "primary": True},
        {"value": "ada@home.example", "type": "home"},
    ],
    ENTERPRISE: {"department": "Numbers", "manager": {"value": "m-1"}},
    "meta": {"lastModified": "2026-05-13T04:42:34.000Z"},
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('userName eq "ada@example.com"', True),
        ('username EQ "ADA@EXAMPLE.COM"', True),
        ('userName ne "ada@example.com"', False),
        ('externalId eq "E-1"', True),
        ('externalId eq "e-1"', False),
        ('userName co "example" and active eq true', True),
        ('userName sw "bob" or userName ew ".com"', True),
        ("active eq false", False),
        ('active eq "True"', True),
        ("not (active eq false)", True),
        ('not (userName co "example") or (active eq true and title pr)', False),
        ("title pr", False),
        ("emails pr", True),
        ('emails eq "ada@home.example"', True),
        ('emails.value eq "ADA@home.example"', True),
        ('emails[type eq "work" and value co "@example.com"]', True),
        ('emails[type eq "work" and value co "@home"]', False),
        ('emails[type eq "work"].value eq "ada@example.com"', True),
        (f'{ENTERPRISE}:department eq "numbers"', True),
        (f"{ENTERPRISE}:manager pr", True),
        ('id eq "1a" and urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager eq "m-1"', True),
        ('meta.lastModified gt "2026-05-13T04:42:33Z"', True),
        ('meta.lastModified ge "2026-05-13T06:42:34+02:00"', True),
        ('meta.lastModified lt "2026-05-13T04:42:34Z"', False),
        ("title eq null", True),
        ("userName eq null", False),
        ('nothing eq "x"', False),
        ("nothing pr", False),
        (r'userName eq "a\"b"', False),
    ],
)
def test_a_filter_means_what_the_rfc_says(text: str, holds: bool) -> None:
    assert fits(parse_filter(text, USERS), ADA) is holds


@pytest.mark.parametrize(
    "text",
    [
        "userName", "userName eq", 'userName is "x"', 'userName eq "x', '(userName eq "x"', "userName eq x",
        'userName eq "x" userName', "and", ")", "not userName pr", "emails[type eq", 'emails[type eq "x"',
        "userName eq [1]", "(" * 50 + "userName pr" + ")" * 50, " or ".join(["userName pr"] * 500), "x" * 9000,
        'meta.lastModified gt "yesterday"',
    ],
)  # fmt: skip
def test_a_filter_that_cannot_be_read_is_refused_as_such(text: str) -> None:
    with pytest.raises(Fault) as end:
        fits(parse_filter(text, USERS), ADA)
    assert (end.value.scim_type, end.value.status) == ("invalidFilter", 400)


@given(st.text('userNameactive eqnotandor()[]".\\ truefalse1', max_size=60))
def test_no_text_at_all_breaks_the_reader_of_filters(text: str) -> None:
    with suppress(Fault):
        fits(parse_filter(text, USERS), ADA)


def change(*operations: dict[str, Any], tolerant: bool = True, kind: Any = USERS, of: Any = None) -> dict[str, Any]:
    return patched(of or ADA, {"Operations": list(operations)}, kind, tolerant=tolerant)


OFF = [
    {"op": "replace", "path": "active", "value": False},
    {"op": "Replace", "path": "active", "value": "False"},
    {"op": "replace", "value": {"active": False}},
    {"op": "Replace", "value": {"active": "false"}},
    {"op": "add", "path": "Active", "value": "False"},
    {"op": "replace", "path": "urn:ietf:params:scim:schemas:core:2.0:User:active", "value": False},
    {"op": "replace", "value": {"id": "1a", "Active": "FALSE"}},
]


@pytest.mark.parametrize("operation", OFF)
def test_t72_every_spelling_of_a_deactivation_is_understood(operation: dict[str, Any]) -> None:
    assert change(operation)["active"] is False
    assert ADA["active"] is True


@pytest.mark.parametrize(
    ("operation", "scim_type"),
    [
        ({"op": "replace", "path": "activ", "value": False}, "invalidPath"),
        ({"op": "replace", "value": {"activ": False}}, "invalidPath"),
        ({"op": "replace", "value": {"urn:ietf:params:scim:schemas:core:2.0:User": {"active": False}}}, "invalidPath"),
        ({"op": "replace", "path": "active", "value": "off"}, "invalidValue"),
        ({"op": "replace", "path": "active", "value": 0}, "invalidValue"),
        ({"op": "replace", "path": "active", "value": [False]}, "invalidValue"),
        ({"op": "replace", "path": "active"}, "invalidValue"),
        ({"op": "replace", "value": False}, "invalidValue"),
        ({"op": "delete", "path": "active"}, "invalidSyntax"),
        ({"op": "replace", "path": ["active"], "value": False}, "invalidPath"),
        ({"op": "remove"}, "noTarget"),
        ({"op": "remove", "path": "userName"}, "invalidValue"),
        ({"op": "replace", "path": 'userName[type eq "x"]', "value": "x"}, "invalidPath"),
        ({"op": "replace", "path": "emails[type eq]", "value": "x"}, "invalidFilter"),
    ],
)
def test_t72_a_change_that_is_not_understood_is_never_answered_as_if_it_were_done(
    operation: dict[str, Any], scim_type: str
) -> None:
    with pytest.raises(Fault) as end:
        change(operation)
    assert end.value.scim_type == scim_type


@pytest.mark.parametrize("operation", [{"op": "Replace", "path": "active", "value": False}, OFF[1], OFF[3]])
def test_a_strict_client_is_taken_at_the_word_of_the_rfc(operation: dict[str, Any]) -> None:
    with pytest.raises(Fault):
        change(operation, tolerant=False)


@pytest.mark.parametrize(
    ("operation", "place", "value"),
    [
        # Dotted and URN keys without a path, as Entra sends them.
        ({"op": "Add", "value": {"name.givenName": "Augusta"}}, ("name", "givenName"), "Augusta"),
        ({"op": "add", "value": {f"{ENTERPRISE}:department": "Letters"}}, (ENTERPRISE, "department"), "Letters"),
        ({"op": "add", "value": {ENTERPRISE: {"department": "Letters"}}}, (ENTERPRISE, "department"), "Letters"),
        ({"op": "Add", "path": f"{ENTERPRISE}:manager", "value": "m-2"}, (ENTERPRISE, "manager", "value"), "m-2"),
        ({"op": "Add", "path": f"{ENTERPRISE}:manager", "value": [{"value": "m-2", "$ref": None}]},
         (ENTERPRISE, "manager", "value"), "m-2"),
        ({"op": "Replace", "path": f"{ENTERPRISE}:manager", "value": {"$ref": None, "value": "m-2"}},
         (ENTERPRISE, "manager"), {"value": "m-2"}),
        # An address that there is not yet.
        ({"op": "Replace", "path": 'phoneNumbers[type eq "work"].value', "value": "+44"},
         ("phoneNumbers",), [{"type": "work", "value": "+44"}]),
        ({"op": "Add", "path": 'emails[type eq "other"].value', "value": "o@example.com"},
         ("emails", 2), {"type": "other", "value": "o@example.com"}),
        ({"op": "Replace", "path": 'emails[type eq "work"].value', "value": "new@example.com"},
         ("emails", 0, "value"), "new@example.com"),
        ({"op": "replace", "path": "emails[primary eq true]", "value": {"value": "p@example.com"}},
         ("emails", 0, "value"), "p@example.com"),
        ({"op": "remove", "path": 'emails[type eq "home"]'}, ("emails",), ADA["emails"][:1]),
        ({"op": "remove", "path": 'emails[type eq "home"].type'}, ("emails", 1), {"value": "ada@home.example"}),
        ({"op": "replace", "value": {"name": {"familyName": "King"}}},
         ("name",), {"givenName": "Ada", "familyName": "King"}),
        ({"op": "replace", "path": "emails", "value": [{"value": "one@example.com"}]},
         ("emails",), [{"value": "one@example.com"}]),
        ({"op": "add", "path": "emails", "value": {"value": "x@example.com", "primary": True}},
         ("emails", 0, "primary"), False),
        ({"op": "replace", "path": "title", "value": 7}, ("title",), "7"),
    ],
)  # fmt: skip
def test_what_providers_send_is_understood(operation: dict[str, Any], place: tuple[Any, ...], value: Any) -> None:
    found: Any = change(operation)
    for part in place:
        found = found[part]
    assert found == value


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "add", "path": "emails", "value": [{"value": "ada@home.example", "type": "home"}]},
        {"op": "replace", "path": "name.givenName", "value": "Ada"},
        {"op": "replace", "value": {"active": "True"}},
        {"op": "remove", "path": "title"},
        {"op": "remove", "path": 'emails[type eq "other"]'},
        {"op": "replace", "value": {"id": "another", "meta": {}}},
        {"op": "add", "path": ENTERPRISE, "value": {}},
    ],
)
def test_a_change_to_what_is_there_already_changes_nothing(operation: dict[str, Any]) -> None:
    assert change(operation) == ADA


def test_a_removed_extension_is_gone() -> None:
    assert ENTERPRISE not in change({"op": "remove", "path": ENTERPRISE})
    parts = [{"op": "remove", "path": f"{ENTERPRISE}:{part}"} for part in ("department", "manager")]
    assert ENTERPRISE not in change(*parts)


def test_all_operations_hold_or_none() -> None:
    before = copy.deepcopy(ADA)
    with pytest.raises(Fault):
        change({"op": "replace", "path": "title", "value": "x"}, {"op": "replace", "path": "nothing", "value": 1})
    assert before == ADA


TEAM = {"displayName": "team", "members": [{"value": str(number)} for number in range(4)]}


@pytest.mark.parametrize(
    ("operation", "left"),
    [
        ({"op": "Remove", "path": "members", "value": [{"value": "1"}, {"value": "2"}]}, "03"),
        ({"op": "remove", "path": 'members[value eq "1"]'}, "023"),
        ({"op": "remove", "path": "members", "value": "1"}, "023"),
        ({"op": "remove", "path": "members", "value": {"value": "9"}}, "0123"),
        ({"op": "remove", "path": "members"}, ""),
        ({"op": "Add", "path": "members", "value": [{"value": "1"}, {"$ref": None, "value": "7"}]}, "01237"),
        ({"op": "replace", "path": "members", "value": [{"value": "1"}]}, "1"),
        ({"op": "replace", "path": "members", "value": []}, ""),
        ({"op": "replace", "value": {"id": "g", "displayName": "team"}}, "0123"),
    ],
)
@pytest.mark.parametrize("tolerant", [True, False])
def test_members_come_and_go_as_they_are_named(operation: dict[str, Any], left: str, tolerant: bool) -> None:
    if not tolerant:
        operation = {**operation, "op": operation["op"].lower()}
    after = change(operation, kind=GROUPS, of=TEAM, tolerant=tolerant)
    assert "".join(one["value"] for one in after.get("members", [])) == left


@pytest.mark.parametrize("tolerant", [True, False])
@given(data=st.data())
def test_one_member_more_or_less_comes_to_the_same_as_changing_the_whole_group(
    data: st.DataObject, tolerant: bool
) -> None:
    ids = st.sampled_from("012345")
    several = st.lists(ids.map(lambda one: {"value": one}), min_size=1, max_size=3)
    add = several.map(lambda value: {"op": "add", "path": "members", "value": value})
    bare = several.map(lambda value: {"op": "add", "value": {"members": value}})
    remove = several.map(lambda value: {"op": "remove", "path": "Members", "value": value})
    chosen = ids.map(lambda one: {"op": "remove", "path": f'members[value eq "{one}"]'})
    operations = data.draw(st.lists(add | bare | remove | chosen, min_size=1, max_size=5))
    moves = moves_of({"Operations": operations}, tolerant=tolerant)
    assert moves is not None
    assert not moves.come & moves.go
    whole = change(*operations, kind=GROUPS, of=TEAM, tolerant=tolerant)
    after = {one["value"] for one in whole.get("members", [])}
    assert ({one["value"] for one in TEAM["members"]} | moves.come) - moves.go == after  # type: ignore[index]


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "members", "value": [{"value": "1"}]},
        {"op": "remove", "path": "members"},
        {"op": "remove", "path": "members", "value": []},
        {"op": "remove", "path": 'members[type eq "User"]'},
        {"op": "remove", "path": 'members[value eq "1"].type'},
        {"op": "remove", "path": 'members[value sw "1"]'},
        {"op": "remove", "path": 'members[not (value eq "1")]'},
        {"op": "add", "value": {"members": [{"value": "1"}], "displayName": "x"}},
        {"op": "replace", "path": "displayName", "value": "x"},
        {"op": "add", "path": "externalId", "value": "x"},
    ],
)
def test_whatever_is_more_than_members_by_name_is_read_with_the_whole_group(operation: dict[str, Any]) -> None:
    first = {"op": "add", "path": "members", "value": [{"value": "1"}]}
    assert moves_of({"Operations": [first, operation]}, tolerant=True) is None


def test_a_resource_is_read_under_its_proper_names() -> None:
    body = {
        "SCHEMAS": [USERS.core.urn],
        "username": " ada ",
        "Active": "True",
        "emails": [{"value": "a@example.com", "Primary": "true", "$ref": None, "strange": 1}],
        "id": "mine",
        "meta": {"version": "1"},
        "groups": [{"value": "admins"}],
        "password": "hush",
        "title": "",
        f"{ENTERPRISE}": {"Department": "Numbers", "manager": {"displayName": "B", "value": None}},
    }
    assert read_resource(body, USERS, tolerant=True) == {
        "userName": "ada",
        "active": True,
        "emails": [{"value": "a@example.com", "primary": True}],
        ENTERPRISE: {"department": "Numbers"},
    }


@pytest.mark.parametrize(
    "body",
    [
        [], "x", None, {}, {"userName": ""}, {"userName": "  "}, {"userName": 7}, {"userName": "x" * 191},
        {"userName": "a\x00b"}, {"userName": "a", "name": "x"}, {"userName": "a", "emails": [{"value": {}}]},
        {"userName": "a", "emails": [{"value": str(n)} for n in range(300)]}, {"userName": "\ud800"},
        {"userName": "a", "emails": [{"value": "1", "primary": True}, {"value": "2", "primary": True}]},
    ],
)  # fmt: skip
def test_what_is_no_resource_is_refused(body: Any) -> None:
    if isinstance(body, dict):
        body = {"schemas": [USERS.core.urn], **body}
    with pytest.raises(Fault) as end:
        read_resource(body, USERS, tolerant=False)
    assert end.value.scim_type in ("invalidValue", "invalidSyntax")


@pytest.mark.parametrize(
    ("attributes", "excluded", "names"),
    [
        (None, None, set(ADA)),
        ("userName", None, {"id", "userName"}),
        ("USERNAME,emails.type", None, {"id", "userName", "emails"}),
        (["name.givenName"], None, {"id", "name"}),
        (None, "emails,name", set(ADA) - {"emails", "name"}),
        (None, f"{ENTERPRISE}:department", set(ADA)),
        (f"{ENTERPRISE}", None, {"id", ENTERPRISE}),
        ("nothing", None, {"id"}),
        (None, "id", set(ADA)),
    ],
)
def test_a_client_sees_what_it_asks_for(attributes: Any, excluded: Any, names: set[str]) -> None:
    assert set(projection_of(USERS, attributes, excluded).of(ADA)) == names


def test_parts_are_left_out_too() -> None:
    assert projection_of(USERS, "emails.type", None).of(ADA)["emails"] == [{"type": "work"}, {"type": "home"}]
    assert projection_of(USERS, None, f"{ENTERPRISE}:manager").of(ADA)[ENTERPRISE] == {"department": "Numbers"}


def test_attributes_become_claims() -> None:
    claims = claims_of(ADA)
    wanted = {"email": "ada@example.com", "givenName": "Ada", "department": "Numbers", "manager": "m-1"}
    assert {name: claims[name] for name in wanted} == wanted
    assert claims["displayName"] == "Ada Lovelace"
    assert "name" not in claims

"""What is decided about an account, case by case, without any application."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.accounts import Verdict, decide, finish, known_roles, may_join, role_changes
from sidecar.core.template import Compiler
from sidecar.core.wanted import AccountRules, AttributeRule, Wanted, folded, identity_of, want
from sidecar.faults import Refused
from sidecar.model import Account, Change, Identity, Outcome, Person, Result
from sidecar.reason import Reason

COMPILE = Compiler().compile
MANAGED = ("administrator", "editor", "subscriber")
EVERYTHING = frozenset(Change)

ALICE = Identity(
    "corp",
    "https://id.example.com",
    "a1",
    "alice",
    "alice@example.com",
    "Alice",
    groups=("editors",),
    claims={"dept": "IT"},
)
RULES = AccountRules(
    key=COMPILE("{{ user.email | lower }}"),
    protected=frozenset(["admin@example.com"]),
    domains={"corp": ("example.com",)},
    attributes={
        "email": AttributeRule(COMPILE("{{ user.email }}"), required=True),
        "name": AttributeRule(COMPILE("{{ user.name }}"), sync="create"),
        "dept": AttributeRule(COMPILE("{{ claims.dept }}")),
        "number": AttributeRule(COMPILE("{{ claims.number }}"), sync="never"),
    },
    managed=MANAGED,
    default="subscriber",
    able=EVERYTHING,
)
LINKING = replace(RULES, may_link=True)
STRANGER = Person("", (ALICE.key,), "corp")
BOUND = Person(
    "p1", (ALICE.key,), "corp", account=Account("alice@example.com", "7"), fingerprint="f", roles=("editor",)
)
ABSENT = Outcome(Result.NOT_FOUND)
PRESENT = Outcome(Result.FOUND, {"id": "7", "email": "alice@example.com", "dept": "IT", "role": "editor"})


def judge(
    rules: AccountRules = RULES,
    person: Person = STRANGER,
    found: Outcome = ABSENT,
    *,
    identity: Identity = ALICE,
    roles: tuple[str, ...] = ("editor",),
    holders: frozenset[str] = frozenset(),
) -> Verdict:
    return decide(rules, person, want(rules, identity, roles), found, identity=identity, holders=holders)


def test_somebody_without_an_account_gets_one_with_their_attributes_and_roles() -> None:
    verdict = judge()
    assert verdict.changes == (Change.CREATE,)
    assert verdict.account.key == "alice@example.com"
    assert verdict.attributes == {"email": "alice@example.com", "name": "Alice", "dept": "IT"}
    assert verdict.roles == ("editor",)


def test_somebody_with_no_role_gets_the_default_one() -> None:
    assert judge(roles=()).roles == ("subscriber",)
    assert judge(roles=("unmanaged",)).roles == ("subscriber",)


def test_an_account_that_is_as_it_shall_be_is_left_alone() -> None:
    assert judge(person=BOUND, found=PRESENT).changes == ()


@pytest.mark.parametrize(
    ("rules", "person", "found", "reason"),
    [
        (RULES, STRANGER, PRESENT, Reason.ACCOUNT_EXISTS),
        (LINKING, STRANGER, Outcome(Result.AMBIGUOUS), Reason.ACCOUNT_AMBIGUOUS),
        (RULES, BOUND, Outcome(Result.AMBIGUOUS), Reason.ACCOUNT_AMBIGUOUS),
        (RULES, replace(BOUND, active=False), PRESENT, Reason.PERSON_DISABLED),
        (RULES, replace(BOUND, tombstone=1.0), PRESENT, Reason.PERSON_DISABLED),
        (RULES, replace(BOUND, account=Account("Admin@example.com")), PRESENT, Reason.ACCOUNT_PROTECTED),
        (RULES, replace(BOUND, account=Account("alice@example.com", linked=True)), ABSENT, Reason.ACCOUNT_GONE),
        (RULES, BOUND, Outcome(Result.FOUND, {"id": "8"}), Reason.ACCOUNT_GONE),
        (RULES, BOUND, Outcome(Result.FOUND, {"id": "7", "active": "0"}), Reason.ACCOUNT_REFUSED),
        (replace(RULES, able=frozenset()), STRANGER, ABSENT, Reason.ACCOUNT_GONE),
    ],
)
def test_what_nobody_may_have_is_refused(rules: AccountRules, person: Person, found: Outcome, reason: Reason) -> None:
    verdict = judge(rules, person, found)
    assert verdict.refused is reason
    assert not verdict.changes
    assert not verdict.links


def test_an_account_that_we_made_and_somebody_deleted_is_made_anew() -> None:
    assert judge(person=BOUND, found=ABSENT).changes == (Change.CREATE,)


def test_t69_an_account_bound_to_somebody_else_is_never_inherited() -> None:
    for rules in (RULES, LINKING):
        for found in (PRESENT, ABSENT):
            assert judge(rules, found=found, holders=frozenset(["p2"])).refused is Reason.ACCOUNT_BOUND
    assert judge(person=BOUND, found=PRESENT, holders=frozenset(["p1"])).refused is None


def test_t67_a_verified_address_of_the_logins_own_domain_links_where_that_is_wanted() -> None:
    verdict = judge(LINKING, found=PRESENT)
    assert verdict.refused is None
    assert verdict.links
    assert verdict.account == Account("alice@example.com", "7", PRESENT.saved, linked=True)


@pytest.mark.parametrize(
    ("rules", "identity", "found"),
    [
        # Nobody verified the address.
        (LINKING, replace(ALICE, email=""), PRESENT),
        # The login may not speak for that domain, nor for one that ends alike.
        (replace(LINKING, domains={"corp": ("other.example",)}), ALICE, PRESENT),
        (replace(LINKING, domains={"corp": ("le.com",)}), ALICE, PRESENT),
        (replace(LINKING, domains={"partners": ("example.com",)}), ALICE, PRESENT),
        # The account does not carry the address: the name was chosen by the person.
        (replace(LINKING, key=COMPILE("{{ user.username }}")), replace(ALICE, username="root"), Outcome(Result.FOUND)),
        (
            replace(LINKING, key=COMPILE("{{ user.username }}")),
            ALICE,
            Outcome(Result.FOUND, {"email": "bob@example.com"}),
        ),
    ],
)
def test_t67_an_account_is_not_linked_on_less(rules: AccountRules, identity: Identity, found: Outcome) -> None:
    with_key = replace(rules, attributes={}, key=COMPILE("alice@example.com") if not identity.email else rules.key)
    assert judge(with_key, found=found, identity=identity).refused is Reason.ACCOUNT_EXISTS


def test_t67_an_account_may_show_its_address_through_the_lookup() -> None:
    by_name = replace(LINKING, key=COMPILE("{{ user.username }}"))
    assert judge(by_name, found=Outcome(Result.FOUND, {"email": "Alice@Example.com"})).links


SPELLINGS = [
    "admin",
    "ADMIN",
    " Admin ",
    "ａｄｍｉｎ",
    "ádmin",
    "Ädmin",
    "admın",
    "ADMİN",
    "admin\ufe0f",
    "ad\u034fmin",
    "admin\u3164",
]


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_protected_key_is_protected_in_every_spelling(name: str) -> None:
    rules = replace(RULES, key=COMPILE("{{ user.username }}"), protected=frozenset([folded("admin")]), attributes={})
    for found in (ABSENT, PRESENT):
        assert judge(rules, found=found, identity=replace(ALICE, username=name)).refused is Reason.ACCOUNT_PROTECTED


def test_a_protected_account_that_a_loose_collation_finds_is_protected() -> None:
    rules = replace(LINKING, key=COMPILE("ádmin"), protected=frozenset(["admin"]))
    found = Outcome(Result.FOUND, {"key": "admin", "email": "alice@example.com"})
    assert judge(rules, found=found).refused is Reason.ACCOUNT_PROTECTED


def test_an_account_whose_creation_was_begun_is_ours() -> None:
    begun = replace(STRANGER, id="p1", reserved="alice@example.com", attempt="x")
    verdict = judge(person=begun, found=PRESENT, holders=frozenset(["p1"]))
    assert verdict.links
    assert not verdict.account.linked


def test_an_account_unlike_the_one_whose_creation_was_begun_is_somebody_elses() -> None:
    begun = replace(STRANGER, id="p1", reserved="alice@example.com", attempt="x")
    other = Outcome(Result.FOUND, {"id": "7", "email": "eve@example.com"})
    assert judge(person=begun, found=other).refused is Reason.ACCOUNT_EXISTS


def test_a_begun_creation_keeps_its_key_when_the_name_changes_meanwhile() -> None:
    begun = replace(STRANGER, id="p1", reserved="old@example.com", attempt="x")
    assert judge(person=begun).account.key == "old@example.com"


def test_a_bound_account_keeps_its_key_when_the_address_changes() -> None:
    married = replace(ALICE, email="alice.b@example.com")
    verdict = judge(person=BOUND, found=PRESENT, identity=married)
    assert verdict.account.key == "alice@example.com"
    assert verdict.changes == (Change.UPDATE,)
    assert verdict.changed == {"email"}
    assert verdict.attributes == {"email": "alice.b@example.com", "dept": "IT"}


def test_what_is_missing_at_the_provider_is_not_cleared_in_the_application() -> None:
    nowhere = replace(ALICE, claims={})
    assert judge(person=BOUND, found=PRESENT, identity=nowhere).changes == ()


def test_a_required_attribute_that_is_missing_is_refused() -> None:
    for value in ("{{ claims.employee }}", "{{ claims.empty }}"):
        rules = replace(RULES, attributes={"number": AttributeRule(COMPILE(value), required=True, sync="never")})
        with pytest.raises(Refused) as refusal:
            want(rules, replace(ALICE, claims={"empty": ""}), ())
        assert refusal.value.reason is Reason.ACCOUNT_ATTRIBUTE


@pytest.mark.parametrize("name", ["", "  ", "a\x00b", "a\nb", "a\u202eb", "x" * 256])
def test_a_key_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refusal:
        want(replace(RULES, key=COMPILE("{{ user.username }}")), replace(ALICE, username=name), ())
    assert refusal.value.reason is Reason.ACCOUNT_ATTRIBUTE


def test_the_key_has_one_canonical_form() -> None:
    rules = replace(RULES, key=COMPILE("{{ user.username }}"))
    assert want(rules, replace(ALICE, username=" Zoe\u0308 "), ()).key == "Zo\u00eb"


def test_only_what_we_deactivated_is_reactivated() -> None:
    off = replace(BOUND, account=Account("alice@example.com", "7", deactivated=True))
    found = replace(PRESENT, saved={**PRESENT.saved, "active": "false"})
    assert judge(person=off, found=found).changes == (Change.REACTIVATE,)
    assert judge(person=BOUND, found=found).refused is Reason.ACCOUNT_REFUSED
    assert judge(replace(RULES, able=frozenset()), off, found).refused is Reason.ACCOUNT_REFUSED


def test_a_changed_role_is_exchanged() -> None:
    verdict = judge(person=BOUND, found=PRESENT, roles=("administrator",))
    assert verdict.changes == (Change.SET_ROLES,)
    assert (verdict.had, verdict.roles) == (("editor",), ("administrator",))
    assert (verdict.added, verdict.removed) == (("administrator",), ("editor",))


def test_the_roles_of_a_new_account_come_after_its_creation_unless_it_has_them() -> None:
    wanted = want(RULES, ALICE, ("editor",))
    created, account = judge(), Account("alice@example.com", "7")
    assert finish(RULES, wanted, created, account, Outcome(Result.CREATED)).added == ("editor",)
    assert finish(RULES, wanted, created, account, PRESENT).changes == ()
    by_default = Outcome(Result.FOUND, {"role": "subscriber"})
    assert finish(RULES, wanted, created, account, by_default).removed == ("subscriber",)
    only_once = replace(RULES, mode="create_only")
    assert finish(only_once, wanted, created, account, Outcome(Result.CREATED)).added == ("editor",)


@pytest.mark.parametrize(
    ("saved", "roles"),
    [
        ({}, None),
        ({"role": "editor"}, ("editor",)),
        ({"role": ""}, ()),
        ({"roles": "a, b,,a"}, ("a", "b")),
        ({"roles": '["Site Admin", "b"]', "role": "x"}, ("Site Admin", "b")),
        ({"roles": "[broken"}, ("[broken",)),
        ({"roles": ""}, ()),
    ],
)
def test_the_lookup_tells_the_roles(saved: dict[str, str], roles: tuple[str, ...] | None) -> None:
    assert known_roles(Outcome(Result.FOUND, saved)) == roles


def test_create_only_never_touches_the_roles_of_an_account_that_exists() -> None:
    assert role_changes(replace(RULES, mode="create_only"), Wanted("k", roles=("editor",)), ("x",)) == (("x",), (), ())


def test_additive_only_adds() -> None:
    additive = replace(RULES, mode="additive")
    assert role_changes(additive, Wanted("k", roles=("editor",)), ("administrator",)) == (
        ("administrator", "editor"),
        ("editor",),
        (),
    )
    assert role_changes(additive, Wanted("k"), ("administrator",))[1] == ()
    assert role_changes(additive, Wanted("k"), ())[1] == ("subscriber",)


def test_roles_that_nobody_knows_may_be_any_of_the_managed_ones() -> None:
    _, added, removed = role_changes(RULES, Wanted("k", roles=("editor",)), None)
    assert (added, removed) == (("editor",), ("administrator", "subscriber"))


def test_a_role_that_is_not_ours_stands_first_so_that_an_application_with_one_role_keeps_it() -> None:
    assert role_changes(RULES, Wanted("k", roles=("editor",)), ("owner",))[0] == ("owner", "editor")


some_roles = st.lists(st.sampled_from([*MANAGED, "owner", "auditor"]), unique=True).map(tuple)
some_rules = st.builds(
    lambda mode, managed, default: replace(RULES, mode=mode, managed=managed, default=default),
    st.sampled_from(["create_only", "additive", "authoritative"]),
    st.lists(st.sampled_from(MANAGED), unique=True).map(tuple),
    st.sampled_from([None, "subscriber", "guest"]),
)


@given(some_rules, some_roles, st.none() | some_roles, st.booleans())
def test_an_unmanaged_role_is_never_removed(
    rules: AccountRules, effective: tuple[str, ...], had: tuple[str, ...] | None, knows: bool
) -> None:
    wanted = Wanted("k", roles=tuple(role for role in rules.managed if role in effective), knows_groups=knows)
    roles, added, removed = role_changes(rules, wanted, had)
    unmanaged = [role for role in had or () if role not in rules.managed]
    assert set(removed) <= set(rules.managed)
    assert set(unmanaged) <= set(roles)
    assert set(roles) == set(had or ()) - set(removed) | set(added)
    assert not set(added) & set(had or ())


@given(some_rules, some_roles, st.none() | some_roles)
def test_unknown_groups_never_remove_anything_and_never_put_the_default_over_something(
    rules: AccountRules, effective: tuple[str, ...], had: tuple[str, ...] | None
) -> None:
    wanted = Wanted("k", roles=tuple(role for role in rules.managed if role in effective), knows_groups=False)
    roles, added, removed = role_changes(rules, wanted, had)
    assert removed == ()
    assert set(had or ()) <= set(roles)
    if had != ():
        assert set(added) <= set(wanted.roles)


@given(some_roles, some_roles)
def test_authoritative_means_exactly_the_wanted_ones_inside_managed(
    effective: tuple[str, ...], had: tuple[str, ...]
) -> None:
    wanted = Wanted("k", roles=tuple(role for role in MANAGED if role in effective))
    roles, _, _ = role_changes(RULES, wanted, had)
    assert {role for role in roles if role in MANAGED} == set(wanted.roles or ("subscriber",))
    # A second time there is nothing left to do.
    assert role_changes(RULES, wanted, roles) == (roles, (), ())


@given(st.text(max_size=20), st.text(max_size=20))
def test_an_identity_is_read_back_from_the_persons_record(issuer: str, subject: str) -> None:
    who = identity_of(Person("p", (Identity("corp", issuer, subject, "u").key,), "corp", username="u"))
    assert (who.issuer, who.subject, who.username, who.groups) == (issuer, subject, "u", None)


BY_SAML = replace(ALICE, provider="suppliers", issuer="https://idp.example.com/metadata", subject="pairwise-1")
JOINING = replace(RULES, may_join=True, domains={"suppliers": ("example.com",)})
HOLDER = replace(BOUND, email="alice@example.com")


def test_t67_the_owner_of_an_account_may_come_by_another_login_where_that_is_wanted() -> None:
    assert may_join(JOINING, HOLDER, PRESENT, BY_SAML)


@pytest.mark.parametrize(
    ("rules", "holder", "found", "identity"),
    [
        (replace(JOINING, may_join=False, may_link=True), HOLDER, PRESENT, BY_SAML),
        (replace(JOINING, domains={}), HOLDER, PRESENT, BY_SAML),
        (replace(JOINING, domains={"corp": ("example.com",)}), HOLDER, PRESENT, BY_SAML),
        (replace(JOINING, protected=frozenset(["alice@example.com"])), HOLDER, PRESENT, BY_SAML),
        # An address that nobody verified is empty.
        (JOINING, HOLDER, PRESENT, replace(BY_SAML, email="")),
        (JOINING, replace(HOLDER, email=""), PRESENT, replace(BY_SAML, email="")),
        (JOINING, replace(HOLDER, email=""), PRESENT, BY_SAML),
        (JOINING, replace(HOLDER, email="old@example.com"), PRESENT, BY_SAML),
        # The same provider knows the owner already: this is whoever got the name or the address afterwards.
        (JOINING, HOLDER, PRESENT, replace(BY_SAML, issuer=ALICE.issuer)),
        (JOINING, replace(HOLDER, active=False), PRESENT, BY_SAML),
        (JOINING, replace(HOLDER, tombstone=1.0), PRESENT, BY_SAML),
        (JOINING, replace(HOLDER, account=None), PRESENT, BY_SAML),
        (JOINING, HOLDER, ABSENT, BY_SAML),
        (JOINING, HOLDER, Outcome(Result.AMBIGUOUS), BY_SAML),
        # Another account stands there now.
        (JOINING, HOLDER, Outcome(Result.FOUND, {"id": "8", "email": "alice@example.com"}), BY_SAML),
        # The account is known by a name, and does not carry the address.
        (
            JOINING,
            replace(HOLDER, account=Account("alice", "7")),
            Outcome(Result.FOUND, {"id": "7", "email": "x@example.com"}),
            BY_SAML,
        ),
    ],
)
def test_t67_t69_nobody_else_comes_by_another_login(
    rules: AccountRules, holder: Person, found: Outcome, identity: Identity
) -> None:
    assert not may_join(rules, holder, found, identity)

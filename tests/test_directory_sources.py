"""What sources say of people, and the groups that they tell of, on SQLite, PostgreSQL and MariaDB alike."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import insert

from sidecar.core.scim.fault import Fault
from sidecar.directory import Directory
from sidecar.directory.database import Database
from sidecar.directory.groups import Group, Members
from sidecar.directory.nesting import MOST_LEVELS
from sidecar.directory.scim import Window
from sidecar.directory.scim_query import USER_FIELDS, condition_of
from sidecar.directory.tables import person as person_table
from sidecar.directory.tables import scim_user, subgroup
from sidecar.faults import Refused
from sidecar.model import Account, Duty, Identity
from sidecar.reason import Reason

ADA = Identity("scim:hr", "scim:hr", "4711", "ada", "ada@example.com", "Ada", (), {"department": "Numbers"})
ADA_AT_CORP = Identity("corp", "https://id.example.com", "sub-ada", "ada.l", "ada@example.com", "A. L.", ("staff",))


async def owed(directory: Directory, now: float = 1e6) -> list[tuple[str, Duty]]:
    """What is owed, taken off the list."""
    items = await directory.outbox.due(now, 60)
    for item in items:
        await directory.outbox.done(item)
    return sorted((item.person_id, item.duty) for item in items)


async def refusal(work: object) -> Reason:
    with pytest.raises(Refused) as end:
        await work  # type: ignore[misc]
    return end.value.reason


async def test_a_source_makes_a_person_whose_account_is_owed(directory: Directory) -> None:
    told = await directory.profiles.told(ADA, ["x"], 5)
    assert (told.is_new, told.has_changed) == (True, True)
    person = await directory.person(told.person_id)
    assert person is not None
    assert (person.source, person.username, person.identities) == ("scim:hr", "ada", (ADA.key,))
    [profile] = await directory.profiles.of_person(told.person_id)
    assert (profile.identity, profile.is_login, profile.source) == (ADA, False, "scim:hr")
    assert await owed(directory) == [(told.person_id, Duty.SETTLE)]


async def test_the_same_word_again_changes_and_owes_nothing(directory: Directory) -> None:
    first = await directory.profiles.told(ADA, ["x"], 5)
    await owed(directory)
    again = await directory.profiles.told(ADA, ["x"], 6)
    assert (again.person_id, again.is_new, again.has_changed) == (first.person_id, False, False)
    assert await owed(directory) == []


async def test_another_word_changes_the_person_and_owes_one_look(directory: Directory) -> None:
    first = await directory.profiles.told(ADA, [], 5)
    for number, title in enumerate(("Countess", "Lady")):
        told = await directory.profiles.told(replace(ADA, name=title, groups=None), [], 6 + number)
        assert told.has_changed
    person = await directory.person(first.person_id)
    assert person is not None
    assert person.name == "Lady"
    assert await owed(directory) == [(first.person_id, Duty.SETTLE)]


async def test_unknown_groups_and_no_groups_are_not_the_same(directory: Directory) -> None:
    told = await directory.profiles.told(replace(ADA, groups=None), [], 5)
    [unknown] = await directory.profiles.of_person(told.person_id)
    await directory.profiles.told(ADA, [], 6)
    [none] = await directory.profiles.of_person(told.person_id)
    assert (unknown.identity.groups, none.identity.groups) == (None, ())


async def test_who_signs_in_later_is_joined_to_the_person_of_the_source(directory: Directory) -> None:
    told = await directory.profiles.told(ADA, ["oid-1"], 5)
    assert await directory.profiles.joined(ADA_AT_CORP, {"scim:hr": "oid-2"}) is None
    assert await directory.profiles.joined(ADA_AT_CORP, {"scim:sales": "oid-1"}) is None
    assert await directory.profiles.joined(ADA_AT_CORP, {"scim:hr": "oid-1"}) == told.person_id
    person = await directory.person_by_identity(ADA_AT_CORP.key)
    assert person is not None
    assert (person.id, person.source) == (told.person_id, "scim:hr")


async def test_who_signed_in_before_is_taken_over_by_the_source(directory: Directory) -> None:
    person = await directory.admit(ADA_AT_CORP, 1)
    await directory.profiles.signed_in(person, ADA_AT_CORP, {"scim:hr": "oid-1"}, 2)
    told = await directory.profiles.told(ADA, ["oid-1"], 5)
    assert (told.person_id, told.is_new) == (person.id, False)
    taken = await directory.person(person.id)
    assert taken is not None
    assert (taken.source, taken.identities) == ("scim:hr", tuple(sorted([ADA.key, ADA_AT_CORP.key])))
    assert {one.source: one.is_login for one in await directory.profiles.of_person(person.id)} == {
        "corp": True,
        "scim:hr": False,
    }


async def test_t69_a_value_given_to_somebody_else_does_not_open_the_first_ones_record(directory: Directory) -> None:
    await directory.profiles.told(ADA, ["ada"], 5)
    await directory.profiles.joined(ADA_AT_CORP, {"scim:hr": "ada"})
    newcomer = replace(ADA_AT_CORP, subject="sub-other")
    assert await refusal(directory.profiles.joined(newcomer, {"scim:hr": "ada"})) is Reason.ACCOUNT_BOUND


async def test_a_value_of_two_people_joins_nobody(directory: Directory) -> None:
    await directory.profiles.told(ADA, ["same"], 5)
    await directory.profiles.told(replace(ADA, subject="4712", username="bea"), ["same"], 5)
    assert await refusal(directory.profiles.joined(ADA_AT_CORP, {"scim:hr": "same"})) is Reason.ACCOUNT_AMBIGUOUS
    for name in ("one", "two"):
        who = replace(ADA_AT_CORP, subject=name)
        await directory.profiles.signed_in(await directory.admit(who, 1), who, {"scim:hr": "twice"}, 2)
    late = replace(ADA, subject="4713")
    assert await refusal(directory.profiles.told(late, ["twice"], 5)) is Reason.ACCOUNT_AMBIGUOUS


async def test_t69_nobody_is_joined_to_somebody_who_is_gone_for_good(directory: Directory) -> None:
    told = await directory.profiles.told(ADA, ["oid-1"], 5)
    await directory.tombstone(told.person_id, "scim:hr", 6)
    assert await directory.profiles.joined(ADA_AT_CORP, {"scim:hr": "oid-1"}) is None


async def test_what_a_source_has_forgotten_does_not_count_and_its_name_is_free(directory: Directory) -> None:
    told = await directory.profiles.told(ADA, ["oid-1"], 5)
    await directory.profiles.joined(ADA_AT_CORP, {"scim:hr": "oid-1"})
    await directory.profiles.forget(ADA, 6)
    person = await directory.person(told.person_id)
    assert person is not None
    assert person.identities == (ADA_AT_CORP.key,)
    assert await directory.profiles.of_person(told.person_id) == ()
    again = await directory.profiles.told(ADA, ["oid-1"], 7)
    assert again.is_new
    assert again.person_id != told.person_id


async def test_two_replicas_that_hear_of_one_person_at_once_make_one(database_url: str, directory: Directory) -> None:
    other = await Directory.open(database_url, "wiki", 15)
    ends = await asyncio.gather(
        *[place.profiles.told(ADA, [], 5) for place in (directory, other) * 4], return_exceptions=True
    )
    await other.close()
    ids = {end.person_id for end in ends if not isinstance(end, BaseException)}
    assert len(ids) == 1
    assert all(not isinstance(end, BaseException) for end in ends), ends
    assert len(await directory.find("ada")) == 1


async def test_a_deleted_account_leaves_its_key_to_others(directory: Directory) -> None:
    person = await directory.admit(ADA_AT_CORP, 1)
    await directory.link(person, Account("ada", "1"), 2)
    await directory.drop_account(person.id)
    assert await directory.holders("ada", "1") == frozenset()


# Groups


async def people(directory: Directory, number: int) -> list[str]:
    found = []
    for one in range(number):
        who = replace(ADA, subject=str(one), username=f"user{one}")
        found.append((await directory.profiles.told(who, [], 5)).person_id)
    await owed(directory)
    return found


async def test_who_comes_and_goes_is_owed_a_look_and_nobody_else(directory: Directory) -> None:
    ann, bob, cay = await people(directory, 3)
    group = await directory.groups.make("scim:hr", "Wiki Admins", 6)
    group = await directory.groups.change(group.id, 7, add=[ann, bob])
    assert (group.version, group.updated) == (2, 7)
    assert await owed(directory) == sorted([(ann, Duty.SETTLE), (bob, Duty.SETTLE)])
    same = await directory.groups.change(group.id, 8, add=[ann], remove=[cay])
    assert same == group
    assert await owed(directory) == []
    group = await directory.groups.replace(group.id, [bob, cay], 9)
    assert await owed(directory) == sorted([(ann, Duty.SETTLE), (cay, Duty.SETTLE)])
    assert await directory.groups.members(group.id) == tuple(sorted([bob, cay]))
    assert await directory.groups.names_of(bob) == ("Wiki Admins",)
    assert await directory.groups.names_of(ann) == ()


async def test_renaming_and_deleting_a_group_concerns_all_its_members(directory: Directory) -> None:
    ann, bob = await people(directory, 2)
    group = await directory.groups.make("scim:hr", "Wiki Admins", 6, external="g-1")
    await directory.groups.change(group.id, 7, add=[ann, bob])
    await owed(directory)
    renamed = await directory.groups.rename(group.id, "Wiki Owners", 8)
    assert (renamed.name, renamed.external) == ("Wiki Owners", "g-1")
    assert await directory.groups.rename(group.id, "Wiki Owners", 9) == renamed
    assert len(await owed(directory)) == 2
    await directory.groups.delete(group.id, 9)
    assert len(await owed(directory)) == 2
    assert await directory.groups.group(group.id) is None
    assert await refusal(directory.groups.delete(group.id, 10)) is Reason.NOT_FOUND


async def test_a_source_has_each_group_name_once_in_any_case(directory: Directory) -> None:
    first = await directory.groups.make("scim:hr", "Admins", 6)
    assert await refusal(directory.groups.make("scim:hr", "ADMINS", 6)) is Reason.CONFLICT
    other = await directory.groups.make("scim:sales", "admins", 6)
    third = await directory.groups.make("scim:hr", "Editors", 6)
    assert await refusal(directory.groups.rename(third.id, "admins", 7)) is Reason.CONFLICT
    assert len({first.id, other.id, third.id}) == 3


async def test_whoever_is_in_a_group_is_in_the_groups_around_it_and_their_accounts_follow(directory: Directory) -> None:
    people = [replace(ADA, subject=name, username=name) for name in ("ann", "bob")]
    ann, bob = [(await directory.profiles.told(one, [one.subject], 5)).person_id for one in people]
    inner = await directory.groups.make("scim:hr", "inner", 6, people=[ann])
    middle = await directory.groups.make("scim:hr", "middle", 6, people=[bob], groups=[inner.id])
    await owed(directory)
    outer = await directory.groups.make("scim:hr", "outer", 7, groups=[middle.id])
    assert await owed(directory) == sorted([(ann, Duty.SETTLE), (bob, Duty.SETTLE)])
    assert await directory.groups.names_of(ann) == ("inner", "middle", "outer")
    found = (await directory.groups.of_people([bob]))[bob]
    assert [(one.name, one.is_inherited) for one in found] == [("middle", False), ("outer", True)]
    assert await directory.groups.everybody([outer.id]) == tuple(sorted([ann, bob]))
    # The same again is no change.
    same = await directory.groups.change(outer.id, 8, add=Members(groups=frozenset([middle.id])))
    assert (same.version, await owed(directory)) == (outer.version, [])
    await directory.groups.rename(outer.id, "OUTER", 9)
    assert len(await owed(directory)) == 2
    for one in (inner, middle):
        with pytest.raises(Fault):
            await directory.groups.change(one.id, 10, add=Members(groups=frozenset([outer.id])))
    assert await owed(directory) == []
    await directory.groups.change(middle.id, 11, remove=Members(groups=frozenset([inner.id])))
    assert await owed(directory) == [(ann, Duty.SETTLE)]
    assert await directory.groups.names_of(ann) == ("inner",)
    await directory.groups.delete(middle.id, 12)
    assert await owed(directory) == [(bob, Duty.SETTLE)]
    assert await directory.groups.names_of(bob) == ()


async def test_groups_are_in_one_another_over_so_many_levels_and_no_more(directory: Directory) -> None:
    ann = (await directory.profiles.told(ADA, ["ann"], 5)).person_id
    half = MOST_LEVELS // 2
    lower: list[Group] = []
    upper: list[Group] = []
    for chain in (lower, upper):
        for level in range(half):
            inner = [chain[-1].id] if chain else []
            chain.append(await directory.groups.make("scim:hr", f"{chain is upper} {level:02}", 6, groups=inner))
    await directory.groups.change(lower[0].id, 7, add=[ann])
    # As deep as can be: all of one chain below all of the other.
    await directory.groups.change(upper[0].id, 8, add=Members(groups=frozenset([lower[-1].id])))
    assert len(await directory.groups.names_of(ann)) == MOST_LEVELS
    with pytest.raises(Fault) as fault:
        await directory.groups.make("scim:hr", "one more around", 9, groups=[upper[-1].id])
    assert f"at most {MOST_LEVELS} levels, these would be {MOST_LEVELS + 1}" in str(fault.value)
    single = await directory.groups.make("scim:hr", "one more within", 9)
    with pytest.raises(Fault):
        await directory.groups.change(lower[0].id, 9, add=Members(groups=frozenset([single.id])))
    assert len(await directory.groups.names_of(ann)) == MOST_LEVELS
    # Beside the others there is room.
    await directory.groups.change(lower[1].id, 9, add=Members(groups=frozenset([single.id])))


async def test_a_circle_that_two_replicas_made_at_once_troubles_nobody(directory: Directory, database_url: str) -> None:
    ann = (await directory.profiles.told(ADA, ["ann"], 5)).person_id
    one = await directory.groups.make("scim:hr", "one", 6, people=[ann])
    other = await directory.groups.make("scim:hr", "other", 6, groups=[one.id])
    database = Database(database_url, 15)
    row = {"group_id": one.id, "child_id": other.id}
    await database.write(lambda connection: connection.execute(insert(subgroup).values(**row)))
    await database.close()
    assert await directory.groups.names_of(ann) == ("one", "other")
    await directory.groups.delete(other.id, 7)
    assert await directory.groups.names_of(ann) == ("one",)


@pytest.mark.parametrize("descending", [False, True])
async def test_a_page_far_down_a_list_is_as_one_at_its_beginning(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, descending: bool
) -> None:
    def describe(user_id: str, document: dict[str, object]) -> tuple[Identity, list[str]]:
        return replace(ADA, subject=user_id, username=str(document["userName"])), []

    for number in range(6):
        await directory.scim.create("scim:hr", {"userName": f"u{number % 3}-{number}"}, describe, 5 + number)
    for by in (None, scim_user.c.search_name):
        pages = []
        for far in (1000, 0):
            monkeypatch.setattr("sidecar.directory.scim._FAR", far)
            window = Window(2, 3, by=by, descending=descending)
            pages.append(await directory.scim.page("scim:hr", condition_of(None, USER_FIELDS), window))
        assert [len(page) for page in pages] == [2, 2]
        assert pages[0] == pages[1]


async def test_a_group_of_thousands_is_changed_at_once(directory: Directory) -> None:
    crowd = await people(directory, 3)
    group = await directory.groups.make("scim:hr", "Everybody", 6)
    rows = [{"id": f"p{number}", "n": number} for number in range(1200)]

    async def fill(connection: object) -> None:
        blank = {"source": "scim:hr", "active": True, "disabled_by": "", "created": 1, "updated": 1, "last_seen": 1}
        names = {"username": "", "email": "", "name": "", "search_username": "", "search_email": "", "version": 1}
        await connection.execute(insert(person_table), [{"id": row["id"], **blank, **names} for row in rows])  # type: ignore[attr-defined]

    await directory._database.write(fill)
    await directory.groups.change(group.id, 7, add=[*crowd, *[str(row["id"]) for row in rows]])
    assert len(await directory.groups.members(group.id)) == 1203
    await directory.groups.replace(group.id, crowd[:1], 8)
    assert await directory.groups.members(group.id) == (crowd[0],)


async def test_a_look_that_waits_for_its_next_try_comes_at_once_when_things_change(directory: Directory) -> None:
    told = await directory.profiles.told(ADA, [], 5)
    [item] = await directory.outbox.due(5, 60)
    await directory.outbox.retry(item, 5000, "down")
    assert await owed(directory, 6) == []
    await directory.profiles.told(replace(ADA, name="Countess"), [], 7)
    assert await owed(directory, 7) == [(told.person_id, Duty.SETTLE)]


async def test_a_change_during_the_work_is_not_lost(directory: Directory) -> None:
    told = await directory.profiles.told(ADA, [], 5)
    [item] = await directory.outbox.due(5, 60)
    await directory.profiles.told(replace(ADA, name="Countess"), [], 7)
    await directory.outbox.done(item)
    assert await owed(directory, 8) == [(told.person_id, Duty.SETTLE)]

"""Who somebody is, put together from sign-ins and sources, and how accounts follow from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.core.people import effective
from sidecar.core.roles import Role
from sidecar.core.template import Compiler
from sidecar.directory import Directory
from sidecar.faults import Refused
from sidecar.model import Identity, Profile
from sidecar.people import Changes, People, SourcePlan
from sidecar.reason import Reason
from sidecar.sessions.memory import MemoryStore
from tests.test_provision import World, refusal

ADA = Identity("corp", "https://id.example.com", "a1", "ada", "ada@old.example", "Ada", ("staff",), {"oid": "o-1"})
BY_HR = Identity("scim:hr", "scim:hr", "4711", "ada.l", "ada@example.com", "", None, {"department": "Numbers"})
NOW = 1000.0
TEMPLATE = Compiler().compile


def told(identity: Identity) -> Profile:
    return Profile(identity.provider, "p", identity)


def test_a_source_is_stronger_than_the_sign_in_where_it_says_something() -> None:
    who = effective(ADA, [told(BY_HR)], ["admins"], adds=True)
    assert (who.provider, who.subject) == ("corp", "a1")
    assert (who.username, who.email, who.name) == ("ada.l", "ada@example.com", "Ada")
    assert who.claims == {"oid": "o-1", "department": "Numbers"}
    assert who.groups == ("admins", "staff")


def test_groups_of_sources_may_stand_in_place_of_those_of_the_sign_in() -> None:
    assert effective(ADA, [told(BY_HR)], ["admins"], adds=False).groups == ("admins",)


def test_groups_are_unknown_as_long_as_the_sign_in_owes_them() -> None:
    overflowed = replace(ADA, groups=None)
    assert effective(overflowed, [told(BY_HR)], ["admins"], adds=True).groups is None
    assert effective(overflowed, [told(BY_HR)], ["admins"], adds=False).groups == ("admins",)
    assert effective(overflowed, [], [], adds=False).groups is None


def test_who_never_signed_in_is_what_the_source_says() -> None:
    assert effective(None, [told(BY_HR)], ["admins"], adds=True) == replace(BY_HR, groups=("admins",))
    stronger = replace(BY_HR, provider="sync:hr", username="adal")
    assert effective(None, [told(stronger), told(BY_HR)], [], adds=True).username == "adal"
    with pytest.raises(ValueError, match="nobody says"):
        effective(None, [], [], adds=True)


class Place:
    """One replica's view of people."""

    def __init__(self, directory: Directory, store: MemoryStore, sources: tuple[str, ...] = ("scim:hr",)) -> None:
        joins = {"corp": TEMPLATE("{{ claims.oid }}")}
        self.changes = Changes(store)
        self.directory = directory
        roles = [Role("admin", when=TEMPLATE("{{ 'admins' in groups }}")), Role("staff", groups=frozenset(["staff"]))]
        plans = [SourcePlan(source, joins) for source in sources]
        self.people = People(directory, self.changes, plans, roles, frozenset(["corp"]))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    directory = await Directory.open(f"sqlite:///{tmp_path}/directory.db", "wiki", 15)
    yield Place(directory, MemoryStore(lambda: NOW))
    await directory.close()


async def test_a_stranger_to_all_sources_is_what_the_sign_in_says_and_leaves_no_trace(place: Place) -> None:
    assert await place.people.known(ADA, NOW) is ADA
    assert await place.directory.person_by_identity(ADA.key) is None


async def test_the_answer_stays_the_same_object_until_something_changes(place: Place) -> None:
    made = await place.directory.profiles.told(BY_HR, ["o-1"], NOW)
    first = await place.people.known(ADA, NOW)
    assert first.username == "ada.l"
    assert await place.people.known(ADA, NOW + 59) is first
    await place.directory.profiles.told(replace(BY_HR, username="countess"), ["o-1"], NOW)
    assert await place.people.known(ADA, NOW + 59) is first
    await place.changes.announce([made.person_id])
    assert (await place.people.known(ADA, NOW + 59)).username == "countess"


async def test_word_of_very_many_people_is_one_word(place: Place) -> None:
    await place.directory.profiles.told(BY_HR, ["o-1"], NOW)
    await place.people.known(ADA, NOW)
    await place.directory.profiles.told(replace(BY_HR, username="countess"), ["o-1"], NOW)
    await place.changes.announce([str(number) for number in range(5000)])
    assert (await place.people.known(ADA, NOW)).username == "countess"


async def test_another_replica_hears_of_a_change(place: Place) -> None:
    made = await place.directory.profiles.told(BY_HR, ["o-1"], NOW)
    other = Place(place.directory, place.changes._store)  # type: ignore[arg-type]
    assert (await other.people.known(ADA, NOW)).username == "ada.l"
    await place.directory.profiles.told(replace(BY_HR, username="countess"), ["o-1"], NOW)
    await place.changes.announce([made.person_id])
    assert (await other.people.known(ADA, NOW)).username == "countess"


async def test_t68_a_good_sign_in_does_not_open_what_the_source_closed(place: Place) -> None:
    made = await place.directory.profiles.told(BY_HR, ["o-1"], NOW)
    await place.directory.disable(made.person_id, "scim:hr", NOW)
    with pytest.raises(Refused) as end:
        await place.people.known(ADA, NOW)
    assert end.value.reason is Reason.PERSON_DISABLED


async def test_the_groups_of_the_source_make_roles_for_those_who_are_not_here(place: Place) -> None:
    made = await place.directory.profiles.told(BY_HR, ["o-1"], NOW)
    group = await place.directory.groups.make("scim:hr", "admins", NOW)
    await place.directory.groups.change(group.id, NOW, add=[made.person_id])
    person = await place.directory.person(made.person_id)
    assert person is not None
    assert await place.people.of(person) == (replace(BY_HR, groups=("admins",)), ("admin",))
    await place.people.known(ADA, NOW)
    found = await place.people.of(person)
    assert found is not None
    assert found[1] == ("admin", "staff")
    assert found[0] == await place.people.known(ADA, NOW)


async def test_nothing_is_known_of_somebody_of_whom_nothing_was_said(place: Place) -> None:
    person = await place.directory.admit(ADA, NOW)
    assert await place.people.of(person) is None


# Accounts follow


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(f"sqlite+aiosqlite:///{tmp_path}/app.db", f"sqlite:///{tmp_path}/directory.db")
    await made.prepare()
    yield made
    await made.close()


async def test_a_person_told_of_gets_an_account_changes_and_leaves_without_ever_signing_in(world: World) -> None:
    helper = await Directory.open(world.directory_url, "wiki", 15)
    people = Place(helper, MemoryStore(lambda: NOW)).people
    provisioner, _, directory = await world.replica(who=people.of, roles__managed=["admin", "staff", "reader"])
    made = await directory.profiles.told(BY_HR, [], NOW)
    assert await provisioner.outbox.work_off() == 1
    assert await world.rows() == [("ada.l", "ada@example.com", "reader", 1)]
    group = await directory.groups.make("scim:hr", "admins", NOW)
    await directory.groups.change(group.id, NOW, add=[made.person_id])
    await provisioner.outbox.work_off()
    assert await world.rows() == [("ada.l", "ada@example.com", "admin", 1)]
    await provisioner.disable(made.person_id, "scim:hr", NOW)
    await provisioner.outbox.work_off()
    assert (await world.rows())[0][3] == 0
    await provisioner.enable(made.person_id, "scim:hr", NOW)
    await provisioner.outbox.work_off()
    assert await world.rows() == [("ada.l", "ada@example.com", "admin", 1)]
    await helper.close()


async def test_signing_in_after_that_asks_the_application_for_nothing(world: World) -> None:
    helper = await Directory.open(world.directory_url, "wiki", 15)
    people = Place(helper, MemoryStore(lambda: NOW)).people
    provisioner, hook, directory = await world.replica(who=people.of, roles__managed=["admin", "staff", "reader"])
    await directory.profiles.told(BY_HR, ["o-1"], NOW)
    await provisioner.outbox.work_off()
    who = await people.known(ADA, NOW)
    await provisioner.ensure(who, ["staff"], NOW)
    asked = len(hook.orders)
    await directory.profiles.told(replace(BY_HR, claims={"department": "Letters"}), ["o-1"], NOW)
    await provisioner.outbox.work_off()
    assert len(hook.orders) == asked
    assert await world.rows() == [("ada.l", "ada@example.com", "staff", 1)]
    await helper.close()


async def test_somebody_who_is_deleted_loses_the_account_or_has_it_deactivated(world: World) -> None:
    by_id = {"id": "{{ account.id }}"}
    delete = {"sql": {"on": "db", "exec": "DELETE FROM users WHERE id = :id", "params": by_id, "affected": 1}}
    helper = await Directory.open(world.directory_url, "wiki", 15)
    people = Place(helper, MemoryStore(lambda: NOW)).people
    able, _, directory = await world.replica(who=people.of, delete=delete)
    made = await directory.profiles.told(BY_HR, [], NOW)
    await able.outbox.work_off()
    await able.remove(made.person_id, "scim:hr", NOW)
    while await able.outbox.work_off():
        pass
    assert await world.rows() == []
    assert await directory.holders("ada.l", "") == frozenset()
    assert "account-deleted" in world.event_names()
    unable, _, _ = await world.replica(who=people.of)
    second = await directory.profiles.told(replace(BY_HR, subject="4712", username="bea"), [], NOW)
    await unable.outbox.work_off()
    await unable.remove(second.person_id, "scim:hr", NOW)
    while await unable.outbox.work_off():
        pass
    assert [row[3] for row in await world.rows()] == [0]
    await helper.close()


async def test_a_person_who_may_not_have_the_account_is_put_aside_for_people_to_look_at(world: World) -> None:
    helper = await Directory.open(world.directory_url, "wiki", 15)
    people = Place(helper, MemoryStore(lambda: NOW)).people
    provisioner, _, directory = await world.replica(who=people.of)
    await world.insert("ada.l", "somebody@else.example")
    await directory.profiles.told(BY_HR, [], NOW)
    assert await provisioner.outbox.work_off() == 1
    world.time += 10_000
    assert await provisioner.outbox.work_off() == 0
    assert [fields["reason"] for event, fields in world.events if event == "provisioning-failed"] == ["account-exists"]
    assert await refusal(provisioner.ensure(BY_HR, [], NOW)) is Reason.ACCOUNT_EXISTS
    await helper.close()

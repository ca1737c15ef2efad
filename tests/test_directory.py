"""The directory keeps its promises on SQLite, PostgreSQL and MariaDB alike."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sidecar.directory import Directory, Owed
from sidecar.faults import Refused, Unavailable
from sidecar.model import Account, Duty, Identity, Person
from sidecar.reason import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.services.mariadb import MariadbServer
    from tests.services.postgres import PostgresServer

ALICE = Identity("corp", "https://id.example.com", "a1", "Alice", "alice@example.com", "Alice Ärmel 🦊")
BOB = Identity("corp", "https://id.example.com", "b2", "bob", "bob@example.com")


@pytest.fixture
async def replica(database_url: str, directory: Directory) -> AsyncIterator[Directory]:
    opened = await Directory.open(database_url, directory.application, 15)
    yield opened
    await opened.close()


async def bound(directory: Directory, who: Identity, account: Account) -> Person:
    person = await directory.reserve(await directory.admit(who, 1), account.key, 1)
    assert person is not None
    return await directory.settle(person, account, 1)


async def test_nobody_is_known_at_first(directory: Directory) -> None:
    assert await directory.person("nobody") is None
    assert await directory.person_by_identity(ALICE.key) is None
    assert await directory.person_by_account("alice") is None
    assert await directory.find("") == ()
    assert await directory.holders("alice", "7") == frozenset()


async def test_a_person_who_is_admitted_is_found_again_by_every_way(directory: Directory, replica: Directory) -> None:
    person = await directory.admit(ALICE, 12.25)
    assert person.identities == (ALICE.key,)
    assert (person.source, person.active, person.account) == ("corp", True, None)
    assert (person.username, person.email, person.name, person.last_seen) == (
        ALICE.username,
        ALICE.email,
        ALICE.name,
        12.25,
    )
    assert await replica.person(person.id) == person
    assert await replica.person_by_identity(ALICE.key) == person
    assert await replica.find("ALI") == (person,)


async def test_names_are_kept_up_to_date_and_the_person_stays_the_same(directory: Directory) -> None:
    first = await directory.admit(ALICE, 1)
    again = await directory.admit(replace(ALICE, username="Alina", email="alina@example.com"), 2)
    assert again.id == first.id
    assert again.version == first.version
    assert (again.username, again.email, again.last_seen) == ("Alina", "alina@example.com", 2)
    assert await directory.find("alice") == ()
    assert await directory.find("alina@") == (again,)


async def test_the_same_subject_at_another_issuer_is_another_person(directory: Directory) -> None:
    first = await directory.admit(ALICE, 1)
    second = await directory.admit(replace(ALICE, issuer="https://other.example"), 1)
    assert first.id != second.id


async def test_subjects_that_differ_only_in_case_are_different_people(directory: Directory) -> None:
    first = await directory.admit(ALICE, 1)
    assert (await directory.admit(replace(ALICE, subject="A1"), 1)).id != first.id


async def test_people_who_come_at_once_are_admitted_once(directory: Directory, replica: Directory) -> None:
    people = await asyncio.gather(*[place.admit(ALICE, 1) for place in (directory, replica) * 10])
    assert len({person.id for person in people}) == 1
    assert len(await directory.find("")) == 1


@pytest.mark.parametrize("subject", ["a\x00b", "a\ud800"])
async def test_a_subject_that_cannot_be_stored_exactly_is_refused(directory: Directory, subject: str) -> None:
    with pytest.raises(Refused) as refusal:
        await directory.admit(replace(ALICE, subject=subject), 1)
    assert refusal.value.reason is Reason.IDENTITY_INCOMPLETE


async def test_t71_what_people_are_called_is_never_part_of_a_statement(directory: Directory) -> None:
    mallory = replace(ALICE, subject="'; DROP TABLE sidecar_person; --", username="100%_'\"\\")
    person = await directory.admit(mallory, 1)
    assert await directory.person_by_identity(mallory.key) == person
    assert await directory.find("100%_'\"\\") == (person,)
    await directory.admit(replace(BOB, username="100xx"), 1)
    assert await directory.find("100%") == (person,)


async def test_search_comes_page_by_page(directory: Directory) -> None:
    for number in range(5):
        await directory.admit(replace(BOB, subject=str(number), username=f"bob{number}"), 1)
    pages = [await directory.find("bob", offset, 2) for offset in (0, 2, 4, 6)]
    assert [[person.username for person in page] for page in pages] == [
        ["bob0", "bob1"],
        ["bob2", "bob3"],
        ["bob4"],
        [],
    ]


async def test_a_reserved_account_is_nobody_elses_and_not_yet_theirs(directory: Directory) -> None:
    alice, bob = await directory.admit(ALICE, 1), await directory.admit(BOB, 1)
    reserved = await directory.reserve(alice, "Wiki.Alice", 2)
    assert reserved is not None
    assert (reserved.account, reserved.reserved) == (None, "Wiki.Alice")
    assert reserved.attempt
    assert await directory.holders("wiki.alice", "") == {alice.id}
    with pytest.raises(Refused) as refusal:
        await directory.reserve(bob, "WIKI.alice", 2)
    assert refusal.value.reason is Reason.ACCOUNT_BOUND
    await directory.release(reserved)
    assert await directory.holders("wiki.alice", "") == frozenset()
    assert await directory.reserve(bob, "WIKI.alice", 2) is not None


async def test_a_late_release_does_not_undo_another_attempt(directory: Directory) -> None:
    first = await directory.reserve(await directory.admit(ALICE, 1), "alice", 1)
    assert first is not None
    second = await directory.reserve(first, "alice", 2)
    assert second is not None
    await directory.release(first)
    assert await directory.holders("alice", "") == {second.id}


async def test_a_settled_account_is_bound_with_all_that_the_hooks_told(directory: Directory) -> None:
    person = await bound(directory, ALICE, Account("alice", "7", {"id": "7", "home": "/ä"}))
    assert person.account == Account("alice", "7", {"id": "7", "home": "/ä"})
    assert (person.reserved, person.fingerprint) == ("", "")
    assert await directory.person_by_account("ALICE") == person
    assert await directory.holders("other", "7") == {person.id}


async def test_an_account_is_bound_to_one_person_by_key_and_by_id(directory: Directory) -> None:
    await bound(directory, ALICE, Account("alice", "7"))
    bob = await directory.admit(BOB, 1)
    for account in (Account("Alice", "8"), Account("bob", "7")):
        with pytest.raises(Refused) as refusal:
            await directory.link(bob, account, 1)
        assert refusal.value.reason is Reason.ACCOUNT_BOUND
    linked = await directory.link(bob, Account("bob", "8", linked=True), 1)
    assert linked is not None
    assert linked.account == Account("bob", "8", linked=True)


async def test_of_many_who_link_the_same_account_one_gets_it(directory: Directory, replica: Directory) -> None:
    people = [await directory.admit(replace(BOB, subject=str(number)), 1) for number in range(6)]
    links = [
        place.link(person, Account("bob", "8"), 1)
        for person, place in zip(people, (directory, replica) * 3, strict=True)
    ]
    ends = await asyncio.gather(*links, return_exceptions=True)
    assert sum(isinstance(end, Person) for end in ends) == 1
    assert {end.reason for end in ends if isinstance(end, Refused)} == {Reason.ACCOUNT_BOUND}


async def test_accounts_without_an_id_do_not_collide(directory: Directory) -> None:
    await bound(directory, ALICE, Account("alice"))
    await bound(directory, BOB, Account("bob"))


async def test_two_applications_share_the_people_and_not_the_accounts(directory: Directory, database_url: str) -> None:
    other = await Directory.open(database_url, "an application whose name is longer than the column " * 3, 15)
    person = await bound(directory, ALICE, Account("alice", "7"))
    there = await other.admit(ALICE, 2)
    assert (there.id, there.account) == (person.id, None)
    assert await other.link(there, Account("alice", "7"), 2) is not None
    await other.close()


async def test_what_was_recorded_is_read_back(directory: Directory) -> None:
    person = await bound(directory, ALICE, Account("alice"))
    theirs = Account("alice", "7", {"a": "b"})
    kept = await directory.record(person, theirs, fingerprint="f" * 64, roles=("editor", "größte"), now=3)
    assert kept is not None
    assert (kept.account, kept.fingerprint, kept.roles) == (theirs, "f" * 64, ("editor", "größte"))


async def test_a_record_from_old_knowledge_is_not_written(directory: Directory) -> None:
    person = await bound(directory, ALICE, Account("alice"))
    assert await directory.record(person, Account("alice"), fingerprint="new", roles=(), now=2) is not None
    assert await directory.record(person, Account("alice"), fingerprint="old", roles=(), now=3) is None
    known = await directory.person(person.id)
    assert known is not None
    assert known.fingerprint == "new"


async def test_nothing_is_recorded_reserved_or_linked_for_somebody_switched_off_meanwhile(directory: Directory) -> None:
    person = await bound(directory, ALICE, Account("alice"))
    bob = await directory.admit(BOB, 1)
    off = await directory.disable(person.id, "hr", 2)
    await directory.disable(bob.id, "hr", 2)
    assert await directory.record(off, Account("alice"), fingerprint="f", roles=(), now=3) is None
    assert await directory.record(person, Account("alice"), fingerprint="f", roles=(), now=3) is None
    assert await directory.reserve(bob, "bob", 3) is None
    assert await directory.link(bob, Account("bob"), 3) is None


async def test_who_switched_somebody_off_is_the_one_who_may_switch_them_on(directory: Directory) -> None:
    person = await directory.admit(ALICE, 1)
    off = await directory.disable(person.id, "scim:okta", 2)
    assert (off.active, off.disabled_by) == (False, "scim:okta")
    assert (await directory.disable(person.id, "scim:okta", 3)).disabled_by == "scim:okta"
    with pytest.raises(Refused) as refusal:
        await directory.enable(person.id, "admin", 4)
    assert refusal.value.reason is Reason.PERSON_DISABLED
    on = await directory.enable(person.id, "scim:okta", 5)
    assert (on.active, on.disabled_by) == (True, "")


async def test_a_tombstone_is_for_good(directory: Directory) -> None:
    person = await directory.admit(ALICE, 1)
    assert (await directory.tombstone(person.id, "hr", 2)).tombstone == 2
    assert (await directory.tombstone(person.id, "hr", 3)).tombstone == 2
    with pytest.raises(Refused):
        await directory.enable(person.id, "hr", 4)


async def test_nobody_can_switch_off_who_is_not_there(directory: Directory) -> None:
    for change in (directory.disable, directory.enable, directory.tombstone):
        with pytest.raises(Refused) as refusal:
            await change("nobody", "hr", 1)
        assert refusal.value.reason is Reason.NOT_FOUND


async def test_switching_off_owes_the_deactivation_once(directory: Directory, replica: Directory) -> None:
    person = await directory.admit(ALICE, 1)
    await asyncio.gather(*[place.disable(person.id, "hr", 2) for place in (directory, replica) * 3])
    items = await directory.outbox.due(2, 60)
    assert [(item.person_id, item.duty, item.tries) for item in items] == [(person.id, Duty.DEACTIVATE, 0)]


async def test_switching_on_withdraws_what_is_still_owed(directory: Directory) -> None:
    person = await directory.admit(ALICE, 1)
    await directory.disable(person.id, "hr", 2)
    (item,) = await directory.outbox.due(2, 60)
    await directory.enable(person.id, "hr", 3)
    await directory.outbox.retry(item, 4, "late")
    assert await directory.outbox.due(9999, 60) == ()
    await directory.disable(person.id, "hr", 5)
    assert len(await directory.outbox.due(9999, 60)) == 1


async def test_every_application_with_an_account_is_owed_the_deactivation(
    directory: Directory, database_url: str
) -> None:
    other = await Directory.open(database_url, "shop", 15)
    person = await bound(other, ALICE, Account("alice"))
    await directory.disable(person.id, "hr", 2)
    for place in (directory, other):
        assert len(await place.outbox.due(2, 60)) == 1
    await other.close()


async def test_an_owed_change_is_leased_to_one_replica(directory: Directory, replica: Directory) -> None:
    for number in range(6):
        person = await directory.admit(replace(BOB, subject=str(number)), 1)
        await directory.outbox.enqueue(Owed(person.id, Duty.DEACTIVATE, 1, f"once {number}"))
        await directory.outbox.enqueue(Owed(person.id, Duty.DEACTIVATE, 1, f"once {number}"))
    taken = await asyncio.gather(*[place.outbox.due(2, 60) for place in (directory, replica) * 3])
    ids = [item.id for items in taken for item in items]
    assert len(ids) == len(set(ids)) == 6
    assert await directory.outbox.due(61, 60) == ()
    # Whoever had them died: the lease ends.
    assert len(await replica.outbox.due(63, 60)) == 6


async def test_what_changes_while_a_look_is_taken_owes_another_whatever_the_clocks_say(
    directory: Directory, replica: Directory
) -> None:
    person = await directory.admit(BOB, 1)
    await directory.relinker.owe_settling(person.id, 1)
    (item,) = await directory.outbox.due(2, 300)
    # A replica whose clock is ten minutes ahead changes the person: by that clock the lease has ended.
    await replica.relinker.owe_settling(person.id, 602)
    await directory.outbox.done(item)
    assert len(await directory.outbox.due(603, 300)) == 1


async def test_an_owed_change_comes_back_until_it_is_done_or_dead(directory: Directory) -> None:
    person = await directory.admit(ALICE, 1)
    await directory.outbox.enqueue(Owed(person.id, Duty.DEACTIVATE, 5, "one", {"a": "b"}))
    assert await directory.outbox.due(4, 60) == ()
    (item,) = await directory.outbox.due(5, 60)
    assert item.payload == {"a": "b"}
    await directory.outbox.retry(item, 10, "x" * 9999)
    assert await directory.outbox.due(9, 60) == ()
    (item,) = await directory.outbox.due(10, 60)
    assert item.tries == 1
    await directory.outbox.done(item)
    await directory.outbox.enqueue(Owed(person.id, Duty.DEACTIVATE, 5, "two"))
    (item,) = await directory.outbox.due(10, 60)
    await directory.outbox.dead(item, "protected")
    assert await directory.outbox.due(9999, 60) == ()


async def test_whoever_lost_the_lease_cannot_end_the_item(directory: Directory) -> None:
    person = await directory.admit(ALICE, 1)
    await directory.outbox.enqueue(Owed(person.id, Duty.DEACTIVATE, 1, "one"))
    (late,) = await directory.outbox.due(1, 60)
    (mine,) = await directory.outbox.due(100, 60)
    await directory.outbox.done(late)
    await directory.outbox.retry(mine, 200, "again")
    assert len(await directory.outbox.due(200, 60)) == 1


async def test_many_writers_at_once_all_come_through(directory: Directory, replica: Directory) -> None:
    people = [await directory.admit(replace(BOB, subject=str(number)), 1) for number in range(10)]
    ends = await asyncio.gather(
        *[
            place.reserve(person, f"bob{number}", 1)
            for number, person in enumerate(people)
            for place in (directory, replica)
        ]
    )
    assert sum(end is not None for end in ends) == 10


async def test_it_says_what_it_is(directory: Directory) -> None:
    assert (await directory.ping()).split()[0] in ("sqlite", "postgresql", "mysql")


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
async def test_a_server_that_is_frozen_or_gone_is_said_in_time_and_recovered_from(
    request: pytest.FixtureRequest, kind: str
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    server: PostgresServer | MariadbServer = request.getfixturevalue(f"{kind}_server")
    directory = await Directory.open(url, "wiki", 1)
    person = await directory.admit(ALICE, 1)
    server.pause()
    for _ in range(2):
        with pytest.raises(Unavailable) as frozen:
            await directory.person(person.id)
        assert frozen.value.reason is Reason.DIRECTORY_DOWN
    server.resume()
    assert await directory.person(person.id) == person
    server.stop()
    with pytest.raises(Unavailable) as gone:
        await directory.admit(ALICE, 1)
    assert gone.value.reason is Reason.DIRECTORY_DOWN
    server.start()
    assert await directory.person(person.id) == person
    await directory.close()


async def test_a_sqlite_file_that_another_process_keeps_locked_is_said_in_time(tmp_path: Path) -> None:
    holder = await Directory.open(f"sqlite:///{tmp_path}/d.db", "wiki", 5)
    directory = await Directory.open(f"sqlite:///{tmp_path}/d.db", "wiki", 0.2)
    async with holder._database._writer.begin():
        with pytest.raises(Unavailable) as locked:
            await directory.admit(ALICE, 1)
        assert locked.value.reason is Reason.DIRECTORY_DOWN
        assert await directory.person_by_identity(ALICE.key) is None
    assert await directory.admit(ALICE, 1)
    await holder.close()
    await directory.close()

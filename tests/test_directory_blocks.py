"""Whoever has somebody switched off has a say of their own: nobody lifts what another said."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sidecar.core.wanted import folded
from sidecar.directory import Directory, migrate, upgrading
from sidecar.directory.address import address_of
from sidecar.directory.tables import block, digest
from sidecar.faults import Refused
from sidecar.model import Identity, Person
from sidecar.reason import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

ADA = Identity("corp", "https://id.example.com", "a1", "ada", "ada@example.com")


def describe(user_id: str, document: dict[str, Any]) -> tuple[Identity, Sequence[str]]:
    return Identity("scim:hr", "scim:hr", user_id, document["userName"]), [folded(document["userName"])]


async def test_nobody_lifts_what_another_said_whoever_came_first(directory: Directory) -> None:
    for first, second in (("scim:okta", "manual"), ("signals:corp", "scim:okta"), ("sync:hr", "signals:corp")):
        person = await directory.admit(replace(ADA, subject=first), 1)
        await directory.disable(person.id, first, 2)
        off = await directory.disable(person.id, second, 3)
        assert await directory.blockers(off) == (first, second)
        still = await directory.enable(person.id, first, 4)
        assert (still.active, still.disabled_by) == (False, second)
        with pytest.raises(Refused) as end:
            await directory.enable(person.id, first, 5)
        assert (end.value.reason, second in end.value.detail) == (Reason.PERSON_DISABLED, True)
        on = await directory.enable(person.id, second, 6)
        assert (on.active, on.disabled_by, await directory.blockers(on)) == (True, "", ())


async def test_what_held_once_is_forgotten_when_somebody_is_on_again(directory: Directory) -> None:
    person = await directory.admit(ADA, 1)
    # So a replica that is older than the table of blocks leaves it.
    for source in ("scim:okta", "manual"):
        await directory.disable(person.id, source, 2)
    await directory._database.write(
        lambda connection: connection.exec_driver_sql("UPDATE sidecar_person SET active = '1', disabled_by = ''")
    )
    off = await directory.disable(person.id, "sync:hr", 3)
    assert await directory.blockers(off) == ("sync:hr",)
    assert (await directory.enable(person.id, "sync:hr", 4)).active


async def test_what_an_older_replica_wrote_counts(directory: Directory) -> None:
    person = await directory.admit(ADA, 1)
    await directory.disable(person.id, "sync:hr", 2)
    await directory._database.write(lambda connection: connection.execute(block.delete()))
    assert not (await directory.disable(person.id, "manual", 3)).active
    assert not (await directory.enable(person.id, "manual", 4)).active
    assert (await directory.enable(person.id, "sync:hr", 5)).active


async def test_whoever_switches_off_and_on_at_once_loses_no_word(directory: Directory) -> None:
    person = await directory.admit(ADA, 1)
    sources = [f"scim:{number}" for number in range(6)]
    await asyncio.gather(*[directory.disable(person.id, one, 2) for one in [*sources, *sources]])
    known = await directory.person(person.id)
    assert known is not None
    assert sorted(await directory.blockers(known)) == sources
    await asyncio.gather(*[directory.enable(person.id, one, 3) for one in sources[1:]])
    known = await directory.person(person.id)
    assert known is not None
    assert (known.active, await directory.blockers(known)) == (False, ("scim:0",))


async def test_an_operator_who_was_first_does_not_let_in_whom_a_client_has_off_since(directory: Directory) -> None:
    written = await directory.scim.create("scim:hr", {"userName": "ada"}, describe, 1)
    person_id = written.user.person_id
    await directory.disable(person_id, "manual", 2)
    for active in (False, True, False):
        await directory.scim.change(
            "scim:hr", written.user.id, lambda before, active=active: {**before.document, "active": active}, describe, 3
        )
    still = await directory.enable(person_id, "manual", 4)
    assert (still.active, still.disabled_by) == (False, "scim:hr")


def describe_as(source: str) -> Any:
    return lambda user_id, document: (replace(describe(user_id, document)[0], provider=source, issuer=source), ["ada"])


async def two_clients(directory: Directory) -> tuple[str, dict[str, str]]:
    """Somebody who signed in, and of whom two clients tell; by client its id of them."""
    person = await directory.admit(ADA, 1)
    await directory.profiles.signed_in(person, ADA, {"scim:a": "ada", "scim:b": "ada"}, 1)
    users = {}
    for source in ("scim:a", "scim:b"):
        made = await directory.scim.create(source, {"userName": f"ada of {source}"}, describe_as(source), 2)
        assert made.user.person_id == person.id
        users[source] = made.user.id
        group = await directory.groups.make(source, f"group of {source}", 2)
        await directory.groups.change(group.id, 2, add=[person.id])
    return person.id, users


async def test_of_two_clients_the_last_one_takes_the_person_with_it(directory: Directory) -> None:
    person_id, users = await two_clients(directory)
    before = await directory.person(person_id)
    assert before is not None
    assert (before.source, before.username) == ("scim:b", "ada of scim:b")
    for source, heir in (("scim:b", "scim:a"), ("scim:a", "")):
        _, kept_by = await directory.scim.delete(source, users[source], lambda _user: None, 3)
        assert kept_by == heir
        known = await directory.person(person_id)
        assert known is not None
        assert known.active is bool(heir)
        assert (known.tombstone is None) is bool(heir)
        told = {one.source for one in await directory.profiles.of_person(person_id)}
        assert told == {"corp", *([heir] if heir else [])}
        if heir:
            assert (known.source, known.username) == (heir, f"ada of {heir}")
            assert await directory.groups.names_of(person_id) == (f"group of {heir}",)


async def test_two_clients_that_delete_at_once_leave_nobody_behind(directory: Directory) -> None:
    for _ in range(5):
        person_id, users = await two_clients(directory)
        heirs = await asyncio.gather(
            *[directory.scim.delete(source, user_id, lambda _user: None, 3) for source, user_id in users.items()]
        )
        assert sorted(bool(heir) for _, heir in heirs) == [False, True]
        known = await directory.person(person_id)
        assert known is not None
        assert (known.active, known.tombstone) == (False, 3)
        await directory._database.write(lambda connection: connection.exec_driver_sql("DELETE FROM sidecar_join"))
        await directory._database.write(
            lambda connection: connection.exec_driver_sql("DELETE FROM sidecar_identity WHERE subject = 'a1'")
        )
        await directory._database.write(lambda connection: connection.exec_driver_sql("DELETE FROM sidecar_member"))
        await directory._database.write(lambda connection: connection.exec_driver_sql("DELETE FROM sidecar_group"))


@pytest.mark.parametrize("deletes", [False, True])
async def test_however_many_speak_at_once_the_last_word_of_each_holds(directory: Directory, deletes: bool) -> None:
    chance = random.Random(deletes)
    person_id, users = await two_clients(directory)
    group = await directory.groups.make("scim:b", "moving", 2)
    words: dict[str, bool] = {}

    async def speak(source: str, turns: list[bool]) -> None:
        for on in turns:
            words[source] = on
            if source in users:
                document = {"userName": f"ada of {source}", "active": on}
                await directory.scim.change(
                    source, users[source], lambda _before, document=document: document, describe_as(source), 3
                )
                continue
            with suppress(Refused):
                await (directory.enable if on else directory.disable)(person_id, source, 3)
        if source == "scim:a" and deletes:
            await directory.scim.delete(source, users[source], lambda _user: None, 4)

    async def regroup() -> None:
        for _ in range(6):
            await directory.groups.change(group.id, 3, add=[person_id])
            await directory.groups.change(group.id, 3, remove=[person_id])

    # An operator may lift what a client left that has deleted its record.
    sources = ["scim:a", "scim:b", "sync:hr", "signals:corp", *([] if deletes else ["manual"])]
    stories = [speak(one, [chance.random() < 0.5 for _ in range(6)]) for one in sources]
    await asyncio.gather(*stories, regroup())
    known = await directory.person(person_id)
    assert known is not None
    off = {source for source, on in words.items() if not on}
    assert set(await directory.blockers(known)) == off
    assert (known.active, known.tombstone) == (not off, None)


async def test_deleting_switches_nobody_on_and_an_operator_may(directory: Directory) -> None:
    person_id, users = await two_clients(directory)
    off = {"userName": "ada of scim:a", "active": False}
    await directory.scim.change("scim:a", users["scim:a"], lambda _before: off, describe_as("scim:a"), 3)
    with pytest.raises(Refused):
        await directory.enable(person_id, "manual", 4)
    await directory.scim.delete("scim:a", users["scim:a"], lambda _user: None, 5)
    known = await directory.person(person_id)
    assert known is not None
    assert (known.active, known.tombstone, known.disabled_by) == (False, None, "scim:a")
    assert await directory.blockers(known, "manual") == ()
    assert (await directory.enable(person_id, "manual", 6)).active
    # A name that the client gives again is another's, who inherits nothing.
    again = await directory.scim.create("scim:a", {"userName": "ada of scim:a"}, describe_as("scim:a"), 8)
    assert again.user.person_id != person_id


async def test_whoever_is_made_while_another_client_deletes_them_is_never_somebody_who_is_gone(
    directory: Directory,
) -> None:
    for turn in range(6):
        who = replace(ADA, subject=f"a{turn}")
        person = await directory.admit(who, 1)
        joins = [f"ada{turn}"]
        await directory.profiles.signed_in(person, who, {"scim:a": joins[0], "scim:b": joins[0]}, 1)

        def described(source: str, joins: list[str] = joins) -> Any:
            return lambda user_id, document: (describe_as(source)(user_id, document)[0], joins)

        first = await directory.scim.create("scim:a", {"userName": f"ada{turn}"}, described("scim:a"), 2)
        made, _ = await asyncio.gather(
            directory.scim.create("scim:b", {"userName": f"ada{turn}"}, described("scim:b"), 3),
            directory.scim.delete("scim:a", first.user.id, lambda _user: None, 3),
        )
        known = await directory.person(made.user.person_id)
        assert known is not None
        assert (known.active, known.tombstone) == (True, None)


async def test_whoever_is_merged_stays_switched_off(directory: Directory) -> None:
    person = await directory.admit(ADA, 1)
    await directory.profiles.signed_in(person, ADA, {"scim:hr": "ada"}, 2)
    # Two documents of one person: the record of the sign-in is older, and nobody joined them yet.
    told = await directory.profiles.told(Identity("scim:hr", "scim:hr", "7", "ada"), [], 3)
    await directory.profiles.told(Identity("scim:hr", "scim:hr", "7", "ada"), ["ada"], 4)
    await directory.disable(person.id, "manual", 5)
    # Asked for by somebody who read them a moment before.
    assert await directory.profiles.merged(person, {"scim:hr": "ada"}, 6) == told.person_id
    kept = await directory.person(told.person_id)
    assert kept is not None
    assert (kept.active, kept.disabled_by) == (False, "manual")


async def test_the_migration_keeps_who_has_whom_off(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrading, "upgrade", upgrading.upgrade.__self__._real)  # type: ignore[attr-defined]
    real = command.upgrade
    monkeypatch.setattr(upgrading.command, "upgrade", lambda config, _head: real(config, "0010"))
    old = await Directory.open(database_url, "wiki", 15)
    monkeypatch.setattr(upgrading.command, "upgrade", real)
    await old.close()
    engine = create_async_engine(address_of(database_url, 5).url)
    async with engine.begin() as connection:
        for person_id, by in (("first", "manual"), ("second", "scim:hr"), ("third", "")):
            await connection.execute(
                text(
                    "INSERT INTO sidecar_person (id, source, active, disabled_by, created, updated, last_seen,"
                    " username, email, name, search_username, search_email, version)"
                    " VALUES (:id, 'x', :active, :by, 1, 5, 1, '', '', '', '', '', 1)"
                ),
                {"id": person_id, "by": by, "active": not by},
            )
            await connection.execute(
                text(
                    "INSERT INTO sidecar_scim_user (id, source, person_id, name_hash, search_name, active, document,"
                    " created, updated, version) VALUES (:id, 'scim:hr', :id, :id, '', :active, '{}', 1, 2, 1)"
                ),
                {"id": person_id, "active": False},
            )
            await connection.execute(
                text(
                    "INSERT INTO sidecar_sync_track (source, external_hash, external, person_id, mark, missing, off)"
                    " VALUES ('sync:ad', :hash, '', :id, '', 0, 3)"
                ),
                {"id": person_id, "hash": digest(person_id)},
            )
    await engine.dispose()
    new = await Directory.open(database_url, "wiki", 15)
    found = {}
    for person_id in ("first", "second", "third"):
        known = await new.person(person_id)
        assert isinstance(known, Person)
        found[person_id] = await new.blockers(known)
    await new.close()
    assert found == {"first": ("manual", "scim:hr", "sync:ad"), "second": ("scim:hr", "sync:ad"), "third": ()}
    assert migrate.versions()[-1] == "0011"

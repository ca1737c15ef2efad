"""An account is called what its person is called by now, keeps its owner, and is never made a second time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.faults import Unavailable
from sidecar.model import Change, Outcome, Result
from sidecar.reason import Reason
from tests.scim_world import ScimClient, client_section, with_scim
from tests.test_journey import users_of
from tests.test_provision import ALICE, BOB, NOW, refusal
from tests.test_provision import World as Place
from tests.world import World, until

RENAME = {
    "sql": {
        "on": "db",
        "exec": "UPDATE users SET login = :new WHERE id = :id",
        "params": {"new": "{{ new_key }}", "id": "{{ account.id }}"},
        "affected": 1,
    }
}
ALICIA = replace(ALICE, username="alicia")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(f"sqlite+aiosqlite:///{tmp_path}/app.db", f"sqlite:///{tmp_path}/directory.db")
    await made.prepare()
    yield made
    await made.close()


def failures(place: Place) -> list[Any]:
    return [fields["reason"] for event, fields in place.events if event == "provisioning-failed"]


async def test_a_new_user_name_renames_the_account_and_the_binding_goes_with_it(place: Place) -> None:
    provisioner, hook, directory = await place.replica(rename=RENAME)
    await provisioner.ensure(ALICE, ["editor"], NOW)
    account = await provisioner.ensure(ALICIA, ["editor"], NOW)
    assert (account.key, account.id) == ("alicia", "1")
    assert await place.rows() == [("alicia", "alice@example.com", "editor", 1)]
    assert hook.sent(Change.CREATE, Change.RENAME) == [Change.CREATE, Change.RENAME]
    known = await directory.person_by_account("alicia")
    assert known is not None
    assert known.identities == (ALICE.key,)
    assert await directory.person_by_account("alice") is None
    assert ("account-renamed", "alice", "alicia") in [
        (event, fields.get("before"), fields["account"]) for event, fields in place.events
    ]
    await provisioner.ensure(ALICIA, ["editor"], NOW)
    assert hook.sent(Change.RENAME) == [Change.RENAME]


async def test_without_steps_for_it_the_account_keeps_its_name(place: Place) -> None:
    provisioner, _, _ = await place.replica()
    await provisioner.ensure(ALICE, [], NOW)
    assert (await provisioner.ensure(ALICIA, [], NOW)).key == "alice"


async def test_a_name_that_somebody_has_is_not_taken_and_nobody_is_kept_out(place: Place) -> None:
    provisioner, hook, _ = await place.replica(rename=RENAME)
    await provisioner.ensure(ALICE, [], NOW)
    await provisioner.ensure(BOB, [], NOW)
    await place.insert("stranger")
    assert (await provisioner.ensure(replace(ALICE, username="bob"), [], NOW)).key == "alice"
    assert (await provisioner.ensure(replace(ALICE, username="Stranger".lower()), [], NOW)).key == "alice"
    assert (await provisioner.ensure(replace(ALICE, username="ROOT"), [], NOW)).key == "alice"
    assert hook.sent(Change.RENAME) == []
    assert failures(place) == ["account-bound-to-another", "account-exists", "account-protected"]
    assert [row[0] for row in await place.rows()] == ["alice", "bob", "stranger"]


@pytest.mark.parametrize("has_happened", [True, False])
async def test_a_process_that_dies_while_renaming_leaves_one_account_that_is_found(
    place: Place, *, has_happened: bool
) -> None:
    provisioner, hook, directory = await place.replica(rename=RENAME)
    await provisioner.ensure(ALICE, [], NOW)

    async def die(_order: object = None) -> None:
        raise KeyboardInterrupt

    def dead(_outcome: Outcome) -> Outcome:
        raise KeyboardInterrupt

    if has_happened:
        hook.after[Change.RENAME] = dead
    else:
        hook.before[Change.RENAME] = die
    with pytest.raises(KeyboardInterrupt):
        await provisioner._settled(ALICIA, (), NOW)
    half = await directory.person_by_identity(ALICE.key)
    assert half is not None
    assert half.account is not None
    assert half.account.renaming == "alicia"
    second, again, _ = await place.replica(rename=RENAME)
    assert (await second.ensure(ALICIA, [], NOW)).key == "alicia"
    assert [row[0] for row in await place.rows()] == ["alicia"]
    assert again.sent(Change.CREATE) == []
    assert again.sent(Change.RENAME) == ([] if has_happened else [Change.RENAME])


async def test_a_renaming_that_was_begun_is_looked_for_also_when_the_steps_are_gone(place: Place) -> None:
    provisioner, hook, _ = await place.replica(rename=RENAME)
    await provisioner.ensure(ALICE, [], NOW)

    def dead(_outcome: Outcome) -> Outcome:
        raise KeyboardInterrupt

    hook.after[Change.RENAME] = dead
    with pytest.raises(KeyboardInterrupt):
        await provisioner._settled(ALICIA, (), NOW)
    second, again, _ = await place.replica()
    assert (await second.ensure(ALICIA, [], NOW)).key == "alicia"
    assert again.sent(Change.CREATE) == []


async def test_an_application_that_says_no_or_says_yes_and_does_nothing_is_found_out(place: Place) -> None:
    provisioner, hook, _ = await place.replica(rename=RENAME)
    await provisioner.ensure(ALICE, [], NOW)

    async def down(_order: object) -> None:
        raise Unavailable(Reason.PROVISIONING_DOWN, "away")

    hook.before[Change.RENAME] = down
    assert (await provisioner.ensure(ALICIA, [], NOW)).key == "alice"
    idle = {"sql": {**RENAME["sql"], "exec": "UPDATE users SET login = login WHERE id = :id AND :new = :new"}}
    second, _, _ = await place.replica(rename=idle)
    assert (await second.ensure(ALICIA, [], NOW)).key == "alice"
    third, _, _ = await place.replica(rename=RENAME)
    assert (await third.ensure(ALICIA, [], NOW)).key == "alicia"
    assert failures(place) == ["provisioning-unavailable", "account-refused-by-application"]


async def test_when_nobody_knows_how_it_ended_nobody_comes_in_and_nothing_is_made_twice(place: Place) -> None:
    provisioner, hook, _ = await place.replica(rename=RENAME)
    await provisioner.ensure(ALICE, [], NOW)
    lookups = 0

    def lost(outcome: Outcome) -> Outcome:
        hook.before[Change.LOOKUP] = unreachable
        return replace(outcome, result=Result.UNKNOWN)

    async def unreachable(_order: object) -> None:
        nonlocal lookups
        lookups += 1
        raise Unavailable(Reason.PROVISIONING_DOWN, "away")

    hook.after[Change.RENAME] = lost
    assert await refusal(provisioner.ensure(ALICIA, [], NOW)) is Reason.PROVISIONING_DOWN
    assert lookups == 1
    del hook.before[Change.LOOKUP]
    assert (await provisioner.ensure(ALICIA, [], NOW)).key == "alicia"
    assert hook.sent(Change.CREATE, Change.RENAME) == [Change.CREATE, Change.RENAME]


async def test_a_user_name_that_scim_changes_reaches_the_application_by_itself(world: World, tmp_path: Path) -> None:
    steps = {
        "sql": {
            "on": "db",
            "exec": "UPDATE users SET login = :new WHERE login = :login",
            "params": {"new": "{{ new_key }}", "login": "{{ account.key }}"},
            "affected": "1",
        }
    }
    changes = {"provision": {"rename": steps}}
    running = await with_scim(world, tmp_path, changes=changes, okta=client_section(profile="okta"))
    async with ScimClient(running) as scim:
        made = await scim.make("ada")

        async def is_called(name: str) -> bool:
            return [row[0] for row in users_of(tmp_path / "users.db") if row[0] != "root"] == [name]

        await until(lambda: is_called("ada"))
        await scim.patch(f"/Users/{made['id']}", {"op": "replace", "path": "userName", "value": "lady"})
        await until(lambda: is_called("lady"))

"""Those whom SCIM made and those who sign in are one: groups, names and the end reach open sessions everywhere."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.faults import Refused
from sidecar.model import Identity
from sidecar.reason import Reason
from tests.scim_world import OTHER_TOKEN, STATE, TOKEN, ScimClient, client_section, with_scim
from tests.services.oidc import OidcProvider
from tests.test_journey import users_of, users_table
from tests.test_replicas import answers_with, asked, sign_in_for_real, two
from tests.world import World, until

BY_NAME = {"on": "userName", "join": {"corp": "{{ claims.preferred_username | lower }}"}}
OFF = {"op": "replace", "value": {"active": False}}


async def test_a_person_whom_scim_made_signs_in_and_is_one_with_it(world: World, tmp_path: Path) -> None:
    running = await with_scim(world, tmp_path, okta=client_section(profile="okta", **BY_NAME))
    async with ScimClient(running) as scim, running.browser() as browser:
        made = await scim.make("Alan", displayName="A. M. Turing", emails=[{"value": "turing@example.com"}])

        async def has_account() -> bool:
            return ("Alan", "turing@example.com", "reader", 1) in users_of(tmp_path / "users.db")

        await until(has_account)
        assert (await browser.sign_in("alan")).status == 200
        assert [row[0] for row in users_of(tmp_path / "users.db")].count("alan") == 0
        seen = running.application.seen[-1]
        assert seen.values("X-App-Name") == ["A. M. Turing"]
        assert seen.values("X-App-Email") == ["turing@example.com"]
        await scim.patch(f"/Users/{made['id']}", {"op": "replace", "path": "displayName", "value": "Prof"})
        await browser.page("/")
        assert running.application.seen[-1].values("X-App-Name") == ["Prof"]


async def test_somebody_who_signed_in_before_is_found_by_scim(world: World, tmp_path: Path) -> None:
    running = await with_scim(world, tmp_path, okta=client_section(profile="okta", **BY_NAME))
    async with ScimClient(running) as scim, running.browser() as browser:
        assert (await browser.sign_in("alan")).status == 200
        made = await scim.make("alan")
        await scim.make("grace")
        (joined,) = (one for one in running.audit() if one["event"] == "people-joined")
        assert (joined["provider"], joined["subject"], joined["username"]) == ("scim:okta", made["id"], "alan")
        assert "merged" not in joined
        answer = await scim.patch(f"/Users/{made['id']}", OFF)
        assert answer.status == 200
        assert (await browser.page("/")).status in (302, 403)
        browser.forget_provider()
        refused = await browser.sign_in("alan")
        assert refused.status == 403
        assert "switched off" in await refused.text()


async def test_the_account_of_somebody_who_was_here_before_scim_goes_with_them(world: World, tmp_path: Path) -> None:
    before = await world(
        {"directory": f"sqlite:///{tmp_path}/directory.db"},
        environment={"USERS_DB": users_table(tmp_path / "before.db")},
        provision=True,
    )
    async with before.browser() as browser:
        assert (await browser.sign_in("alan")).status == 200
    running = await world(
        {
            "directory": f"sqlite:///{tmp_path}/directory.db",
            "scim": {"clients": {"okta": client_section(profile="okta", **BY_NAME)}},
        },
        environment={"USERS_DB": f"sqlite:///{tmp_path}/before.db", "SCIM_TOKEN": TOKEN},
        provider=before.provider,
        provision=True,
    )
    async with ScimClient(running) as scim:
        made = await scim.make("alan", active=False)
        directory = running.sidecar.condition.accounts.directory
        people = running.sidecar.condition.accounts.people
        assert directory is not None
        assert people is not None
        old = await directory.person_by_account("alan")
        assert old is not None
        user = await directory.scim.user("scim:okta", made["id"])
        assert user is not None
        assert old.id != user.person_id
        who = Identity("corp", running.provider.issuer, "", "alan", claims={"preferred_username": "alan"})
        with closing(sqlite3.connect(tmp_path / "directory.db")) as connection, connection:
            query = "SELECT subject FROM sidecar_identity WHERE person_id = ?"
            subject = connection.execute(query, [old.id]).fetchone()[0]
        with pytest.raises(Refused) as end:
            await people.known(replace(who, subject=subject), 1.0)
        assert end.value.reason is Reason.PERSON_DISABLED
        now_theirs = await directory.person_by_account("alan")
        assert now_theirs is not None
        assert now_theirs.id == user.person_id

        async def is_off() -> bool:
            return ("alan", "alan@example.com", "reader", 0) in users_of(tmp_path / "before.db")

        await until(is_off)


async def test_t56_a_group_of_scim_opens_and_closes_doors_of_open_sessions(world: World, tmp_path: Path) -> None:
    running = await with_scim(world, tmp_path, okta=client_section(profile="okta", **BY_NAME))
    async with ScimClient(running) as scim, running.browser() as browser:
        made = await scim.make("alan")
        await browser.sign_in("alan")
        assert (await browser.page("/admin/x")).status == 403
        group = await scim.group("wiki-admins", made["id"])
        assert (await browser.page("/admin/x")).status == 200
        assert running.application.seen[-1].values("X-App-Roles") == ["admin,reader"]
        remove = {"op": "remove", "path": "members", "value": [{"value": made["id"]}]}
        await scim.patch(f"/Groups/{group['id']}", remove)
        assert (await browser.page("/admin/x")).status == 403
        await scim.patch(f"/Groups/{group['id']}", {**remove, "op": "add"})
        assert (await browser.page("/admin/x")).status == 200
        await scim("DELETE", f"/Groups/{group['id']}")
        assert (await browser.page("/admin/x")).status == 403


async def test_t56_a_group_in_a_group_opens_and_closes_doors_of_open_sessions(world: World, tmp_path: Path) -> None:
    running = await with_scim(world, tmp_path, okta=client_section(profile="okta", **BY_NAME))
    async with ScimClient(running) as scim, running.browser() as browser:
        made = await scim.make("alan")
        await browser.sign_in("alan")
        team = await scim.group("team", made["id"])
        middle = await scim.group("middle", team["id"])
        assert (await browser.page("/admin/x")).status == 403
        admins = await scim.group("wiki-admins", middle["id"])
        inner, outer = ({"op": "add", "path": "members", "value": [{"value": one["id"]}]} for one in (team, middle))
        assert (await browser.page("/admin/x")).status == 200

        async def is_admin() -> bool:
            return [row[2] for row in users_of(tmp_path / "users.db") if row[0] == "alan"] == ["admin"]

        # The account follows, too.
        await until(is_admin)
        for of, add in ((admins, outer), (middle, inner)):
            await scim.patch(f"/Groups/{of['id']}", {**add, "op": "remove"})
            assert (await browser.page("/admin/x")).status == 403
            await scim.patch(f"/Groups/{of['id']}", add)
            assert (await browser.page("/admin/x")).status == 200
        rename = [{"op": "replace", "path": "displayName", "value": name} for name in ("others", "wiki-admins")]
        for name, status in zip(rename, (403, 200), strict=True):
            await scim.patch(f"/Groups/{admins['id']}", name)
            assert (await browser.page("/admin/x")).status == status
        await scim("DELETE", f"/Groups/{middle['id']}")
        assert (await browser.page("/admin/x")).status == 403


async def test_t68_whoever_scim_switched_off_meets_every_door_closed_until_it_switches_them_on(
    world: World, tmp_path: Path
) -> None:
    running = await with_scim(world, tmp_path, okta=client_section(profile="okta", **BY_NAME))
    async with ScimClient(running) as scim, running.browser() as browser, running.browser() as other:
        made = await scim.make("alan", active=False)
        assert (await browser.sign_in("alan")).status == 403
        await scim.patch(f"/Users/{made['id']}", {"op": "replace", "value": {"active": True}})
        # Their first session may have been ended meanwhile, for they were switched off when it began.
        page = await browser.follow(await browser.page("/"))
        assert page.status == 200
        assert (await other.sign_in("alan")).status == 200
        await scim("PUT", f"/Users/{made['id']}", {**made, "active": False})
        assert (await browser.page("/")).status == (await other.page("/")).status == 302


async def test_t69_a_name_that_is_given_to_another_inherits_nothing(world: World, tmp_path: Path) -> None:
    running = await with_scim(world, tmp_path, okta=client_section(profile="okta", **BY_NAME))
    async with ScimClient(running) as scim, running.browser() as browser:
        first = await scim.make("alan")
        await browser.sign_in("alan")
        await scim("DELETE", f"/Users/{first['id']}")
        second = await scim.make("alan")
        assert second["id"] != first["id"]
        # The sign-in is still that of the first one, who is gone for good.
        browser.forget_provider()
        assert (await browser.sign_in("alan")).status == 403


async def test_of_two_clients_that_tell_of_somebody_the_last_one_ends_their_session(
    world: World, tmp_path: Path
) -> None:
    sections = {"a": client_section(**BY_NAME), "b": client_section(token={"env": "SCIM_OTHER"}, **BY_NAME)}
    running = await with_scim(world, tmp_path, **sections)
    async with (
        ScimClient(running, "a") as one,
        ScimClient(running, "b", OTHER_TOKEN) as other,
        running.browser() as browser,
    ):
        assert (await browser.sign_in("alan")).status == 200
        first = await one.make("alan", displayName="Alan of A")
        second = await other.make("alan", displayName="Alan of B")

        async def called() -> list[str]:
            assert (await browser.page("/")).status == 200
            return list(running.application.seen[-1].values("X-App-Name"))

        assert await called() == ["Alan of A"]
        assert (await one("DELETE", f"/Users/{first['id']}")).status == 204
        # At once, not when what was known of them is forgotten.
        assert await called() == ["Alan of B"]
        told = [line for line in running.audit() if line.get("change") == "deleted"]
        assert told[-1]["kept_by"] == "scim:b"
        assert (await one("GET", f"/Users/{first['id']}")).status == 404
        assert (await other.ids("filter=active eq true")) == [second["id"]]
        assert (await other("DELETE", f"/Users/{second['id']}")).status == 204
        assert (await browser.fetch("/")).status == 401
        assert "kept_by" not in [line for line in running.audit() if line.get("change") == "deleted"][-1]
        browser.forget_provider()
        assert (await browser.sign_in("alan")).status == 403


async def test_what_somebody_else_switched_off_scim_does_not_switch_on(world: World, tmp_path: Path) -> None:
    running = await with_scim(world, tmp_path)
    async with ScimClient(running) as scim:
        made = await scim.make("ada")
        accounts = running.sidecar.condition.accounts
        assert accounts.directory is not None
        assert accounts.provisioner is not None
        user = await accounts.directory.scim.user("scim:okta", made["id"])
        assert user is not None
        path, on = f"/Users/{made['id']}", {"op": "replace", "value": {"active": True}}
        for first, second in (
            ("manual", "scim"),
            ("scim", "manual"),
            ("signals:corp", "scim"),
            ("scim", "signals:corp"),
        ):
            for one in (first, second):
                if one == "scim":
                    await scim.patch(path, OFF)
                else:
                    await accounts.provisioner.disable(user.person_id, one, 1.0)
            holder = first if second == "scim" else second
            # The client's own word is kept, so that nobody has to send it again.
            answer = await scim.patch(path, on)
            assert (answer.status, answer.body["active"]) == (200, True)
            person = await accounts.directory.person(user.person_id)
            assert person is not None
            assert (person.active, person.disabled_by) == (False, holder)
            released = [line for line in running.audit() if line["event"] == "person-released"]
            assert (released[-1]["by"], released[-1]["still"]) == ("scim:okta", [holder])
            assert (await accounts.provisioner.enable(user.person_id, holder, 2.0)).active
            # And the other way round: what the client says last holds when the other lifts theirs.
            await accounts.provisioner.disable(user.person_id, holder, 3.0)
            await scim.patch(path, OFF)
            assert not (await accounts.provisioner.enable(user.person_id, holder, 4.0)).active
            await scim.patch(path, on)
            person = await accounts.directory.person(user.person_id)
            assert person is not None
            assert person.active


async def test_t72_a_deactivation_ends_everything_in_two_replicas_although_the_application_is_down(
    world: World, oidc_provider: OidcProvider, redis_url: str, tmp_path: Path
) -> None:
    section = client_section(profile="okta", token={"env": "SCIM_TOKEN"}, **BY_NAME)
    changes: dict[str, Any] = {"scim": {"clients": {"okta": section}}}
    one, other, users = await two(
        world, oidc_provider, redis_url, tmp_path, f"sqlite:///{tmp_path}/shared.db", changes, SCIM_TOKEN=TOKEN
    )
    async with ScimClient(one) as scim, one.browser() as browser, aiohttp.ClientSession() as http:
        made = await scim.make("ada")
        await sign_in_for_real(browser, oidc_provider, "ada")
        assert (await asked(browser, one)).status == (await asked(browser, other)).status == 200
        headers = {"Host": one.url.removeprefix("http://"), "Cookie": f"sidecar={browser.cookie()}"}
        sockets = [
            await http.ws_connect(f"http://127.0.0.1:{running.port}/ws", headers=headers) for running in (one, other)
        ]
        with closing(sqlite3.connect(users)) as connection, connection:
            connection.execute("ALTER TABLE users RENAME TO away")
        answer = await scim.patch(f"/Users/{made['id']}", OFF)
        assert (answer.status, answer.body["active"]) == (200, False)
        for running in (one, other):
            await until(lambda running=running: answers_with(401, browser, running))  # type: ignore[misc]
        for socket in sockets:
            message = await socket.receive(10)
            assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)

        async def state_is(state: str) -> bool:
            found = (await scim("GET", f"/Users/{made['id']}?attributes={STATE}")).body[STATE]
            return bool(found["state"] == state)

        await until(lambda: state_is("retrying"))
        with closing(sqlite3.connect(users)) as connection, connection:
            connection.execute("ALTER TABLE away RENAME TO users")
        world.clock.ahead = 7200
        await until(lambda: state_is("deactivated"), 30)
        assert [row[3] for row in users_of(users) if row[0] == "ada"] == [0]
    assert TOKEN not in one.audit_file.read_text()

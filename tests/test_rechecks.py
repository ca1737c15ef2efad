"""A WebSocket that is open ends when the rules no longer let in whoever opened it, and not before."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.endings import Socket
from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.rechecks import Rechecks
from tests.forger import Forger, running_forger, sign
from tests.scim_world import TOKEN, ScimClient, client_section, with_scim
from tests.test_attacks_tokens import API, CHANGES, signed_in
from tests.test_journey import users_table
from tests.world import Running, World, until

BY_NAME = {"on": "userName", "join": {"corp": "{{ claims.preferred_username | lower }}"}}


async def echoes(socket: aiohttp.ClientWebSocketResponse) -> bool:
    await socket.send_str("x")
    return await socket.receive_str(timeout=5) == "echo x"


async def is_closed(socket: aiohttp.ClientWebSocketResponse) -> bool:
    message = await socket.receive(5)
    return (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)


def denials(running: Running) -> list[tuple[str, str]]:
    lines = [line for line in running.audit() if line["event"] == "decision" and line["effect"] == "deny"]
    return [(line["path"], line["reason"]) for line in lines]


async def test_t56_t64_who_loses_a_role_loses_the_sockets_that_it_opened_and_no_others(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    look_at = Rechecks._look_at

    async def noted(self: Rechecks, socket: Socket) -> None:
        looked.append(socket.opener.session.identity.username)
        await look_at(self, socket)

    async def seen_everybody() -> bool:
        return set(looked) == {"alan", "grace"}

    monkeypatch.setattr(Rechecks, "_look_at", noted)
    running = await with_scim(world, tmp_path, okta=client_section(profile="okta", **BY_NAME))
    origin = {"Origin": running.url}
    async with ScimClient(running) as scim, running.browser() as alan, running.browser() as grace:
        person, other = await scim.make("alan"), await scim.make("grace")
        group = await scim.group("wiki-admins", person["id"], other["id"])
        for name, browser in (("alan", alan), ("grace", grace)):
            await browser.sign_in(name)
        async with (
            alan.http.ws_connect(f"{running.url}/admin/ws", headers=origin) as lost,
            alan.http.ws_connect(f"{running.url}/ws", headers=origin) as kept,
            grace.http.ws_connect(f"{running.url}/admin/ws", headers=origin) as hers,
        ):
            await asyncio.sleep(1.2)
            looked.clear()
            members = f'members[value eq "{person["id"]}"]'
            answer = await scim.patch(f"/Groups/{group['id']}", {"op": "remove", "path": members})
            assert answer.status == 200
            assert await is_closed(lost)
            assert await echoes(kept)
            assert await echoes(hers)
            assert denials(running) == [("/admin/ws", "role-missing")]
            # Nobody else's, as a synchronisation changes many people for a long time.
            assert set(looked) == {"alan"}
            # Whose those of somebody who is gone were, nobody knows any more.
            await scim("DELETE", f"/Users/{(await scim.make('ada'))['id']}")
            await until(seen_everybody)

            # While nobody can say who somebody is, nothing ends; and it is asked again.
            gate, asked = running.sidecar.front.gate, asyncio.Event()
            known = gate.known

            async def away(*_: Any) -> Any:
                asked.set()
                raise Unavailable(Reason.DIRECTORY_DOWN)

            gate.known = away
            members = f'members[value eq "{other["id"]}"]'
            await scim.patch(f"/Groups/{group['id']}", {"op": "remove", "path": members})
            await asyncio.wait_for(asked.wait(), 5)
            assert await echoes(hers)
            gate.known = known
            assert await is_closed(hers)


async def test_t56_t64_groups_that_a_refresh_no_longer_brings_count_for_open_sockets(world: World) -> None:
    access = [{"path": "/admin/**", "allow": {"group": "wiki-admins"}}, {"path": "/**", "allow": "signed_in"}]
    async with running_forger() as forger:
        forger.token_answer = {"refresh_token": "r"}
        forger.claims = {"groups": ["wiki-admins"]}
        running = await world({**CHANGES, "access": access}, issuer=forger.issuer)
        async with running.browser() as ada:
            assert await signed_in(ada, forger) == 302
            headers = {"Origin": running.url, "Cookie": f"sidecar={ada.cookie()}"}
            async with ada.http.ws_connect(f"{running.url}/admin/ws", headers=headers) as socket:
                # A use that is noted changes the session, too, and nothing about who it is.
                world.clock.ahead = 70
                assert (await ada.fetch("/")).status == 200
                await asyncio.sleep(1.2)
                assert await echoes(socket)
                forger.claims = {"groups": []}
                world.clock.ahead = 250
                assert (await ada.fetch("/")).status == 200
                assert await is_closed(socket)
        assert denials(running) == [("/admin/ws", "role-missing")]


async def test_t64_t68_a_program_of_somebody_who_is_switched_off_keeps_no_socket(world: World, tmp_path: Path) -> None:
    changes = {
        **CHANGES,
        "scim": {"clients": {"okta": client_section(profile="okta", **BY_NAME)}},
        "directory": f"sqlite:///{tmp_path}/directory.db",
    }
    environment = {"USERS_DB": users_table(tmp_path / "users.db"), "SCIM_TOKEN": TOKEN}
    async with running_forger() as forger:
        running = await world(changes, environment=environment, issuer=forger.issuer, provision=True)
        async with ScimClient(running) as scim, aiohttp.ClientSession() as http:
            person = await scim.make("ada")
            headers = {"Authorization": f"Bearer {_token(forger)}"}
            async with http.ws_connect(f"{running.url}/api/ws", headers=headers) as socket:
                await scim.patch(f"/Users/{person['id']}", {"op": "replace", "path": "displayName", "value": "A"})
                await asyncio.sleep(1.2)
                assert await echoes(socket)
                await scim.patch(f"/Users/{person['id']}", {"op": "replace", "value": {"active": False}})
                assert await is_closed(socket)
        assert denials(running) == [("/api/ws", "person-disabled")]


def _token(forger: Forger) -> str:
    now = int(time.time())
    changes = {"aud": API, "client_id": "script", "jti": "j-1", "exp": now + 300, "nonce": None}
    return sign(forger.standard_claims(**changes), typ="at+jwt")

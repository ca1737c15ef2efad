"""Somebody with a WebSocket at each of two replicas; how long both hold after the sessions were ended somewhere."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.manual_world import Terminal
from tests.scim_world import TOKEN, ScimClient, client_section
from tests.services.oidc import OidcProvider
from tests.test_replicas import asked, at, sign_in_for_real, two
from tests.world import SECRET, Browser, Running, World

BY_NAME = {"on": "userName", "join": {"corp": "{{ claims.preferred_username | lower }}"}}
_PATIENCE = 15.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replicas, and the three ways of ending everything that ada has there."""

    one: Running
    other: Running
    ways: dict[str, Callable[[], Awaitable[Any]]]


async def pair(world: World, provider: OidcProvider, redis_url: str, folder: Path) -> Pair:
    """Start them; ada is known by SCIM."""
    section = client_section(profile="okta", token={"env": "SCIM_TOKEN"}, **BY_NAME)
    changes = {"scim": {"clients": {"okta": section}}}
    directory = f"sqlite:///{folder}/shared.db"
    one, other, users = await two(world, provider, redis_url, folder, directory, changes, SCIM_TOKEN=TOKEN)
    known = {"USERS_DB": f"sqlite:///{users}", "ISSUER": provider.issuer, "SESSION_SECRET": SECRET}
    known |= {"OIDC_SECRET": "a client secret that is long", "REDIS_URL": redis_url, "SCIM_TOKEN": TOKEN}
    terminal = Terminal(one, {**os.environ, **known}, users)
    async with ScimClient(one) as scim:
        ada = (await scim.make("ada"))["id"]

    async def by_command() -> None:
        assert (await terminal.good("sessions", "end", "--person", "ada"))["ended"] == 1

    async def by_provider() -> None:
        assert await provider.end_sessions("ada")

    async def by_scim() -> None:
        async with ScimClient(one) as scim:
            answer = await scim.patch(f"/Users/{ada}", {"op": "replace", "value": {"active": False}})
            assert answer.body["active"] is False

    ways: dict[str, Callable[[], Awaitable[Any]]] = {
        "sidecar sessions end": by_command,
        "back-channel logout": by_provider,
        "SCIM active=false": by_scim,
    }
    return Pair(one, other, ways)


async def seconds_after(here: Pair, provider: OidcProvider, way: str) -> tuple[float, float]:
    """Sign ada in, end her sessions in this *way*; seconds until all sockets, and all doors, are closed."""
    async with here.one.browser() as browser, aiohttp.ClientSession() as http:
        await sign_in_for_real(browser, provider, "ada")
        headers = {"Host": here.one.url.removeprefix("http://"), "Cookie": f"sidecar={browser.cookie()}"}
        headers["Origin"] = here.one.url
        replicas = (here.one, here.other)
        sockets = [await http.ws_connect(at(running, "/ws"), headers=headers) for running in replicas]
        for running, socket in zip(replicas, sockets, strict=True):
            # Once more, so that the session is in the memory of both.
            assert (await asked(browser, running)).status == 200
            await socket.send_str("x")
            assert (await socket.receive()).data == "echo x"
        closings = [asyncio.create_task(_closed(socket)) for socket in sockets]
        await here.ways[way]()
        began = time.perf_counter()
        doors = await asyncio.gather(*(_shut(browser, running) for running in replicas))
        return max(0.0, max(await asyncio.gather(*closings)) - began), max(0.0, max(doors) - began)


async def _closed(socket: aiohttp.ClientWebSocketResponse) -> float:
    message = await socket.receive(_PATIENCE)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)
    return time.perf_counter()


async def _shut(browser: Browser, running: Running) -> float:
    async with asyncio.timeout(_PATIENCE):
        while (await asked(browser, running)).status == 200:
            pass
    return time.perf_counter()

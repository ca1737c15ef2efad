"""A changed configuration is put in force while serving: whole or not at all, and nobody notices but by its effect."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from sidecar.config.loader import load
from sidecar.hooks.passwords import FILTERS
from sidecar.reloading import Reloading
from tests.world import SECRET, Running, World, merged, until


@dataclass
class Reloadable:
    """A sidecar that runs, and what can reload its configuration."""

    running: Running
    reloading: Reloading
    file: Path

    def write(self, changes: dict[str, Any]) -> None:
        """Lay *changes* over the file."""
        config = yaml.load(self.file.read_text(), Loader=yaml.BaseLoader)  # noqa: S506 - of our own
        self.file.write_text(yaml.safe_dump(merged(config, changes), sort_keys=False))

    async def change(self, changes: dict[str, Any], **options: Any) -> Any:
        """Lay *changes* over the file, and reload."""
        self.write(changes)
        return await self.reloading.reload("signal", **options)

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The audit lines of these events."""
        return [line for line in self.running.audit() if line["event"] in names]

    async def stop(self) -> None:
        """Stop what runs by now."""
        await self.reloading.sidecar.stop()


async def reloadable(world: World, changes: dict[str, Any] | None = None, **options: Any) -> Reloadable:
    """Start a sidecar that can be reloaded; the world stops what runs at the end."""
    running = await world(changes, **options)
    file = running.folder / "config.yaml"
    variables = {
        **os.environ,
        "ISSUER": running.provider.issuer,
        "OIDC_SECRET": "a client secret",
        "SESSION_SECRET": SECRET,
        **options.get("environment", {}),
    }
    loaded = load(file, environment=variables, filters=FILTERS)
    made = Reloadable(running, Reloading(file, loaded, running.sidecar, variables), file)
    # What began has handed over its listener; whoever has it by then is to be stopped.
    world.closing(running.sidecar.stop, made.stop)
    return made


def rule(path: str, allow: Any) -> dict[str, Any]:
    """Access rules that begin with one for *path*."""
    return {"access": [{"path": path, "allow": allow}, {"path": "/**", "allow": {"role": ["admin", "reader"]}}]}


async def test_a_changed_rule_is_in_force_and_sessions_in_memory_live_on(world: World) -> None:
    one = await reloadable(world)
    async with one.running.browser() as browser:
        assert (await browser.sign_in("ada", "/admin/x")).status == 200
        outcome = await one.change(rule("/admin/**", "nobody"))
        assert outcome.is_loaded
        assert (await browser.page("/page")).status == 200
        assert (await browser.page("/admin/x")).status == 403
        # The session that began before can be ended afterwards.
        assert (await browser.page("/-/logout", "POST")).status in (200, 303, 302)
    (line,) = one.events("configuration-loaded")
    assert line["trigger"] == "signal"
    assert line["digest"] == outcome.digest
    assert any(change.startswith("access[0]") for change in line["changes"])


async def test_a_sign_in_that_is_under_way_survives(world: World) -> None:
    one = await reloadable(world, {"sessions": {"secrets": None}})
    async with one.running.browser() as browser:
        page = await browser.at_provider("/page")
        assert (await one.change(rule("/admin/**", "nobody"))).is_loaded
        back = await browser.choose(page, "ada")
        assert (await browser.follow(back)).status == 200


async def test_a_websocket_lives_on_until_its_session_ends(world: World) -> None:
    one = await reloadable(world)
    async with one.running.browser() as browser:
        await browser.sign_in("ada")
        headers = {"Origin": one.running.url}
        async with browser.http.ws_connect(f"{one.running.url}/ws", headers=headers) as ws:
            for number in range(3):
                assert (await one.change({"pages": {"support": f"number {number}"}})).is_loaded
                await ws.send_str(f"hello {number}")
                assert await ws.receive_str(timeout=5) == f"echo hello {number}"
            await until(lambda: _former(one, 1))
            session = (await one.reloading.sidecar.front.gate.keeper.list_all())[0]
            await one.reloading.sidecar.front.gate.keeper.end_id(session)
            async with asyncio.timeout(5):
                assert (await ws.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        await until(lambda: _former(one, 0))


async def _former(one: Reloadable, number: int) -> bool:
    return one.reloading.sidecar.former == number


async def test_a_request_under_way_ends_with_the_plan_that_it_began_with(world: World) -> None:
    one = await reloadable(world)
    goes_on, began = asyncio.Event(), asyncio.Event()

    async def slowly(_request: web.BaseRequest) -> web.StreamResponse:
        began.set()
        await goes_on.wait()
        return web.Response(text="done")

    one.running.application.answer = slowly
    async with aiohttp.ClientSession() as http:
        first = asyncio.create_task(http.get(f"{one.running.url}/public/x"))
        await began.wait()
        assert (await one.change(rule("/public/**", "nobody"))).is_loaded
        goes_on.set()
        assert (await first).status == 200
        async with http.get(f"{one.running.url}/public/x") as answer:
            assert answer.status in (401, 403)

"""A provider that is away signs nobody out for a stated time, is asked at a slow pace, and is spoken of once."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from sidecar.core.audit import Event
from sidecar.demo.provider import DemoProvider
from sidecar.model import Identity, Session
from sidecar.portal.outages import Outages
from sidecar.sessions.memory import MemoryStore
from sidecar.telemetry.metrics import Metrics
from tests.services.process import free_port
from tests.world import Running, World

# The demo's tokens last 300 seconds and are refreshed after four fifths of that.
DUE = 245


class Switched:
    """The demo provider with a switch; it counts what it is asked for."""

    def __init__(self, provider: DemoProvider, world: World) -> None:
        self.provider = provider
        self.asked = 0
        self._world = world
        self._stop = world._closers[-1]

    async def off(self) -> None:
        await self._stop()

    async def on(self) -> None:
        @web.middleware
        async def counted(request: web.Request, handler: Any) -> Any:
            self.asked += request.path.endswith("/token")
            return await handler(request)

        app = self.provider.app()
        app.middlewares.append(counted)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", urlsplit(self.provider.issuer).port).start()
        self._world._closers.append(runner.cleanup)
        self._stop = runner.cleanup


async def switched(world: World, *ports: int) -> Switched:
    return Switched(await world.provider(*(f"http://localhost:{port}" for port in ports)), world)


def count(running: Running, event: str) -> int:
    return sum(line["event"] == event for line in running.audit())


def outages(running: Running) -> Outages:
    return running.sidecar.front.gate.renewal._outages


async def test_sessions_live_on_for_the_stated_time_and_no_longer(world: World) -> None:
    port = free_port()
    switch = await switched(world, port)
    running = await world({"sessions": {"outage": "1m"}}, provider=switch.provider, port=port)
    async with running.browser() as browser:
        await browser.sign_in("ada", "/x")
        await switch.off()
        world.clock.ahead = DUE
        assert (await browser.page("/x")).status == 200
        assert count(running, "provider-outage-began") == 1
        assert "provider.corp" in await running.sidecar.condition.readiness()
        assert b'sidecar_provider_outage{provider="corp"} 1.0' in running.sidecar.metrics.render()
        world.clock.ahead = DUE + 70
        page = await browser.page("/x")
        assert (page.status, "Retry-After" in page.headers) == (503, True)
        assert "provider-unavailable" in await page.text()
        assert "identity provider" in await page.text()
        # It was not ended: what is wrong is the provider.
        assert count(running, "session-ended") == 0


async def test_by_default_they_live_on_as_long_as_any_session(world: World) -> None:
    port = free_port()
    switch = await switched(world, port)
    running = await world(provider=switch.provider, port=port)
    async with running.browser() as browser:
        await browser.sign_in("ada", "/x")
        await switch.off()
        world.clock.ahead = 1700
        assert (await browser.page("/x")).status == 200


async def test_two_replicas_ask_slowly_and_speak_once(world: World, redis_url: str) -> None:
    ports = free_port(), free_port()
    switch = await switched(world, *ports)
    changes = {
        "sessions": {"redis": redis_url, "outage": "1h"},
        "server": {"public_url": f"http://localhost:{ports[0]}"},
    }
    one = await world(changes, provider=switch.provider, port=ports[0])
    other = await world(changes, provider=switch.provider, port=ports[1])
    other_url = f"http://127.0.0.1:{other.port}"
    async with one.browser() as browser, one.browser() as second:
        await browser.sign_in("ada", "/x")
        await second.sign_in("grace", "/x")
        await switch.off()
        world.clock.ahead = DUE

        async def at_other(cookie: str) -> int:
            headers = {"Host": f"localhost:{ports[0]}", "Cookie": f"sidecar={cookie}"}
            return (await second.page(other_url + "/x", headers=headers)).status

        assert (await browser.page("/x")).status == 200
        assert await at_other(second.cookie()) == 200
        assert [count(running, "provider-outage-began") for running in (one, other)] == [1, 0]
        assert outages(one).is_away("corp")
        assert outages(other).is_away("corp")
        await switch.on()
        # Within the pause nobody asks, however often people come.
        for _ in range(20):
            assert (await browser.page("/x")).status == 200
        assert switch.asked == 0
        world.clock.ahead = DUE + 16
        assert (await browser.page("/x")).status == 200
        assert switch.asked == 1
        assert count(one, "provider-outage-ended") == 1
        # The other one hears of it in the store, and asks not at once but in its session's turn.
        assert await at_other(second.cookie()) == 200
        assert not outages(other).is_away("corp")
        assert switch.asked == 1
        world.clock.ahead = DUE + 16 + 31
        assert await at_other(second.cookie()) == 200
        assert switch.asked == 2
        assert count(other, "provider-outage-ended") == 0


async def test_what_ends_sessions_ends_them_in_an_outage_too(world: World) -> None:
    port = free_port()
    switch = await switched(world, port)
    running = await world({"sessions": {"outage": "1h"}}, provider=switch.provider, port=port)
    async with running.browser() as browser:
        await browser.sign_in("ada", "/x")
        await switch.off()
        world.clock.ahead = DUE
        assert (await browser.page("/x")).status == 200
        keeper = running.sidecar.front.portal.keeper
        ids = await keeper.list_all()
        assert await keeper.end_id(ids[0]) == 1
        assert (await browser.page("/x")).status != 200


async def test_a_provider_that_says_no_ends_the_session_and_is_no_outage(world: World) -> None:
    port = free_port()
    switch = await switched(world, port)
    running = await world({"sessions": {"outage": "1h"}}, provider=switch.provider, port=port)
    async with running.browser() as browser:
        await browser.sign_in("ada", "/x")
        await switch.off()
        # Another one at the same address, which knows nothing of the tokens.
        issuer_port = urlsplit(switch.provider.issuer).port
        await world.provider(running.url, port=issuer_port or 0)
        world.clock.ahead = DUE
        assert (await browser.page("/x")).status == 302
        assert (count(running, "session-ended"), count(running, "provider-outage-began")) == (1, 0)


async def test_after_an_outage_sessions_are_refreshed_one_after_the_other() -> None:
    said: list[Event] = []
    store = MemoryStore(lambda: 1000.0)
    known = Outages(store, 3600.0, lambda event, _: said.append(event), Metrics())
    identity = Identity("corp", "i", "s", "u")
    sessions = [Session(f"{number:x}" * 3, identity, 0.0, 9e9, 0.0, 0.0, refresh_at=900.0) for number in range(1000)]

    async def asking(now: float) -> int:
        return sum([await known.may_ask(session, now) for session in sessions])

    assert await asking(1000) == 1000
    await known.failed("corp", "down", 1000)
    assert await asking(1001) == 0
    assert await asking(1020) == 1
    await known.answered("corp", 1020)
    assert said == [Event.OUTAGE_BEGAN, Event.OUTAGE_ENDED]
    assert await asking(1020) < 100
    assert 300 < await asking(1035) < 700
    assert await asking(1050) == 1000
    # Who could not get in otherwise need not wait for their turn.
    assert await Outages.may_ask(known, Session("z", identity, 0, 9e9, 0, 0, refresh_at=-9e3), 1020)


async def test_an_outage_that_outlives_the_process_which_noted_it_ends_too() -> None:
    said: list[Event] = []
    store = MemoryStore(lambda: 1000.0)
    before, after = (Outages(store, None, lambda event, _: said.append(event), Metrics()) for _ in range(2))
    await before.failed("corp", "down", 1000)
    await after.answered("corp", 1100)
    await after.answered("corp", 1101)
    assert said == [Event.OUTAGE_BEGAN, Event.OUTAGE_ENDED]


async def test_the_chooser_says_which_provider_is_away(world: World) -> None:
    port = free_port()
    switch = await switched(world, port)
    other = {"type": "oidc", "title": "Partners", "issuer": {"env": "ISSUER"}, "client_id": "wiki"}
    logins = {"other": {**other, "client_secret": {"env": "OIDC_SECRET"}}}
    running = await world({"logins": logins}, provider=switch.provider, port=port)
    async with running.browser() as browser:
        back = await browser.choose(await browser.at_provider("/-/login?with=corp&to=/x"), "ada")
        assert (await browser.follow(back)).status == 200
        async with running.browser() as stranger:
            assert "cannot be reached" not in await (await stranger.page("/-/login")).text()
            await switch.off()
            world.clock.ahead = DUE
            assert (await browser.page("/x")).status == 200
            text = await (await stranger.page("/-/login")).text()
    assert text.count("cannot be reached") == 1
    assert text.index("Company account") < text.index("cannot be reached") < text.index("Partners")


class Picky(Switched):
    """A provider that answers everybody, but not the refresh tokens in ``odd`` as it should."""

    def __init__(self, provider: DemoProvider, world: World) -> None:
        super().__init__(provider, world)
        self.last = ""
        self.odd: dict[str, tuple[int, dict[str, str]]] = {}
        self.asked_by: list[str] = []

    async def on(self) -> None:
        @web.middleware
        async def picky(request: web.Request, handler: Any) -> Any:
            token = str((await request.post()).get("refresh_token", "")) if request.path.endswith("/token") else ""
            if token:
                self.asked_by.append(token)
            if token in self.odd:
                status, body = self.odd[token]
                return web.json_response(body, status=status)
            answer = await handler(request)
            if request.path.endswith("/token") and answer.status == 200 and not token:
                self.last = json.loads(answer.body)["refresh_token"]
            return answer

        app = self.provider.app()
        app.middlewares.append(picky)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", urlsplit(self.provider.issuer).port).start()
        self._world._closers.append(runner.cleanup)
        self._stop = runner.cleanup


@pytest.mark.parametrize(
    "odd",
    [
        (403, {"error": "access_denied"}),
        (400, {"error": "interaction_required"}),
        (429, {}),
        (200, {"access_token": "a", "token_type": "Bearer", "id_token": "x" * 2_000_000}),
        (200, {"access_token": "a" * 100_000, "token_type": "Bearer"}),
    ],
)
async def test_t56_one_person_whom_the_provider_answers_oddly_keeps_nobody_elses_claims_old(
    world: World, odd: tuple[int, dict[str, str]]
) -> None:
    port = free_port()
    picky = Picky(await world.provider(f"http://localhost:{port}"), world)
    await picky.off()
    await picky.on()
    running = await world({"sessions": {"outage": "1h"}}, provider=picky.provider, port=port)
    async with running.browser() as mallory, running.browser() as ada:
        await mallory.sign_in("grace", "/x")
        hers = picky.last
        picky.odd[hers] = odd
        await ada.sign_in("ada", "/x")
        world.clock.ahead = DUE
        for _ in range(5):
            assert (await mallory.page("/x")).status == 200
        assert (await ada.page("/x")).status == 200
    assert count(running, "provider-outage-began") == 0
    assert [line["person"] for line in running.audit() if line["event"] == "session-refreshed"] == ["ada"]
    # Nor is the provider asked with every request.
    assert picky.asked_by.count(hers) == 1

"""A provider that is away signs nobody out for a stated time, is asked at a slow pace, and is spoken of once."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from html import unescape
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from aiohttp import web

from sidecar.core.audit import Event
from sidecar.demo.provider import DemoProvider
from sidecar.faults import Unavailable, Unreached
from sidecar.model import Identity, Session
from sidecar.portal.lookout import Lookout, Sight
from sidecar.portal.outages import Outages
from sidecar.reason import Reason
from sidecar.sessions.memory import MemoryStore
from sidecar.telemetry.metrics import Metrics
from tests.services.process import free_port
from tests.world import Running, World, until

if TYPE_CHECKING:
    from sidecar.logins.login import Login

# The demo's tokens last 300 seconds and are refreshed after four fifths of that.
DUE = 245
DOWN = Unreached(Reason.PROVIDER_DOWN, "down")


class Switched:
    """The demo provider with a switch; it counts what it is asked for."""

    def __init__(self, provider: DemoProvider, world: World) -> None:
        self.provider = provider
        self.asked = 0
        self.looks = 0
        self.trouble: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
        self._world = world
        self._stop = world._closers[-1]

    async def off(self) -> None:
        await self._stop()

    async def on(self) -> None:
        @web.middleware
        async def counted(request: web.Request, handler: Any) -> Any:
            self.asked += request.path.endswith("/token") and request.method == "POST"
            self.looks += request.path.endswith("/openid-configuration")
            if self.trouble is not None and (answer := await self.trouble(request)) is not None:
                return answer
            return await handler(request)

        await self._serve(counted)

    async def _serve(self, middleware: Any) -> None:
        app = self.provider.app()
        app.middlewares.append(middleware)
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
        text = await page.text()
        assert "Company account cannot be reached" in text
        assert switch.provider.issuer not in text
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


async def test_a_refresh_that_fails_by_the_clock_says_so(world: World) -> None:
    running = await world({"sessions": {"idle": "8h"}})
    async with running.browser() as browser:
        await browser.sign_in("ada", "/x")
        # As if this replica's clock were three hours ahead of the provider's.
        world.clock.ahead = 3 * 3600.0
        assert (await browser.page("/x")).status == 302
    (line,) = [line for line in running.audit() if line["event"] == "session-ended"]
    assert line["reason"] == "token-expired"
    assert line["detail"].endswith("s ago by its own account: compare the clocks")


async def test_after_an_outage_sessions_are_refreshed_one_after_the_other() -> None:
    said: list[Event] = []
    store = MemoryStore(lambda: 1000.0)
    known = Outages(store, 3600.0, lambda event, _: said.append(event), Metrics())
    identity = Identity("corp", "i", "s", "u")
    sessions = [Session(f"{number:x}" * 3, identity, 0.0, 9e9, 0.0, 0.0, refresh_at=900.0) for number in range(1000)]

    async def asking(now: float) -> int:
        return sum([await known.may_ask(session, now) for session in sessions])

    assert await asking(1000) == 1000
    await known.failed("corp", DOWN, 1000)
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
    await before.failed("corp", DOWN, 1000)
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

        await self._serve(picky)


@pytest.mark.parametrize(
    "odd",
    [
        (403, {"error": "access_denied"}),
        (400, {"error": "invalid_scope"}),
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


@pytest.mark.parametrize(("status", "code"), [(400, "access_denied"), (401, "interaction_required")])
async def test_a_provider_that_says_no_to_somebody_ends_their_session(world: World, status: int, code: str) -> None:
    port = free_port()
    picky = Picky(await world.provider(f"http://localhost:{port}"), world)
    await picky.off()
    await picky.on()
    running = await world({"sessions": {"outage": "1h"}}, provider=picky.provider, port=port)
    async with running.browser() as grace:
        await grace.sign_in("grace", "/x")
        picky.odd[picky.last] = (status, {"error": code})
        world.clock.ahead = DUE
        assert (await grace.page("/x")).status == 302
    assert count(running, "provider-outage-began") == 0
    assert count(running, "session-ended") == 1


def at_token(
    answer: Callable[[], Awaitable[web.StreamResponse]],
) -> Callable[..., Awaitable[web.StreamResponse | None]]:
    """Trouble at the token endpoint alone, for those who bring a code there."""

    async def trouble(request: web.Request) -> web.StreamResponse | None:
        return await answer() if request.path.endswith("/token") and request.method == "POST" else None

    return trouble


async def bad_gateway() -> web.StreamResponse:
    return web.Response(status=502)


async def hangs() -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def is_noted(running: Running, times: int = 1, event: str = "provider-outage-began") -> None:
    async def noted() -> bool:
        return count(running, event) >= times

    await until(noted)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No finding is held for long."""
    monkeypatch.setattr("sidecar.portal.lookout._HOLDS", 0.05)
    monkeypatch.setattr("sidecar.portal.outages._HEARD", 0.05)
    monkeypatch.setattr("sidecar.portal.reach._PROBE_HOLDS", 0.05)


@pytest.mark.usefixtures("quick")
async def test_an_outage_is_noticed_by_a_sign_in_and_ends_when_one_works_again(world: World) -> None:
    port = free_port()
    switch = await switched(world, port)
    running = await world(provider=switch.provider, port=port)
    async with running.browser() as browser:
        back = await browser.choose(await browser.at_provider("/x"), "ada")
        await switch.off()
        page = await browser.page(str(back.headers["Location"]))
        assert (page.status, page.headers["Retry-After"]) == (503, "5")
        text = await page.text()
        assert "Company account cannot be reached" in text
        assert switch.provider.issuer not in text
        await is_noted(running)
        assert outages(running).is_away("corp")
        began = [line for line in running.audit() if line["event"] == "provider-outage-began"]
        assert [line["cause"] for line in began] == ["unreachable"]
        # Whoever begins now hears of it at once, and is not sent to a page that does not come.
        started = await browser.page("/-/login?to=/x")
        assert started.status == 503
        assert "Company account cannot be reached" in await started.text()
        assert count(running, "provider-outage-began") == 1
        await switch.on()
        await asyncio.sleep(0.1)
        assert (await (await browser.follow(await browser.page("/x"))).json())["path"] == "/x"
        assert not outages(running).is_away("corp")
        await is_noted(running, event="provider-outage-ended")
        assert count(running, "provider-outage-ended") == 1


@pytest.mark.usefixtures("quick")
async def test_a_login_start_looks_although_what_the_provider_said_is_remembered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.portal.lookout._WHILE_WELL", 0.0)
    port = free_port()
    switch = await switched(world, port)
    running = await world(provider=switch.provider, port=port)
    async with running.browser() as browser:
        await browser.sign_in("ada", "/x")
        await switch.off()
        async with running.browser() as stranger:
            # It does not wait for the look.
            assert (await stranger.page("/-/login?to=/x")).status == 302
            await is_noted(running)
            assert (await stranger.page("/-/login?to=/x")).status == 503


@pytest.mark.usefixtures("quick")
async def test_it_ends_although_nobody_signs_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.portal.lookout._WHILE_AWAY", 0.2)
    port = free_port()
    switch = await switched(world, port)
    running = await world(provider=switch.provider, port=port)
    await switch.off()
    async with running.browser() as browser:
        assert (await browser.page("/-/login")).status == 503
    await is_noted(running)
    await switch.on()
    await is_noted(running, event="provider-outage-ended")


async def test_a_crowd_that_wants_to_sign_in_makes_one_look(world: World) -> None:
    port = free_port()
    switch = await switched(world, port)
    running = await world(provider=switch.provider, port=port)
    await switch.off()

    async def down(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    switch.trouble = down
    await switch.on()
    async with running.browser() as browser:
        assert (await browser.page("/-/login")).status == 503
        await is_noted(running)
        before = switch.looks
        pages = await asyncio.gather(*(browser.page("/-/login") for _ in range(30)))
        assert {page.status for page in pages} == {503}
        assert switch.looks <= before + 1


@pytest.mark.usefixtures("quick")
async def test_replicas_hear_of_what_a_sign_in_found_out(world: World, redis_url: str) -> None:
    ports = free_port(), free_port()
    switch = await switched(world, *ports)
    sessions = {"sessions": {"redis": redis_url}, "server": {"public_url": f"http://localhost:{ports[0]}"}}
    one = await world(sessions, provider=switch.provider, port=ports[0])
    other = await world(sessions, provider=switch.provider, port=ports[1])
    async with one.browser() as browser:
        await browser.sign_in("ada", "/x")
        async with other.browser() as stranger:
            headers = {"Host": f"localhost:{ports[0]}"}
            # It remembers what the provider says of itself, and would send people there for an hour.
            assert (await stranger.page("/-/login?to=/x", headers=headers)).status == 302
            # Its own look, which the sign-in began, is over.
            own = other.sidecar.front.portal.sign_in.lookout
            assert own is not None
            assert await own.sight("corp") is Sight.WELL
            await switch.off()
            await asyncio.sleep(0.1)
            lookout = one.sidecar.front.portal.sign_in.lookout
            assert lookout is not None
            await lookout.sight("corp")
            assert count(one, "provider-outage-began") == 1
            assert (await stranger.page("/-/login?to=/x", headers=headers)).status == 503
            assert count(other, "provider-outage-began") == 0
            assert outages(other).is_away("corp")


@pytest.mark.parametrize("trouble", [bad_gateway, hangs])
@pytest.mark.usefixtures("quick")
async def test_bad_callbacks_make_no_outage(world: World, trouble: Any) -> None:
    port = free_port()
    switch = await switched(world, port)
    # A provider that stumbles over strange codes, or takes for ever.
    switch.trouble = at_token(trouble)
    await switch.off()
    await switch.on()
    corp = {"logins": {"corp": {"timeout": "1s"}}}
    running = await world(corp, provider=switch.provider, port=port)
    async with running.browser() as mallory:
        for _ in range(5):
            sent = await mallory.page("/-/login?to=/x")
            state = parse_qs(urlsplit(sent.headers["Location"]).query)["state"][0]
            answer = {"state": state, "code": "{{strange}}", "iss": switch.provider.issuer}
            page = await mallory.page(f"/-/callback/corp?{urlencode(answer)}")
            assert page.status == 503
        lookout = running.sidecar.front.portal.sign_in.lookout
        assert lookout is not None
        await asyncio.sleep(0.1)
        assert await lookout.sight("corp") is Sight.WELL
    assert count(running, "provider-outage-began") == 0
    assert not outages(running).is_away("corp")


@pytest.mark.usefixtures("quick")
async def test_a_client_that_the_provider_does_not_know_is_no_outage(world: World) -> None:
    port = free_port()
    switch = await switched(world, port)

    async def unknown() -> web.StreamResponse:
        return web.json_response({"error": "invalid_client"}, status=401)

    switch.trouble = at_token(unknown)
    await switch.off()
    await switch.on()
    running = await world(provider=switch.provider, port=port)
    async with running.browser() as browser:
        back = await browser.choose(await browser.at_provider("/x"), "ada")
        page = await browser.page(str(back.headers["Location"]))
        assert page.status == 503
        assert "something is set up wrongly" in await page.text()
    assert count(running, "provider-outage-began") == 0


async def test_refreshes_that_are_answered_with_faults_are_told_as_such(world: World) -> None:
    port = free_port()
    switch = await switched(world, port)
    running = await world(provider=switch.provider, port=port)

    async def unknown() -> web.StreamResponse:
        return web.json_response({"error": "invalid_client"}, status=401)

    async with running.browser() as browser:
        await browser.sign_in("ada", "/x")
        switch.trouble = at_token(unknown)
        await switch.off()
        await switch.on()
        world.clock.ahead = DUE
        # Nobody is signed out by it.
        assert (await browser.page("/x")).status == 200
        began = [line for line in running.audit() if line["event"] == "provider-outage-began"]
        assert [line["cause"] for line in began] == ["misconfigured"]
        assert not outages(running).is_away("corp")
        switch.trouble = None
        world.clock.ahead = DUE + 40
        assert (await browser.page("/x")).status == 200
        assert count(running, "provider-outage-ended") == 1


async def test_a_crowd_of_sign_ins_leaves_connections_for_looking(world: World) -> None:
    port = free_port()
    switch = await switched(world, port)
    switch.trouble = at_token(hangs)
    await switch.off()
    await switch.on()
    running = await world(provider=switch.provider, port=port)
    login: Any = running.sidecar.front.portal.sign_in.logins["corp"]
    metadata = await login.provider.metadata()
    held = [asyncio.create_task(login.provider.http.post(metadata.token_endpoint, "x=1", {})) for _ in range(30)]
    await asyncio.sleep(0.2)
    async with asyncio.timeout(2):
        await login.reach()
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)


OTHER = {"type": "oidc", "title": "Partners", "issuer": {"env": "ISSUER"}, "client_id": "wiki"}


@pytest.mark.parametrize(
    ("to", "kept"),
    [
        ("/notes?a=1&b=2", "/notes%3Fa%3D1%26b%3D2"),
        ("https://evil.example/", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/%09/evil.example", "/"),
        ("/-/logout", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
async def test_t19_the_page_offers_other_ways_that_keep_where_one_wanted_to_go(
    world: World, to: str, kept: str
) -> None:
    logins = {"other": {**OTHER, "client_secret": {"env": "OIDC_SECRET"}}, "corp": {"issuer": "http://localhost:9/id"}}
    running = await world({"logins": logins})
    async with running.browser() as browser:
        page = await browser.page(f"/-/login?with=corp&to={quote(to, safe='')}")
        assert page.status == 503
        links = [unescape(link) for link in re.findall(r'href="([^"]+)"', await page.text())]
        assert f"/-/login?to={kept}&with=other" in links
        assert not any("evil" in link for link in links if not link.startswith("/-/login?with=corp"))
        follow = await browser.follow(await browser.page(f"/-/login?to={kept}&with=other"))
        assert follow.status == 200


class Reachable:
    """A login as far as looking goes, with a fault to make."""

    name, place, calls_provider = "corp", "https://id.example.com", True

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.looks = 0

    async def reach(self) -> None:
        self.looks += 1
        if self.fault is not None:
            raise self.fault


@pytest.mark.usefixtures("quick")
async def test_what_refreshes_found_out_keeps_nobody_from_a_provider_that_answers() -> None:
    said: list[Event] = []
    store, login = MemoryStore(lambda: 1000.0), Reachable()
    now = [1000.0]
    known = Outages(store, None, lambda event, _: said.append(event), Metrics())
    lookout = Lookout({"corp": cast("Login", login)}, known, store, lambda: now[0])
    await known.failed("corp", DOWN, 1000.0)
    await lookout.before("corp")
    # It is no end yet: else refreshes that still fail would make it begin and end all day.
    assert (known.is_away("corp"), said) == (True, [Event.OUTAGE_BEGAN])
    login.fault = DOWN
    await asyncio.sleep(0.1)
    with pytest.raises(Unreached):
        await lookout.before("corp")
    login.fault = Unavailable(Reason.PROVIDER_DOWN, "another issuer")
    now[0] += 400
    await asyncio.sleep(0.1)
    await lookout.before("corp")
    assert (known.is_away("corp"), said) == (False, [Event.OUTAGE_BEGAN, Event.OUTAGE_ENDED])
    await lookout.close()


async def test_many_doubts_make_one_look() -> None:
    store, login = MemoryStore(lambda: 1000.0), Reachable()
    known = Outages(store, None, lambda *_: None, Metrics())
    lookout = Lookout({"corp": cast("Login", login)}, known, store, lambda: 1000.0)
    await lookout.sight("corp")
    for _ in range(1000):
        lookout.doubt("corp", DOWN)
        await asyncio.sleep(0)
    assert login.looks == 1
    await lookout.close()

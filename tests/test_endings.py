"""What is under way for a session hears of its end: from here, from elsewhere, by the clock, and late if need be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sidecar import endings as endings_module
from sidecar.endings import Endings
from sidecar.faults import Unavailable
from sidecar.model import Identity, Session
from sidecar.sessions.keeper import SessionKeeper
from sidecar.upstream.ending import Ending
from sidecar.upstream.exchange import _GRACE
from tests.sessions_world import NOW, Time, eventually, keeping, opened, section, signed_in
from tests.test_engines import Oracle, running_with
from tests.test_sessions import Recorded
from tests.world import World


@dataclass
class Place:
    """Endings over a store that can go deaf, fail, and hold its answers back."""

    store: Recorded
    keeper: SessionKeeper
    clock: Time
    endings: Endings

    async def open(self, subject: str = "ada") -> tuple[str, Session]:
        return await self.keeper.open(signed_in(subject), self.clock.now)

    async def pass_away(self, session: Session) -> None:
        """End it so that nobody here hears of it."""
        heard, self.store.is_heard = self.store.is_heard, False
        await self.store.take(f"session:{session.id}")
        self.store.is_heard = heard

    @property
    def reads(self) -> int:
        return self.store.calls.count(("get", "session"))


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    clock = Time()
    store = Recorded(clock)
    async with keeping(store, clock=clock) as keeper:
        yield Place(store, keeper, clock, Endings(keeper, clock))


def watched(ending: Ending) -> list[str]:
    """What grows when it is over."""
    told: list[str] = []
    ending.watch(lambda: told.append("over"))
    return told


async def test_all_that_is_under_way_for_a_session_shares_one_ending_which_vanishes_with_it(place: Place) -> None:
    _, session = await place.open()
    ending = place.endings.of(session)
    assert place.endings.of(session) is ending
    assert place.endings.live() == (session.id,)
    del ending
    assert place.endings.live() == ()


async def test_an_end_is_told_once_and_to_nobody_else(place: Place) -> None:
    (token, ada), (_, grace) = await place.open("ada"), await place.open("grace")
    endings = [place.endings.of(one) for one in (ada, grace)]
    told = [watched(one) for one in endings]
    await place.keeper.end(token)
    place.endings.end(ada.id)
    place.endings.end("nobody's")
    endings[0].end()
    assert told == [["over"], []]
    assert place.endings.live() == (grace.id,)


async def test_t72_an_end_in_another_replica_is_told_here(redis_url: str) -> None:
    async with (
        opened(section(redis_url)) as one,
        opened(section(redis_url)) as other,
        keeping(one) as here,
        keeping(other) as there,
    ):
        endings = Endings(here, lambda: NOW)
        token, session = await there.open(signed_in(), NOW)
        ending = endings.of(session)
        told = watched(ending)
        await there.end(token)
        await eventually(lambda: told == ["over"])


async def test_a_lifetime_ends_at_its_second_and_not_before(place: Place) -> None:
    _, session = await place.open()
    ending = place.endings.of(session)
    told = watched(ending)
    place.clock.now = session.expires - 0.001
    place.endings.end_expired()
    assert told == []
    place.clock.now = session.expires
    place.endings.end_expired()
    assert told == ["over"]
    assert place.endings.live() == ()


@pytest.mark.parametrize("is_known", [True, False])
async def test_what_began_a_moment_ago_hears_of_an_end_before_it(place: Place, is_known: bool) -> None:
    token, session = await place.open()
    await place.keeper.find(token, place.clock.now)
    if not is_known:
        await place.keeper.end(token)
    before = place.reads
    ending = place.endings.of_late(session, is_kept=True)
    told = watched(ending)
    await asyncio.sleep(0.02)
    assert told == ([] if is_known else ["over"])
    # What is known to be open is not asked about.
    assert place.reads - before == int(not is_known)


@pytest.mark.parametrize("way", ["here", "elsewhere", "unheard"])
async def test_what_ended_while_it_was_looked_for_is_told(place: Place, way: str) -> None:
    token, session = await place.open()
    heard = place.endings.heard
    await place.keeper.find(token, place.clock.now)
    if way == "here":
        await place.keeper.end(token)
    elif way == "elsewhere":
        await place.store.take(f"session:{session.id}")
    else:
        await place.pass_away(session)
        place.keeper._lost()
    ending = place.endings.of(session, since=heard)
    await eventually(lambda: ending.is_over)


async def test_whoever_was_found_while_nothing_ended_costs_no_question(place: Place) -> None:
    token, session = await place.open()
    _, other = await place.open("grace")
    await place.keeper.find(token, place.clock.now)
    before, heard = place.reads, place.endings.heard
    kept = place.endings.of(session, since=heard)
    await place.store.take(f"session:{other.id}")
    # Another's end: what is known to be open is not asked about.
    assert place.endings.heard > heard
    assert place.endings.of(session, since=heard) is kept
    await asyncio.sleep(0.02)
    assert (place.reads, kept.is_over) == (before, False)


async def test_while_every_end_is_heard_nobody_asks(place: Place) -> None:
    _, session = await place.open()
    ending = place.endings.of(session)
    await place.endings.end_unheard()
    assert (place.reads, ending.is_over) == (0, False)


async def test_what_may_have_ended_unheard_is_asked_about_once(place: Place) -> None:
    (_, ada), (_, grace) = await place.open("ada"), await place.open("grace")
    gone, open_still = place.endings.of(ada), place.endings.of(grace)
    await place.pass_away(ada)
    place.keeper.losses += 1
    await place.endings.end_unheard()
    await place.endings.end_unheard()
    assert (gone.is_over, open_still.is_over) == (True, False)
    assert place.reads == 2


async def test_while_nothing_is_heard_it_is_asked_about_again_and_again(place: Place) -> None:
    _, session = await place.open()
    ending = place.endings.of(session)
    place.store.is_heard = False
    for _ in range(3):
        await place.endings.end_unheard()
    assert (place.reads, ending.is_over) == (3, False)
    await place.pass_away(session)
    await place.endings.end_unheard()
    assert ending.is_over


async def test_a_store_that_is_down_is_asked_again_and_ends_nothing(place: Place) -> None:
    _, session = await place.open()
    ending = place.endings.of(session)
    await place.pass_away(session)
    place.keeper.losses += 1
    place.store.failing.add("get")
    with pytest.raises(Unavailable):
        await place.endings.end_unheard()
    assert not ending.is_over
    place.store.failing.clear()
    await place.endings.end_unheard()
    assert ending.is_over


async def test_what_is_lost_while_it_asks_is_asked_about_again(place: Place) -> None:
    _, session = await place.open()
    ending = place.endings.of(session)
    place.keeper.losses += 1
    answers = place.store.held["get"] = asyncio.Event()
    asking = asyncio.create_task(place.endings.end_unheard())
    await eventually(lambda: place.reads == 1)
    await place.pass_away(session)
    place.keeper.losses += 1
    answers.set()
    await asking
    assert not ending.is_over
    await place.endings.end_unheard()
    assert ending.is_over


async def test_the_clock_is_watched_also_after_a_fault(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings_module, "_EVERY", 0.005)
    (_, ada), (_, grace) = await place.open("ada"), await place.open("grace")
    unheard, expired = place.endings.of(ada), place.endings.of(grace)
    await place.pass_away(ada)
    place.store.failing.add("get")
    place.keeper.losses += 1
    watching = asyncio.create_task(place.endings.watch_the_clock())
    await eventually(lambda: place.reads > 1)
    place.store.failing.clear()
    await eventually(lambda: unheard.is_over)
    assert not expired.is_over
    place.clock.now = grace.expires
    await eventually(lambda: expired.is_over)
    watching.cancel()
    await asyncio.wait([watching])


async def test_what_no_store_keeps_is_not_missed_there(place: Place) -> None:
    _, session = await place.open()
    await place.pass_away(session)
    ending = place.endings.of(session, is_kept=False)
    place.keeper.losses += 1
    await place.endings.end_unheard()
    assert (place.reads, ending.is_over) == (0, False)


async def test_t72_a_session_that_ends_while_an_engine_is_asked_leaves_no_socket_open(world: World) -> None:
    application = await world.application()
    oracle = Oracle(application)
    goes_on = asyncio.Event()

    async def slowly(_: web.BaseRequest) -> web.StreamResponse:
        await goes_on.wait()
        return web.json_response({"result": True})

    application.answer = slowly
    running = await running_with(world, oracle.section(timeout="20s"))
    async with running.browser() as ada, aiohttp.ClientSession() as http:
        await ada.sign_in("ada", "/start")
        headers: dict[str, Any] = {"Cookie": f"sidecar={ada.cookie()}", "Origin": running.url}
        dialling = asyncio.create_task(http.ws_connect(f"{running.url}/documents/7/socket", headers=headers))
        await eventually(lambda: oracle.asked != [])
        assert await running.sidecar.front.gate.keeper.end(ada.cookie()) == 1
        goes_on.set()
        closing = await (await dialling).receive(5)
        assert (closing.type, closing.data) == (aiohttp.WSMsgType.CLOSE, 1008)


async def test_t72_a_session_that_ends_while_it_is_asked_who_it_is_leaves_no_socket_open(world: World) -> None:
    running = await world()
    gate = running.sidecar.front.gate
    is_asked, goes_on = asyncio.Event(), asyncio.Event()

    async def slowly(signed_in: Identity, now: float) -> Identity:
        is_asked.set()
        await goes_on.wait()
        return signed_in

    async with running.browser() as ada, aiohttp.ClientSession() as http:
        await ada.sign_in("ada", "/start")
        # As where a directory says who people are, and takes its time.
        gate.remembered = lambda signed_in, now: None  # noqa: ARG005 - as Remembered has it
        gate.known = slowly
        headers: dict[str, Any] = {"Cookie": f"sidecar={ada.cookie()}", "Origin": running.url}
        dialling = asyncio.create_task(http.ws_connect(f"{running.url}/socket", headers=headers))
        await is_asked.wait()
        assert await gate.keeper.end(ada.cookie()) == 1
        goes_on.set()
        closing = await (await dialling).receive(5)
        assert (closing.type, closing.data) == (aiohttp.WSMsgType.CLOSE, 1008)


async def test_a_socket_that_anyone_may_open_outlives_the_session_that_came_along(world: World) -> None:
    rules = [
        {"path": "/public/**", "allow": "anyone", "deny": {"role": "editor"}},
        {"path": "/**", "allow": "signed_in"},
    ]
    running = await world({"access": rules})
    async with running.browser() as ada, aiohttp.ClientSession() as http:
        await ada.sign_in("ada", "/")
        headers: dict[str, Any] = {"Cookie": f"sidecar={ada.cookie()}", "Origin": running.url}
        socket = await http.ws_connect(f"{running.url}/public/socket", headers=headers)
        assert await running.sidecar.front.gate.keeper.end(ada.cookie()) == 1
        # Longer than the end of a session leaves to what it ends.
        await asyncio.sleep(_GRACE * 2)
        await socket.send_str("x")
        assert await socket.receive_str() == "echo x"
        await socket.close()

"""Turns across replicas: one at a time, also when the work takes longer than the lease."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.sessions.turn import Turn
from tests.sessions_world import eventually, memory, opened, section

KEY = "turn:x"


async def test_only_one_is_inside_at_a_time_across_two_processes(redis_url: str) -> None:
    inside, most = 0, 0
    async with opened(section(redis_url)) as one, opened(section(redis_url)) as two:

        async def work(store: object) -> None:
            nonlocal inside, most
            async with Turn(store, KEY, 20, Reason.PROVISIONING_DOWN):  # type: ignore[arg-type]
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.002)
                inside -= 1

        await asyncio.gather(*(work(store) for store in (one, two) * 5))
        assert most == 1
        assert await one.get(KEY) is None


async def test_who_works_longer_than_the_lease_keeps_the_turn(redis_url: str) -> None:
    lease = 0.15
    async with opened(section(redis_url)) as one, opened(section(redis_url)) as two:
        async with Turn(one, KEY, 1, Reason.PROVISIONING_DOWN, lease=lease):
            with pytest.raises(Unavailable):
                await Turn(two, KEY, lease * 4, Reason.PROVISIONING_DOWN, lease=lease).__aenter__()
        async with Turn(two, KEY, 1, Reason.PROVISIONING_DOWN, lease=lease):
            pass


async def test_the_turn_of_somebody_who_died_comes_round() -> None:
    store = memory()
    await store.claim(KEY, b"somebody who died", 0.05)
    async with Turn(store, KEY, 5, Reason.PROVISIONING_DOWN):
        assert await store.get(KEY) != b"somebody who died"


async def test_waiting_has_an_end_and_says_why() -> None:
    store = memory()
    async with Turn(store, KEY, 1, Reason.PROVISIONING_DOWN):
        with pytest.raises(Unavailable) as caught:
            await Turn(store, KEY, 0.05, Reason.PROVISIONING_DOWN).__aenter__()
        assert caught.value.reason is Reason.PROVISIONING_DOWN
    assert await store.get(KEY) is None


async def test_who_lost_the_turn_does_not_take_it_from_the_next() -> None:
    store = memory()
    turn = Turn(store, KEY, 1, Reason.PROVISIONING_DOWN)
    async with turn:
        await store.put(KEY, b"the next one", 60)
    assert await store.get(KEY) == b"the next one"


async def test_who_is_cancelled_gives_the_turn_back() -> None:
    store = memory()

    async def work() -> None:
        async with Turn(store, KEY, 1, Reason.PROVISIONING_DOWN):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await eventually(lambda: store.count("claim") == 1)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.get(KEY) is None

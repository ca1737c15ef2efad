"""Several workers share sessions: quick for each, and ended for all at once."""

# ruff: noqa: ASYNC110, ARG005 - what is waited for happens in another process; each way to end takes what it needs

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sidecar.model import Session, identity_key
from sidecar.sessions.keeper import SessionKeeper
from tests.services.redis import AclUser, RedisServer, RedisServers
from tests.sessions_world import ISSUER, NOW, Time, Watched, eventually, keeping, memory, opened, section, signed_in

ADA = identity_key(ISSUER, "ada")


class Replica:
    """One worker: its view of the store, counted, and its keeper."""

    def __init__(self, store: Watched, keeper: SessionKeeper) -> None:
        self.store = store
        self.keeper = keeper

    def look_ups(self) -> int:
        return self.store.count("get", "session:")

    def remembered(self) -> int:
        return len(self.keeper._cache._sessions)

    async def remembers(self, token: str) -> bool:
        before = self.look_ups()
        found = await self.keeper.find(token, NOW)
        return found is not None and self.look_ups() == before


@pytest.fixture
async def replicas(redis_url: str) -> AsyncIterator[tuple[Replica, Replica]]:
    settings, clock = section(redis_url), Time()
    async with opened(settings) as one, opened(settings) as two:
        first, second = Watched(one), Watched(two)
        async with keeping(first, settings, clock=clock) as a, keeping(second, settings, clock=clock) as b:
            yield Replica(first, a), Replica(second, b)


async def _open_and_remember(here: Replica, there: Replica) -> tuple[str, Session]:
    token, session = await here.keeper.open(signed_in("ada", sid="p1"), NOW)
    while here.keeper._tasks:
        await asyncio.gather(*here.keeper._tasks)
    async with asyncio.timeout(10):
        while not (await here.remembers(token) and await there.remembers(token)):
            await asyncio.sleep(0.005)
    return token, session


@pytest.mark.parametrize(
    "end",
    [
        lambda keeper, token, session: keeper.end(token),
        lambda keeper, token, session: keeper.end_id(session.id),
        lambda keeper, token, session: keeper.end_person(ADA),
        lambda keeper, token, session: keeper.end_subject(ISSUER, "ada"),
        lambda keeper, token, session: keeper.end_provider_session(ISSUER, "p1"),
    ],
)
async def test_a_session_that_ends_on_one_worker_ends_on_all(replicas: tuple[Replica, Replica], end: object) -> None:
    here, there = replicas
    token, session = await _open_and_remember(here, there)
    told: list[str] = []
    there.keeper.on_end(lambda session_id: session_id == session.id, told.append)
    assert await end(here.keeper, token, session) == 1  # type: ignore[operator]
    assert await here.keeper.find(token, NOW) is None
    async with asyncio.timeout(5):
        while await there.keeper.find(token, NOW) is not None:
            await asyncio.sleep(0.001)
    await eventually(lambda: session.id in told)


async def test_a_renewal_on_one_worker_is_seen_on_all_and_ends_nothing(replicas: tuple[Replica, Replica]) -> None:
    here, there = replicas
    token, session = await _open_and_remember(here, there)
    told: list[str] = []
    there.keeper.on_end(lambda _: True, told.append)
    assert await here.keeper.renew(token, session, signed_in("ada", username="lovelace"), NOW) is not None
    async with asyncio.timeout(5):
        while (found := await there.keeper.find(token, NOW)) is None or found.identity.username != "lovelace":
            await asyncio.sleep(0.001)
    assert told == []


async def test_a_session_that_the_store_lost_is_over(
    replicas: tuple[Replica, Replica], redis_server: RedisServer
) -> None:
    here, there = replicas
    token, _ = await _open_and_remember(here, there)
    with redis_server.client() as client:
        client.flushall()
    async with asyncio.timeout(5):
        while await there.keeper.find(token, NOW) is not None:
            await asyncio.sleep(0.001)


async def test_a_lost_watch_drops_everything_remembered(
    replicas: tuple[Replica, Replica], redis_server: RedisServer
) -> None:
    here, there = replicas
    token, _ = await _open_and_remember(here, there)
    losses = there.keeper.losses
    with redis_server.client() as client:
        for other in client.client_list():
            if "t" in other["flags"] or "B" in other["flags"]:
                client.client_kill(other["addr"])
    await eventually(lambda: there.keeper.losses > losses)
    assert there.remembered() == 0
    await eventually(lambda: there.store.is_watching)
    await _open_and_remember(here, there)
    assert await there.keeper.find(token, NOW) is not None


async def test_a_frozen_redis_is_noticed_and_what_ended_meanwhile_has_ended(
    replicas: tuple[Replica, Replica], redis_server: RedisServer
) -> None:
    here, there = replicas
    token, session = await _open_and_remember(here, there)
    redis_server.pause()
    try:
        await eventually(lambda: not there.store.is_watching)
        assert there.remembered() == 0
    finally:
        redis_server.resume()
    await eventually(lambda: there.store.is_watching)
    await here.keeper.end_id(session.id)
    async with asyncio.timeout(5):
        while await there.keeper.find(token, NOW) is not None:
            await asyncio.sleep(0.001)


async def test_where_the_acl_forbids_tracking_it_works_without_remembering(redis_servers: RedisServers) -> None:
    server = redis_servers(acl=AclUser(rules="~sidecar:* &* +@all -@dangerous -client|tracking"))
    settings = section(server.url)
    async with opened(settings) as inner, keeping(Watched(inner), settings, clock=Time()) as keeper:
        assert not keeper.is_watching
        token, _ = await keeper.open(signed_in(), NOW)
        assert await keeper.find(token, NOW) is not None
        assert Replica(Watched(inner), keeper).remembered() == 0
        await keeper.end(token)
        assert await keeper.find(token, NOW) is None


async def test_a_dump_of_redis_names_nobody_and_opens_nothing(redis_url: str, redis_server: RedisServer) -> None:
    settings = section(redis_url)
    async with opened(settings) as store, keeping(store, settings) as keeper:
        token, _ = await keeper.open(signed_in("ada", sid="provider-session"), NOW)
        dump = b""
        with redis_server.client() as client:
            for key in client.keys("*"):
                is_plain = client.type(key) == b"string"
                value = [client.get(key)] if is_plain else client.zrange(key, 0, -1)
                dump += key + b"".join(value)
                assert client.pttl(key) > 0
    assert dump
    for secret in (token, "ada", "example.com", "provider-session", "a refresh token", "an id token", "staff"):
        assert secret.encode() not in dump


# One worker, many requests


@pytest.fixture
async def alone() -> AsyncIterator[Replica]:
    store = memory(Time())
    async with keeping(store, clock=Time()) as keeper:
        yield Replica(store, keeper)


async def test_a_hundred_requests_at_once_are_one_look_up(alone: Replica) -> None:
    token, session = await alone.keeper.open(signed_in(), NOW)
    before = alone.look_ups()
    await asyncio.sleep(0)
    found = await asyncio.gather(*(alone.keeper.find(token, NOW) for _ in range(100)))
    assert found == [session] * 100
    background = len([key for verb, key in alone.store.asked if verb == "members"])
    assert alone.look_ups() - before <= 1 + background


async def test_one_who_goes_away_does_not_take_the_answer_from_the_others(alone: Replica) -> None:
    token, session = await alone.keeper.open(signed_in(), NOW)
    alone.store.gate = asyncio.Event()
    waiting = [asyncio.create_task(alone.keeper.find(token, NOW)) for _ in range(3)]
    await eventually(lambda: alone.store.waiting >= 1)
    waiting[0].cancel()
    alone.store.gate.set()
    assert await asyncio.gather(*waiting[1:]) == [session] * 2


async def test_a_value_read_before_it_ended_is_not_remembered(alone: Replica) -> None:
    token, session = await alone.keeper.open(signed_in(), NOW)
    while alone.keeper._tasks:
        await asyncio.gather(*alone.keeper._tasks)
    gate = alone.store.gate = asyncio.Event()
    early = asyncio.create_task(alone.keeper.find(token, NOW))
    await eventually(lambda: alone.store.waiting == 1)
    alone.store.gate = None
    await alone.keeper.end_id(session.id)
    late = asyncio.create_task(alone.keeper.find(token, NOW))
    await asyncio.sleep(0)
    gate.set()
    await early
    assert await late is None, "whoever asks after the end must not get an answer from before it"
    assert await alone.keeper.find(token, NOW) is None


async def test_no_more_sessions_are_remembered_than_allowed(alone: Replica) -> None:
    settings = section(cache=2)
    async with keeping(alone.store, settings, clock=Time()) as keeper:
        tokens = [(await keeper.open(signed_in(), NOW))[0] for _ in range(4)]
        for token in (*tokens[:2], tokens[0], tokens[2]):
            assert await keeper.find(token, NOW) is not None
        assert Replica(alone.store, keeper).remembered() == 2
        assert await Replica(alone.store, keeper).remembers(tokens[0]), "the one used last but one stays"


async def test_a_cache_of_none_remembers_none(alone: Replica) -> None:
    async with keeping(alone.store, section(cache=0), clock=Time()) as keeper:
        token, _ = await keeper.open(signed_in(), NOW)
        assert await keeper.find(token, NOW) is not None
        assert Replica(alone.store, keeper).remembered() == 0


# Refreshing at the provider


async def test_a_refresh_slower_than_the_lease_happens_once(
    replicas: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.sessions.keeper._REFRESH_LEASE", 0.15)
    here, there = replicas
    token, session = await _open_and_remember(here, there)
    calls = 0

    async def fresh(replica: Replica) -> Session | None:
        nonlocal calls
        async with replica.keeper.refreshing(session) as is_ours:
            current = await replica.keeper.find(token, NOW)
            assert current is not None
            if not is_ours or current.refresh_at > NOW:
                return current
            calls += 1
            await asyncio.sleep(0.6)
            return await replica.keeper.renew(token, current, signed_in("ada", refresh_at=NOW + 300), NOW)

    results = await asyncio.gather(*(fresh(replica) for replica in (here, there) * 4))
    assert calls == 1
    assert {result.refresh_at for result in results if result} == {NOW + 300}


async def test_who_waits_too_long_for_a_refresh_goes_on_without(
    alone: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.sessions.keeper._REFRESH_WAIT", 0.05)
    _, session = await alone.keeper.open(signed_in(), NOW)
    async with alone.keeper.refreshing(session) as first, alone.keeper.refreshing(session) as second:
        assert first
        assert not second
    async with alone.keeper.refreshing(session) as third:
        assert third

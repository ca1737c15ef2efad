"""Sessions: who opens one, how long it lives, how it ends everywhere, and what others can learn from the store."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sidecar.config.service import Sessions
from sidecar.faults import Refused, Unavailable
from sidecar.model import Grant, Identity, Session, SignedIn
from sidecar.reason import Reason
from sidecar.sessions import keeper as keeper_module
from sidecar.sessions.codec import pack, read_session, unpack, write_session
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.marks import Mark
from sidecar.sessions.memory import MemoryStore
from sidecar.sessions.opening import open_store
from sidecar.sessions.store import Store
from sidecar.sessions.turn import Turn
from sidecar.sessions.vault import Vault
from tests.services.redis import RedisServer
from tests.test_stores import LONG, Clock, a_section, until

SECRETS = (b"a secret of at least thirty-two characters",)
IDLE, ABSOLUTE = 1800.0, 43200.0
ADA = Identity(
    provider="corp",
    issuer="https://id.example.com",
    subject="248289761001",
    username="ada",
    email="ada@example.com",
    name="Ada Lovelace",
    groups=("wiki-admins", "staff", "engineering", "berlin", "all-hands"),
    claims={"department": "Analytical Engines", "preferred_username": "ada", "locale": "en-GB", "employee": 1815},
)
BOB = replace(ADA, subject="248289761002", username="bob", email="bob@example.com", name="Bob")
TOKENS = Grant(id_token="eyJhbGciOiJSUzI1NiJ9.e30.c2ln", refresh_token="a-refresh-token")


class Recorded(MemoryStore):
    """A store in memory that notes each call, can fail some of them, and can hold answers back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.calls: list[tuple[str, str]] = []
        self.failing: set[str] = set()
        self.held: dict[str, asyncio.Event] = {}
        self.is_heard = True
        self._lost: list[Callable[[], None]] = []

    async def _noted(self, name: str, key: str, call: Coroutine[Any, Any, Any]) -> Any:
        self.calls.append((name, key.partition(":")[0]))
        if name in self.failing:
            call.close()
            raise Unavailable(Reason.STORE_DOWN, "for a test")
        answer = await call
        if name in self.held:
            await self.held[name].wait()
        return answer

    async def get(self, key: str) -> bytes | None:
        return await self._noted("get", key, super().get(key))

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        await self._noted("put", key, super().put(key, value, ttl))

    async def replace(self, key: str, value: bytes, ttl: float) -> bool:
        return await self._noted("replace", key, super().replace(key, value, ttl))

    async def exchange(self, key: str, held: bytes, value: bytes, ttl: float) -> bool:
        return await self._noted("exchange", key, super().exchange(key, held, value, ttl))

    async def take(self, key: str) -> bytes | None:
        return await self._noted("take", key, super().take(key))

    async def add(self, key: str, member: str, ttl: float) -> None:
        await self._noted("add", key, super().add(key, member, ttl))

    async def members(self, key: str) -> frozenset[str]:
        return await self._noted("members", key, super().members(key))

    async def watch(self, prefix: str, changed: Callable[[str], None], lost: Callable[[], None]) -> None:
        self._lost.append(lost)
        await super().watch(prefix, lambda key: changed(key) if self.is_heard else None, lost)

    @property
    def is_watching(self) -> bool:
        return self.is_heard

    def lose(self) -> None:
        """Hear of nothing from now on."""
        self.is_heard = False
        for lost in self._lost:
            lost()


def a_keeper(store: Store, clock: Callable[[], float] = time.time, **changes: Any) -> SessionKeeper:
    times = {"idle": timedelta(seconds=IDLE), "absolute": timedelta(seconds=ABSOLUTE)}
    return SessionKeeper(store, Sessions(**{**times, **changes}), SECRETS, clock)


def signed_in(identity: Identity = ADA, sid: str = "provider-session-1", **changes: Any) -> SignedIn:
    given = {"auth_time": 1_000_000.0, "acr": "mfa", "amr": ("pwd", "otp"), "grant": TOKENS, **changes}
    return SignedIn(identity=identity, sid=sid, **given)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Recorded:
    return Recorded(clock)


@pytest.fixture
async def keeper(store: Recorded, clock: Clock) -> AsyncIterator[SessionKeeper]:
    made = a_keeper(store, clock)
    await made.start()
    yield made
    await made.close()


@asynccontextmanager
async def replica(url: str, prefix: str = "sidecar:", **changes: Any) -> AsyncIterator[SessionKeeper]:
    """A keeper over a store of its own in that Redis."""
    store = open_store(a_section(url, prefix=prefix), time.time)
    made = a_keeper(store, **changes)
    await made.start()
    try:
        yield made
    finally:
        await made.close()
        await store.close()


async def remembered(keeper: SessionKeeper, token: str) -> Session:
    """Find a session until it is remembered: word of its opening may overtake the first look-up."""

    async def is_so() -> bool:
        return await keeper.find(token, time.time()) is keeper._cache.get(Vault.id_of(token)) is not None

    await until(is_so)
    session = await keeper.find(token, time.time())
    assert session is not None
    return session


def calls_of(server: RedisServer, command: str) -> int:
    """How often Redis was asked for that command."""
    with server.client() as client:
        return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


# Opening


async def test_a_session_is_found_by_its_token_as_it_was_opened(keeper: SessionKeeper, clock: Clock) -> None:
    token, session = await keeper.open(signed_in(refresh_at=clock.now + 300), clock.now)
    assert await keeper.find(token, clock.now) == session
    assert session == Session(
        id=Vault.id_of(token),
        identity=ADA,
        created=clock.now,
        expires=clock.now + ABSOLUTE,
        seen=clock.now,
        auth_time=1_000_000.0,
        acr="mfa",
        amr=("pwd", "otp"),
        sid="provider-session-1",
        refresh_at=clock.now + 300,
    )
    assert await keeper.grant(token) == TOKENS


async def test_t50_every_sign_in_gets_a_new_token_and_ends_the_session_of_before(
    keeper: SessionKeeper, clock: Clock
) -> None:
    first, _ = await keeper.open(signed_in(), clock.now)
    second, session = await keeper.open(signed_in(), clock.now, first)
    assert first != second
    assert await keeper.find(first, clock.now) is None
    assert await keeper.find(second, clock.now) == session
    assert await keeper.list_person(ADA.key) == (session.id,)


async def test_t50_a_token_brought_along_is_never_given_a_session(keeper: SessionKeeper, clock: Clock) -> None:
    brought = Vault.token()
    token, _ = await keeper.open(signed_in(), clock.now, brought)
    assert token != brought
    assert await keeper.find(brought, clock.now) is None
    await keeper.open(signed_in(), clock.now, "not even a token")


async def test_the_session_of_before_ends_only_when_the_new_one_is_kept(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    first, session = await keeper.open(signed_in(), clock.now)
    store.failing = {"put"}
    with pytest.raises(Unavailable):
        await keeper.open(signed_in(), clock.now, first)
    assert await keeper.find(first, clock.now) == session


async def test_the_index_knows_a_session_before_anybody_can_use_it(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    await keeper.open(signed_in(), clock.now)
    steps = [("add", "index"), ("add", "index"), ("put", "grant"), ("put", "session")]
    # Whether it was ended meanwhile is looked for last, by each index.
    assert store.calls == [*steps, ("get", "ended"), ("get", "ended")]


@pytest.mark.parametrize(
    "identity",
    [
        ADA,
        replace(ADA, groups=None),
        replace(ADA, groups=()),
        Identity("", "", "", ""),
        replace(ADA, name="Ада Лавлейс 🧮", username="ädä"),
        replace(ADA, name="half a pair \ud83d", claims={"x": "\udfff", "n": None, "f": [0, 0.5, False, {}]}),
    ],
)
def test_what_is_written_is_read_again(identity: Identity) -> None:
    session = Session("id", identity, 1.5, 2.5, 1.75, 0.0, acr="", amr=(), sid="", refresh_at=0.0)
    assert read_session(write_session(session), "id") == session
    full = replace(session, acr="mfa", amr=("pwd",), sid="s", refresh_at=3.0)
    assert read_session(write_session(full), "id") == full


def test_a_record_of_another_version_is_none() -> None:
    session = Session("id", ADA, 1.5, 2.5, 1.75, 0.0)
    raw = write_session(session)
    assert read_session(raw.replace(b'"v":1', b'"v":2'), "id") is None


async def test_a_typical_session_fits_in_a_kilobyte(keeper: SessionKeeper, store: Recorded, clock: Clock) -> None:
    _, session = await keeper.open(signed_in(), clock.now)
    sealed = await store.get(f"session:{session.id}")
    assert sealed is not None
    assert len(sealed) <= 1024


async def test_nothing_in_redis_names_anybody_or_opens_anything(redis_server: RedisServer, redis_url: str) -> None:
    async with replica(redis_url) as keeper:
        token, _ = await keeper.open(signed_in(), time.time())
        await keeper.find(token, time.time())
        # What the keeper holds while it works, too.
        async with keeper.refreshing((await keeper.find(token, time.time())) or pytest.fail("gone")):
            dump = _dump(redis_server)
    secrets = (ADA.username, ADA.email, ADA.name, ADA.issuer, ADA.subject, "provider-session-1", "engineering")
    for text in (token, TOKENS.id_token, TOKENS.refresh_token, SECRETS[0].decode(), *secrets):
        assert text.encode() not in dump
    assert dump.count(b"sidecar:") >= 4


def _dump(server: RedisServer) -> bytes:
    found = []
    with server.client() as client:
        for key in client.scan_iter("*"):
            found.append(key)
            kind = client.type(key)
            found += client.zrange(key, 0, -1) if kind == b"zset" else [client.get(key)]
    return b"\n".join(found)


# Finding


@pytest.mark.parametrize("text", ["", "a" * 42, "a" * 44, "é" * 43, "\udc80" * 43, "a" * 42 + "%", "a" * 1_000_000])
async def test_what_cannot_be_a_token_asks_nobody(
    keeper: SessionKeeper, store: Recorded, clock: Clock, text: str
) -> None:
    assert await keeper.find(text, clock.now) is None
    assert await keeper.reread(text, clock.now) is None
    assert await keeper.end(text) == 0
    assert store.calls == []


async def test_a_hundred_at_once_ask_redis_once_and_the_next_do_not_ask(
    redis_server: RedisServer, redis_url: str
) -> None:
    async with replica(redis_url) as keeper:
        token, session = await keeper.open(signed_in(), time.time())
        await remembered(keeper, token)
        keeper._cache.clear()
        before = calls_of(redis_server, "get")
        found = await asyncio.gather(*(keeper.find(token, time.time()) for _ in range(100)))
        assert found == [session] * 100
        assert calls_of(redis_server, "get") == before + 1
        for _ in range(100):
            assert await keeper.find(token, time.time()) == session
        assert calls_of(redis_server, "get") == before + 1


@pytest.mark.parametrize("is_heard", [True, False])
async def test_t51_idle_and_absolute_end_a_session_to_the_moment(
    keeper: SessionKeeper, store: Recorded, clock: Clock, is_heard: bool
) -> None:
    store.is_heard = is_heard
    token, session = await keeper.open(signed_in(), clock.now)
    assert await keeper.find(token, clock.now) == session
    # The store's own clock stands, so that only the keeper can end it.
    begun = used = clock.now
    while used + IDLE <= begun + ABSOLUTE:
        assert await keeper.find(token, used + IDLE) is None
        used += IDLE - 0.001
        found = await keeper.find(token, used)
        assert found is not None
        await keeper.close()
        noted = await keeper.find(token, used)
        assert noted == replace(found, seen=used)
    assert await keeper.find(token, begun + ABSOLUTE - 0.001) is not None
    await keeper.close()
    assert await keeper.find(token, begun + ABSOLUTE) is None
    assert await keeper.reread(token, begun + ABSOLUTE) is None


async def test_t51_the_store_forgets_a_session_when_it_is_over(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    clock.now += IDLE - 1
    assert await keeper.is_open(session.id)
    assert await keeper.find(token, clock.now) is not None
    await keeper.close()
    clock.now += IDLE - 1
    assert await keeper.is_open(session.id)
    clock.now += 1
    assert not await keeper.is_open(session.id)
    # The provider's tokens and the index may stay for as long as the session could have.
    clock.now = session.expires
    await store.ping()
    assert store._entries == {}


async def test_a_use_noted_by_another_worker_counts_before_word_of_it_comes(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    assert await keeper.find(token, clock.now) == session
    other = a_keeper(store, clock)
    later = clock.now + IDLE - 1
    hears, store._watchers = store._watchers, []
    await other.find(token, later)
    await other.close()
    store._watchers = hears
    assert await keeper.find(token, later + 10) is not None


async def test_the_use_of_a_session_is_noted_once_in_a_while(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, _ = await keeper.open(signed_in(), clock.now)
    for second in range(600):
        await keeper.find(token, clock.now + second / 2)
        await keeper.find(token, clock.now + second / 2)
        await keeper.close()
    assert store.calls.count(("exchange", "session")) == 4
    assert ("replace", "session") not in store.calls


async def test_a_hundred_at_once_note_the_use_once(keeper: SessionKeeper, store: Recorded, clock: Clock) -> None:
    token, _ = await keeper.open(signed_in(), clock.now)
    await asyncio.gather(*(keeper.find(token, clock.now + 61) for _ in range(100)))
    await keeper.close()
    assert store.calls.count(("exchange", "session")) == 1


async def test_two_workers_note_the_use_once_between_them(store: Recorded, clock: Clock) -> None:
    keepers = [a_keeper(store, clock) for _ in range(2)]
    token, session = await keepers[0].open(signed_in(), clock.now)
    for keeper in keepers:
        # Without word of the other's note, both hold the session as it was.
        assert await keeper.find(token, clock.now) == session
    for keeper in keepers:
        assert await keeper.find(token, clock.now + 61) == session
        await keeper.close()
    assert store.calls.count(("exchange", "session")) == 1


async def test_a_full_store_is_not_asked_with_every_request_to_note_the_use(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, _ = await keeper.open(signed_in(), clock.now)
    store.failing = {"exchange"}
    for _ in range(50):
        assert await keeper.find(token, clock.now + 61) is not None
        await keeper.close()
    assert store.calls.count(("exchange", "session")) == 1


async def test_noting_the_use_never_revives_a_session(keeper: SessionKeeper, store: Recorded, clock: Clock) -> None:
    token, _ = await keeper.open(signed_in(), clock.now)
    store.held["get"] = asyncio.Event()
    finding = asyncio.create_task(keeper.find(token, clock.now + 61))
    await until(lambda: ("get", "session") in store.calls)
    store.held.pop("get").set()
    await finding
    # The note has been begun, and reads; the session ends before it writes.
    store.held["get"] = asyncio.Event()
    await until(lambda: store.calls.count(("get", "session")) == 2)
    assert await keeper.end(token) == 1
    store.held.pop("get").set()
    await keeper.close()
    assert store.calls.count(("exchange", "session")) == 1
    assert await keeper.find(token, clock.now + 61) is None


async def test_noting_the_use_never_undoes_a_renewal(keeper: SessionKeeper, store: Recorded, clock: Clock) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    await keeper.find(token, clock.now)
    store.held["get"] = asyncio.Event()
    now = clock.now + 61
    await keeper.find(token, now)
    await until(lambda: store.calls.count(("get", "session")) == 2)
    fresh = replace(ADA, groups=("staff",))
    renewed = await keeper.renew(token, session, signed_in(fresh), now)
    store.held.pop("get").set()
    await keeper.close()
    assert renewed is not None
    assert await keeper.reread(token, now) == renewed


# The cache


async def held_look_up(keeper: SessionKeeper, store: Recorded, token: str, now: float) -> asyncio.Task[Session | None]:
    """Begin to find a session whose record has been read while the answer is still on its way."""
    store.held["get"] = asyncio.Event()
    before = len(store.calls)
    task = asyncio.create_task(keeper.find(token, now))
    await until(lambda: len(store.calls) > before)
    return task


async def test_what_was_read_before_a_change_is_not_remembered(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    finding = await held_look_up(keeper, store, token, clock.now)
    # Somebody else ends it.
    await MemoryStore.take(store, f"session:{session.id}")
    store.held.pop("get").set()
    assert await finding == session
    assert await keeper.find(token, clock.now) is None


async def test_who_asks_after_a_change_does_not_get_an_answer_from_before(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    early = await held_look_up(keeper, store, token, clock.now)
    gate = store.held.pop("get")
    await MemoryStore.take(store, f"session:{session.id}")
    assert await keeper.find(token, clock.now) is None
    gate.set()
    assert await early == session
    assert await keeper.find(token, clock.now) is None


async def test_an_end_here_counts_before_word_of_it_comes_back(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, _ = await keeper.open(signed_in(), clock.now)
    await keeper.find(token, clock.now)
    store._watchers.clear()
    await keeper.end(token)
    assert await keeper.find(token, clock.now) is None


async def test_what_was_read_before_the_watch_was_lost_is_not_remembered(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    finding = await held_look_up(keeper, store, token, clock.now)
    store.lose()
    await MemoryStore.take(store, f"session:{session.id}")
    store.is_heard = True
    store.held.pop("get").set()
    await finding
    assert await keeper.find(token, clock.now) is None


async def test_without_a_watch_nothing_is_remembered(keeper: SessionKeeper, store: Recorded, clock: Clock) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    await keeper.find(token, clock.now)
    store.lose()
    assert not keeper.is_watching
    for _ in range(3):
        assert await keeper.find(token, clock.now) == session
    assert store.calls.count(("get", "session")) == 4
    store.is_heard = True
    for _ in range(3):
        await keeper.find(token, clock.now)
    assert store.calls.count(("get", "session")) == 5


async def test_what_is_remembered_is_not_used_from_the_moment_that_the_watch_is_lost(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    await keeper.find(token, clock.now)
    store.is_heard = False
    await MemoryStore.take(store, f"session:{session.id}")
    assert await keeper.find(token, clock.now) is None


async def test_what_was_remembered_before_the_watch_was_lost_is_not_used_when_it_is_back(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    await keeper.find(token, clock.now)
    store.lose()
    await MemoryStore.take(store, f"session:{session.id}")
    store.is_heard = True
    assert await keeper.find(token, clock.now) is None


async def test_the_cache_holds_so_many_and_keeps_those_in_use(store: Recorded, clock: Clock) -> None:
    keeper = a_keeper(store, clock, cache=2)
    await keeper.start()
    tokens = [(await keeper.open(signed_in(), clock.now))[0] for _ in range(3)]
    for token in (tokens[0], tokens[1], tokens[0], tokens[2], tokens[0]):
        await keeper.find(token, clock.now)
    assert store.calls.count(("get", "session")) == 3
    await keeper.find(tokens[1], clock.now)
    assert store.calls.count(("get", "session")) == 4


async def test_a_cache_of_none_remembers_none(store: Recorded, clock: Clock) -> None:
    keeper = a_keeper(store, clock, cache=0)
    await keeper.start()
    token, _ = await keeper.open(signed_in(), clock.now)
    for _ in range(3):
        await keeper.find(token, clock.now)
    assert store.calls.count(("get", "session")) == 3


async def test_one_who_goes_away_does_not_take_the_answer_from_the_others(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    first = await held_look_up(keeper, store, token, clock.now)
    second = asyncio.create_task(keeper.find(token, clock.now))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    store.held.pop("get").set()
    assert await second == session
    assert store.calls.count(("get", "session")) == 1


async def test_t58_a_store_that_is_down_is_down_for_all_who_ask_and_nothing_of_it_stays(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    token, session = await keeper.open(signed_in(), clock.now)
    store.failing = {"get"}
    answers = await asyncio.gather(*(keeper.find(token, clock.now) for _ in range(10)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 10
    gone = [asyncio.create_task(keeper.find(token, clock.now)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.wait(gone)
    del gone, task, answers
    store.failing = set()
    assert await keeper.find(token, clock.now) == session
    assert not keeper._cache._under_way
    gc.collect()
    await asyncio.sleep(0)
    assert unheard == []


# Ending


async def test_t51_an_ended_session_stays_ended(keeper: SessionKeeper, store: Recorded, clock: Clock) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    await keeper.find(token, clock.now)
    assert await keeper.end(token) == 1
    assert await keeper.end(token) == 0
    assert await keeper.grant(token) == Grant()
    assert store._entries == {}
    assert await keeper.find(token, clock.now) is None
    assert await keeper.reread(token, clock.now) is None
    assert await keeper.renew(token, session, signed_in(), clock.now) is None
    assert await keeper.find(token, clock.now) is None
    assert await keeper.grant(token) == Grant()
    assert store._entries == {}


async def people(keeper: SessionKeeper, now: float) -> dict[str, str]:
    """Open sessions of two people, from two providers and two sessions there; (name → token)."""
    elsewhere = replace(ADA, issuer="https://other.example.com")
    given = {
        "ada one": signed_in(ADA, "one"),
        "ada one again": signed_in(ADA, "one"),
        "ada two": signed_in(ADA, "two"),
        "ada none": signed_in(ADA, ""),
        "bob one": signed_in(BOB, "one"),
        "other one": signed_in(elsewhere, "one"),
    }
    return {name: (await keeper.open(one, now))[0] for name, one in given.items()}


ENDS: dict[str, tuple[Callable[[SessionKeeper], Coroutine[Any, Any, int]], set[str]]] = {
    "person": (lambda keeper: keeper.end_person(ADA.key), {"ada one", "ada one again", "ada two", "ada none"}),
    "subject": (
        lambda keeper: keeper.end_subject(ADA.issuer, ADA.subject),
        {"ada one", "ada one again", "ada two", "ada none"},
    ),
    "provider's session": (
        lambda keeper: keeper.end_provider_session(ADA.issuer, "one"),
        {"ada one", "ada one again", "bob one"},
    ),
    "provider's session and its person": (
        lambda keeper: keeper.end_provider_session(ADA.issuer, "one", ADA.subject),
        {"ada one", "ada one again", "ada none", "bob one"},
    ),
    "an unknown session of the provider's": (
        lambda keeper: keeper.end_provider_session(ADA.issuer, "three", ADA.subject),
        {"ada none"},
    ),
    "no provider's session": (lambda keeper: keeper.end_provider_session(ADA.issuer, ""), set()),
    "unknown": (lambda keeper: keeper.end_subject(ADA.issuer, "nobody"), set()),
    "shifted": (lambda keeper: keeper.end_subject(ADA.issuer + "2", ADA.subject[1:]), set()),
}


@pytest.mark.parametrize("name", list(ENDS))
async def test_t30_exactly_the_right_sessions_end(keeper: SessionKeeper, clock: Clock, name: str) -> None:
    end, ended = ENDS[name]
    tokens = await people(keeper, clock.now)
    for token in tokens.values():
        await keeper.find(token, clock.now)
    assert await end(keeper) == len(ended)
    gone = {name for name, token in tokens.items() if await keeper.find(token, clock.now) is None}
    assert gone == ended
    assert await end(keeper) == 0


async def test_the_sessions_of_a_person_are_listed_while_they_are_open(keeper: SessionKeeper, clock: Clock) -> None:
    tokens = await people(keeper, clock.now)
    await keeper.end(tokens["ada one"])
    await keeper.end_id(Vault.id_of(tokens["ada two"]))
    expected = sorted(Vault.id_of(tokens[name]) for name in ("ada one again", "ada none"))
    assert await keeper.list_person(ADA.key) == tuple(expected)
    clock.now += IDLE
    assert await keeper.list_person(ADA.key) == ()


async def test_an_index_does_not_grow_with_the_years(keeper: SessionKeeper, store: Recorded, clock: Clock) -> None:
    for _ in range(100):
        await keeper.open(signed_in(), clock.now)
        clock.now += ABSOLUTE / 4
    index = next(key for key in store._entries if key.startswith("index:person"))
    assert len(store._entries[index].members) <= 5


async def test_a_session_that_is_being_opened_while_its_person_is_ended_can_be_ended_still(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    await keeper.open(signed_in(), clock.now)
    store.held["add"] = asyncio.Event()
    opening = asyncio.create_task(keeper.open(signed_in(sid=""), clock.now))
    await until(lambda: store.calls.count(("add", "index")) == 3)
    assert await keeper.end_person(ADA.key) == 1
    store.held.pop("add").set()
    token, _ = await opening
    assert await keeper.end_person(ADA.key) == 1
    assert await keeper.find(token, clock.now) is None


async def test_a_mark_is_no_session(keeper: SessionKeeper, clock: Clock) -> None:
    keeper.take_marks()
    _, session = await keeper.open(signed_in(), clock.now)
    await keeper.mark_person(ADA.key, Mark.WEAK, clock.now)
    assert await keeper.list_all() == (session.id,)


@pytest.mark.parametrize("name", ["the person", "the provider's session"])
async def test_what_was_ended_while_the_provider_was_asked_is_not_opened(
    keeper: SessionKeeper, store: Recorded, clock: Clock, name: str
) -> None:
    began = clock.now
    clock.now += 1
    if name == "the person":
        await keeper.end_person(ADA.key)
    else:
        await keeper.end_provider_session(ADA.issuer, "provider-session-1")
    with pytest.raises(Refused) as refused:
        await keeper.open(signed_in(), began)
    assert refused.value.reason is Reason.SESSION_EXPIRED
    assert await keeper.list_all() == await keeper.list_person(ADA.key) == ()
    # A sign-in at another session there, of somebody else, or that begins now.
    await keeper.open(signed_in(replace(ADA, subject="other"), "provider-session-2"), began)
    _, session = await keeper.open(signed_in(), clock.now)
    assert await keeper.list_person(ADA.key) == (session.id,)


async def test_an_end_that_fails_in_the_middle_can_be_asked_for_again(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, _ = await keeper.open(signed_in(), clock.now)
    store.failing = {"take"}
    with pytest.raises(Unavailable):
        await keeper.end_person(ADA.key)
    store.failing = set()
    assert await keeper.end_person(ADA.key) == 1
    assert await keeper.find(token, clock.now) is None


class Streams:
    """Wants to hear of some sessions until it has."""

    def __init__(self, keeper: SessionKeeper, *session_ids: str) -> None:
        self.wanted = set(session_ids)
        self.told: list[str] = []
        keeper.on_end(self.wanted.__contains__, self._end)

    def _end(self, session_id: str) -> None:
        self.wanted.discard(session_id)
        self.told.append(session_id)


async def test_who_streams_is_told_once_of_the_end_and_not_of_other_changes(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    _, other = await keeper.open(signed_in(BOB), clock.now)
    streams = Streams(keeper, session.id, other.id)
    await keeper.renew(token, session, signed_in(), clock.now)
    await keeper.close()
    assert streams.told == []
    await keeper.end(token)
    await keeper.close()
    assert streams.told == [session.id]


async def test_who_streams_is_told_when_the_session_expires(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    _, session = await keeper.open(signed_in(), clock.now)
    streams = Streams(keeper, session.id)
    clock.now += IDLE
    await store.get("anything")
    await keeper.close()
    assert streams.told == [session.id]


async def test_an_end_that_nobody_could_confirm_counts_as_word_missed(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    _, session = await keeper.open(signed_in(), clock.now)
    streams = Streams(keeper, session.id)
    losses = keeper.losses
    store.failing = {"get"}
    await MemoryStore.take(store, f"session:{session.id}")
    await keeper.close()
    assert streams.told == []
    assert keeper.losses == losses + 1


# Several workers on one Redis


async def test_an_end_in_one_worker_is_an_end_in_the_other_at_once(redis_url: str) -> None:
    async with replica(redis_url) as here, replica(redis_url) as there:
        took = []
        for _ in range(50):
            token, session = await here.open(signed_in(), time.time())
            assert await remembered(there, token) == session
            streams = [Streams(keeper, session.id) for keeper in (here, there)]
            ending = asyncio.create_task(here.end(token))
            took.append(await until(lambda: there._cache.get(session.id) is None))  # noqa: B023 - awaited here
            assert await there.find(token, time.time()) is None
            await ending
            await until(lambda: all(one.told == [session.id] for one in streams))  # noqa: B023 - awaited here
        await asyncio.gather(here.close(), there.close())
        assert all(len(one.told) == 1 for one in streams)
        took.sort()
        print(f"an end is heard after {took[25] * 1000:.2f} ms, at most {took[-1] * 1000:.2f} ms")  # noqa: T201


async def test_a_session_that_expires_in_redis_is_told_to_each_worker_once(redis_url: str) -> None:
    short = {"idle": timedelta(seconds=0.1)}
    async with replica(redis_url, **short) as here, replica(redis_url, **short) as there:
        _, session = await here.open(signed_in(), time.time())
        streams = [Streams(keeper, session.id) for keeper in (here, there)]
        # Redis notices by itself, without anybody asking for that session.
        await until(lambda: all(one.told for one in streams))
        await asyncio.gather(here.close(), there.close())
        assert [one.told for one in streams] == [[session.id]] * 2


async def test_a_worker_that_lost_its_watch_asks_redis_until_it_is_back(
    redis_server: RedisServer, redis_url: str
) -> None:
    async with replica(redis_url) as here, replica(redis_url) as there:
        token, session = await here.open(signed_in(), time.time())
        await there.find(token, time.time())
        losses = there.losses
        with redis_server.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")
            client.delete(f"sidecar:session:{session.id}")
        # Whatever it heard or not: nobody gets in by what was remembered.
        await until(lambda: there.losses > losses)
        assert await there.find(token, time.time()) is None
        await until(lambda: here.is_watching and there.is_watching)
        token, session = await here.open(signed_in(), time.time())
        await remembered(there, token)
        before = calls_of(redis_server, "get")
        assert await there.find(token, time.time()) == session
        assert calls_of(redis_server, "get") == before


async def test_members_of_an_index_leave_redis_when_their_session_could_live_no_longer(
    redis_server: RedisServer, redis_url: str
) -> None:
    async with replica(redis_url, absolute=timedelta(seconds=0.05)) as short, replica(redis_url) as keeper:
        for _ in range(5):
            await short.open(signed_in(sid=""), time.time())
        await asyncio.sleep(0.06)
        await keeper.open(signed_in(sid=""), time.time())
        with redis_server.client() as client:
            (index,) = client.keys("*index:person*")
            assert client.zcard(index) == 1


# Renewing


async def test_a_renewal_brings_fresh_claims_and_tokens_and_keeps_the_rest(keeper: SessionKeeper, clock: Clock) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    fresh = replace(ADA, groups=("staff",))
    tokens = Grant("new id token", "new refresh token")
    given = SignedIn(fresh, auth_time=0.0, grant=tokens, refresh_at=clock.now + 900)
    renewed = await keeper.renew(token, session, given, clock.now + 10)
    expected = replace(session, identity=fresh, refresh_at=clock.now + 900, seen=clock.now + 10)
    assert renewed == expected
    assert await keeper.find(token, clock.now + 10) == expected
    assert await keeper.grant(token) == tokens


async def test_a_renewal_never_revives_a_session_nor_leaves_tokens_behind(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    store.held["put"] = asyncio.Event()
    renewing = asyncio.create_task(keeper.renew(token, session, signed_in(), clock.now))
    await until(lambda: store.calls.count(("put", "grant")) == 2)
    await keeper.end(token)
    store.held.pop("put").set()
    assert await renewing is None
    assert store._entries == {}


async def test_t50_the_tokens_of_somebody_else_end_the_session(keeper: SessionKeeper, clock: Clock) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    assert await keeper.renew(token, session, signed_in(BOB), clock.now) is None
    assert await keeper.find(token, clock.now) is None


async def test_t31_a_token_call_slower_than_the_lease_is_made_once_among_many_in_two_workers(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_REFRESH_LEASE", 0.15)
    async with replica(redis_url) as here, replica(redis_url) as there:
        token, _ = await here.open(signed_in(refresh_at=1.0), time.time())
        token_calls = 0

        async def request(keeper: SessionKeeper) -> Session | None:
            nonlocal token_calls
            now = time.time()
            session = await keeper.find(token, now)
            assert session is not None
            if session.refresh_at > now:
                return session
            async with keeper.refreshing(session) as is_ours:
                current = await keeper.find(token, now)
                assert is_ours
                assert current is not None
                if current.refresh_at > now:
                    return current
                token_calls += 1
                await asyncio.sleep(0.6)
                return await keeper.renew(token, current, signed_in(refresh_at=now + 900), now)

        begun = time.perf_counter()
        answers = await asyncio.gather(*(request(keeper) for keeper in (here, there) for _ in range(50)))
        print(f"100 requests around a token call of 0.6 s: {time.perf_counter() - begun:.2f} s")  # noqa: T201
        assert token_calls == 1
        assert all(answer is not None and answer.refresh_at > time.time() for answer in answers)


async def test_whoever_gets_the_turn_sees_what_the_one_before_did_before_word_of_it_comes(
    keeper: SessionKeeper, store: Recorded, clock: Clock
) -> None:
    token, session = await keeper.open(signed_in(), clock.now)
    await keeper.find(token, clock.now)
    store._watchers.clear()
    renewed = await a_keeper(store, clock).renew(token, session, signed_in(refresh_at=5.0), clock.now)
    assert await keeper.find(token, clock.now) == session
    async with keeper.refreshing(session):
        assert await keeper.find(token, clock.now) == renewed


async def test_whoever_waits_too_long_for_a_refresh_goes_on_without(
    keeper: SessionKeeper, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_REFRESH_WAIT", 0.03)
    _, session = await keeper.open(signed_in(), clock.now)
    async with keeper.refreshing(session) as first, keeper.refreshing(session) as second:
        assert (first, second) == (True, False)
    async with keeper.refreshing(session) as third:
        assert third


async def test_a_refresh_that_fails_gives_its_turn_back(keeper: SessionKeeper, clock: Clock) -> None:
    _, session = await keeper.open(signed_in(), clock.now)
    with pytest.raises(Unavailable) as fault:
        async with keeper.refreshing(session):
            raise Unavailable(Reason.PROVIDER_DOWN)
    assert fault.value.reason is Reason.PROVIDER_DOWN
    async with keeper.refreshing(session) as is_ours:
        assert is_ours


# Turns


def a_turn(store: Store, wait: float = 10.0, lease: float = 10.0) -> Turn:
    return Turn(store, "turn:a", wait, Reason.PROVIDER_DOWN, lease)


@pytest.fixture(params=["memory", "redis"])
async def real(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """A store whose time passes."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    store = open_store(a_section(url), time.time)
    yield store
    await store.close()


async def test_one_at_a_time_has_the_turn(real: Store) -> None:
    inside = most = 0

    async def work() -> None:
        nonlocal inside, most
        async with a_turn(real):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.001)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(20)))
    assert most == 1


async def test_who_works_longer_than_the_lease_keeps_the_turn(real: Store) -> None:
    async with a_turn(real, lease=0.6):
        for _ in range(40):
            assert not await real.claim("turn:a", b"another worker", LONG)
            await asyncio.sleep(0.03)
    assert await real.claim("turn:a", b"another worker", LONG)


async def test_who_waits_too_long_is_told_so_and_leaves_the_line(real: Store) -> None:
    for holder in ("here", "elsewhere"):
        if holder == "elsewhere":
            await real.claim("turn:a", b"another worker", LONG)
        async with AsyncExitStack() as stack:
            if holder == "here":
                await stack.enter_async_context(a_turn(real))
            for _ in range(2):
                with pytest.raises(Unavailable) as waited:
                    async with a_turn(real, wait=0.03):
                        pytest.fail("two at once")
                assert waited.value.reason is Reason.PROVIDER_DOWN
    await real.delete("turn:a")
    async with a_turn(real):
        pass


async def test_the_turn_of_one_who_died_is_free_when_its_lease_ends(real: Store) -> None:
    await real.claim("turn:a", b"another worker", 0.1)
    async with a_turn(real):
        pass


async def test_one_whose_turn_was_lost_neither_takes_it_back_nor_gives_it_away(real: Store) -> None:
    async with a_turn(real, lease=0.03):
        await real.put("turn:a", b"somebody else", LONG)
        await asyncio.sleep(0.1)
        assert await real.get("turn:a") == b"somebody else"
    assert await real.get("turn:a") == b"somebody else"


async def test_one_who_stops_waiting_leaves_no_claim_behind(clock: Clock) -> None:
    class Slow(MemoryStore):
        async def claim(self, key: str, value: bytes, ttl: float) -> bool:
            await super().claim(key, value, ttl)
            await asyncio.sleep(LONG)
            return True

    store = Slow(clock)
    with pytest.raises(Unavailable):
        async with a_turn(store, wait=0.01):
            pytest.fail("nobody heard of the claim")
    assert await store.get("turn:a") is None


async def test_t58_without_the_store_nobody_has_the_turn(store: Recorded) -> None:
    async def is_down(key: str, value: bytes, ttl: float) -> bool:
        raise Unavailable(Reason.STORE_DOWN)

    store.claim = is_down  # type: ignore[method-assign]
    with pytest.raises(Unavailable) as fault:
        async with a_turn(store):
            pytest.fail("without a claim")
    assert fault.value.reason is Reason.STORE_DOWN
    del store.claim
    async with a_turn(store):
        pass


async def test_t58_a_store_that_is_down_is_asked_by_one_of_a_hundred_who_wait(clock: Clock) -> None:
    class Frozen(MemoryStore):
        asked = 0

        async def claim(self, key: str, value: bytes, ttl: float) -> bool:  # noqa: ARG002 - as the store's
            Frozen.asked += 1
            await asyncio.sleep(0.05)
            raise Unavailable(Reason.STORE_DOWN)

    store = Frozen(clock)

    async def wait() -> Reason | None:
        try:
            async with a_turn(store):
                return None
        except Unavailable as fault:
            return fault.reason

    assert await asyncio.gather(*(wait() for _ in range(100))) == [Reason.STORE_DOWN] * 100
    assert Frozen.asked == 1
    # Who comes later asks again.
    await wait()
    assert Frozen.asked == 2


def test_what_is_packed_comes_back_and_is_small() -> None:
    raw = b'{"v":1,"p":"corp","i":"https://login.example.com/realms/company","g":["wiki-readers","wiki-editors"]}' * 3
    assert unpack(pack(raw)) == raw
    assert len(pack(raw)) < len(raw) / 2
    assert unpack(raw) == raw

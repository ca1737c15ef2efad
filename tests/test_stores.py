"""The contract of every store, run on memory and on real Redis in each way of reaching it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.secret import Dsn, Secret
from sidecar.config.service import Sentinel, Sessions
from sidecar.faults import Unavailable
from sidecar.sessions.memory import MemoryStore
from sidecar.sessions.opening import open_store, server_secrets
from sidecar.sessions.store import Store
from tests.services.process import free_port, new_directory
from tests.services.redis import AclUser, RedisServers

KINDS = ("memory", "redis", "unix", "tls", "acl", "sentinel", "cluster")
# What docs/sessions.md asks for.
DOCUMENTED = (
    "+get +set +getdel +del +zadd +zrem +zremrangebyscore +zrangebyscore +time +incr +pexpire +pttl "
    "+eval +info +ping +client|tracking"
)
LONG = 60.0
_numbers = itertools.count()


def a_section(url: str | None = None, **changes: Any) -> Sessions:
    """The section of a configuration, with a prefix of its own for every call."""
    given = {"prefix": f"sidecar:{next(_numbers)}:", "timeout": timedelta(seconds=20), **changes}
    secrets = (Secret("a secret of at least thirty-two characters"),)
    return Sessions(redis=None if url is None else Dsn(url), secrets=secrets, **given)


async def until(is_so: Callable[[], bool | Awaitable[bool]], patience: float = 20.0) -> float:
    """Wait for something to come true; how long that took, in seconds."""
    begun = time.perf_counter()
    async with asyncio.timeout(patience):
        while True:
            said = is_so()
            if said if isinstance(said, bool) else await said:
                return time.perf_counter() - begun
            await asyncio.sleep(0.001)


class Servers:
    """One Redis of each kind, started when it is first asked for."""

    def __init__(self) -> None:
        self.start = RedisServers()
        self._given: dict[str, dict[str, Any]] = {}

    def section(self, kind: str) -> Sessions:
        """A section that leads to the server of that kind."""
        if kind not in self._given:
            self._given[kind] = getattr(self, f"_{kind}")()
        return a_section(**self._given[kind])

    def _memory(self) -> dict[str, Any]:
        return {}

    def _redis(self) -> dict[str, Any]:
        return {"url": self.start().url}

    def _unix(self) -> dict[str, Any]:
        path = new_directory("sidecar-socket") / "redis.sock"
        self.start("--unixsocket", str(path))
        return {"url": f"unix://{path}"}

    def _tls(self) -> dict[str, Any]:
        server = self.start(tls=True)
        assert server.certificates is not None
        return {"url": server.url, "redis_ca": server.certificates.authority}

    def _acl(self) -> dict[str, Any]:
        return {"url": self.start(acl=AclUser("app", "p@ss/word", f"~sidecar:* {DOCUMENTED}")).url}

    def _sentinel(self) -> dict[str, Any]:
        sentinel = self.start.sentinel()
        nodes = (f"{sentinel.host}:{sentinel.port}",)
        return {"url": "redis://anything/0", "sentinel": Sentinel(master=sentinel.name, nodes=nodes)}

    def _cluster(self) -> dict[str, Any]:
        # Its own choice of the second port, 10000 above the first, may be none.
        server = self.start("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                time.sleep(0.01)
        return {"url": server.url, "cluster": True}


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    made = Servers()
    yield made
    made.start.discard()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept here does not depend on how busy the machine is."""
    monkeypatch.setattr("sidecar.sessions.redis_watch._PATIENCE", 30.0)


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Store]:
    """An empty store of each kind."""
    made = open_store(servers.section(request.param), time.time)
    yield made
    await made.close()


# Bytes under a key


async def test_what_is_put_can_be_read_by_its_own_key_only(store: Store) -> None:
    value = bytes(range(256)) * 5
    await store.put("session:a", value, LONG)
    assert await store.get("session:a") == value
    assert await store.get("session:A") is None
    await store.put("session:a", b"", LONG)
    assert await store.get("session:a") == b""


async def test_every_write_ends_by_its_own_time(store: Store) -> None:
    await store.put("put", b"1", 0.03)
    await store.claim("claim", b"1", 0.03)
    for key in ("replace", "exchange"):
        await store.put(key, b"1", LONG)
    await store.replace("replace", b"2", 0.03)
    await store.exchange("exchange", b"1", b"2", 0.03)
    await store.add("set", "member", 0.03)
    await store.put("stays", b"1", LONG)

    async def has_gone(key: str) -> bool:
        return await store.get(key) is None

    for key in ("put", "claim", "replace", "exchange"):
        await until(lambda key=key: has_gone(key))  # type: ignore[misc]

    async def is_empty() -> bool:
        return not await store.members("set")

    await until(is_empty)
    assert await store.get("stays") == b"1"


async def test_a_lifetime_below_a_millisecond_is_no_error(store: Store) -> None:
    await store.put("key", b"1", 0.00001)


async def test_replace_never_revives(store: Store) -> None:
    assert not await store.replace("key", b"new", LONG)
    assert await store.get("key") is None
    await store.put("key", b"old", LONG)
    assert await store.replace("key", b"new", LONG)
    assert await store.get("key") == b"new"


async def test_exchange_never_undoes_what_somebody_else_wrote(store: Store) -> None:
    assert not await store.exchange("key", b"", b"mine", LONG)
    await store.put("key", b"theirs", LONG)
    assert not await store.exchange("key", b"old", b"mine", LONG)
    assert await store.get("key") == b"theirs"
    assert await store.exchange("key", b"theirs", b"mine", LONG)
    assert await store.get("key") == b"mine"


async def test_of_many_who_exchange_the_same_one_succeeds(store: Store) -> None:
    await store.put("key", b"old", LONG)
    done = await asyncio.gather(*(store.exchange("key", b"old", b"%d" % number, LONG) for number in range(20)))
    assert done.count(True) == 1
    assert await store.get("key") == b"%d" % done.index(True)


async def test_of_many_who_take_one_gets_it(store: Store) -> None:
    await store.put("key", b"once", LONG)
    taken = await asyncio.gather(*(store.take("key") for _ in range(20)))
    assert (taken.count(b"once"), taken.count(None)) == (1, 19)
    assert await store.get("key") is None


async def test_of_many_who_claim_the_first_wins(store: Store) -> None:
    won = await asyncio.gather(*(store.claim("key", b"%d" % number, LONG) for number in range(20)))
    assert won.count(True) == 1
    assert await store.get("key") == b"%d" % won.index(True)


async def test_only_the_holder_releases(store: Store) -> None:
    await store.claim("key", b"mine", LONG)
    assert not await store.release("key", b"theirs")
    assert await store.get("key") == b"mine"
    assert await store.release("key", b"mine")
    assert not await store.release("key", b"mine")
    assert await store.claim("key", b"theirs", LONG)


async def test_delete_takes_several_and_minds_nothing(store: Store) -> None:
    for key in ("a", "b", "c"):
        await store.put(key, b"1", LONG)
    await store.delete("a", "b", "missing")
    await store.delete()
    assert [await store.get(key) for key in ("a", "b", "c")] == [None, None, b"1"]


# Sets and counters


async def test_a_set_holds_each_member_once(store: Store) -> None:
    assert await store.members("set") == frozenset()
    for member in ("a", "b", "b"):
        await store.add("set", member, LONG)
    assert await store.members("set") == {"a", "b"}
    await store.discard("set", "a")
    await store.discard("set", "missing")
    assert await store.members("set") == {"b"}
    await store.discard("set", "b")
    await store.discard("set", "b")
    assert await store.members("set") == frozenset()


async def test_members_leave_a_set_one_by_one_as_their_time_ends(store: Store) -> None:
    await store.add("set", "long", LONG)
    await store.add("set", "short", 0.03)
    await store.add("set", "twice", LONG)
    await store.add("set", "twice", 0.03)

    async def is_short_gone() -> bool:
        return await store.members("set") == {"long", "twice"}

    await until(is_short_gone)
    # Neither the short member nor a later short one ends the set for the others.
    await store.add("set", "another", 0.001)
    await asyncio.sleep(0.02)
    assert await store.members("set") == {"long", "twice"}


async def test_a_counter_counts_each_call(store: Store) -> None:
    counts = await asyncio.gather(*(store.count("counter", LONG) for _ in range(20)))
    assert sorted(counts) == list(range(1, 21))


async def test_a_counter_starts_over_after_its_first_count(store: Store) -> None:
    await store.count("counter", 0.1)
    seen = [0]

    async def has_started_over() -> bool:
        # Counting on must not put the end off.
        seen.append(await store.count("counter", LONG))
        return seen[-1] <= seen[-2]

    await until(has_started_over)
    assert seen[-1] == 1


# Hearing of changes


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cluster"])
async def test_a_watch_hears_of_every_change_by_others(servers: Servers, kind: str) -> None:
    section = servers.section(kind)
    mine = open_store(section, time.time)
    theirs = mine if kind == "memory" else open_store(section, time.time)
    heard: list[str] = []
    await mine.watch("session:", heard.append, lambda: None)
    assert mine.is_watching

    async def is_heard(key: str) -> bool:
        await mine.get("anything")
        return key in heard

    async def step(key: str, change: Awaitable[object]) -> None:
        heard.clear()
        await change
        await until(lambda: is_heard(key))

    key = "session:a"
    await step(key, theirs.put(key, b"1", LONG))
    await step(key, theirs.replace(key, b"2", LONG))
    await step(key, theirs.exchange(key, b"2", b"3", LONG))
    await step(key, theirs.take(key))
    await step(key, theirs.claim(key, b"1", LONG))
    await step(key, theirs.release(key, b"1"))
    await step(key, theirs.put(key, b"1", LONG))
    await step(key, theirs.delete(key))

    async def are_heard_twice() -> bool:
        return await is_heard(key) and heard.count(key) == 2

    # The write, and its end; under load both may come late.
    heard.clear()
    await theirs.put(key, b"1", 0.03)
    await until(are_heard_twice)
    await step("session:set", theirs.add("session:set", "a", LONG))
    await step("session:set", theirs.add("session:set", "b", LONG))
    await step("session:set", theirs.discard("session:set", "a"))
    await step("session:count", theirs.count("session:count", LONG))
    await step("session:count", theirs.count("session:count", LONG))
    heard.clear()
    await theirs.put("other:a", b"1", LONG)
    await theirs.put("session:last", b"1", LONG)
    await until(lambda: is_heard("session:last"))
    assert "other:a" not in heard
    await mine.close()
    assert kind == "memory" or not mine.is_watching
    if theirs is not mine:
        await theirs.close()


async def test_two_watches_each_hear_of_their_own(servers: Servers) -> None:
    store = open_store(servers.section("redis"), time.time)
    heard: dict[str, list[str]] = {"a:": [], "a:b:": [], "c:": []}
    # At the same time, and one prefix within another, which Redis itself refuses.
    await asyncio.gather(*(store.watch(prefix, heard[prefix].append, lambda: None) for prefix in heard))
    for key in ("a:1", "a:b:1", "c:1"):
        await store.put(key, b"1", LONG)
    await until(lambda: bool(heard["c:"]))
    assert heard == {"a:": ["a:1", "a:b:1"], "a:b:": ["a:b:1"], "c:": ["c:1"]}
    await store.close()


async def test_a_cluster_does_not_claim_to_hear_of_changes(servers: Servers) -> None:
    store = open_store(servers.section("cluster"), time.time)
    await store.watch("session:", lambda _: None, lambda: None)
    assert not store.is_watching
    await store.close()


async def test_a_store_says_what_it_is(store: Store) -> None:
    said = await store.ping()
    assert said.startswith(("memory", "redis 7."))


# Memory


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_memory_forgets_exactly_when_the_time_is_over() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    await store.put("key", b"1", 10)
    await store.add("set", "member", 10)
    clock.now += 9.999
    assert await store.get("key") == b"1"
    assert await store.members("set") == {"member"}
    clock.now += 0.001
    assert await store.get("key") is None
    assert await store.members("set") == frozenset()
    assert await store.ping() == "memory, 0 entries"


async def test_memory_tells_of_an_expiry_at_the_next_call_whatever_it_asks_for() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    heard: list[str] = []
    await store.put("session:a", b"1", 10)
    await store.watch("session:", heard.append, lambda: None)
    clock.now += 10
    await store.get("something else")
    assert heard == ["session:a"]


async def test_memory_gives_each_kind_of_key_its_room_and_the_oldest_of_that_kind_gives_way() -> None:
    store = MemoryStore(Clock(), most=2000)
    await store.put("session:ada", b"1", 100)
    for number in range(100):
        await store.put(f"login:{number}", b"x" * 100, 100)
    assert await store.get("login:0") is None
    assert await store.get("login:99") == b"x" * 100
    assert await store.get("session:ada") == b"1"


async def test_memory_does_not_grow_with_the_number_of_writes() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    await store.put("key", b"1", LONG)
    for _ in range(20_000):
        await store.replace("key", b"1", LONG)
        await store.add("set", "member", LONG)
        await store.put("gone", b"1", LONG)
        await store.delete("gone")
    assert len(store._queue) < 2_000
    # What was left in the queue still ends everything in time.
    clock.now += LONG
    assert await store.ping() == "memory, 0 entries"


# Opening


@pytest.mark.parametrize(
    "url",
    [
        "redis://app:hunter2/secret@redis.example.com:6379/0",
        "redis://app:hunter2@redis.example.com:port/0",
        "redis://app:hunter2@redis.example.com:6379/0?speed=fast",
        "redis://app:hunter2@redis.example.com:6379/0?max_connections=many",
        "http://app:hunter2@redis.example.com/",
        "hunter2",
    ],
)
def test_an_address_that_is_none_is_said_at_once_and_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"sessions\.redis") as wrong:
        open_store(a_section(url), time.time)
    assert "hunter2" not in str(wrong.value)


def test_redis_needs_a_secret_that_replicas_share() -> None:
    with pytest.raises(ValueError, match=r"sessions\.secrets"):
        server_secrets(Sessions(redis=Dsn("redis://localhost")))
    assert len(server_secrets(Sessions())[0]) == 32
    assert server_secrets(Sessions()) != server_secrets(Sessions())


async def test_a_certificate_of_an_authority_that_is_not_trusted_is_refused(servers: Servers) -> None:
    section = servers.section("tls").model_copy(update={"redis_ca": None})
    store = open_store(section, time.time)
    with pytest.raises(Unavailable):
        await store.get("key")
    await store.close()


def test_the_commands_that_the_acl_user_may_send_are_the_documented_ones() -> None:
    page = (Path(__file__).parent.parent / "docs" / "sessions.md").read_text(encoding="utf-8")
    listed = page.partition("```acl\n")[2].partition("```")[0]
    assert listed.partition("~sidecar:*")[2].split() == DOCUMENTED.split()

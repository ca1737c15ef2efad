"""What happens to the store when Redis stops, freezes, forgets, refuses, or breaks off in the middle (T58, T59)."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import pytest
import structlog

from sidecar.config.service import Sentinel
from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.sessions import redis_watch
from sidecar.sessions.opening import open_store
from sidecar.sessions.redis import RedisStore
from sidecar.sessions.store import Store
from tests.services.process import free_port
from tests.services.redis import AclUser, RedisServer, RedisServers
from tests.test_stores import DOCUMENTED, LONG, a_section, until

T = TypeVar("T")
PASSWORD = "hunter2/@x"
CALLS: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "get": lambda store: store.get("key"),
    "put": lambda store: store.put("key", b"value", LONG),
    "replace": lambda store: store.replace("key", b"value", LONG),
    "exchange": lambda store: store.exchange("key", b"value", b"value", LONG),
    "take": lambda store: store.take("key"),
    "claim": lambda store: store.claim("key", b"value", LONG),
    "release": lambda store: store.release("key", b"value"),
    "delete": lambda store: store.delete("key"),
    "add": lambda store: store.add("set", "member", LONG),
    "discard": lambda store: store.discard("set", "member"),
    "members": lambda store: store.members("set"),
    "count": lambda store: store.count("counter", LONG),
    "ping": lambda store: store.ping(),
}
WRITES = ("put", "claim", "add", "count")


@asynccontextmanager
async def opened(url: str, **changes: Any) -> AsyncIterator[RedisStore]:
    """A store at *url*, closed at the end."""
    store = open_store(a_section(url, **changes), time.time)
    assert isinstance(store, RedisStore)
    try:
        yield store
    finally:
        await store.close()


def _short(detail: str) -> str:
    """What went wrong, without what that means."""
    return detail.removeprefix("redis: ").partition(" (")[0]


async def is_down(store: Store, names: tuple[str, ...] = tuple(CALLS)) -> set[str]:
    """Make the calls; each must say that the store is down, and nothing else of it; the words that they use."""
    words = set()
    for name in names:
        with pytest.raises(Unavailable) as fault:
            async with asyncio.timeout(10):
                await CALLS[name](store)
        assert fault.value.reason is Reason.STORE_DOWN, name
        for text in (str(fault.value), fault.value.detail, "".join(traceback.format_exception(fault.value))):
            assert PASSWORD not in text
            assert "hunter2" not in text
        words.add(_short(fault.value.detail))
    return words


@pytest.fixture
def guarded(redis_servers: RedisServers) -> RedisServer:
    """A Redis with a password."""
    return redis_servers(acl=AclUser("app", PASSWORD, "~* &* +@all"))


async def listening(store: Store) -> tuple[list[str], list[float]]:
    """Watch everything below ``session:``; (keys heard of, times at which word may have been missed)."""
    heard: list[str] = []
    lost: list[float] = []
    await store.watch("session:", heard.append, lambda: lost.append(time.monotonic()))
    return heard, lost


# Told to end


@pytest.mark.parametrize("name", sorted(CALLS))
async def test_a_task_that_is_told_to_end_in_the_middle_of_a_call_ends(redis_url: str, name: str) -> None:
    async with opened(redis_url) as store:
        await CALLS[name](store)

        async def call_and_go_on() -> None:
            await CALLS[name](store)
            await asyncio.sleep(3600)

        # At every turn of the loop that a call takes, and some more.
        for turns in range(20):
            task = asyncio.create_task(call_and_go_on())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            _, left = await asyncio.wait({task}, timeout=5)
            assert not left, turns


# Gone and back


async def test_t58_a_redis_that_is_gone_is_never_an_empty_one_and_is_found_again_at_once(guarded: RedisServer) -> None:
    async with opened(guarded.url) as store:
        await listening(store)
        # Many idle connections, which all break.
        await asyncio.gather(*(store.get("key") for _ in range(30)))
        await asyncio.to_thread(guarded.stop)
        assert await is_down(store) == {"ConnectionError"}
        await until(lambda: not store.is_watching)
        await asyncio.to_thread(guarded.start)
        for call in CALLS.values():
            await call(store)
        await asyncio.gather(*(store.claim(f"{number}", b"1", LONG) for number in range(30)))
        await until(lambda: store.is_watching)


async def test_t58_connections_that_broke_while_idle_do_not_fail_one_call_each(redis_url: str) -> None:
    async with opened(redis_url) as store:
        await asyncio.gather(*(store.get("key") for _ in range(30)))
        await _kill_clients(store)
        taken = await asyncio.gather(*(store.take("key") for _ in range(30)))
        assert taken == [None] * 30


async def _kill_clients(store: RedisStore) -> None:
    pool = store._client.connection_pool
    idle = list(pool._available_connections)
    await store._client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await until(lambda: sum(one.is_connected and not one._reader.at_eof() for one in idle) == 1)


async def test_t58_a_call_that_finds_no_redis_does_not_try_on_and_on() -> None:
    attempts = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with opened(f"redis://127.0.0.1:{port}/0") as store:
        for name in ("get", "take"):
            attempts = 0
            await is_down(store, (name,))
            assert attempts <= 2, name
    server.close()


async def test_t58_redis_that_restarts_is_watched_again_and_everything_may_have_changed(guarded: RedisServer) -> None:
    async with opened(guarded.url) as store:
        heard, lost = await listening(store)
        lost.clear()
        await asyncio.to_thread(guarded.stop)
        await asyncio.to_thread(guarded.start)
        await until(lambda: store.is_watching and len(lost) == 2)
        await store.put("session:a", b"1", LONG)
        await until(lambda: heard == ["session:a"])


# Frozen


async def test_t58_a_frozen_redis_holds_nobody_longer_than_the_time_out(guarded: RedisServer) -> None:
    async with opened(guarded.url, timeout=timedelta(seconds=0.2)) as store:
        await listening(store)
        values = [b"%d" % number for number in range(100)]
        await asyncio.gather(*(patiently(put_of(store, number, value)) for number, value in enumerate(values)))
        guarded.pause()
        noticed = asyncio.create_task(until(lambda: not store.is_watching))
        asked = await asyncio.gather(*(store.get(f"{number}") for number in range(100)), return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in asked)
        assert await is_down(store) <= {"TimeoutError", "ConnectionError"}
        assert (await store_says_off(noticed)) is not None
        guarded.resume()
        # Answers to the questions of before must not be taken for answers to these. A busy machine may be too slow
        # for so short a time-out; what counts is that nothing wrong is ever answered.
        for start in (50, 0):
            keys = range(start, start + 50)
            answers = await asyncio.gather(*(patiently(get_of(store, number)) for number in keys))
            assert answers == [values[key] for key in keys]
        await until(lambda: store.is_watching)


def put_of(store: Store, number: int, value: bytes) -> Callable[[], Awaitable[None]]:
    """Put one of many values."""
    return lambda: store.put(f"{number}", value, LONG)


def get_of(store: Store, number: int) -> Callable[[], Awaitable[bytes | None]]:
    """Get one of many values."""
    return lambda: store.get(f"{number}")


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer."""
    async with asyncio.timeout(15):
        while True:
            with suppress(Unavailable):
                return await ask()


async def store_says_off(noticed: asyncio.Task[float]) -> float:
    """How long it took until a frozen Redis was noticed."""
    took = await noticed
    print(f"a frozen Redis was noticed after {took:.2f} s")  # noqa: T201 - a measurement, shown with -s
    return took


async def test_callers_who_go_away_leave_no_connection_behind(redis_servers: RedisServers) -> None:
    server = redis_servers()
    async with opened(server.url, timeout=timedelta(seconds=1)) as store:
        server.pause()
        for _ in range(5):
            asking = [asyncio.create_task(store.get(f"{number}")) for number in range(100)]
            await asyncio.sleep(0.02)
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)
        server.resume()
        assert not store._client.connection_pool._in_use_connections
        await asyncio.gather(*(store.get("key") for _ in range(200)))


async def test_more_callers_than_connections_wait_for_their_turn(redis_url: str) -> None:
    async with opened(redis_url) as store:
        counts = await asyncio.gather(*(store.count("counter", LONG) for _ in range(500)))
        assert sorted(counts) == list(range(1, 501))
        assert len(store._client.connection_pool._available_connections) <= 16


async def test_a_short_time_out_for_commands_does_not_end_a_quiet_watch(redis_url: str) -> None:
    async with opened(redis_url, timeout=timedelta(seconds=0.05)) as store:
        _, lost = await listening(store)
        lost.clear()
        await asyncio.sleep(0.4)
        assert store.is_watching
        assert not lost


# Refusing


async def test_t58_a_replica_that_takes_no_writes_is_down_and_its_promotion_is_enough(
    redis_servers: RedisServers,
) -> None:
    server = redis_servers()
    async with opened(server.url) as store:
        await store.put("key", b"value", LONG)
        with server.client() as client:
            client.replicaof("127.0.0.1", free_port())
            writes = tuple(name for name in CALLS if name not in ("get", "members", "ping"))
            words = await is_down(store, writes)
            assert words <= {"ReadOnlyError", "ResponseError READONLY"}
            client.replicaof("NO", "ONE")
        for call in CALLS.values():
            await call(store)


async def test_t58_a_full_redis_is_down_for_writes_and_lets_go(redis_servers: RedisServers) -> None:
    server = redis_servers(maxmemory="100mb")
    async with opened(server.url) as store:
        await store.put("key", b"value", LONG)
        with server.client() as client:
            client.config_set("maxmemory", "1")
        assert await is_down(store, WRITES) == {"OutOfMemoryError"}
        assert await store.get("key") == b"value"
        assert await store.take("key") == b"value"
        with server.client() as client:
            client.config_set("maxmemory", "100mb")
        await store.put("key", b"value", LONG)


async def test_t58_a_redis_that_no_replica_follows_ends_nothing_that_a_failover_would_bring_back(
    redis_server: RedisServer, redis_url: str
) -> None:
    async with opened(redis_url) as store:
        await store.put("key", b"value", LONG)
        with redis_server.client() as client:
            client.config_set("min-replicas-to-write", "1")
            try:
                assert await is_down(store, WRITES) == {"ResponseError NOREPLICAS"}
                with pytest.raises(Unavailable):
                    await store.take("key")
            finally:
                client.config_set("min-replicas-to-write", "0")
        assert await store.take("key") == b"value"


async def test_t58_t59_a_wrong_password_is_down_and_not_told(guarded: RedisServer) -> None:
    wrong = guarded.url.replace("app:", "app:hunter2")
    with structlog.testing.capture_logs() as logs:
        async with opened(wrong) as store:
            await listening(store)
            assert not store.is_watching
            assert await is_down(store) == {"AuthenticationError"}
        async with opened(f"redis://127.0.0.1:{guarded.port}/0") as store:
            await is_down(store)
    assert "hunter2" not in str(logs)
    assert logs


async def test_t58_a_user_who_may_not_is_down(redis_servers: RedisServers) -> None:
    server = redis_servers(acl=AclUser("app", PASSWORD, "~sidecar:* +ping"))
    async with opened(server.url) as store:
        assert await is_down(store, tuple(name for name in CALLS if name != "ping")) == {"NoPermissionError"}
    async with opened(server.url.replace("/0", "/3")) as store:
        await is_down(store)


async def test_t58_a_redis_that_is_loading_is_down(redis_servers: RedisServers) -> None:
    server = redis_servers("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
    with server.client() as client:
        for number in range(200):
            client.set(f"{number}", os.urandom(1000))
        client.save()
    async with opened(server.url) as store:
        await asyncio.to_thread(server.stop)
        starting = asyncio.create_task(asyncio.to_thread(server.start))
        words: set[str] = set()
        while not starting.done():
            with suppress(Unavailable):
                assert await store.get("missing") is None
                continue
            words |= await _said(store)
        await starting
        assert "BusyLoadingError" in words
        assert await store.get("missing") is None


async def _said(store: Store) -> set[str]:
    try:
        await store.get("missing")
    except Unavailable as fault:
        return {_short(fault.detail)}
    return set()


# Broken off in the middle


class Cutter:
    """Passes bytes to a Redis, and breaks the connection off instead of giving the next answer when told so."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.is_cutting = False
        self.asked = 0

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, to_redis = await asyncio.open_connection("127.0.0.1", self._port)
        asking = asyncio.create_task(self._ask(reader, to_redis))
        while answer := await behind.read(65536):
            if self.is_cutting:
                self.is_cutting = False
                break
            writer.write(answer)
        asking.cancel()
        to_redis.close()
        writer.close()

    async def _ask(self, reader: asyncio.StreamReader, to_redis: asyncio.StreamWriter) -> None:
        while question := await reader.read(65536):
            self.asked += 1
            to_redis.write(question)
        to_redis.close()


@pytest.fixture
async def cutter(redis_url: str, redis_server: RedisServer) -> AsyncIterator[tuple[Cutter, str]]:
    made = Cutter(redis_server.port)
    server = await asyncio.start_server(made.pass_on, "127.0.0.1", 0)
    yield made, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    server.close()


@pytest.mark.parametrize("name", ["take", "claim", "release", "exchange", "count"])
async def test_what_may_have_happened_is_not_asked_again_for_the_wrong_answer(
    cutter: tuple[Cutter, str], name: str
) -> None:
    made, url = cutter
    async with opened(url) as store:
        if name == "claim":
            await store.get("key")
        else:
            await store.put("key", b"value", LONG)
        made.is_cutting = True
        # The second answer would be: nothing here; somebody else was first; not yours.
        await is_down(store, (name,))


@pytest.mark.parametrize("name", ["get", "put", "replace", "delete", "add", "discard", "members"])
async def test_what_may_happen_twice_survives_a_connection_that_breaks_off(
    cutter: tuple[Cutter, str], name: str
) -> None:
    made, url = cutter
    async with opened(url) as store:
        await store.put("key", b"value", LONG)
        await store.add("set", "member", LONG)
        made.is_cutting = True
        answer = await CALLS[name](store)
        assert not made.is_cutting
        expected = {"get": b"value", "replace": True, "members": {"member"}}
        assert answer == expected.get(name)


# The watch


async def test_a_watch_that_is_cut_off_says_so_and_comes_back(redis_server: RedisServer, redis_url: str) -> None:
    async with opened(redis_url) as store:
        heard, lost = await listening(store)
        lost.clear()
        with redis_server.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")
        await until(lambda: len(lost) >= 1)
        await until(lambda: store.is_watching)
        # Once because it was lost, and once because of what happened until it was back.
        assert len(lost) == 2
        await store.put("session:a", b"1", LONG)
        await until(lambda: heard == ["session:a"])


async def test_when_redis_is_emptied_everything_may_have_changed(redis_server: RedisServer, redis_url: str) -> None:
    async with opened(redis_url) as store:
        _, lost = await listening(store)
        lost.clear()
        with redis_server.client() as client:
            client.flushall()
        await until(lambda: len(lost) == 1)
        assert store.is_watching


async def test_a_listener_that_fails_costs_the_cache_and_not_the_watch(redis_url: str) -> None:
    async with opened(redis_url) as store:
        heard: list[str] = []
        lost: list[int] = []

        def changed(key: str) -> None:
            heard.append(key)
            if len(heard) == 1:
                raise ZeroDivisionError

        await store.watch("session:", changed, lambda: lost.append(1))
        lost.clear()
        await store.put("session:a", b"1", LONG)
        await until(lambda: len(lost) == 2 and store.is_watching)
        await store.put("session:b", b"1", LONG)
        await until(lambda: heard == ["session:a", "session:b"])


async def test_watches_that_begin_together_share_one_connection(redis_server: RedisServer, redis_url: str) -> None:
    async with opened(redis_url) as store:
        await asyncio.gather(*(store.watch(f"{name}:", lambda _: None, lambda: None) for name in "abc"))
        with redis_server.client() as client:
            await until(lambda: sum("B" in one["flags"] for one in client.client_list()) == 1)
    with redis_server.client() as client:
        await until(lambda: len(client.client_list()) == 1)


async def test_without_leave_to_track_everything_works_and_leave_given_later_is_enough(
    redis_servers: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_watch, "_PAUSE_WHEN_REFUSED", 0.05)
    monkeypatch.setattr(redis_watch, "_LONGEST_PAUSE", 0.05)
    rules = DOCUMENTED.replace("+client|tracking", "+acl|setuser")
    server = redis_servers(acl=AclUser("app", PASSWORD, f"~sidecar:* {rules}"))
    with structlog.testing.capture_logs() as logs:
        async with opened(server.url) as store:
            await listening(store)
            assert not store.is_watching
            for call in CALLS.values():
                await call(store)
            assert (await store.ping()).endswith(", local cache off")
            await asyncio.sleep(0.2)
            with server.client() as client:
                client.execute_command("ACL", "SETUSER", "app", "+client|tracking")
            await until(lambda: store.is_watching)
    assert sum("CLIENT TRACKING" in line["event"] for line in logs) == 1


async def test_a_start_without_redis_does_not_wait_for_long_and_finds_it_later(redis_servers: RedisServers) -> None:
    server = redis_servers()
    await asyncio.to_thread(server.stop)
    async with opened(server.url) as store, asyncio.timeout(10):
        await listening(store)
        assert not store.is_watching
        await asyncio.to_thread(server.start)
        await until(lambda: store.is_watching)


# Sentinel


async def test_sentinels_that_are_gone_or_silent_leave_time_for_the_one_that_answers(
    redis_servers: RedisServers,
) -> None:
    sentinel = redis_servers.sentinel()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ports = (free_port(), silent.getsockname()[1], sentinel.port)
        nodes = tuple(f"127.0.0.1:{port}" for port in ports)
        named = Sentinel(master=sentinel.name, nodes=nodes)
        async with opened("redis://master/0", sentinel=named, timeout=timedelta(seconds=2)) as store:
            await store.put("key", b"value", LONG)
            assert await store.get("key") == b"value"


async def test_sentinels_that_know_no_such_master_are_down(redis_servers: RedisServers) -> None:
    sentinel = redis_servers.sentinel()
    named = Sentinel(master="another", nodes=(f"127.0.0.1:{sentinel.port}",))
    async with opened("redis://app:hunter2@master/0", sentinel=named) as store:
        await is_down(store)


async def test_many_callers_share_the_connections_to_a_master_behind_sentinels(redis_servers: RedisServers) -> None:
    sentinel = redis_servers.sentinel()
    named = Sentinel(master=sentinel.name, nodes=(f"127.0.0.1:{sentinel.port}",))
    async with opened("redis://master/0", sentinel=named) as store:
        counts = await asyncio.gather(*(store.count("counter", LONG) for _ in range(300)))
        assert sorted(counts) == list(range(1, 301))


async def test_t58_a_failover_keeps_what_was_replicated_and_the_watch_follows(redis_servers: RedisServers) -> None:
    sentinel = redis_servers.sentinel()
    named = Sentinel(master=sentinel.name, nodes=(f"127.0.0.1:{sentinel.port}",))
    async with AsyncExitStack() as stack:
        changes: dict[str, Any] = {"sentinel": named, "timeout": timedelta(seconds=1), "prefix": "sidecar:"}
        mine, theirs = [await stack.enter_async_context(opened("redis://master/0", **changes)) for _ in range(2)]
        heard, _ = await listening(mine)
        await theirs.put("session:a", b"1", LONG)
        with sentinel.replica.client() as replica:
            await until(lambda: replica.get("sidecar:session:a") == b"1")
        await asyncio.to_thread(sentinel.master.stop)
        await is_down(mine, ("get",))

        async def is_back() -> bool:
            try:
                return await mine.replace("session:a", b"2", LONG)
            except Unavailable:
                return False

        async def is_found_by_them() -> bool:
            try:
                return await theirs.get("session:a") == b"2"
            except Unavailable:
                return False

        took = await until(is_back, 60)
        print(f"writes again {took:.2f} s after the master was stopped")  # noqa: T201 - a measurement, shown with -s
        assert sentinel.current_master_port() == sentinel.replica.port
        await until(lambda: mine.is_watching)
        # Each asks the sentinels by itself.
        await until(is_found_by_them, 60)
        heard.clear()
        await theirs.put("session:b", b"1", LONG)
        await until(lambda: heard == ["session:b"])
        assert await theirs.get("session:a") == b"2"


# Cluster


async def test_t58_a_cluster_that_restarts_is_found_again(redis_servers: RedisServers) -> None:
    server = redis_servers("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
    async with opened(server.url, cluster=True) as store:
        await asyncio.gather(*(store.get("key") for _ in range(30)))
        await asyncio.to_thread(server.stop)
        await is_down(store)
        await asyncio.to_thread(server.start)
        with server.client() as client:
            await until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        for call in CALLS.values():
            await call(store)

"""T58: Redis down, frozen, failing over or full is a fault that says so, never "signed out", and it passes."""

# ruff: noqa: ASYNC110 - what is waited for happens in another process

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.service import Sentinel as SentinelSection
from sidecar.config.service import Sessions
from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.opening import open_store, server_secrets
from sidecar.sessions.redis import is_too_old
from sidecar.sessions.store import Store
from tests.services.certificates import make_certificates
from tests.services.redis import AclUser, RedisServer, RedisServers
from tests.sessions_world import CAREFUL, NOW, Time, keeping, opened, section, signed_in

HOUR = 3600.0
QUICK = timedelta(milliseconds=300)

VERBS: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "get": lambda store: store.get("a"),
    "put": lambda store: store.put("a", b"1", HOUR),
    "replace": lambda store: store.replace("a", b"1", HOUR),
    "exchange": lambda store: store.exchange("a", b"1", b"2", HOUR),
    "take": lambda store: store.take("a"),
    "claim": lambda store: store.claim("a", b"1", HOUR),
    "release": lambda store: store.release("a", b"1"),
    "delete": lambda store: store.delete("a"),
    "add": lambda store: store.add("s", "x", HOUR),
    "discard": lambda store: store.discard("s", "x"),
    "members": lambda store: store.members("s"),
    "count": lambda store: store.count("n", HOUR),
    "ping": lambda store: store.ping(),
}


async def _is_down(ask: Awaitable[Any], *never: str) -> str:
    with pytest.raises(Unavailable) as caught:
        await ask
    assert caught.value.reason is Reason.STORE_DOWN
    assert caught.value.status == 503
    for secret in never:
        assert secret not in str(caught.value)
    return caught.value.detail


async def _recovers(store: Store) -> None:
    """Wait until it works again; what was between is a fault, nothing else."""
    async with asyncio.timeout(20):
        while True:
            try:
                await store.put("again", b"1", HOUR)
                assert await store.get("again") == b"1"
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                return


@asynccontextmanager
async def _session(settings: Sessions) -> AsyncIterator[tuple[Store, SessionKeeper, str]]:
    async with opened(settings) as store, keeping(store, settings, clock=Time()) as keeper:
        token, _ = await keeper.open(signed_in(), NOW)
        assert await keeper.find(token, NOW) is not None
        yield store, keeper, token


async def test_a_redis_that_is_down_is_a_fault_and_comes_back(redis_url: str, redis_server: RedisServer) -> None:
    async with _session(section(redis_url)) as (store, keeper, token):
        redis_server.stop()
        async with asyncio.timeout(10):
            while store.is_watching:
                await asyncio.sleep(0.01)
        await _is_down(keeper.find(token, NOW))
        for ask in VERBS.values():
            await _is_down(ask(store))
        redis_server.start()
        await _recovers(store)
        # Started again it is empty: now it is known that nobody is signed in.
        assert await keeper.find(token, NOW) is None


async def test_a_redis_that_is_down_at_the_start_is_found_later(redis_server: RedisServer) -> None:
    redis_server.renew()
    redis_server.stop()
    async with opened(section(redis_server.url)) as store, keeping(store, clock=Time()) as keeper:
        await _is_down(keeper.open(signed_in(), NOW))
        redis_server.start()
        await _recovers(store)
        token, _ = await keeper.open(signed_in(), NOW)
        assert await keeper.find(token, NOW) is not None
        async with asyncio.timeout(20):
            while not keeper.is_watching:
                await asyncio.sleep(0.02)


async def test_a_frozen_redis_is_a_fault_in_time_and_answers_are_never_mixed_up(
    redis_url: str, redis_server: RedisServer
) -> None:
    async with opened(section(redis_url, timeout=QUICK)) as store:
        for number in range(50):
            await store.put(f"k{number}", str(number).encode(), HOUR)
        redis_server.pause()
        try:
            async with asyncio.timeout(QUICK.total_seconds() * len(VERBS) + 10):
                for ask in VERBS.values():
                    await _is_down(ask(store))
                faults = await asyncio.gather(*(store.get(f"k{n}") for n in range(50)), return_exceptions=True)
        finally:
            redis_server.resume()
        assert {type(fault) for fault in faults} == {Unavailable}
        await _recovers(store)
        # An answer that came too late must not be taken for the answer to the next question.
        values = await asyncio.gather(*(store.get(f"k{number}") for number in range(50)))
        assert values == [str(number).encode() for number in range(50)]


async def test_callers_who_go_away_leave_no_answers_for_others(redis_url: str) -> None:
    async with opened(section(redis_url)) as store:
        for number in range(20):
            await store.put(f"k{number}", str(number).encode(), HOUR)
        for _ in range(20):
            asking = [asyncio.create_task(store.get(f"k{number}")) for number in range(20)]
            await asyncio.sleep(0)
            for task in asking[::2]:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        values = await asyncio.gather(*(store.get(f"k{number}") for number in range(20)))
        assert values == [str(number).encode() for number in range(20)]


WRITES = ("put", "replace", "take", "claim", "delete", "add", "count")


async def test_a_redis_that_became_a_replica_is_a_fault_for_writes(redis_servers: RedisServers) -> None:
    server, other = redis_servers(), redis_servers()
    async with opened(section(server.url)) as store:
        await store.put("a", b"1", HOUR)
        with server.client() as client:
            client.replicaof(other.host, other.port)
        for verb in WRITES:
            await _is_down(VERBS[verb](store))
        with server.client() as client:
            client.replicaof("NO", "ONE")
        await _recovers(store)


async def test_a_full_redis_is_a_fault_for_writes_and_people_stay_signed_in(redis_servers: RedisServers) -> None:
    server = redis_servers(maxmemory="100mb")
    async with _session(section(server.url)) as (store, keeper, token):
        with server.client() as client:
            client.config_set("maxmemory", 1)
        for verb in ("put", "claim", "count"):
            await _is_down(VERBS[verb](store))
        await _is_down(keeper.open(signed_in("bob"), NOW))
        keeper._cache.clear()
        assert await keeper.find(token, NOW) is not None
        assert await keeper.end(token) == 1
        with server.client() as client:
            client.config_set("maxmemory", "100mb")
        await _recovers(store)


async def test_a_wrong_password_is_a_fault_that_does_not_tell_it(redis_servers: RedisServers) -> None:
    server = redis_servers(acl=CAREFUL)
    url = server.url.replace("not-so-secret", "wrong").replace("pass%2Fword", "hunter%2F2")
    async with opened(section(url)) as store:
        for ask in VERBS.values():
            await _is_down(ask(store), "hunter/2", "hunter", CAREFUL.password)


async def test_a_missing_password_is_a_fault(redis_servers: RedisServers) -> None:
    server = redis_servers()
    with server.client() as client:
        client.config_set("requirepass", "hunter2")
    async with opened(section(server.url)) as store:
        await _is_down(store.get("a"))


async def test_what_the_acl_forbids_is_a_fault_that_names_no_key(redis_servers: RedisServers) -> None:
    server = redis_servers(acl=AclUser(rules="~sidecar:* &* +@all -set -getdel -eval"))
    async with opened(section(server.url)) as store:
        assert await store.get("a") is None
        for verb in ("put", "claim", "take", "add", "count", "release"):
            await _is_down(VERBS[verb](store), "sidecar:a")


async def test_a_redis_that_is_too_old_is_no_store_though_it_answers(redis_url: str, redis_server: RedisServer) -> None:
    """A relay makes the real one say another version of itself; the next test is about what an old one lacks."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(redis_server.host, redis_server.port)
        with suppress(OSError):
            while asked := await reader.read(65536):
                ours.write(asked)
                writer.write(re.sub(rb"(redis_version:)\d", rb"\g<1>5", await theirs.read(65536)))
        ours.close()
        writer.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(section(f"redis://127.0.0.1:{port}/0")) as store:
            said = await _is_down(store.ping())
            assert re.fullmatch(r"redis: 5\.[0-9.]+ is too old, 6\.2 or newer is needed", said)
    async with opened(section(redis_url)) as store:
        assert (await store.ping()).startswith("redis ")


async def test_a_command_that_redis_does_not_know_is_named_as_such(redis_servers: RedisServers) -> None:
    server = redis_servers("--rename-command", "GETDEL", "")
    async with opened(section(server.url)) as store:
        assert await store.get("a") is None
        said = await _is_down(store.take("a"), "sidecar:a")
    assert said == "redis: ResponseError (it does not know this command: 6.2 or newer is needed)"


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("5.0.6", True),
        (" 6.0.20", True),
        ("6.2.0", False),
        ("7.2.4", False),
        ("10.0", False),
        ("", False),
        ("x", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, *, old: bool) -> None:
    assert is_too_old(version) is old


async def test_a_certificate_that_nobody_vouches_for_is_a_fault(redis_servers: RedisServers) -> None:
    server = redis_servers(tls=True)
    async with opened(section(server.url)) as store:
        await _is_down(store.get("a"))


async def test_an_authority_that_was_renewed_on_disk_is_believed_by_connections_made_later(
    redis_servers: RedisServers, tmp_path: Path
) -> None:
    server = redis_servers(tls=True)
    assert server.certificates is not None
    ca = tmp_path / "ca.pem"
    shutil.copy(server.certificates.authority, ca)
    async with opened(section(server.url, redis_ca=ca)) as store:
        assert await store.get("a") is None
        new = make_certificates(tmp_path)
        with server.client() as client:
            names = {"cert": new.certificate, "key": new.key, "ca-cert": new.authority}
            client.config_set(*[part for name, path in names.items() for part in (f"tls-{name}-file", str(path))])
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await _is_down(store.get("a"))
        shutil.copy(new.authority, ca)
        await _recovers(store)


async def test_something_else_that_listens_there_is_a_fault() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read(100)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(section(f"redis://127.0.0.1:{port}/0", timeout=QUICK)) as store:
            await _is_down(store.get("a"))


@pytest.mark.parametrize(("verb", "answer"), [("take", b"GETDEL"), ("claim", b"NX"), ("count", b"incr")])
async def test_what_may_have_happened_is_not_done_again(redis_server: RedisServer, verb: str, answer: bytes) -> None:
    """The server took it and the answer was lost: a second try would say "nothing here" to who had it."""
    redis_server.renew()
    asked: list[bytes] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(redis_server.host, redis_server.port)
        while piece := await reader.read(65536):
            up_writer.write(piece)
            reply = await up_reader.read(65536)
            if answer in piece:
                asked.append(piece)
                break
            writer.write(reply)
        up_writer.close()
        writer.close()

    async with await asyncio.start_server(carry, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(section(f"redis://127.0.0.1:{port}/0")) as store:
            await _is_down(VERBS[verb](store))
    assert len(asked) == 1


async def test_idle_connections_that_redis_closed_are_no_fault(redis_url: str, redis_server: RedisServer) -> None:
    async with opened(section(redis_url)) as store:
        await asyncio.gather(*(store.put(f"k{number}", b"1", HOUR) for number in range(30)))
        with redis_server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        values = await asyncio.gather(*(store.get(f"k{number}") for number in range(30)))
        assert values == [b"1"] * 30


async def test_a_burst_never_opens_more_connections_than_a_few(redis_url: str, redis_server: RedisServer) -> None:
    # Long enough for a busy machine: what is counted are connections.
    async with opened(section(redis_url, timeout=timedelta(seconds=30))) as store:
        await asyncio.gather(*(store.get(f"k{number}") for number in range(2000)))
        with redis_server.client() as client:
            assert len(client.client_list()) <= 70


# Sentinel


def _sentinel_section(name: str, *ports: int, **fields: Any) -> Sessions:
    nodes = tuple(f"127.0.0.1:{port}" for port in ports)
    return section("redis://sentinel/0", sentinel=SentinelSection(master=name, nodes=nodes), **fields)


async def test_a_failover_is_a_fault_that_passes_and_the_new_master_is_watched(redis_servers: RedisServers) -> None:
    sentinel = redis_servers.sentinel()
    async with _session(_sentinel_section(sentinel.name, sentinel.port)) as (store, keeper, token):
        assert store.is_watching
        with sentinel.master.client() as client:
            client.wait(1, 5000)
        sentinel.master.stop()
        await _recovers(store)
        assert sentinel.current_master_port() == sentinel.replica.port
        assert await keeper.find(token, NOW) is not None
        async with asyncio.timeout(20):
            while not store.is_watching:
                await asyncio.sleep(0.02)
        heard: list[str] = []
        await store.watch("w:", heard.append, lambda: None)
        with sentinel.replica.client() as client:
            client.set("sidecar:w:x", b"1")
        async with asyncio.timeout(10):
            while heard != ["w:x"]:
                await asyncio.sleep(0.01)


async def test_a_frozen_master_is_left_for_the_new_one(redis_servers: RedisServers) -> None:
    sentinel = redis_servers.sentinel()
    async with opened(_sentinel_section(sentinel.name, sentinel.port, timeout=timedelta(seconds=1))) as store:
        for number in range(30):
            await store.put(f"k{number}", b"1", HOUR)
        with sentinel.master.client() as client:
            client.wait(1, 5000)
        sentinel.master.pause()
        try:
            await _recovers(store)
            assert await store.get("k1") == b"1"
        finally:
            sentinel.master.resume()


async def test_one_sentinel_that_says_nothing_does_not_hide_the_others(redis_servers: RedisServers) -> None:
    sentinel = redis_servers.sentinel()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        async with opened(_sentinel_section(sentinel.name, port, sentinel.port)) as store:
            await store.put("a", b"1", HOUR)
            assert await store.get("a") == b"1"


async def test_a_burst_is_served_through_sentinel_too(redis_servers: RedisServers) -> None:
    sentinel = redis_servers.sentinel()
    async with opened(_sentinel_section(sentinel.name, sentinel.port)) as store:
        await asyncio.gather(*(store.get(f"k{number}") for number in range(500)))


# What cannot be


@pytest.mark.parametrize("url", ["redsi://localhost", "localhost:6379", "http://localhost"])
def test_an_address_that_is_none_is_said_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        open_store(section(url), Time())


def test_redis_needs_a_secret_that_replicas_share() -> None:
    with pytest.raises(ValueError, match="secrets"):
        server_secrets(section("redis://localhost", secrets=()))
    assert len(server_secrets(section(secrets=()))[0]) == 32

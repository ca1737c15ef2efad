"""Look at Redis: version, eviction, memory, persistence, what our user may do, and pushes."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from sidecar.config.lints.addresses import is_loopback
from sidecar.doctor.finding import Finding, Probe
from sidecar.doctor.patient import Patient
from sidecar.faults import Unavailable
from sidecar.sessions.opening import open_store
from sidecar.sessions.redis import RedisStore, is_too_old

_NEARLY_FULL = 0.8
_PLACE = ("sessions", "redis")
_TTL = 10.0
_PUSH_WITHIN = 2.0


def probes(patient: Patient) -> list[Probe]:
    """Nothing where sessions are kept in memory."""
    if patient.config.sessions.redis is None:
        return []
    return [_all(patient), _on_the_way(patient)]


async def _all(patient: Patient) -> Probe:
    if fault := await fault_of(patient):
        for name in ("redis-version", "redis-eviction", "redis-memory", "redis-permissions", "redis-push"):
            yield patient.skipped(name, f"Redis cannot be asked: {fault}")
        return
    for probe in (_about, _permissions, _pushes):
        async for finding in probe(patient):
            yield finding


async def fault_of(patient: Patient) -> str:
    """Why Redis answers us nothing at all, "" when it does; asked once."""

    async def ping() -> str:
        said = ""
        async with stored(patient) as store:
            # A Redis that refuses writes refuses PING, too, and answers other questions.
            for ask in (store.ping, lambda: store.inspect("TIME")):
                try:
                    await ask()
                except Unavailable as fault:
                    said = fault.detail.removeprefix("redis: ")
                else:
                    return ""
        return said

    return await patient.once("redis", ping)


@asynccontextmanager
async def stored(patient: Patient) -> AsyncIterator[RedisStore]:
    """The store of the configuration, which is Redis; raises Unavailable."""
    store = open_store(patient.config.sessions, time.time)
    assert isinstance(store, RedisStore)  # noqa: S101 - the caller looked
    try:
        yield store
    finally:
        await store.close()


async def _about(patient: Patient) -> Probe:
    async with stored(patient) as store:
        try:
            about: Mapping[str, Any] = await store.inspect("INFO")
        except Unavailable as fault:
            for name in ("redis-version", "redis-eviction", "redis-memory", "redis-persistence"):
                yield patient.skipped(name, f"INFO was not answered ({fault.detail}); +info in the ACL allows it")
            return
    yield _version(patient, about)
    yield _eviction(patient, about)
    yield _memory(patient, about)
    yield _persistence(patient, about)


def _version(patient: Patient, about: Mapping[str, Any]) -> Finding:
    said = str(about.get("redis_version", ""))
    if not said:
        return patient.skipped("redis-version", "it does not say")
    if is_too_old(said):
        return patient.failure("redis-version", f"Redis {said}", _PLACE)
    return patient.ok("redis-version", f"Redis {said}")


def _eviction(patient: Patient, about: Mapping[str, Any]) -> Finding:
    policy = str(about.get("maxmemory_policy", ""))
    is_limited = bool(int(about.get("maxmemory", 0) or 0))
    if policy in ("", "noeviction"):
        return patient.ok("redis-eviction", policy or "it does not say")
    # Every key of ours has a lifetime, so that volatile-* evicts it as allkeys-* does.
    seen = f"maxmemory-policy {policy}: it drops live sessions and used-once marks, which all have a lifetime,"
    if is_limited:
        return patient.failure("redis-eviction", f"{seen} when memory is short", _PLACE)
    return patient.warning("redis-eviction", f"{seen} as soon as a maxmemory is set", _PLACE)


def _memory(patient: Patient, about: Mapping[str, Any]) -> Finding:
    limit, used = int(about.get("maxmemory", 0) or 0), int(about.get("used_memory", 0) or 0)
    if not limit:
        return patient.ok("redis-memory", f"{used >> 20} MiB used, no maxmemory")
    seen = f"{used / (1 << 20):.1f} of {limit / (1 << 20):.1f} MiB used"
    if used >= limit * _NEARLY_FULL:
        return patient.warning("redis-memory", seen, _PLACE)
    return patient.ok("redis-memory", seen)


def _persistence(patient: Patient, about: Mapping[str, Any]) -> Finding:
    if str(about.get("rdb_last_bgsave_status", "ok")) != "ok":
        return patient.warning(
            "redis-persistence", "its last snapshot failed; by default it refuses writes then", _PLACE
        )
    if int(about.get("aof_enabled", 0) or 0):
        return patient.ok("redis-persistence", "an append-only file: sessions survive a restart")
    # Of itself, without leave for CONFIG: seconds that its last snapshot took, -1 before the first.
    if int(about.get("rdb_last_bgsave_time_sec", -1)) >= 0:
        seen = "snapshots and no append-only file: after a crash it goes on from the last one"
        return patient.warning("redis-persistence", seen, _PLACE)
    return patient.ok("redis-persistence", "no append-only file: a restart may sign people out")


async def _permissions(patient: Patient) -> Probe:
    async with stored(patient) as store:
        refused = [f"{verb}: {said}" for verb, said in [await _one(verb, ask) for verb, ask in _verbs(store)] if said]
    if refused:
        yield patient.failure("redis-permissions", "; ".join(refused), _PLACE)
    else:
        yield patient.ok("redis-permissions", "all that the sidecar does with Redis is allowed")


def _verbs(store: RedisStore) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
    """Everything that the store does, each with keys of this examination's own, which end by themselves."""
    key = f"doctor:{secrets.token_hex(8)}"
    members, number = f"{key}:members", f"{key}:number"
    return [
        ("SET NX", lambda: store.claim(key, b"1", _TTL)),
        ("SET", lambda: store.put(key, b"1", _TTL)),
        ("SET XX", lambda: store.replace(key, b"1", _TTL)),
        ("GET", lambda: store.get(key)),
        ("EVAL of SET", lambda: store.exchange(key, b"1", b"2", _TTL)),
        ("EVAL of DEL", lambda: store.release(key, b"2")),
        ("GETDEL", lambda: store.take(key)),
        ("EVAL of ZADD", lambda: store.add(members, "one", _TTL)),
        ("EVAL of ZRANGEBYSCORE", lambda: store.members(members)),
        ("ZREM", lambda: store.discard(members, "one")),
        ("EVAL of INCR", lambda: store.count(number, _TTL)),
        ("DEL", lambda: store.delete(number)),
        ("SCAN", lambda: store.names(key)),
    ]


async def _one(verb: str, ask: Callable[[], Awaitable[Any]]) -> tuple[str, str]:
    try:
        await ask()
    except Unavailable as fault:
        return verb, fault.detail.removeprefix("redis: ")
    return verb, ""


async def _pushes(patient: Patient) -> Probe:
    if patient.config.sessions.cluster:
        yield patient.skipped("redis-push", "a cluster is used without pushes")
        return
    came = asyncio.Event()
    key = f"doctor:{secrets.token_hex(8)}"
    async with stored(patient) as store:
        await store.watch(key, lambda _key: came.set(), lambda: None)
        if store.is_watching:
            await store.put(key, b"1", _TTL)
            try:
                async with asyncio.timeout(_PUSH_WITHIN):
                    await came.wait()
            except TimeoutError:
                yield patient.warning("redis-push", "CLIENT TRACKING is allowed, but no push came", _PLACE)
                return
            yield patient.ok("redis-push", "a change was heard of at once")
            return
    yield patient.warning("redis-push", "CLIENT TRACKING over RESP3 is refused", _PLACE)


async def _on_the_way(patient: Patient) -> Probe:
    address = patient.config.sessions.redis
    assert address is not None  # noqa: S101 - probes() looked
    parts = urlsplit(address.reveal())
    if parts.scheme in ("rediss", "unix"):
        yield patient.ok("redis-tls", "TLS" if parts.scheme == "rediss" else "a Unix socket")
    elif is_loopback(parts.hostname or "localhost"):
        yield patient.ok("redis-tls", "without TLS, on this machine")
    else:
        yield patient.warning("redis-tls", f"without TLS, at {parts.hostname}", _PLACE)

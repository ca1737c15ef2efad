"""What the tests of sessions share: sections, stores on every kind of Redis, people, a clock, and patience."""

# ruff: noqa: ASYNC110 - what is waited for happens in another process

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from sidecar.config.service import Sentinel as SentinelSection
from sidecar.config.service import Sessions
from sidecar.config.values import Dsn, Secret
from sidecar.model import Grant, Identity, SignedIn
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.memory import MemoryStore
from sidecar.sessions.opening import open_store
from sidecar.sessions.store import Store
from tests.services.process import free_port
from tests.services.redis import AclUser, RedisServers

SECRET = b"the newest secret of this test!!"
OLD_SECRET = b"an older secret of this test!!!!"
NOW = 1_800_000_000.0
ISSUER = "https://id.example.com"
PATIENCE = 15.0
# What docs may recommend: nothing dangerous, and only our own keys.
CAREFUL = AclUser("app", "pass/word+", "~sidecar:* &* +@all -@dangerous")
WATCHED = ("memory", "redis", "tls-acl", "unix", "sentinel", "tls-sentinel")
CLUSTERS = ("cluster", "tls-cluster")
KINDS = (*WATCHED, *CLUSTERS)


def section(url: str = "", **fields: Any) -> Sessions:
    """Section of the configuration; in memory without *url*."""
    if url:
        fields["redis"] = Dsn(url)
    fields.setdefault("secrets", (Secret(SECRET.decode()),))
    return Sessions(**fields)


async def eventually(is_so: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait until *is_so*; fails when it never is."""
    async with asyncio.timeout(patience):
        while not is_so():
            await asyncio.sleep(0.005)


@contextmanager
def sections(kind: str, folder: Any) -> Iterator[Sessions]:
    """Start a Redis of that *kind* and give the section that reaches it."""
    servers = RedisServers()
    try:
        yield _section_of(kind, servers, folder)
    finally:
        servers.discard()


def _section_of(kind: str, servers: RedisServers, folder: Any) -> Sessions:
    if kind == "redis":
        return section(servers().url)
    if kind == "tls-acl":
        server = servers(tls=True, acl=CAREFUL)
        assert server.certificates is not None
        return section(server.url, redis_ca=server.certificates.authority)
    if kind == "unix":
        path = folder / "redis.sock"
        servers("--unixsocket", str(path))
        return section(f"unix://{path}?db=1")
    if kind in ("sentinel", "tls-sentinel"):
        sentinel = servers.sentinel(tls=kind == "tls-sentinel")
        watching = SentinelSection(master=sentinel.name, nodes=(f"127.0.0.1:{sentinel.port}",))
        trusted = sentinel.master.certificates
        if trusted is None:
            return section("redis://sentinel/0", sentinel=watching)
        return section("rediss://sentinel/0", sentinel=watching, redis_ca=trusted.authority)
    if kind in CLUSTERS:
        server = servers("--cluster-enabled", "yes", "--cluster-port", str(free_port()), tls=kind == "tls-cluster")
        with server.client() as client:
            client.execute_command("CLUSTER ADDSLOTS", *range(16384))
            deadline = time.monotonic() + PATIENCE
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                assert time.monotonic() < deadline
                time.sleep(0.02)
        return section(server.url, cluster=True, redis_ca=server.certificates and server.certificates.authority)
    return section()


@asynccontextmanager
async def opened(settings: Sessions, clock: Callable[[], float] = time.time) -> AsyncIterator[Store]:
    """Open a store and close it afterwards."""
    store = open_store(settings, clock)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def keeping(
    store: Store,
    settings: Sessions | None = None,
    secrets: tuple[bytes, ...] = (SECRET,),
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[SessionKeeper]:
    """Start a keeper over *store* and close it afterwards."""
    keeper = SessionKeeper(store, settings or section(), secrets, clock)
    await keeper.start()
    try:
        yield keeper
    finally:
        await keeper.close()


def signed_in(subject: str = "ada", *, sid: str = "", issuer: str = ISSUER, **fields: Any) -> SignedIn:
    """Sign-in of *subject*, verified."""
    identity = Identity(
        provider="corp",
        issuer=issuer,
        subject=subject,
        username=fields.pop("username", subject),
        email=f"{subject}@example.com",
        name=subject.title(),
        groups=("staff", "wiki-admins"),
        claims={"preferred_username": subject},
    )
    fields.setdefault("grant", Grant("an id token", "a refresh token"))
    return SignedIn(identity, fields.pop("auth_time", NOW), sid=sid, **fields)


@dataclass
class Time:
    """A clock that stands still until it is told to go on."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Watched:
    """A store that counts what is asked of it, and holds reads back while its gate is shut."""

    inner: Store
    asked: list[tuple[str, str]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    waiting: int = 0

    def count(self, verb: str, prefix: str = "") -> int:
        """How often *verb* was asked for keys below *prefix*."""
        return sum(1 for asked, key in self.asked if asked == verb and key.startswith(prefix))

    async def get(self, key: str) -> bytes | None:
        """Read first and answer late: as on a slow network."""
        self.asked.append(("get", key))
        value = await self.inner.get(key)
        if self.gate is not None:
            self.waiting += 1
            await self.gate.wait()
        return value

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.inner, name)
        if not callable(verb) or name in {"watch", "close", "ping"}:
            return verb

        async def noted(key: str, *rest: Any) -> Any:
            self.asked.append((name, key))
            return await verb(key, *rest)

        return noted


def memory(clock: Callable[[], float] = time.time) -> Watched:
    """Memory store whose questions are counted."""
    return Watched(MemoryStore(clock))

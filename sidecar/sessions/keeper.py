"""Open, find, renew and end sessions; the only room that knows what a session's token opens."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace

import structlog

from sidecar.config.service import Sessions
from sidecar.model import Grant, Reason, Session, SignedIn, Unavailable, identity_key
from sidecar.sessions.codec import read_grant, read_session, write_grant, write_session
from sidecar.sessions.store import Store
from sidecar.sessions.turn import Turn
from sidecar.sessions.vault import Vault, is_token

_log = structlog.get_logger("sessions")
_LONGEST_COALESCING = 60.0
_REFRESH_WAIT = 30.0
_REFRESH_LEASE = 10.0


class SessionKeeper:
    """Keeps sessions in the store, and the live ones of this worker in a cache that the store invalidates."""

    def __init__(self, store: Store, section: Sessions, secrets: Sequence[bytes], clock: Callable[[], float]) -> None:
        """Lifetimes come from *section*; *secrets* seal, newest first; *clock* gives epoch seconds."""
        self._store = store
        self._sessions = Vault(store, secrets, "session")
        self._grants = Vault(store, secrets, "grant")
        self._clock = clock
        self._idle = section.idle.total_seconds()
        self._absolute = section.absolute.total_seconds()
        self._coalescing = min(_LONGEST_COALESCING, self._idle / 10)
        self._most = section.cache
        self._cache: OrderedDict[str, Session] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Session | None]] = {}
        self._stale_while_loading: set[str] = set()
        self._touching: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._enders: list[tuple[Callable[[str], bool], Callable[[str], None]]] = []
        self.losses = 0

    async def start(self) -> None:
        """Begin to hear of changes made by other workers."""
        await self._store.watch("session:", self._changed, self._lost)

    @property
    def is_watching(self) -> bool:
        """True while sessions that end elsewhere are heard of at once."""
        return self._store.is_watching

    def on_end(self, is_wanted: Callable[[str], bool], ended: Callable[[str], None]) -> None:
        """Call *ended(session id)* when a session for which *is_wanted* ends anywhere."""
        self._enders.append((is_wanted, ended))

    def _changed(self, key: str) -> None:
        session_id = key.partition(":")[2]
        self._cache.pop(session_id, None)
        if session_id in self._loading:
            # The value under way was read before this change: give it out, but do not remember it.
            self._stale_while_loading.add(session_id)
        if any(is_wanted(session_id) for is_wanted, _ in self._enders):
            self._in_background(self._tell_if_ended(session_id))

    def _lost(self) -> None:
        self.losses += 1
        self._cache.clear()
        self._stale_while_loading.update(self._loading)

    async def _tell_if_ended(self, session_id: str) -> None:
        if await self.is_open(session_id):
            return
        for is_wanted, ended in self._enders:
            if is_wanted(session_id):
                ended(session_id)

    def _in_background(self, work: object) -> None:
        async def carefully() -> None:
            with contextlib.suppress(Unavailable):
                await work  # type: ignore[misc]

        task = asyncio.create_task(carefully())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def open(self, signed_in: SignedIn, now: float, previous: str | None = None) -> tuple[str, Session]:
        """Open a session: (token for the cookie, session). The token is always new; *previous* ends."""
        token = Vault.token()
        session = Session(
            id=Vault.id_of(token),
            identity=signed_in.identity,
            created=now,
            expires=now + self._absolute,
            seen=now,
            auth_time=signed_in.auth_time,
            acr=signed_in.acr,
            amr=signed_in.amr,
            sid=signed_in.sid,
            refresh_at=signed_in.refresh_at,
        )
        # Index first: a session that the index does not know could not be ended by its person.
        for index in _indexes(session):
            await self._store.add(index, session.id, self._absolute)
        if signed_in.grant != Grant():
            await self._grants.put(token, write_grant(signed_in.grant), self._absolute)
        await self._sessions.put(token, write_session(session), self._lifetime(session, now))
        if previous is not None:
            await self.end(previous)
        return token, session

    def _lifetime(self, session: Session, now: float) -> float:
        return max(0.001, min(self._idle, session.expires - now))

    def _is_live(self, session: Session, now: float) -> bool:
        return now < session.expires and now - session.seen < self._idle

    async def find(self, token: str, now: float) -> Session | None:
        """Session that *token* opens, None when there is none (any more). Raises Unavailable when nobody can know."""
        if not is_token(token):
            return None
        session_id = Vault.id_of(token)
        session = self._cache.get(session_id) if self._store.is_watching else None
        if session is None:
            session = await self._load(token, session_id)
        if session is None or not self._is_live(session, now):
            self._cache.pop(session_id, None)
            return None
        if now - session.seen >= self._coalescing and session_id not in self._touching:
            self._touching.add(session_id)
            self._in_background(self._touch(token, session_id, now))
        return session

    async def _load(self, token: str, session_id: str) -> Session | None:
        """One look-up for all who ask at the same time."""
        task = self._loading.get(session_id)
        if task is None:
            task = self._loading[session_id] = asyncio.create_task(self._fetch(token, session_id))
        # Shielded: the look-up is shared, so one caller who goes away must not take it from the others.
        return await asyncio.shield(task)

    async def _fetch(self, token: str, session_id: str) -> Session | None:
        try:
            session = await self._read(token, session_id)
            if session is not None and session_id not in self._stale_while_loading and self._store.is_watching:
                self._remember(session)
            return session
        finally:
            self._loading.pop(session_id, None)
            self._stale_while_loading.discard(session_id)

    async def _read(self, token: str, session_id: str) -> Session | None:
        raw = await self._sessions.get(token)
        return None if raw is None else read_session(raw, session_id)

    def _remember(self, session: Session) -> None:
        if self._most == 0:
            return
        self._cache[session.id] = session
        while len(self._cache) > self._most:
            self._cache.popitem(last=False)

    async def _touch(self, token: str, session_id: str, now: float) -> None:
        """Note the use of a session, at most once in a while; read first, so that a renewal is not undone."""
        try:
            current = await self._read(token, session_id)
            if current is None or now - current.seen < self._coalescing:
                return
            seen = replace(current, seen=now)
            await self._sessions.replace(token, write_session(seen), self._lifetime(seen, now))
        finally:
            self._touching.discard(session_id)

    async def grant(self, token: str) -> Grant:
        """Provider's tokens behind the session of *token*."""
        return read_grant(await self._grants.get(token))

    async def renew(self, token: str, session: Session, signed_in: SignedIn, now: float) -> Session | None:
        """Give *session* fresh claims and tokens; None when it was ended meanwhile: it stays ended."""
        renewed = replace(
            session,
            identity=signed_in.identity,
            acr=signed_in.acr or session.acr,
            amr=signed_in.amr or session.amr,
            refresh_at=signed_in.refresh_at,
            seen=now,
        )
        await self._grants.put(token, write_grant(signed_in.grant), max(1.0, session.expires - now))
        if not await self._sessions.replace(token, write_session(renewed), self._lifetime(renewed, now)):
            await self._grants.delete(token)
            return None
        self._cache.pop(session.id, None)
        return renewed

    @contextlib.asynccontextmanager
    async def refreshing(self, session: Session) -> AsyncIterator[bool]:
        """Hold the turn to refresh *session*, across replicas; False when somebody else holds it for too long.

        Whoever gets in must read the session again: the one before may have done the work.
        """
        turn = Turn(self._store, f"refresh:{session.id}", _REFRESH_WAIT, Reason.PROVIDER_DOWN, lease=_REFRESH_LEASE)
        try:
            await turn.__aenter__()
        except Unavailable as fault:
            if fault.reason is Reason.STORE_DOWN:
                raise
            yield False
            return
        try:
            yield True
        finally:
            await turn.__aexit__(None, None, None)

    async def is_open(self, session_id: str) -> bool:
        """True while the session of that id is in the store."""
        return await self._store.get(f"session:{session_id}") is not None

    async def end(self, token: str) -> int:
        """End the session of *token*; number ended."""
        if not is_token(token):
            return 0
        session_id = Vault.id_of(token)
        session = await self._read(token, session_id)
        if session is not None:
            for index in _indexes(session):
                await self._store.discard(index, session_id)
        return await self._end_ids([session_id])

    async def end_id(self, session_id: str) -> int:
        """End the session of that id; number ended."""
        return await self._end_ids([session_id])

    async def end_person(self, key: str) -> int:
        """End all sessions of an identity (Identity.key); number ended."""
        return await self._end_index(_index("person", key))

    async def end_subject(self, issuer: str, subject: str) -> int:
        """End all sessions of (issuer, subject); number ended."""
        return await self.end_person(identity_key(issuer, subject))

    async def end_provider_session(self, issuer: str, sid: str) -> int:
        """End the sessions that came from one session at the provider; number ended."""
        return await self._end_index(_index("sid", identity_key(issuer, sid)))

    async def list_person(self, key: str) -> tuple[str, ...]:
        """Ids of the open sessions of an identity; members that are gone are pruned."""
        index = _index("person", key)
        found = []
        for session_id in sorted(await self._store.members(index)):
            if await self.is_open(session_id):
                found.append(session_id)
            else:
                await self._store.discard(index, session_id)
        return tuple(found)

    async def _end_index(self, index: str) -> int:
        ended = await self._end_ids(await self._store.members(index))
        await self._store.delete(index)
        return ended

    async def _end_ids(self, session_ids: Iterable[str]) -> int:
        ended = 0
        for session_id in session_ids:
            ended += await self._store.take(f"session:{session_id}") is not None
            await self._store.delete(f"grant:{session_id}")
            self._cache.pop(session_id, None)
            for is_wanted, tell in self._enders:
                if is_wanted(session_id):
                    tell(session_id)
        return ended

    async def close(self) -> None:
        """Finish what runs in the background."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _index(kind: str, key: str) -> str:
    """Store key of an index; hashed, so that a dump of the store names nobody."""
    return f"index:{kind}:{hashlib.sha256(key.encode()).hexdigest()}"


def _indexes(session: Session) -> tuple[str, ...]:
    person = _index("person", session.identity.key)
    if not session.sid:
        return (person,)
    return person, _index("sid", identity_key(session.identity.issuer, session.sid))

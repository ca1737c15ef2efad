"""Open, find, renew and end sessions; the only room that knows what a session's token opens."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sidecar.config.service import Sessions
from sidecar.faults import Refused, Unavailable
from sidecar.model import Grant, Session, SignedIn, identity_key
from sidecar.reason import Reason
from sidecar.sessions.cache import Cache
from sidecar.sessions.codec import pack, read_grant, read_session, unpack, write_grant, write_session
from sidecar.sessions.indexes import index_of, indexes_of, indexes_of_provider, word_of_end
from sidecar.sessions.marks import Mark, Marks, session_of
from sidecar.sessions.store import Store
from sidecar.sessions.turn import Turn
from sidecar.sessions.vault import Vault, is_token

_LONGEST_COALESCING = 60.0
_REFRESH_WAIT = 30.0
_REFRESH_LEASE = 10.0
_PAUSE_AFTER_FAULT = 5.0
_MOST_IDS = 20_000
# Longer than any sign-in takes from the provider's answer to its session.
_LONGEST_OPENING = 600.0


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
        self._cache = Cache(store, section.cache)
        self._touching: set[str] = set()
        # Ids of tokens that opened a session not long ago: an id is a hash, and asked for with every request.
        self._ids: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._enders: list[tuple[Callable[[str], bool], Callable[[str], None]]] = []
        self._curious: list[Callable[[str], None]] = []
        self.losses = 0
        # Words of a change so far, and times that they may have gone unheard.
        self.heard = 0
        # None where nobody marks sessions: then nobody looks for marks either.
        self.marks: Marks | None = None

    def take_marks(self) -> None:
        """From now on look for marks with every session that is read."""
        self.marks = Marks(self._store, self._absolute, self._clock)

    async def start(self) -> None:
        """Begin to hear of changes made by other workers."""
        await self._store.watch("session:", self._changed, self._lost)

    @property
    def is_watching(self) -> bool:
        """True while sessions that end elsewhere are heard of at once."""
        return self._store.is_watching

    def on_end(self, is_wanted: Callable[[str], bool], ended: Callable[[str], None]) -> None:
        """Call *ended(session id)* when a session for which *is_wanted* ends anywhere, or expires.

        Word of one end may come on several ways: whoever was told must not want that id any more. Redis tells of an
        expiry when it notices, which takes moments in a busy one; ``losses`` grows when an end may go unheard.
        """
        self._enders.append((is_wanted, ended))

    def on_change(self, changed: Callable[[str], None]) -> None:
        """Call *changed(session id)* whenever a session, or what it is marked with, was written or ended."""
        self._curious.append(changed)

    def _changed(self, key: str) -> None:
        session_id = session_of(key)
        self.heard += 1
        self._cache.forget(session_id)
        for changed in self._curious:
            changed(session_id)
        if any(is_wanted(session_id) for is_wanted, _ in self._enders):
            self._in_background(self._tell_if_ended(session_id))

    def _lost(self) -> None:
        self.heard += 1
        self.losses += 1
        self._cache.clear()

    async def _tell_if_ended(self, session_id: str) -> None:
        try:
            is_open = await self.is_open(session_id)
        except Unavailable:
            self.losses += 1
            raise
        if not is_open:
            self._tell_ended(session_id)

    def ask_again(self, session_id: str) -> None:
        """Tell whoever wants to hear of it should that session have ended, unless it is known to be open."""
        if self._cache.get(session_id) is None:
            self._in_background(self._tell_if_ended(session_id))

    def _tell_ended(self, session_id: str) -> None:
        for is_wanted, ended in self._enders:
            if is_wanted(session_id):
                ended(session_id)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        async def carefully() -> None:
            with contextlib.suppress(Unavailable):
                await work

        task = asyncio.create_task(carefully())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def open(
        self, signed_in: SignedIn, now: float, previous: str | None = None, foreign: tuple[str, ...] = ()
    ) -> tuple[str, Session]:
        """Open a session: (token for the cookie, session). The token is always new; *previous* ends.

        *foreign* as in ``Session``. *now* is when the sign-in's answer came. Raises Refused(SESSION_EXPIRED) when the
        sessions of that person, or of that session at the provider, were ended since.
        """
        token = Vault.token()
        session = Session(
            id=Vault.id_of(token),
            identity=signed_in.identity,
            created=now,
            expires=min(now + self._absolute, signed_in.expires or math.inf),
            seen=now,
            auth_time=signed_in.auth_time,
            acr=signed_in.acr,
            amr=signed_in.amr,
            sid=signed_in.sid,
            refresh_at=signed_in.refresh_at,
            alias=signed_in.alias,
            foreign=foreign,
        )
        # Index first: a session that the index does not know could not be ended by its person.
        for index in indexes_of(session):
            await self._store.add(index, session.id, self._absolute)
        if signed_in.grant != Grant():
            await self._grants.put(token, write_grant(signed_in.grant), self._absolute)
        await self._sessions.put(token, pack(write_session(session)), self._lifetime(session, now))
        await self._refuse_ended(token, session)
        if previous is not None:
            await self.end(previous)
        return token, session

    async def _refuse_ended(self, token: str, session: Session) -> None:
        """Do not open what was ended while the provider was still asked about it.

        Only after the session is there: whoever ends it now finds it, and whoever did before has left word.
        """
        for index in indexes_of(session):
            ended = await self._store.get(word_of_end(index))
            if ended is not None and session.created < float(ended):
                await self.end(token)
                raise Refused(Reason.SESSION_EXPIRED, 401, "ended while the sign-in was under way")

    def _lifetime(self, session: Session, now: float) -> float:
        return max(0.001, min(self._idle, session.expires - now))

    def _is_live(self, session: Session, now: float) -> bool:
        return now < session.expires and now - session.seen < self._idle

    def at_hand(self, token: str, now: float) -> Session | None:
        """Session that *token* opens if that is known for sure and nothing is to be noted; None says nothing."""
        session_id = self._ids.get(token)
        if session_id is None:
            return None
        session = self._cache.get(session_id)
        if session is None or not self._is_live(session, now):
            return None
        is_noted = now - session.seen < self._coalescing or session_id in self._touching
        return session if is_noted else None

    def _remember_id(self, token: str, session_id: str) -> None:
        if token not in self._ids:
            if len(self._ids) >= _MOST_IDS:
                self._ids.clear()
            self._ids[token] = session_id

    async def find(self, token: str, now: float) -> Session | None:
        """Session that *token* opens, None when there is none (any more). Raises Unavailable when nobody can know."""
        if not is_token(token):
            return None
        session_id = Vault.id_of(token)
        session = self._cache.get(session_id)
        if session is None or not self._is_live(session, now):
            # Also when what is remembered is over: another worker may have noted a later use just now.
            session = await self._cache.look_up(session_id, partial(self._read, token, session_id))
            if session is None or not self._is_live(session, now):
                return None
        self._remember_id(token, session_id)
        if now - session.seen < self._coalescing or session_id in self._touching:
            return session
        self._touching.add(session_id)
        if now - session.seen < self._idle / 2:
            self._in_background(self._touch(token, session_id, now))
            return session
        # So near to its end it could pass away while its use is being noted: note first.
        with contextlib.suppress(Unavailable):
            await self._touch(token, session_id, now)
        return await self.reread(token, now)

    async def reread(self, token: str, now: float) -> Session | None:
        """Session as the store has it at this moment, past the cache: word of a change may still be on its way."""
        session = await self._read(token, Vault.id_of(token)) if is_token(token) else None
        return session if session is not None and self._is_live(session, now) else None

    async def _read(self, token: str, session_id: str) -> Session | None:
        raw = await self._sessions.get(token)
        session = None if raw is None else read_session(unpack(raw), session_id)
        return session if session is None or self.marks is None else await self.marks.applied(session)

    async def _touch(self, token: str, session_id: str, now: float) -> None:
        """Note the use of a session, at most once in a while, and never over what somebody else wrote meanwhile."""

        def used(raw: bytes) -> tuple[bytes, float] | None:
            current = read_session(unpack(raw), session_id)
            if current is None or not self._is_live(current, now) or now - current.seen < self._coalescing:
                return None
            seen = replace(current, seen=now)
            return pack(write_session(seen)), self._lifetime(seen, now)

        try:
            await self._sessions.change(token, used)
        except Unavailable:
            # A Redis that is full can be read: every request would try again at once.
            asyncio.get_running_loop().call_later(_PAUSE_AFTER_FAULT, self._touching.discard, session_id)
            raise
        self._touching.discard(session_id)

    async def grant(self, token: str) -> Grant:
        """Provider's tokens behind the session of *token*."""
        return read_grant(await self._grants.get(token))

    async def renew(self, token: str, session: Session, signed_in: SignedIn, now: float) -> Session | None:
        """Give *session* fresh claims and tokens; None when it was ended meanwhile: it stays ended.

        Tokens of somebody else end it: a session never changes hands.
        """
        if signed_in.identity.key != session.identity.key:
            await self.end(token)
            return None
        renewed = replace(
            session,
            identity=signed_in.identity,
            acr=signed_in.acr or session.acr,
            amr=signed_in.amr or session.amr,
            refresh_at=signed_in.refresh_at,
            seen=now,
        )
        await self._grants.put(token, write_grant(signed_in.grant), max(1.0, session.expires - now))
        if not await self._sessions.replace(token, pack(write_session(renewed)), self._lifetime(renewed, now)):
            await self._grants.delete(token)
            return None
        if self.marks is not None:
            await self.marks.refreshed(session)
        self._cache.forget(session.id)
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
        # Word of what the one before did may still be on its way.
        self._cache.forget(session.id)
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
        raw = await self._sessions.take(token)
        await self._finish(session_id)
        session = None if raw is None else read_session(unpack(raw), session_id)
        if session is not None:
            for index in indexes_of(session):
                await self._store.discard(index, session_id)
        return int(raw is not None)

    async def end_id(self, session_id: str) -> int:
        """End the session of that id; number ended."""
        has_ended = await self._store.take(f"session:{session_id}") is not None
        await self._finish(session_id)
        return int(has_ended)

    async def _finish(self, session_id: str) -> None:
        self._cache.forget(session_id)
        self._tell_ended(session_id)
        await self._store.delete(f"grant:{session_id}")
        if self.marks is not None:
            await self.marks.forget(session_id)

    async def end_person(self, key: str) -> int:
        """End all sessions of an identity (Identity.key); number ended."""
        return await self._end_index(index_of("person", key))

    async def end_subject(self, issuer: str, subject: str) -> int:
        """End all sessions of (issuer, subject); number ended."""
        return await self.end_person(identity_key(issuer, subject))

    async def end_alias(self, issuer: str, alias: str) -> int:
        """End all sessions of whoever *issuer* calls *alias*, which may be no subject; number ended."""
        return await self._end_index(index_of("alias", identity_key(issuer, alias)))

    async def end_provider_session(self, issuer: str, sid: str, subject: str = "") -> int:
        """End the sessions that came from one session at the provider; number ended.

        Of *subject* those end, too, of which the provider never said from which of its sessions they came.
        """
        return sum([await self._end_index(index) for index in indexes_of_provider(issuer, sid, subject)])

    async def list_all(self) -> tuple[str, ...]:
        """Ids of all open sessions; looks through the whole store."""
        keys = await self._store.names("session:")
        # What sessions are marked with stands beside them, and may be there without one.
        return tuple(sorted(session_of(key) for key in keys if "/" not in key))

    async def mark_person(self, key: str, mark: Mark, now: float) -> int:
        """Mark all sessions of an identity (Identity.key); number marked. Only after ``take_marks``."""
        return await self._mark_index(index_of("person", key), mark, now)

    async def mark_provider_session(self, issuer: str, sid: str, subject: str, mark: Mark, now: float) -> int:
        """Mark the sessions that ``end_provider_session`` would end; number marked."""
        indexes = indexes_of_provider(issuer, sid, subject)
        return sum([await self._mark_index(index, mark, now) for index in indexes])

    async def _mark_index(self, index: str, mark: Mark, now: float) -> int:
        assert self.marks is not None  # noqa: S101 - whoever marks has said so at the start
        marked = 0
        for session_id in await self._store.members(index):
            # Also those that are about to be opened: what they were opened with may be older.
            await self.marks.put(session_id, mark, now)
            self._cache.forget(session_id)
            marked += await self.is_open(session_id)
        return marked

    async def list_person(self, key: str) -> tuple[str, ...]:
        """Ids of the open sessions of an identity."""
        members = await self._store.members(index_of("person", key))
        return tuple([session_id for session_id in sorted(members) if await self.is_open(session_id)])

    async def _end_index(self, index: str) -> int:
        # Before anything is looked for: who is signing in at this moment may be in no index yet.
        await self._store.put(word_of_end(index), repr(self._clock()).encode(), _LONGEST_OPENING)
        ended = 0
        for session_id in await self._store.members(index):
            # Only what ended leaves the index: of the others one may be about to be opened.
            if await self.end_id(session_id):
                await self._store.discard(index, session_id)
                ended += 1
        return ended

    async def close(self) -> None:
        """Finish what runs in the background."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

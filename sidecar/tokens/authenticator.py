"""Recognise who shows an API token of ours, and hear at once when one has ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from sidecar.config.callers import Tokens as Section
from sidecar.config.callers import service_identity
from sidecar.core.accounts import refusal_of
from sidecar.core.api_tokens import digest_of, is_intact, is_ours
from sidecar.core.audit import Event
from sidecar.core.credentials import basic_in, bearer_in
from sidecar.directory.tokens import ApiToken, Kind, Tokens
from sidecar.faults import Refused, Unavailable
from sidecar.model import Identity, Person, Session, Visit
from sidecar.people import Changes
from sidecar.reason import Reason
from sidecar.tokens.issuing import told

Who = Callable[[Person], Awaitable[tuple[Identity, tuple[str, ...]] | None]]
Record = Callable[[Event, Mapping[str, object]], None]

_MOST = 10_000
# As long as word of every revocation is sure to come, and as long as it is not.
_HEARD, _UNHEARD = 60.0, 1.0
_USED_EVERY = 60.0
_LOOK_EVERY = 0.5
_SESSION = "token-"


@dataclass(slots=True)
class _Entry:
    session: Session
    token: ApiToken
    owner_id: str
    asked: float
    used: float


class TokenAuthenticator:
    """Knows the tokens in the directory, and remembers those that were shown for a short while."""

    via = "token"
    # What it gives is who somebody is at this moment: sources were asked already.
    knows = True

    def __init__(
        self,
        section: Section,
        tokens: Tokens,
        who: Who,
        changes: Changes,
        *,
        roles: Collection[str],
        is_shared: bool,
        record: Record,
    ) -> None:
        """Ask *tokens*, and *who* for what a person is by now; *roles* are those that there are.

        *is_shared* says that *changes* come from other processes, too: else nobody would tell of a revocation.
        """
        self._longest = section.max_lifetime.total_seconds()
        self._basic = section.basic
        self._tokens = tokens
        self._who = who
        self._changes = changes
        self._roles = frozenset(roles)
        self._is_shared = is_shared
        self._record = record
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._generation = 0
        self._tasks: set[asyncio.Task[None]] = set()
        # Told of a use now and then: which token, after how many seconds without one, and about it.
        self.heard: Callable[[str, float, Mapping[str, object]], None] | None = None
        changes.listen(self._forget, self._clear)

    async def identify(self, visit: Visit, now: float) -> Session | None:
        """Who shows a token of ours; None without one.

        Raises Refused: TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_REVOKED with 401, PERSON_DISABLED and IDENTITY_INCOMPLETE
        with 403; Unavailable when nobody can know.
        """
        text, user = self._shown(visit)
        if not text:
            return None
        if not is_intact(text):
            raise Refused(Reason.TOKEN_INVALID, 401, "no token of this sidecar has that checksum")
        secret_hash = digest_of(text)
        entry = self._remembered(secret_hash, now) or await self._looked_up(secret_hash, visit, now)
        return self._used(entry, user, visit, now)

    def at_hand(self, visit: Visit, now: float) -> Session | None:
        """As ``identify`` for a token that was shown a short while ago, None for any other.

        Raises Refused(TOKEN_INVALID, 401).
        """
        text, user = self._shown(visit)
        entry = self._remembered(digest_of(text), now) if text else None
        return None if entry is None else self._used(entry, user, visit, now)

    def _used(self, entry: _Entry, user: str | None, visit: Visit, now: float) -> Session:
        if user is not None and self._basic == "same_user" and user != entry.session.identity.username:
            raise Refused(Reason.TOKEN_INVALID, 401, "the user name is not the owner's")
        self._note_use(entry, visit, now)
        return entry.session

    def _shown(self, visit: Visit) -> tuple[str, str | None]:
        """(token, user name) as sent; the user name is None unless it came as Basic."""
        bearer = bearer_in(visit.authorization)
        if is_ours(bearer):
            return bearer, None
        pair = basic_in(visit.authorization) if self._basic != "never" else None
        return (pair[1], pair[0]) if pair is not None and is_ours(pair[1]) else ("", None)

    def _remembered(self, secret_hash: str, now: float) -> _Entry | None:
        entry = self._entries.get(secret_hash)
        if entry is None or now >= entry.session.expires:
            return None
        return entry if now - entry.asked < self._patience else None

    @property
    def _patience(self) -> float:
        return _HEARD if self._is_shared and self._changes.is_heard else _UNHEARD

    async def _looked_up(self, secret_hash: str, visit: Visit, now: float) -> _Entry:
        await self._changes.watch()
        generation = self._generation
        found = await self._tokens.shown(secret_hash)
        if found is None:
            raise Refused(Reason.TOKEN_INVALID, 401, "no such token")
        try:
            session = await self._session(*found, now)
        except Refused as refused:
            self._entries.pop(secret_hash, None)
            about = {"reason": refused.reason.value, "client": visit.client, "reference": visit.reference}
            self._record(Event.TOKEN_REFUSED, {**told(found[0]), **about})
            raise
        former = self._entries.get(secret_hash)
        if former is not None and former.session == session:
            # The very same, so that whatever was worked out for it is still good.
            session = former.session
        owner_id = found[1].id if found[1] is not None else ""
        entry = _Entry(
            session, found[0], owner_id, now, max(found[0].last_used, former.used if former is not None else 0.0)
        )
        if generation == self._generation:
            self._entries[secret_hash] = entry
            self._entries.move_to_end(secret_hash)
            if len(self._entries) > _MOST:
                self._entries.popitem(last=False)
        return entry

    async def _session(self, token: ApiToken, owner: Person | None, now: float) -> Session:
        # A maximum that was made shorter holds for the tokens of before, too.
        expires = min(token.expires, token.created + self._longest)
        if token.revoked is not None:
            raise Refused(Reason.TOKEN_REVOKED, 401, f"by {token.revoked_by}")
        if now >= expires:
            raise Refused(Reason.TOKEN_EXPIRED, 401, "the API token has ended")
        if (refused := refusal_of(owner)) is not None:
            raise Refused(refused, 403, "switched off")
        if token.kind is Kind.SERVICE:
            who, roles = service_identity(token.subject), tuple(role for role in token.roles if role in self._roles)
        else:
            who, roles = await self._person(owner), None
        return Session(
            id=_SESSION + token.id,
            identity=who,
            created=token.created,
            expires=expires,
            seen=token.created,
            # Nobody signed in for it, so it never meets what a rule requires of a sign-in.
            auth_time=0.0,
            scope=token.scope,
            roles=roles,
        )

    async def _person(self, owner: Person | None) -> Identity:
        known = await self._who(owner) if owner is not None else None
        if known is None:
            raise Refused(Reason.IDENTITY_INCOMPLETE, 403, "nothing is known of the owner; they have to sign in once")
        return known[0]

    def _note_use(self, entry: _Entry, visit: Visit, now: float) -> None:
        if now - entry.used < _USED_EVERY:
            return
        if self.heard is not None:
            # One that was never used has been silent since it was made.
            silent = now - (entry.used or entry.token.created)
            self.heard(entry.token.id, silent, {**told(entry.token), "client": visit.client})
        entry.used = now
        task = asyncio.create_task(self._write_use(entry.token.id, now))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write_use(self, token_id: str, now: float) -> None:
        # A directory that is down is said elsewhere; the next use is noted again.
        with contextlib.suppress(Unavailable):
            await self._tokens.used(token_id, now, _USED_EVERY)

    # What ends

    async def watch(
        self, live: Callable[[], Iterable[str]], end: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        """Look for ever after what streams for tokens: *live* gives ids of sessions, *end* is told of the ended."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            mine = {one for one in live() if one.startswith(_SESSION)}
            if not mine:
                continue
            now = clock()
            good = {entry.session.id for name, entry in self._entries.items() if self._remembered(name, now)}
            for session_id in mine - good:
                # A directory that is down says nothing; it is asked again.
                with contextlib.suppress(Unavailable):
                    if not await self._is_good(session_id, now):
                        end(session_id)

    async def _is_good(self, session_id: str, now: float) -> bool:
        found = await self._tokens.get(session_id.removeprefix(_SESSION))
        if found is None:
            return False
        try:
            await self._session(*found, now)
        except Refused:
            return False
        return True

    def _forget(self, name: str) -> None:
        """Drop what is known of the person, or the token, of that id."""
        self._generation += 1
        for secret_hash, entry in list(self._entries.items()):
            # A service that had no record of its own may have one by now.
            if name in (entry.token.id, entry.owner_id) or not entry.owner_id:
                del self._entries[secret_hash]

    def _clear(self) -> None:
        self._generation += 1
        self._entries.clear()

    async def close(self) -> None:
        """Let the last notes of use be written."""
        if self._tasks:
            await asyncio.wait(self._tasks)

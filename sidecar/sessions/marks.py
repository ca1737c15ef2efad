"""Ask something of sessions whose records only their tokens open: to be refreshed, or to count as weak."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any

from sidecar.faults import Unavailable
from sidecar.model import Session
from sidecar.reason import Reason
from sidecar.sessions.store import Store

_TRIES = 5
# Whoever asks about a session may have waited for its turn for so long.
_WAITED = 60.0
_MOST_AHEAD = 10_000


class Mark(Enum):
    """What is asked of a session."""

    REFRESH = "refresh"
    """Its claims are out of date: the provider is asked before it is used again."""
    WEAK = "weak"
    """Its sign-in counts as the oldest and weakest there is, so that a rule that asks for more asks again."""


class Marks:
    """Marks stand beside the session in the store, so that word of them reaches every cache like that of an end."""

    def __init__(self, store: Store, lifetime: float, clock: Callable[[], float]) -> None:
        """Keep marks in *store* for *lifetime* seconds, as long as any session may last; *clock* gives the time."""
        self._store = store
        self._lifetime = lifetime
        self._clock = clock
        # Session id → what was made of a mark by a clock that is ahead of ours, and what the mark says.
        self._ahead: dict[str, tuple[float, float]] = {}

    async def put(self, session_id: str, mark: Mark, now: float) -> None:
        """Mark a session, beside what it was marked with before. Raises Unavailable."""
        key = _key(session_id)
        for _ in range(_TRIES):
            held = await self._store.get(key)
            value = json.dumps({**_read(held), mark.value: now}).encode()
            if held is None:
                is_done = await self._store.claim(key, value, self._lifetime)
            else:
                is_done = await self._store.exchange(key, held, value, self._lifetime)
            if is_done:
                return
        raise Unavailable(Reason.BUSY, "somebody else keeps marking the same session")

    async def applied(self, session: Session) -> Session:
        """The session as its marks make it. Raises Unavailable."""
        marks = _read(await self._store.get(_key(session.id)))
        if Mark.WEAK.value in marks:
            session = replace(session, auth_time=0.0, acr="", amr=())
        if Mark.REFRESH.value in marks:
            # In the past, so it is due; and it says which mark it was.
            session = replace(session, refresh_at=self._past(session.id, marks[Mark.REFRESH.value]))
        return session

    def _past(self, session_id: str, said: float) -> float:
        now = self._clock()
        if said <= now:
            return said
        if len(self._ahead) >= _MOST_AHEAD:
            self._ahead.clear()
        self._ahead[session_id] = (now - _WAITED, said)
        return now - _WAITED

    async def refreshed(self, session: Session) -> None:
        """Take the mark away that *session* was refreshed for; one that was put meanwhile stays."""
        key = _key(session.id)
        held = await self._store.get(key)
        marks = _read(held)
        shown, said = self._ahead.pop(session.id, (None, 0.0))
        meant = said if shown == session.refresh_at else session.refresh_at
        if held is None or marks.pop(Mark.REFRESH.value, None) != meant:
            return
        if marks:
            await self._store.exchange(key, held, json.dumps(marks).encode(), self._lifetime)
        else:
            await self._store.release(key, held)

    async def forget(self, session_id: str) -> None:
        """Take all marks of a session away."""
        await self._store.delete(_key(session_id))


def session_of(key: str) -> str:
    """Id of the session that a store key below ``session:`` is about: its record, or its marks."""
    return key.partition(":")[2].partition("/")[0]


def _key(session_id: str) -> str:
    return f"session:{session_id}/marks"


def _read(raw: bytes | None) -> dict[str, Any]:
    marks: dict[str, Any] = {} if raw is None else json.loads(raw)
    return marks

"""Remember live sessions, for as long as word of their changes is sure to come."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from sidecar.model import Session
from sidecar.sessions.store import Store

LookUp = Callable[[], Coroutine[Any, Any, Session | None]]


class Cache:
    """Sessions by id, the least recently used ones dropped first, and look-ups that all who ask at once share."""

    def __init__(self, store: Store, most: int) -> None:
        """Remember at most *most* sessions (0: none), and only while *store* is watching."""
        self._store = store
        self._most = most
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[Session | None]] = {}

    def get(self, session_id: str) -> Session | None:
        """Give the session of that id, None when it is not remembered or may have changed unheard."""
        if not self._store.is_watching:
            return None
        session = self._sessions.get(session_id)
        if session is not None:
            self._sessions.move_to_end(session_id)
        return session

    async def look_up(self, session_id: str, look_up: LookUp) -> Session | None:
        """Share one *look_up* among all who ask for that id at the same time, and remember what it gives."""
        task = self._under_way.get(session_id)
        if task is None:
            task = self._under_way[session_id] = asyncio.create_task(look_up())
            task.add_done_callback(lambda done: self._settle(session_id, done))
        # Shielded: the look-up is shared, so one caller who goes away must not take it from the others.
        return await asyncio.shield(task)

    def _settle(self, session_id: str, task: asyncio.Task[Session | None]) -> None:
        is_current = self._under_way.get(session_id) is task
        if is_current:
            del self._under_way[session_id]
        if task.cancelled() or task.exception() is not None:
            return
        session = task.result()
        # Forgotten meanwhile means changed meanwhile: the value was read before that, and must not be remembered.
        if session is not None and is_current and self._store.is_watching:
            self._remember(session)

    def _remember(self, session: Session) -> None:
        self._sessions[session.id] = session
        while len(self._sessions) > self._most:
            self._sessions.popitem(last=False)

    def forget(self, session_id: str) -> None:
        """Drop a session that changed; who asks from now on gets a look-up that begins after the change."""
        self._sessions.pop(session_id, None)
        self._under_way.pop(session_id, None)

    def clear(self) -> None:
        """Drop everything, as any of it may have changed."""
        self._sessions.clear()
        self._under_way.clear()

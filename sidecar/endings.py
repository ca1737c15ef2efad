"""Tell open streams and WebSockets that their session is over, within a second."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet, WeakValueDictionary

from sidecar.faults import Unavailable
from sidecar.model import Session, Visit
from sidecar.sessions.keeper import SessionKeeper
from sidecar.upstream.ending import Callback, Ending

_EVERY = 0.5


class _Timed(Ending):
    __slots__ = ("expires", "is_kept")

    def __init__(self, expires: float, *, is_kept: bool) -> None:
        super().__init__()
        self.expires = expires
        self.is_kept = is_kept


class Opener(Protocol):
    """Whoever opens a WebSocket: in which session, and with which token when that is a browser's."""

    @property
    def session(self) -> Session:
        """As they are known by now."""

    @property
    def token(self) -> str:
        """What opens the session, "" for programs."""


class Socket(Ending):
    """The end of one WebSocket: that of its session, or its own."""

    __slots__ = ("_whole", "opener", "visit")

    def __init__(self, whole: Ending, visit: Visit, opener: Opener) -> None:
        """*opener*, whose session ends with *whole*, opened it by *visit*."""
        super().__init__()
        self._whole = whole
        self.visit = visit
        self.opener = opener

    def watch(self, callback: Callback) -> None:
        """See Ending; a second end may come after the first."""
        super().watch(callback)
        self._whole.watch(callback)

    def unwatch(self, callback: Callback) -> None:
        """See Ending."""
        super().unwatch(callback)
        self._whole.unwatch(callback)


class Endings:
    """One ending per session that something is under way for; they vanish with the last of it."""

    def __init__(self, keeper: SessionKeeper, clock: Callable[[], float]) -> None:
        """Hear of ended sessions from *keeper*; *clock* gives epoch seconds."""
        self._keeper = keeper
        self._clock = clock
        self._live: WeakValueDictionary[str, _Timed] = WeakValueDictionary()
        self._sockets: WeakSet[Socket] = WeakSet()
        self._losses = keeper.losses
        keeper.on_end(self._live.__contains__, self.end)

    @property
    def heard(self) -> int:
        """How often word of sessions has come: to be noted before one is looked for, and given to ``of`` then."""
        return self._keeper.heard

    def of(self, session: Session, *, is_kept: bool = True, since: int | None = None) -> Ending:
        """Ending of *session*; whoever streams keeps it alive. *is_kept* when it is in the store, as no program's is.

        Should it have ended since *since* (what ``heard`` was), that is told now; without it, an earlier end is not.
        """
        ending = self._live.get(session.id)
        if ending is None:
            ending = self._live[session.id] = _Timed(session.expires, is_kept=is_kept)
        if is_kept and since is not None and since != self._keeper.heard:
            self._keeper.ask_again(session.id)
        return ending

    def of_socket(self, whole: Ending | None, visit: Visit, opener: Opener | None) -> Socket | None:
        """Ending of one WebSocket, see ``Socket``; None for one that anybody may open."""
        if whole is None or opener is None:
            return None
        socket = Socket(whole, visit, opener)
        self._sockets.add(socket)
        return socket

    def sockets(self) -> tuple[Socket, ...]:
        """Those that are open, or about to be."""
        return tuple(self._sockets)

    def live(self) -> tuple[str, ...]:
        """Ids of the sessions that something is under way for."""
        return tuple(self._live)

    def of_late(self, session: Session, *, is_kept: bool) -> Ending:
        """As ``of`` for what began a moment ago: should it have ended since, that is told now."""
        return self.of(session, is_kept=is_kept, since=-1)

    def end(self, session_id: str) -> None:
        """Say that the session of that id is over."""
        ending = self._live.pop(session_id, None)
        if ending is not None:
            ending.end()

    def end_expired(self) -> None:
        """End what has outlived its session's absolute lifetime."""
        now = self._clock()
        for session_id, ending in list(self._live.items()):
            if now >= ending.expires:
                self.end(session_id)

    async def end_unheard(self) -> None:
        """Ask the store about each, when word of an end may have been missed. Raises Unavailable."""
        if self._keeper.is_watching and self._losses == self._keeper.losses:
            return
        losses = self._keeper.losses
        for session_id, ending in list(self._live.items()):
            # Also those that nobody watches yet: a request that waits for its turn will.
            if ending.is_kept and not await self._keeper.is_open(session_id):
                self.end(session_id)
        self._losses = losses

    async def watch_the_clock(self) -> None:
        """Look round for ever."""
        while True:
            await asyncio.sleep(_EVERY)
            self.end_expired()
            # A store that is down says nothing about sessions; ask again next time.
            with contextlib.suppress(Unavailable):
                await self.end_unheard()

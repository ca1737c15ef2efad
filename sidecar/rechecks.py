"""Look again at open WebSockets when something about their people changes: the rules may not let them in any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

from sidecar.admission import Caller
from sidecar.core.policy import decide
from sidecar.endings import Opener, Socket
from sidecar.faults import Refused, Unavailable
from sidecar.gate import Gate
from sidecar.model import Decision, Effect, Session, Visit

if TYPE_CHECKING:
    from sidecar.people import Changes

_EVERY = 0.5
# So many are looked at before others have their turn.
_AT_ONCE = 50
# Beyond so many people in one look, all sockets are looked at.
_MOST_PEOPLE = 100


class Rechecks:
    """Ends each WebSocket whose opener would be turned away now, and says so in the audit log.

    An age of the sign-in that a rule asks for is one at the handshake: that it passes ends nothing.
    """

    def __init__(
        self,
        gate: Gate,
        changes: Changes | None,
        identities: Callable[[str], Awaitable[Collection[str]]],
        clock: Callable[[], float],
    ) -> None:
        """Hear of sessions from the gate's keeper, of people from *changes*; *clock* gives epoch seconds.

        *identities* gives the keys of the identities of a person (id), none when nobody knows them.
        """
        self._gate = gate
        self._identities = identities
        self._clock = clock
        self._doubted: set[str] = set()
        self._people: set[str] = set()
        self._doubts_all = False
        gate.keeper.on_change(self._doubted.add)
        if changes is not None:
            changes.listen(self._people.add, self._doubt_all)

    def _doubt_all(self) -> None:
        self._doubts_all = True

    async def watch(self) -> None:
        """Look round for ever."""
        while True:
            await asyncio.sleep(_EVERY)
            # Who cannot be asked now is asked about the next time.
            with contextlib.suppress(Unavailable):
                await self.look()

    async def look(self) -> None:
        """Look at those about whom something may have changed. Raises Unavailable."""
        doubted, people, is_all = frozenset(self._doubted), frozenset(self._people), self._doubts_all
        self._doubted.clear()
        self._people.clear()
        self._doubts_all = False
        sockets = self._gate.endings.sockets()
        if not sockets or not (doubted or people or is_all):
            return
        try:
            keys = await self._keys_of(people)
            for number, socket in enumerate(sockets):
                session = socket.opener.session
                is_doubted = is_all or keys is None or session.id in doubted or session.identity.key in keys
                if is_doubted and not socket.is_over:
                    await self._look_at(socket)
                if number % _AT_ONCE == _AT_ONCE - 1:
                    await asyncio.sleep(0)
        except Unavailable:
            self._doubted |= doubted
            self._people |= people
            self._doubts_all |= is_all
            raise

    async def _keys_of(self, people: Collection[str]) -> frozenset[str] | None:
        """Keys of all identities of *people*; None when they are anybody's: of somebody who is gone, or of too many."""
        if len(people) > _MOST_PEOPLE:
            return None
        found = [await self._identities(one) for one in people]
        return frozenset(key for keys in found for key in keys) if all(found) else None

    async def _look_at(self, socket: Socket) -> None:
        now = self._clock()
        visit = socket.visit
        caller: Caller | None = None
        try:
            caller = await self._caller(visit, socket.opener, now)
            if caller is None:
                # Who tells of ends tells of this one.
                return
            decision = decide(self._gate.plan.rules.about(visit), visit, caller.standing, now)
        except Refused as refused:
            decision = Decision(Effect.DENY, refused.reason, "")
        if decision.effect is Effect.DENY:
            self._gate.say(decision, visit, caller, None)
            socket.end()

    async def _caller(self, visit: Visit, opener: Opener, now: float) -> Caller | None:
        """Who they are by now, None when their session is over, or somebody else looks after it."""
        if opener.token:
            session = await self._session(opener.token, now)
            return None if session is None else await self._gate.known_caller(session, "cookie", opener.token, now)
        for authenticator in self._gate.authenticators:
            # What knows people by itself (tokens of ours) tells of every change, too.
            found = None if authenticator.knows else await authenticator.identify(visit, now)
            if found is not None:
                return await self._gate.known_caller(found, authenticator.via, "", now)
        return None

    async def _session(self, token: str, now: float) -> Session | None:
        # Not by ``find``: nobody has used the session.
        return self._gate.keeper.at_hand(token, now) or await self._gate.keeper.reread(token, now)

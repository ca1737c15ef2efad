"""Look whether providers can be reached when sign-ins give reason to, and note what was seen.

A sign-in that failed is a reason to look, never evidence: anybody can begin one and bring back a bad code. What counts
is a question of our own, over connections of their own, in which no browser has a part.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial

import structlog

from sidecar.cancelling import cancelled
from sidecar.faults import Unavailable, Unreached
from sidecar.logins.flight import Flight
from sidecar.logins.login import Login
from sidecar.portal.outages import Outages
from sidecar.reason import Reason
from sidecar.sessions.store import Store

_log = structlog.get_logger("outages")
# The longest look, and how long what it saw holds while somebody waits, in seconds.
_PATIENCE, _HOLDS = 5.0, 5.0
# Sign-ins make somebody look that often while all is well, and without them that often while it is not.
_WHILE_WELL, _WHILE_AWAY = 60.0, 30.0
_MARK_HOLDS, _MARK_EVERY = 30 * 86400.0, 43200.0


class Sight(Enum):
    """What a look saw: a provider that answers as it should, one that answers otherwise, or nobody."""

    WELL = "well"
    WRONG = "wrong"
    AWAY = "away"


class Lookout:
    """Looks, once for everybody who wants to know at the same time."""

    def __init__(self, logins: Mapping[str, Login], outages: Outages, store: Store, clock: Callable[[], float]) -> None:
        """Look at *logins* and tell *outages*; what was ever reached is marked in *store*; *clock* gives seconds."""
        self._logins = logins
        self._outages = outages
        self._store = store
        self._clock = clock
        self._flights = {name: Flight(partial(self._look, login)) for name, login in logins.items()}
        self._seen: dict[str, tuple[float, Sight]] = {}
        self._marked: dict[str, float] = {}
        self._doubted: set[str] = set()
        self._dues: dict[str, asyncio.TimerHandle] = {}
        self._waits: dict[str, asyncio.Task[None]] = {}

    def is_away(self, name: str) -> bool:
        """True while the provider of the login *name* is known not to be reached."""
        return self._outages.is_away(name)

    async def before(self, name: str) -> None:
        """To be called before a sign-in at *name* begins. Raises Unreached when nobody is there who could end it."""
        if not self._logins[name].calls_provider:
            return
        if await self._outages.hears_away(name, self._clock()):
            if await self.sight(name) is Sight.AWAY:
                raise Unreached(Reason.PROVIDER_DOWN, f"{name} could not be reached a moment ago")
        elif self._age(name) >= _WHILE_WELL:
            # Nobody waits for it: the browser goes on to the provider.
            self._flights[name].start()

    def doubt(self, name: str, fault: Unavailable) -> None:
        """Take in that a sign-in at *name* failed by *fault*."""
        if isinstance(fault, Unreached) and name in self._flights:
            self._doubted.add(name)
            if name not in self._dues:
                # What was seen before it failed says little, but bad callbacks must not make us ask all day.
                loop = asyncio.get_running_loop()
                self._dues[name] = loop.call_later(max(0.0, _HOLDS - self._age(name)), self._is_due, name)

    def _is_due(self, name: str) -> None:
        del self._dues[name]
        self._flights[name].start()

    async def works(self, name: str) -> None:
        """Take in that somebody signed in at *name*. Raises Unavailable when the store is down."""
        self._doubted.discard(name)
        self._seen[name] = (_now(), Sight.WELL)
        await self._outages.answered(name, self._clock())
        await self._mark(self._logins[name])

    async def sight(self, name: str) -> Sight:
        """What is seen of *name* by now, at most some seconds old. Raises Unavailable when the store is down."""
        if self._age(name) < _HOLDS:
            return self._seen[name][1]
        return await self._flights[name].join()

    async def was_reached(self, name: str) -> bool:
        """True when the provider of *name*, at its present address, answered well within the last thirty days."""
        return await self._store.get(_mark_of(self._logins[name])) is not None

    async def close(self) -> None:
        """Stop looking."""
        for due in self._dues.values():
            due.cancel()
        closing = (flight.close() for flight in self._flights.values())
        await asyncio.gather(cancelled(self._waits.values()), *closing, return_exceptions=True)

    def _age(self, name: str) -> float:
        return _now() - self._seen[name][0] if name in self._seen else float("inf")

    async def _look(self, login: Login) -> Sight:
        fault: Unavailable | None = None
        try:
            async with asyncio.timeout(_PATIENCE):
                await login.reach()
        except TimeoutError:
            fault = Unreached(Reason.PROVIDER_DOWN, f"{login.name}: no answer in {_PATIENCE:.0f} seconds")
        except Unavailable as error:
            fault = error
        sight = Sight.WELL if fault is None else Sight.AWAY if isinstance(fault, Unreached) else Sight.WRONG
        self._seen[login.name] = (_now(), sight)
        if not isinstance(fault, Unreached):
            await self._outages.reached(login.name, self._clock())
        elif login.calls_provider or login.name in self._doubted:
            await self._outages.unreached(login.name, fault, self._clock())
            self._wait_for(login.name)
        if sight is Sight.WELL:
            await self._mark(login)
        return sight

    async def _mark(self, login: Login) -> None:
        if _now() - self._marked.get(login.name, float("-inf")) >= _MARK_EVERY:
            await self._store.put(_mark_of(login), b"1", _MARK_HOLDS)
            self._marked[login.name] = _now()

    def _wait_for(self, name: str) -> None:
        """Look again until it is back: perhaps nobody signs in meanwhile."""
        if name not in self._waits:
            self._waits[name] = task = asyncio.create_task(self._until_back(name))
            task.add_done_callback(lambda _: self._waits.pop(name, None))

    async def _until_back(self, name: str) -> None:
        while self._outages.is_away(name):
            await asyncio.sleep(_WHILE_AWAY * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            try:
                is_away = await self._outages.hears_away(name, self._clock())
                # One of all replicas looks.
                if is_away and await self._store.claim(f"outage:{name}:look", b"1", _WHILE_AWAY / 2):
                    await self._flights[name].join()
            except Unavailable as fault:
                _log.warning("could not look at a provider", provider=name, detail=fault.detail)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _mark_of(login: Login) -> str:
    # By its address: what was reached elsewhere says nothing of where it is looked for now.
    place = f"{login.name}\n{login.place}"
    return f"reached:{hashlib.sha256(place.encode()).hexdigest()[:32]}"

"""Know which providers cannot be reached, ask them again at a slow pace, and say once that it began and ended."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from sidecar.core.audit import Event
from sidecar.faults import Unavailable, Unreached
from sidecar.model import Session
from sidecar.reason import Reason
from sidecar.sessions.store import Store
from sidecar.telemetry.metrics import Metrics

_log = structlog.get_logger("outages")
# Seconds between two questions: doubled with each that is not answered, and different by chance.
_FIRST_PAUSE, _LONGEST_PAUSE = 15.0, 120.0
# After an outage, sessions are refreshed spread over so many seconds: not all at the moment the provider is back.
_SPREAD = 30.0
# Longer than any pause, so that an outage is forgotten only when nobody asks for that provider any more.
_REMEMBERED = 3600.0
_MOST_PUT_OFF = 10_000
# Seconds between two looks at what other replicas have found out.
_HEARD = 5.0
# A provider that answers, and at which nobody has failed to refresh for so many seconds, is back.
_QUIET = 300.0
Record = Callable[[Event, Mapping[str, object]], None]


@dataclass(slots=True)
class _Outage:
    """What this process knows of one provider that does not answer, or (not ``is_silent``) only with faults.

    ``refused_at`` is when the last refresh failed; what sign-ins alone found out ends as soon as it answers.
    """

    since: float
    is_silent: bool
    faults: int = 0
    until: float = 0.0
    refused_at: float = 0.0


class Outages:
    """Which providers are away; the store tells the replicas of each other's findings."""

    def __init__(self, store: Store, limit: float | None, record: Record, metrics: Metrics) -> None:
        """Sessions may live *limit* seconds beyond the time at which they were to be refreshed, None: as ever."""
        self._store = store
        self._limit = limit
        self._record = record
        self._metrics = metrics
        self._away: dict[str, _Outage] = {}
        self._back: dict[str, float] = {}
        self._heard: dict[str, float] = {}
        self._sure: set[str] = set()
        # Until when sessions that their provider answers in a way that is of no use are not to be asked for again.
        self._put_off: OrderedDict[str, float] = OrderedDict()
        # No secret depends on it.
        self._chance = random.Random()  # noqa: S311

    def complaints(self) -> Mapping[str, str]:
        """What an operator should look at: providers that cannot be reached, or answer with faults alone."""
        return {f"provider.{name}": _WORDS[known.is_silent] for name, known in self._away.items()}

    def bear(self, session: Session, now: float) -> Session:
        """Let *session* live on without word of its provider. Raises Unavailable when that was long enough."""
        if self._is_over(session, now):
            detail = f"{session.provider} was not reached for longer than sessions.outage"
            raise Unreached(Reason.PROVIDER_DOWN, detail).at(session.provider)
        return session

    def _is_over(self, session: Session, now: float) -> bool:
        return self._limit is not None and now - session.refresh_at > self._limit

    async def may_ask(self, session: Session, now: float) -> bool:
        """True when it is time to ask the provider of *session*. Raises Unavailable when the store is down."""
        name = session.provider
        known = self._away.get(name)
        if now < self._put_off.get(session.id, 0.0):
            return False
        if known is None:
            return self._is_over(session, now) or now >= self._back.get(name, 0.0) + self._turn(session)
        if now < known.until:
            return False
        key = _key(name, is_silent=known.is_silent)
        if await self._store.get(key) is None:
            # Another replica has reached it.
            self._is_back(name, now)
            return False
        pause = self._pause(known.faults)
        known.until = now + pause
        # One of all replicas asks; the others hear of the end by the key that is gone.
        return await self._store.claim(f"{key}:turn", b"1", pause / 2)

    @staticmethod
    def _turn(session: Session) -> float:
        """When after an outage this session is refreshed, by its id: seconds from 0 to the whole spread."""
        return _SPREAD * (sum(session.id.encode()) % 64) / 64

    def _pause(self, faults: int) -> float:
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(faults, 10))
        return longest * self._chance.uniform(0.5, 1.0)

    def put_off(self, session: Session, detail: str, now: float) -> None:
        """Note that the provider answered, but that nothing can be done with its answer about *session*."""
        _log.warning("a session cannot be refreshed", provider=session.provider, session=session.id, detail=detail)
        self._put_off[session.id] = now + _LONGEST_PAUSE * self._chance.uniform(0.5, 1.0)
        if len(self._put_off) > _MOST_PUT_OFF:
            self._put_off.popitem(last=False)

    async def failed(self, name: str, fault: Unavailable, now: float) -> None:
        """Note that a session could not be refreshed at the provider *name*."""
        known = await self._noted(name, fault, now)
        known.refused_at = now

    async def unreached(self, name: str, fault: Unreached, now: float) -> None:
        """Note that somebody who looked did not reach the provider *name*."""
        known = self._away.get(name)
        if known is None or known.is_silent:
            await self._noted(name, fault, now)

    async def _noted(self, name: str, fault: Unavailable, now: float) -> _Outage:
        self._sure.discard(name)
        is_silent = isinstance(fault, Unreached)
        known = self._away.get(name)
        if known is not None and known.is_silent != is_silent:
            await self._over(name, now)
            known = None
        if known is None:
            known = self._away[name] = _Outage(now, is_silent)
        known.until = now + self._pause(known.faults)
        known.faults += 1
        self._metrics.outage.labels(name).set(1)
        await self._share(name, fault, known, now)
        return known

    async def _share(self, name: str, fault: Unavailable, known: _Outage, now: float) -> None:
        key = _key(name, is_silent=known.is_silent)
        if await self._store.claim(key, str(now).encode(), _REMEMBERED):
            cause = "unreachable" if known.is_silent else "misconfigured"
            _log.warning(
                "a provider is of no use, its sessions live on", provider=name, cause=cause, detail=fault.detail
            )
            self._record(Event.OUTAGE_BEGAN, {"provider": name, "cause": cause, "detail": fault.detail})
            return
        held = await self._store.get(key)
        if held is not None:
            await self._store.replace(key, held, _REMEMBERED)

    async def answered(self, name: str, now: float) -> None:
        """Note that the provider *name* answered as it should, be it with a no."""
        if name in self._sure:
            return
        # Also what was noted before this process began: the outage may have outlived the one that noted it.
        self._sure.add(name)
        await self._over(name, now)

    async def reached(self, name: str, now: float) -> None:
        """Note that somebody who looked reached *name*: good enough unless refreshes failed a short while ago."""
        known = self._away.get(name)
        if known is not None and known.is_silent and now - known.refused_at > _QUIET:
            await self._over(name, now)

    async def _over(self, name: str, now: float) -> None:
        if name in self._away:
            self._is_back(name, now)
        for is_silent in (True, False):
            since = await self._store.take(_key(name, is_silent=is_silent))
            if since is not None:
                self._metrics.outage.labels(name).set(0)
                seconds = max(0, round(now - float(since)))
                _log.info("a provider can be used again", provider=name, seconds=seconds)
                self._record(Event.OUTAGE_ENDED, {"provider": name, "seconds": seconds})

    def _is_back(self, name: str, now: float) -> None:
        self._away.pop(name, None)
        self._back[name] = now
        self._metrics.outage.labels(name).set(0)

    def is_away(self, name: str) -> bool:
        """True while the provider of the login *name* is known not to be reached."""
        known = self._away.get(name)
        return known is not None and known.is_silent

    async def hears_away(self, name: str, now: float) -> bool:
        """As ``is_away``, by what other replicas have found out, too. Raises Unavailable when the store is down."""
        if not 0 <= now - self._heard.get(name, 0.0) < _HEARD:
            self._heard[name] = now
            is_noted = await self._store.get(_key(name, is_silent=True)) is not None
            if is_noted and name not in self._away:
                self._sure.discard(name)
                self._away[name] = _Outage(now, is_silent=True, until=now + self._pause(0), refused_at=now)
                self._metrics.outage.labels(name).set(1)
            elif not is_noted and self.is_away(name):
                self._is_back(name, now)
            elif name not in self._away:
                # What is shown may be from before a reload.
                self._metrics.outage.labels(name).set(0)
        return self.is_away(name)


_WORDS = {
    True: "cannot be reached; its sessions live on for a while",
    False: "answers with faults alone; its sessions live on for a while",
}


def _key(name: str, *, is_silent: bool) -> str:
    return f"outage:{name}" if is_silent else f"fault:{name}"

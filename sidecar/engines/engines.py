"""Have rules' questions answered by their engines: remembered for a short while, counted, and never left open."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.core.asking import Ask
from sidecar.core.policy import Standing
from sidecar.engines.engine import Engine, Ruling
from sidecar.faults import Refused, Unavailable
from sidecar.logins.flight import Flight
from sidecar.model import Identity, Session, Visit
from sidecar.reason import Reason
from sidecar.telemetry.metrics import Metrics

_MOST_REMEMBERED = 10_000
_MOST_UNDER_WAY = 1_000


class ChangesOfPeople(Protocol):
    """Word of people that have changed: people.Changes."""

    @property
    def is_heard(self) -> bool:
        """True while word of every change is sure to come."""

    def listen(self, forget: Callable[[str], None], clear: Callable[[], None]) -> None:
        """Call these for a person, and when anybody may have changed."""

    async def watch(self) -> None:
        """Begin to hear. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the engine of this name said on one request, after how many seconds, and whether that was remembered.

    ``reason`` is why it is no, and ``detail`` what kept it from being asked.
    """

    engine: str
    ruling: Ruling
    seconds: float = 0.0
    was_remembered: bool = False
    reason: Reason = Reason.ENGINE_DENIES
    detail: str = ""

    def told(self) -> dict[str, object]:
        """What the audit line says of it."""
        return {
            "engine": self.engine,
            "policy": self.ruling.policy,
            "engine_ms": round(self.seconds * 1000, 1),
            "engine_remembered": self.was_remembered,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class _Entry:
    who: Identity
    standing: Standing
    ruling: Ruling
    until: float


@dataclass(frozen=True, slots=True)
class Seat:
    """An engine and the seconds that its answers are remembered."""

    engine: Engine
    remember: float


@dataclass(slots=True)
class Engines:
    """Every engine of the configuration. What it remembers belongs to one session and one state of its person."""

    seats: Mapping[str, Seat]
    metrics: Metrics
    changes: ChangesOfPeople | None = None
    _entries: OrderedDict[tuple[str, str, str], _Entry] = field(default_factory=OrderedDict)
    _under_way: dict[tuple[str, str, int], Flight[Ruling]] = field(default_factory=dict)
    _generation: int = 0

    def __post_init__(self) -> None:
        """Hear of changes."""
        if self.changes is not None:
            # Word names a person, and what an engine knows of that person may stand under any identity of theirs.
            self.changes.listen(lambda _: self.forget(), self.forget)

    def forget(self) -> None:
        """Ask anew from now on."""
        self._generation += 1
        self._entries.clear()

    async def rule_on(self, ask: Ask, session: Session, standing: Standing, visit: Visit, now: float) -> Verdict:
        """Put the rule's question about *session* and *visit*.

        Raises Refused(PATH_AMBIGUOUS) when it might be two, Unavailable(ENGINE_DOWN) when there is no answer.
        """
        try:
            question = ask.question(session, standing, visit)
            text = json.dumps(question, sort_keys=True)
            key = (ask.engine, session.id, text)
            entry = self._entries.get(key)
            if entry is not None and self._is_good(entry, session.identity, standing, now):
                self._count(ask.engine, "remembered")
                return Verdict(ask.engine, entry.ruling, was_remembered=True)
            return await self._asked(key, question, session.identity, standing, now)
        except Refused as refused:
            self._count(ask.engine, "not_asked")
            if refused.reason is not Reason.ENGINE_NOT_ASKED:
                raise
            return Verdict(ask.engine, Ruling(), reason=refused.reason, detail=refused.detail)
        except Unavailable:
            self._count(ask.engine, "unavailable")
            raise

    def _is_good(self, entry: _Entry, who: Identity, standing: Standing, now: float) -> bool:
        # Also what the question does not name may matter to the engine: it is about this person as they were.
        is_same = entry.who == who and entry.standing == standing
        return is_same and now < entry.until and (self.changes is None or self.changes.is_heard)

    async def _asked(
        self,
        key: tuple[str, str, str],
        question: Mapping[str, object],
        who: Identity,
        standing: Standing,
        now: float,
    ) -> Verdict:
        name = key[0]
        seat = self.seats[name]
        await self._hear()
        generation = self._generation
        began = time.monotonic()
        ruling = await self._once((name, key[2], generation), seat.engine, question)
        seconds = time.monotonic() - began
        self.metrics.engine_seconds.labels(name).observe(seconds)
        self._count(name, "allow" if ruling.allowed else "deny")
        if seat.remember > 0 and generation == self._generation:
            self._entries[key] = _Entry(who, standing, ruling, now + seat.remember)
            if len(self._entries) > _MOST_REMEMBERED:
                self._entries.popitem(last=False)
        return Verdict(name, ruling, seconds)

    async def _hear(self) -> None:
        """Begin to hear of changes; while that does not succeed nothing remembered is used."""
        if self.changes is not None:
            try:
                await self.changes.watch()
            except Unavailable:
                return

    async def _once(self, key: tuple[str, str, int], engine: Engine, question: Mapping[str, object]) -> Ruling:
        """Ask once for everybody who has this very question now; not for those who come after a change."""
        flight = self._under_way.get(key)
        if flight is None:
            if len(self._under_way) >= _MOST_UNDER_WAY:
                raise Unavailable(Reason.ENGINE_DOWN, f"{key[0]}: too many questions wait for it")
            flight = self._under_way[key] = Flight(lambda: self._work(key, engine, question))
        return await flight.join()

    async def _work(self, key: tuple[str, str, int], engine: Engine, question: Mapping[str, object]) -> Ruling:
        try:
            return await engine.ask(question)
        finally:
            self._under_way.pop(key, None)

    def _count(self, engine: str, result: str) -> None:
        self.metrics.engines.labels(engine, result).inc()

    async def close(self) -> None:
        """Give up what is under way, and let go of every engine."""
        for flight in list(self._under_way.values()):
            await flight.close()
        await asyncio.gather(*(seat.engine.close() for seat in self.seats.values()))

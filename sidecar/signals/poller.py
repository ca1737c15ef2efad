"""Fetch events from one transmitter (RFC 8936): by one replica for all, each acknowledged once it is done."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import structlog

from sidecar.config.signals import SignalPoll
from sidecar.faults import Refused, Unavailable
from sidecar.logins.addresses import is_safe_address
from sidecar.reason import Reason
from sidecar.sessions.store import Store
from sidecar.signals.intake import Intake
from sidecar.signals.push import error_of
from sidecar.signals.stream import Streams
from sidecar.signals.transmitter import Transmitter

_log = structlog.get_logger("signals")
_LONGEST_PAUSE = 300.0
_SHORTEST_LEASE = 15.0
_MOST_BETWEEN = 1000


@dataclass(slots=True)
class _Answered:
    """What the transmitter is told with the next request; lost, it sends those again, which does no harm."""

    done: list[str] = field(default_factory=list)
    refused: dict[str, dict[str, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.done or self.refused)


class Poller:
    """Polls for ever; a transmitter that is down is asked less and less often."""

    def __init__(
        self,
        transmitter: Transmitter,
        section: SignalPoll,
        intake: Intake,
        store: Store,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Poll *transmitter* as *section* says, while the lease in *store* is ours."""
        self._transmitter = transmitter
        self._section = section
        self._intake = intake
        self._store = store
        self._clock = clock
        self._streams = Streams(transmitter)
        self._endpoint = section.endpoint or ""
        self._me = secrets.token_bytes(16)
        self._answered = _Answered()
        self._every = section.every.total_seconds()
        self._lease = max(_SHORTEST_LEASE, 2 * (transmitter.section.timeout.total_seconds() + self._every))

    async def run(self) -> None:
        """Poll until cancelled, then let another replica have it."""
        pause = self._every
        try:
            while True:
                try:
                    worked = await self.round() if await self._is_ours() else 0
                    pause = self._every
                except Unavailable as fault:
                    _log.warning("polling failed", transmitter=self._transmitter.name, detail=str(fault))
                    pause = min(max(pause * 2, self._every), max(_LONGEST_PAUSE, self._every))
                    worked = 0
                if not worked:
                    await asyncio.sleep(min(pause, self._lease / 3) if pause == self._every else pause)
        finally:
            with contextlib.suppress(Unavailable):
                await self._store.release(self._key, self._me)

    @property
    def _key(self) -> str:
        return f"signal-poller:{self._transmitter.name}"

    async def _is_ours(self) -> bool:
        return await self._store.exchange(self._key, self._me, self._me, self._lease) or await self._store.claim(
            self._key, self._me, self._lease
        )

    async def round(self) -> int:
        """Ask once, and take what came: how many events that were.

        Raises Unavailable: the transmitter is down, or an event could not be worked off; it will be sent again.
        """
        answered, self._answered = self._answered, _Answered()
        try:
            sets = await self._ask(answered)
        except Unavailable:
            self._answered = answered
            raise
        fault: Unavailable | None = None
        for jti, token in sets.items():
            try:
                await self._take(jti, token)
            except Unavailable as error:
                fault = error
        if fault is not None:
            raise fault
        return len(sets)

    async def _take(self, jti: str, token: str) -> None:
        try:
            await self._intake.take(self._transmitter, token, "poll", self._clock())
        except Refused as refused:
            self._answered.refused[jti] = error_of(refused)
        else:
            self._answered.done.append(jti)

    async def _ask(self, answered: _Answered) -> Mapping[str, str]:
        asked: dict[str, Any] = {"maxEvents": self._section.most, "returnImmediately": True}
        if answered.done:
            asked["ack"] = answered.done
        if answered.refused:
            asked["setErrs"] = answered.refused
        answer = await self._transmitter.asked("POST", await self._place(), asked)
        if answer.status != HTTPStatus.OK:
            raise Unavailable(Reason.PROVIDER_DOWN, f"{answer.place}: status {answer.status}")
        return _sets(answer.json_object(), answer.place, self._section.most)

    async def _place(self) -> str:
        if not self._endpoint:
            stream = await self._streams.ours(polled=True)
            place = (stream or {}).get("delivery", {}).get("endpoint_url")
            if not isinstance(place, str) or not is_safe_address(place):
                raise Unavailable(Reason.PROVIDER_DOWN, f"{self._transmitter.name}: no stream for polling; create one")
            self._endpoint = place
        return self._endpoint


def _sets(document: Mapping[str, Any], place: str, most: int) -> Mapping[str, str]:
    sets = document.get("sets")
    # More than was asked for would let a transmitter keep us busy; what is left over comes with the next answer.
    if not isinstance(sets, dict) or not all(isinstance(token, str) for token in sets.values()):
        raise Unavailable(Reason.PROVIDER_DOWN, f"{place}: sets is not an object of texts")
    return dict(list(sets.items())[:most])

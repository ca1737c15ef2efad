"""Take a security event token in: verify it, do what follows exactly once, and only then call it received."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.core.audit import Event
from sidecar.core.signals import STREAM_UPDATED, UNKNOWN, VERIFICATION, Consequence, Signal, consequence_of
from sidecar.faults import Refused, Unavailable
from sidecar.reason import Reason
from sidecar.sessions.store import Store
from sidecar.sessions.turn import Turn
from sidecar.signals.effects import Cause, Effects
from sidecar.signals.handshake import Handshake
from sidecar.signals.transmitter import Received, Transmitter
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics

_WAIT = 10.0


@dataclass(slots=True, kw_only=True)
class Intake:
    """The same for pushes and polls; *way* says which one it was."""

    store: Store
    effects: Effects
    handshakes: Mapping[str, Handshake]
    audit: AuditLog
    metrics: Metrics

    async def take(self, transmitter: Transmitter, token: str, way: str, now: float) -> None:
        """Return once everything that follows is durable; a token that came before is as good as done.

        Raises Refused for what may not be believed, and Unavailable when it must be sent again.
        """
        try:
            received = await transmitter.verified(token, now)
            await self._once(transmitter, received, way, now)
        except Refused as refused:
            self._note_refusal(transmitter.name, way, refused)
            raise
        except Unavailable as fault:
            self.metrics.signals.labels(transmitter.name, UNKNOWN, fault.reason.value).inc()
            raise

    def _note_refusal(self, name: str, way: str, refused: Refused) -> None:
        self.metrics.signals.labels(name, UNKNOWN, refused.reason.value).inc()
        fields = {"transmitter": name, "way": way, "reason": refused.reason.value, "detail": refused.detail[:200]}
        self.audit.record(Event.SIGNAL_REFUSED, fields)

    async def _once(self, transmitter: Transmitter, received: Received, way: str, now: float) -> None:
        name = f"{len(transmitter.name)}:{transmitter.name}{received.jti}"
        key = f"signal:{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()}"
        if await self._is_done(transmitter, key):
            return
        # One replica at a time; what another did meanwhile is done. Noted last: whoever dies before is sent it again.
        async with Turn(self.store, f"{key}:turn", _WAIT, Reason.BUSY):
            if await self._is_done(transmitter, key):
                return
            for signal in received.signals:
                await self._act(transmitter, signal, received, way, now)
            await self.handshakes[transmitter.name].note_heard(now)
            await self.store.put(key, b"1", transmitter.memory)

    async def _is_done(self, transmitter: Transmitter, key: str) -> bool:
        if await self.store.get(key) is None:
            return False
        self.metrics.signals.labels(transmitter.name, UNKNOWN, "repeated").inc()
        return True

    async def _act(self, transmitter: Transmitter, signal: Signal, received: Received, way: str, now: float) -> None:
        what, done = await self._done(transmitter, signal, now)
        self.metrics.signals.labels(transmitter.name, signal.name, what).inc()
        fields = {
            "transmitter": transmitter.name,
            "way": way,
            "signal": signal.name,
            "jti": received.jti[:200],
            "subject": signal.subject.subject or signal.subject.email,
            "provider_session": signal.subject.session,
            "effect": what,
            **done,
        }
        self.audit.record(Event.SIGNAL_RECEIVED, fields)

    async def _done(self, transmitter: Transmitter, signal: Signal, now: float) -> tuple[str, Mapping[str, object]]:
        """What was done about it, and what there is to say of that."""
        if signal.name == VERIFICATION:
            return VERIFICATION, await self._verify(transmitter, signal, now)
        if signal.name == STREAM_UPDATED:
            return STREAM_UPDATED, {"status": str(signal.details.get("status", ""))[:20]}
        what = consequence_of(signal, transmitter.effects)
        if what is Consequence.IGNORE:
            return what.value, {}
        hindrance = await transmitter.what_hinders(signal.subject)
        if hindrance:
            return Consequence.IGNORE.value, {"detail": hindrance}
        cause = Cause(transmitter.name, transmitter.people, signal.at, transmitter.memory)
        return what.value, await self.effects.apply(what, signal.subject, cause, now)

    async def _verify(self, transmitter: Transmitter, signal: Signal, now: float) -> Mapping[str, object]:
        """Shared Signals Framework 1.0, section 8.1.4: without a state the transmitter only shows that it lives."""
        state = signal.details.get("state")
        if state is None:
            return {"detail": "by itself"}
        handshake = self.handshakes[transmitter.name]
        if not isinstance(state, str) or not handshake.is_ours(state, now):
            raise Refused(Reason.SIGNAL_STATE, 400, "a state that nobody here asked for, or too late")
        await handshake.came_back(state)
        return {"detail": "as asked"}

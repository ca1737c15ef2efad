"""Tell of what was noticed: once for all replicas, not again for a while, and never a storm."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from sidecar.config.insights import Insights
from sidecar.core.audit import Event
from sidecar.faults import Unavailable
from sidecar.insights.ledger import amend, read
from sidecar.sessions.store import Store
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.webhook import Sender

_log = structlog.get_logger("insights")
_HOUR = 3600.0
_KEPT = 7 * 86400.0
_MOST_REMEMBERED = 10_000
# One document, so that who looks need not ask for each of them.
_NEWEST = "insight:newest"
MOST_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that was noticed: its kind, what it is about, and fields for whoever is told."""

    kind: str
    subject: str
    fields: Mapping[str, object]


def key_of(*parts: str) -> str:
    """A key for the store that names nobody."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:32]


class Alerts:
    """Where alerts go."""

    def __init__(  # noqa: PLR0917 - the parts that it joins
        self,
        section: Insights,
        store: Store,
        audit: AuditLog,
        metrics: Metrics,
        clock: Callable[[], float],
        sender: Sender | None,
    ) -> None:
        """Tell by *audit*, *metrics* and *sender*; *store* keeps replicas from telling twice."""
        self._cooldown = section.cooldown.total_seconds()
        self._most = section.most
        self._store = store
        self._audit = audit
        self._metrics = metrics
        self._clock = clock
        self._sender = sender
        # Until when each was told of, as far as this process knows: spares the store, and stands in for it.
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._hour = (0.0, 0)

    def is_told(self, kind: str, subject: str) -> bool:
        """True while it is known here that nobody needs to hear of this again."""
        return self._told.get((kind, subject), 0.0) > self._clock()

    async def tell(self, alert: Alert, cooldown: float = 0.0) -> bool:
        """Tell of *alert*, unless somebody did within the cool-down (a longer one may be asked for)."""
        seconds = max(self._cooldown, cooldown)
        if self.is_told(alert.kind, alert.subject):
            return False
        self._remember(alert, self._clock() + seconds)
        try:
            if not await self._store.claim(f"insight:told:{key_of(alert.kind, alert.subject)}", b"1", seconds):
                return False
            number = await self._store.count("insight:alerts", _HOUR)
        except Unavailable:
            # Each replica for itself then: twice is better than never.
            number = self._counted_here()
        if number > self._most + 1:
            self._metrics.insights.labels("suppressed").inc()
            return False
        if number == self._most + 1:
            alert = Alert("more", "", {"count": self._most, "within": _HOUR})
        await self._publish(alert)
        return True

    def _remember(self, alert: Alert, until: float) -> None:
        self._told[alert.kind, alert.subject] = until
        self._told.move_to_end((alert.kind, alert.subject))
        if len(self._told) > _MOST_REMEMBERED:
            self._told.popitem(last=False)

    def _counted_here(self) -> int:
        began, number = self._hour
        if self._clock() - began > _HOUR:
            began, number = self._clock(), 0
        self._hour = began, number + 1
        return number + 1

    async def _publish(self, alert: Alert) -> None:
        fields = {"insight": alert.kind, "id": secrets.token_hex(8), **alert.fields}
        self._audit.record(Event.INSIGHT_RAISED, fields)
        self._metrics.insights.labels(alert.kind).inc()
        time = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        # As in audit lines: what is dropped or a pseudonym there is so for the receiver, and in the store.
        said = {"time": time, **{name: value for name, value in self._audit.treated(fields).items() if value != ""}}
        line = json.dumps(said).encode()
        if self._sender is not None:
            try:
                self._sender.put("insight", [line])
            except OSError as error:
                _log.error("an alert is lost", insight=alert.kind, because=error.strerror)
        with contextlib.suppress(Unavailable):
            await remember(self._store, said, self._clock())


async def remember(store: Store, said: Mapping[str, Any], now: float) -> None:
    """Put an alert among the newest ones. Raises Unavailable."""

    def with_it(held: Any) -> Sequence[Mapping[str, Any]]:
        return [*_since(held, now), said][-MOST_KEPT:]

    if not await amend(store, _NEWEST, with_it, _KEPT):
        _log.warning("an alert is not in the list of the newest ones", insight=said.get("insight"))


async def recent(store: Store, most: int, now: float) -> Sequence[Mapping[str, Any]]:
    """The newest alerts of the last seven days, the newest first; one round trip. Raises Unavailable."""
    return sorted(_since(await read(store, _NEWEST), now), key=_time, reverse=True)[:most]


def _since(held: Any, now: float) -> Sequence[Mapping[str, Any]]:
    begin = datetime.fromtimestamp(now - _KEPT, UTC).isoformat(timespec="milliseconds")
    return [one for one in held if isinstance(one, dict) and _time(one) >= begin] if isinstance(held, list) else []


def _time(alert: Mapping[str, Any]) -> str:
    return str(alert.get("time"))

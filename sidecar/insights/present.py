"""Count what goes on at present, whether or not it is worth an alert, for whoever looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.insights.ledger import amend, read
from sidecar.sessions.store import Store

_KEY = "insight:present"
_DAY, _SLOT, _MINUTE = 86400.0, 600.0, 60.0
# The last hour, in slots of ten minutes and the one that is not over; and the minutes of which refusals are shown.
_SLOTS, MINUTES = 7, 10
_MOST_NAMES = 50
_OTHERS = "others"


@dataclass(slots=True)
class Took:
    """Orders of one kind: how many, how many of them slow, and seconds of all together and of the longest."""

    count: int = 0
    slow: int = 0
    total: float = 0.0
    longest: float = 0.0

    @property
    def mean(self) -> float:
        """Seconds that one took on average."""
        return self.total / self.count if self.count else 0.0

    def join(self, other: Took) -> None:
        """Add *other*."""
        self.count += other.count
        self.slow += other.slow
        self.total += other.total
        self.longest = max(self.longest, other.longest)


@dataclass(slots=True)
class State:
    """What goes on: accounts made today (UTC), refusals in each minute, and the last hour's failures and orders.

    ``refusals`` are by minute since the epoch, ``failures`` by cause, ``orders`` by change.
    """

    accounts: int = 0
    refusals: Mapping[int, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    orders: Mapping[str, Took] = field(default_factory=dict)

    def by_minute(self, now: float) -> tuple[int, ...]:
        """Refusals in each of the last minutes, the oldest first; the last one is not over."""
        last = int(now // _MINUTE)
        return tuple(self.refusals.get(minute, 0) for minute in range(last - MINUTES + 1, last + 1))


@dataclass(slots=True)
class _Counts:
    """What was counted, by when: accounts by day, refusals by minute, failures and orders by slot and name."""

    accounts: Counter[int] = field(default_factory=Counter)
    refusals: Counter[int] = field(default_factory=Counter)
    failures: Counter[tuple[int, str]] = field(default_factory=Counter)
    orders: dict[tuple[int, str], Took] = field(default_factory=dict)

    def is_empty(self) -> bool:
        return not (self.accounts or self.refusals or self.failures or self.orders)

    def took(self, slot: int, change: str, took: Took) -> None:
        self.orders.setdefault((slot, change), Took()).join(took)

    def join(self, other: _Counts) -> None:
        self.accounts.update(other.accounts)
        self.refusals.update(other.refusals)
        self.failures.update(other.failures)
        for (slot, change), took in other.orders.items():
            self.took(slot, change, took)

    def since(self, now: float) -> _Counts:
        """What of it somebody would still be shown."""
        day, minute, slot = _times(now)
        return _Counts(
            Counter({at: number for at, number in self.accounts.items() if at >= day}),
            Counter({at: number for at, number in self.refusals.items() if at > minute - MINUTES}),
            Counter({key: number for key, number in self.failures.items() if key[0] > slot - _SLOTS}),
            {key: took for key, took in self.orders.items() if key[0] > slot - _SLOTS},
        )


class Present:
    """What this process has counted and not yet written down where all replicas count together."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """*clock* gives epoch seconds."""
        self._clock = clock
        self._counts = _Counts()

    def account_made(self) -> None:
        """Count a new account."""
        self._counts.accounts[_times(self._clock())[0]] += 1

    def refused(self) -> None:
        """Count a refusal."""
        self._counts.refusals[_times(self._clock())[1]] += 1

    def failed(self, cause: str) -> None:
        """Count that the application could not be brought to something."""
        self._counts.failures[_times(self._clock())[2], cause] += 1

    def took(self, change: str, seconds: float, *, is_slow: bool) -> None:
        """Count an order to the application."""
        self._counts.took(_times(self._clock())[2], change, Took(1, int(is_slow), seconds, seconds))

    async def post(self, store: Store) -> None:
        """Write down what was counted. Raises Unavailable; what could not be written waits for the next time."""
        now = self._clock()
        counts, self._counts = self._counts.since(now), _Counts()
        if counts.is_empty():
            return
        is_written = False
        try:
            is_written = await amend(store, _KEY, lambda held: _added(held, counts, now), 2 * _DAY)
        finally:
            if not is_written:
                self._counts.join(counts)


def _times(now: float) -> tuple[int, int, int]:
    """Day, minute and slot."""
    return int(now // _DAY), int(now // _MINUTE), int(now // _SLOT)


def _added(held: Any, counts: _Counts, now: float) -> Mapping[str, Any]:
    """The document *held* with *counts*, and without what is over.

    ``day`` is [day, accounts], ``minutes`` minute → refusals, ``slots`` slot → [cause → failures, change → order].
    """
    held = held if isinstance(held, dict) else {}
    day, minute, slot = _times(now)
    was, made = held.get("day", [day, 0])
    minutes = Counter({at: number for at, number in held.get("minutes", {}).items() if int(at) > minute - MINUTES})
    minutes.update({str(at): number for at, number in counts.refusals.items()})
    slots = {at: kept for at, kept in held.get("slots", {}).items() if int(at) > slot - _SLOTS}
    for (at, cause), number in counts.failures.items():
        failures = slots.setdefault(str(at), [{}, {}])[0]
        name = _name(failures, cause)
        failures[name] = failures.get(name, 0) + number
    for (at, change), took in counts.orders.items():
        orders = slots.setdefault(str(at), [{}, {}])[1]
        name = _name(orders, change)
        together = Took(*orders.get(name, ()))
        together.join(took)
        orders[name] = [together.count, together.slow, round(together.total, 4), round(together.longest, 4)]
    made = (made if was == day else 0) + counts.accounts[day]
    return {"day": [day, made], "minutes": minutes, "slots": slots}


def _name(names: Mapping[str, Any], name: str) -> str:
    """*name*, unless there are too many already."""
    return name if name in names or len(names) < _MOST_NAMES else _OTHERS


async def present(store: Store, now: float) -> State:
    """What all replicas have counted, a few seconds old; one round trip. Raises Unavailable."""
    held = await read(store, _KEY)
    if not isinstance(held, dict):
        return State()
    day, made = held["day"]
    failures: Counter[str] = Counter()
    orders: dict[str, Took] = {}
    for at, (failed, took) in held["slots"].items():
        if int(at) > int(now // _SLOT) - _SLOTS:
            failures.update(failed)
            for change, figures in took.items():
                orders.setdefault(change, Took()).join(Took(*figures))
    refusals = {int(minute): number for minute, number in held["minutes"].items()}
    return State(made if day == int(now // _DAY) else 0, refusals, failures, orders)

"""Remember for a few hours what the counters said each minute, and draw it."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client import CollectorRegistry, multiprocess

from sidecar.telemetry.metrics import Metrics

EVERY = 60.0
_KEPT = 181
_LETTERS_OF_TOTAL = "_total"
# What is drawn: title, and its series as (words, counter, which label has which values).
_Which = Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot: its words, the counter, and which of its labels count."""

    words: str
    tone: str
    counter: str
    which: _Which


REQUESTS = (
    Series("let through", "good", "sidecar_requests", lambda of: of["effect"] == "answered"),
    Series("refused", "bad", "sidecar_requests", lambda of: of["effect"] == "refused"),
    Series("unavailable", "worse", "sidecar_requests", lambda of: of["effect"] == "unavailable"),
)
SIGN_INS = (
    Series("signed in", "good", "sidecar_logins", lambda of: of["result"] == "ok"),
    Series("did not work", "bad", "sidecar_logins", lambda of: of["result"] != "ok"),
)
ACCOUNTS = (
    Series("changes", "good", "sidecar_accounts", lambda of: not of["event"].endswith(("-failed", "-refused"))),
    Series("failed or refused", "bad", "sidecar_accounts", lambda of: of["event"].endswith(("-failed", "-refused"))),
)
_ALL = (*REQUESTS, *SIGN_INS, *ACCOUNTS)


class History:
    """One sample a minute of what this sidecar (all of its workers together) has counted."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        """Read *metrics*; *clock* gives epoch seconds."""
        self._metrics = metrics
        self._clock = clock
        self._samples: deque[tuple[float, Mapping[str, float]]] = deque(maxlen=_KEPT)

    async def work(self) -> None:
        """Take a sample each minute, for ever."""
        while True:
            self.take()
            await asyncio.sleep(EVERY)

    def take(self) -> None:
        """Take a sample now."""
        self._metrics.render()
        totals = dict.fromkeys((series.words for series in _ALL), 0.0)
        for family in self._registry().collect():
            wanted = [series for series in _ALL if series.counter == family.name.removesuffix(_LETTERS_OF_TOTAL)]
            for sample in family.samples:
                for series in wanted:
                    if sample.name.endswith(_LETTERS_OF_TOTAL) and series.which(sample.labels):
                        totals[series.words] += sample.value
        self._samples.append((self._clock(), totals))

    def _registry(self) -> CollectorRegistry:
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self._metrics.registry
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return together

    def counted(self, series: Series) -> Sequence[float]:
        """What was added in each minute, the oldest first; a counter that went back began anew."""
        values = [totals[series.words] for _, totals in self._samples]
        return [max(0.0, after - before) for before, after in pairwise(values)]

    @property
    def minutes(self) -> int:
        """How much is remembered."""
        return max(0, len(self._samples) - 1)


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle of a plot, in its own units."""

    x: float
    y: float
    height: float
    tone: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of stacked bars: 180 wide and 40 high; ``top`` is what its height stands for."""

    title: str
    bars: tuple[Bar, ...]
    sums: tuple[tuple[str, str, int], ...]
    top: int


WIDTH, HEIGHT = 180, 40


def plot_of(title: str, history: History, shown: Sequence[Series]) -> Plot:
    """Stack the *shown* series, minute by minute, the newest at the right."""
    counted = [history.counted(series) for series in shown]
    minutes = list(zip(*counted, strict=True))
    top = max((sum(minute) for minute in minutes), default=0.0)
    bars = []
    for back, minute in enumerate(reversed(minutes)):
        floor = float(HEIGHT)
        for series, value in zip(shown, minute, strict=True):
            if value and top:
                # What happened at all is seen, be it next to a mountain.
                height = max(1.0, value / top * HEIGHT)
                floor -= height
                bars.append(Bar(WIDTH - 1 - back, round(max(0.0, floor), 2), round(height, 2), series.tone))
    sums = tuple((series.words, series.tone, round(sum(values))) for series, values in zip(shown, counted, strict=True))
    return Plot(title, tuple(bars), sums, round(top))

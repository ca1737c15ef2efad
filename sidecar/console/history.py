"""Remember for a few hours what the counters said each minute, and draw it."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client import CollectorRegistry, multiprocess

from sidecar.faults import Unavailable
from sidecar.telemetry.metrics import Metrics

EVERY = 60.0
_KEPT = 181
# Samples without sessions after the store refused to say how many: an ACL that forbids it notes each try.
_PAUSE = 30
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

    def __init__(
        self, metrics: Metrics, clock: Callable[[], float], sessions: Callable[[], Awaitable[int]] | None = None
    ) -> None:
        """Read *metrics*; *clock* gives epoch seconds; *sessions* how many there are, or raises Unavailable."""
        self._metrics = metrics
        self._clock = clock
        self._sessions = sessions
        self._samples: deque[tuple[float, Mapping[str, float]]] = deque(maxlen=_KEPT)
        # Of all replicas, since they share the store; None where it did not say.
        self.sessions: deque[int | None] = deque(maxlen=_KEPT)
        self._pause = 0

    async def work(self) -> None:
        """Take a sample each minute, for ever."""
        while True:
            self.take()
            self.sessions.append(await self._count_sessions())
            await asyncio.sleep(EVERY)

    async def _count_sessions(self) -> int | None:
        if self._sessions is None:
            return None
        if self._pause:
            self._pause -= 1
            return None
        try:
            return await self._sessions()
        except Unavailable:
            self._pause = _PAUSE
            return None

    def take(self) -> None:
        """Take a sample of the counters now."""
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


@dataclass(frozen=True, slots=True)
class Level:
    """A plot of what there was at each moment: areas and their upper edges, as lists of points for SVG."""

    title: str
    areas: tuple[str, ...]
    edges: tuple[str, ...]
    now: int | None
    least: int
    top: int


WIDTH, HEIGHT = 180, 40
# What the highest point leaves free, so that the edge is seen whole.
_ABOVE = 1.0


def plot_of(title: str, history: History, shown: Sequence[Series]) -> Plot:
    """Stack the *shown* series, minute by minute, the newest at the right."""
    counted = [history.counted(series) for series in shown]
    return stacked(title, list(zip(*counted, strict=True)), shown, WIDTH)


def stacked(title: str, minutes: Sequence[Sequence[float]], shown: Sequence[Series], width: int) -> Plot:
    """Stack the values of each of the *minutes*, one for each of the *shown* series, the last at the right end."""
    top = max((sum(minute) for minute in minutes), default=0.0)
    bars = []
    for back, minute in enumerate(reversed(minutes)):
        floor = float(HEIGHT)
        for series, value in zip(shown, minute, strict=True):
            if value and top:
                # What happened at all is seen, be it next to a mountain.
                height = max(1.0, value / top * HEIGHT)
                floor -= height
                bars.append(Bar(width - 1 - back, round(max(0.0, floor), 2), round(height, 2), series.tone))
    totals = [sum(values) for values in zip(*minutes, strict=True)] or [0.0] * len(shown)
    sums = tuple((series.words, series.tone, round(total)) for series, total in zip(shown, totals, strict=True))
    return Plot(title, tuple(bars), sums, round(top))


def level_of(title: str, values: Sequence[int | None]) -> Level | None:
    """Draw *values*, one a minute, the newest at the right; None when none is known. A gap is where one is None."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    top = max(known)
    areas, edges = [], []
    for piece in _pieces(values):
        edge = " ".join(f"{x:g},{_height(value, top):g}" for x, value in piece)
        edges.append(edge)
        areas.append(f"{piece[0][0]:g},{HEIGHT} {edge} {piece[-1][0]:g},{HEIGHT}")
    return Level(title, tuple(areas), tuple(edges), values[-1], min(known), top)


def _height(value: int, top: int) -> float:
    return round(HEIGHT - (value / top if top else 0.0) * (HEIGHT - _ABOVE), 2)


def _pieces(values: Sequence[int | None]) -> list[list[tuple[float, int]]]:
    """Runs of known values, each with its place; one that stands alone is as wide as a minute."""
    pieces: list[list[tuple[float, int]]] = []
    is_open = False
    for at, value in enumerate(values, WIDTH - len(values) + 1):
        if value is not None:
            pieces = pieces if is_open else [*pieces, []]
            pieces[-1].append((float(at), value))
        is_open = value is not None
    return [piece if len(piece) > 1 else [(piece[0][0] - 1.0, piece[0][1]), *piece] for piece in pieces]

"""Write audit lines without making anybody wait for the disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from sidecar.core.audit import EVERY, Event
from sidecar.telemetry.chaining import Anchoring, Chain
from sidecar.telemetry.lines import Form, Stamp, filled, form_of, line_of
from sidecar.telemetry.outlet import Outlet
from sidecar.telemetry.personal import Policy
from sidecar.telemetry.sinks import Sink

# Seconds until lines are written: what is told once, and what is told of each request of somebody who is known. To wake
# a thread costs the event loop more than many lines do, as both want Python's lock. Whoever is killed loses as much.
_FLUSH_AFTER = 0.05
_FLUSH_ORDINARY_AFTER = 0.25
# Lines that are worded together. One by one they take twice as long, as what it takes has left the processor each time.
_MANY_BLANK = 32
# Until as many wait, they are worded only when nobody waits for an answer.
_MOST_BLANK = 128
# Seconds that the end waits for a sink that hangs.
_PATIENCE = 3.0


Hear = Callable[[Event, Mapping[str, object]], None]


class OpenForm:
    """A form, and where its lines go."""

    __slots__ = ("form", "outlets")

    def __init__(self, form: Form, outlets: tuple[Outlet, ...]) -> None:
        """Lines of *form* go to *outlets*."""
        self.form = form
        self.outlets = outlets


class AuditLog:
    """Collects lines and has them written in the background, in order; ``record`` never blocks."""

    def __init__(  # noqa: PLR0917 - where lines go, and how
        self,
        sinks: Sequence[Sink],
        clock: Callable[[], float],
        anchoring: Anchoring | None = None,
        policy: Policy | None = None,
        wanted: Sequence[frozenset[Event]] = (),
        names: Sequence[str] = (),
    ) -> None:
        """Write to every one of *sinks*, chained where there is *anchoring*; *clock* gives epoch seconds.

        *policy* says what becomes of personal data; *wanted*, for each sink, which events it takes: all when left out.
        *names* are what the sinks are called in the configuration.
        """
        self._names = names or tuple(str(number) for number in range(len(sinks)))
        self._outlets = [
            Outlet(sink, None if anchoring is None else Chain(anchoring, clock, sink.place), name)
            for name, sink in zip(self._names, sinks, strict=True)
        ]
        takes = zip(self._outlets, wanted or (EVERY,) * len(sinks), strict=True)
        self._takers = _takers(list(takes))
        # Lines that are not worded yet: their form, when (epoch seconds), and what goes into their holes.
        self._blanks: deque[tuple[OpenForm, float, tuple[str, ...]]] = deque()
        self._hearers: list[Hear] = []
        self._policy = policy
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._is_patient = False
        self._stamp = Stamp()

    @property
    def dropped(self) -> int:
        """Lines that were thrown away because too many waited."""
        return sum(outlet.dropped for outlet in self._outlets)

    @property
    def is_failing(self) -> bool:
        """True while a sink takes no lines; they wait, and are written when it does again."""
        return any(outlet.is_failing for outlet in self._outlets)

    @property
    def standing(self) -> Mapping[str, tuple[str, int]]:
        """Sink → why its lines do not arrive ("" while they do), and how many are lost."""
        return {
            name: (outlet.complaint, outlet.dropped) for name, outlet in zip(self._names, self._outlets, strict=True)
        }

    def record(self, event: Event, fields: Mapping[str, object]) -> None:
        """Note that *event* happened; *fields* are JSON values, empty ones are left out. Never secrets."""
        for hear in self._hearers:
            hear(event, fields)
        if outlets := self._takers[event]:
            self._word()
            line = line_of(self._stamp.text(self._clock()), event.value, self.treated(fields))
            for outlet in outlets:
                outlet.put(line)
            if self._timer is None or self._is_patient:
                self._schedule(_FLUSH_AFTER)

    def listen(self, hear: Hear) -> None:
        """Have *hear* called with each event, before anything is done to personal data; it must be quick."""
        self._hearers.append(hear)

    def stop_listening(self, hear: Hear) -> None:
        """Call *hear* no longer."""
        self._hearers.remove(hear)

    def treated(self, fields: Mapping[str, object]) -> Mapping[str, object]:
        """*fields* with personal data as it may be kept."""
        return fields if self._policy is None else self._policy.applied(fields)

    def form(self, event: Event, fields: Mapping[str, object], *holes: str) -> OpenForm | None:
        """As ``record``, for a line that will be written often with nothing but the fields *holes* new to it.

        None where nothing is written.
        """
        if not (outlets := self._takers[event]):
            return None
        treats = {hole: None if self._policy is None else self._policy.of(hole) for hole in holes}
        return OpenForm(form_of(event.value, self.treated(fields), treats), outlets)

    def fill(self, form: OpenForm | None, now: float, *values: str) -> None:
        """Note *form* at *now*, epoch seconds, with the *values* of its holes in the order in which they were named."""
        if form is None:
            return
        self._blanks.append((form, now, values))
        if len(self._blanks) >= _MOST_BLANK:
            self._word(but=_MOST_BLANK - _MANY_BLANK)
        if self._timer is None:
            self._schedule(_FLUSH_ORDINARY_AFTER)

    def catch_up(self) -> None:
        """Word what is blank if it is worth it; to be called when nobody waits for an answer."""
        if len(self._blanks) >= _MANY_BLANK:
            self._word()

    def _word(self, but: int = 0) -> None:
        """Word what is blank, *but* so many of the last; also in the thread that closes."""
        while len(self._blanks) > but:
            try:
                form, now, values = self._blanks.popleft()
            except IndexError:
                return
            line = filled(form.form, self._stamp.text(now), values)
            for outlet in form.outlets:
                outlet.put(line)

    def _schedule(self, seconds: float) -> None:
        """Have the lines written in *seconds*, so that a busy sidecar writes many at once."""
        self.rest()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._word()
            for outlet in self._outlets:
                outlet.wake()
            return
        self._is_patient = seconds > _FLUSH_AFTER
        self._timer = loop.call_later(seconds, self._tend)

    def _tend(self) -> None:
        self._timer = None
        self._word()
        again = [seconds for outlet in self._outlets if (seconds := outlet.tend()) is not None]
        if again:
            self._schedule(min(again))

    def flush(self) -> None:
        """Wait until everything is written, or cannot be, for a few seconds at most."""
        self._word()
        for outlet in self._outlets:
            outlet.flush(_PATIENCE)

    def rest(self) -> None:
        """Forget what the event loop would do later, so that ``close`` may be called in a thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Write the rest and let go of the sinks."""
        self.rest()
        self._word()
        for outlet in self._outlets:
            outlet.close(_PATIENCE)


def _takers(takes: Sequence[tuple[Outlet, frozenset[Event]]]) -> dict[Event, tuple[Outlet, ...]]:
    return {event: tuple(outlet for outlet, events in takes if event in events) for event in Event}

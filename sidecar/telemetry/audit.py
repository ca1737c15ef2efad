"""Write audit lines without making anybody wait for the disk."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from json.encoder import encode_basestring
from typing import NamedTuple

from sidecar.core.audit import EVERY, Event
from sidecar.core.audit_export import DECEIVING
from sidecar.telemetry.chaining import Anchoring, Chain
from sidecar.telemetry.outlet import Outlet
from sidecar.telemetry.personal import Policy, Treat
from sidecar.telemetry.sinks import Sink

_FLUSH_AFTER = 0.05
# Made once: json.dumps with options makes one for every line.
_HOLE = secrets.token_hex(16)
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
# Seconds that the end waits for a sink that hangs.
_PATIENCE = 3.0


Hear = Callable[[Event, Mapping[str, object]], None]


class Form(NamedTuple):
    """A line with holes, and what is done to what goes into them."""

    text: str
    treats: tuple[Treat | None, ...]
    outlets: tuple[Outlet, ...]


class AuditLog:
    """Collects lines and has them written in the background, in order; ``record`` never blocks."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        clock: Callable[[], float],
        anchoring: Anchoring | None = None,
        policy: Policy | None = None,
        wanted: Sequence[frozenset[Event]] = (),
    ) -> None:
        """Write to every one of *sinks*, chained where there is *anchoring*; *clock* gives epoch seconds.

        *policy* says what becomes of personal data; *wanted*, for each sink, which events it takes: all when left out.
        """
        self._outlets = [
            Outlet(sink, None if anchoring is None else Chain(anchoring, clock, sink.place)) for sink in sinks
        ]
        takes = zip(self._outlets, wanted or (EVERY,) * len(sinks), strict=True)
        self._takers = _takers(list(takes))
        self._hearers: list[Hear] = []
        self._policy = policy
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._second = -1
        self._second_text = ""
        self._moment = -1
        self._moment_text = ""

    @property
    def dropped(self) -> int:
        """Lines that were thrown away because too many waited."""
        return sum(outlet.dropped for outlet in self._outlets)

    @property
    def is_failing(self) -> bool:
        """True while a sink takes no lines; they wait, and are written when it does again."""
        return any(outlet.is_failing for outlet in self._outlets)

    def record(self, event: Event, fields: Mapping[str, object]) -> None:
        """Note that *event* happened; *fields* are JSON values, empty ones are left out. Never secrets."""
        for hear in self._hearers:
            hear(event, fields)
        if outlets := self._takers[event]:
            self._put(_written(self._line(self._time(), event, fields)), outlets)

    def listen(self, hear: Hear) -> None:
        """Have *hear* called with each event, before anything is done to personal data; it must be quick."""
        self._hearers.append(hear)

    def stop_listening(self, hear: Hear) -> None:
        """Call *hear* no longer."""
        self._hearers.remove(hear)

    def treated(self, fields: Mapping[str, object]) -> Mapping[str, object]:
        """*fields* with personal data as it may be kept."""
        return fields if self._policy is None else self._policy.applied(fields)

    def _line(self, time: str, event: Event, fields: Mapping[str, object]) -> dict[str, object]:
        if self._policy is not None:
            fields = self._policy.applied(fields)
        return {
            "time": time,
            "event": event.value,
            **{name: value for name, value in fields.items() if value or value == 0},
        }

    def form(self, event: Event, fields: Mapping[str, object], *holes: str) -> Form | None:
        """As ``record``, for a line that will be written often with nothing but the fields *holes* new to it.

        None where nothing is written.
        """
        if not (outlets := self._takers[event]):
            return None
        line = self._line(_HOLE, event, fields) | dict.fromkeys(holes, _HOLE)
        text = _written(line).decode().replace("%", "%%").replace(f'"{_HOLE}"', "%s")
        treats = () if self._policy is None else tuple(self._policy.of(hole) for hole in holes)
        return Form(text, treats if any(treats) else (), outlets)

    def fill(self, form: Form, *values: str) -> None:
        """Note *form* with the *values* of its holes, in the order in which they were named."""
        if form.treats:
            values = tuple(
                value if treat is None else treat(value) for value, treat in zip(values, form.treats, strict=True)
            )
        text = form.text % (f'"{self._time()}"', *map(encode_basestring, values))
        if not text.isascii() or "\x7f" in text:
            text = text.translate(DECEIVING)
        self._put(text.encode(errors="backslashreplace"), form.outlets)

    def _put(self, text: bytes, outlets: tuple[Outlet, ...]) -> None:
        for outlet in outlets:
            outlet.put(text)
        self._schedule()

    def _time(self) -> str:
        """ISO 8601 in milliseconds; what a second and a moment look like is worked out once."""
        moment = int(self._clock() * 1000)
        if moment != self._moment:
            self._moment = moment
            second, thousandths = divmod(moment, 1000)
            if second != self._second:
                self._second = second
                self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._moment_text = f"{self._second_text}.{thousandths:03d}+00:00"
        return self._moment_text

    def _schedule(self) -> None:
        if self._timer is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._begin()
            return
        # A moment later, so that a busy sidecar writes many lines at once.
        self._timer = loop.call_later(_FLUSH_AFTER, self._begin)

    def _begin(self) -> None:
        self._timer = None
        for outlet in self._outlets:
            outlet.wake()

    def flush(self) -> None:
        """Wait until everything is written, or cannot be, for a few seconds at most."""
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
        for outlet in self._outlets:
            outlet.close(_PATIENCE)


def _takers(takes: Sequence[tuple[Outlet, frozenset[Event]]]) -> dict[Event, tuple[Outlet, ...]]:
    return {event: tuple(outlet for outlet, events in takes if event in events) for event in Event}


def _written(line: Mapping[str, object]) -> bytes:
    """One line of JSON, whatever strangers put into it: bytes that are no UTF-8 come out as escapes."""
    text = _encode(line)
    if not text.isascii() or "\x7f" in text:
        text = text.translate(DECEIVING)
    return text.encode(errors="backslashreplace") + b"\n"

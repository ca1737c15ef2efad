"""Write audit lines without making anybody wait for the disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from json.encoder import encode_basestring
from pathlib import Path
from typing import Protocol

import structlog

from sidecar.core.audit import Event

_log = structlog.get_logger("audit")
# What terminals obey and what some readers take for the end of a line; JSON itself only escapes the first 32.
_DECEIVING = {
    code: f"\\u{code:04x}"
    for code in (*range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
_FLUSH_AFTER = 0.05
_MOST_WAITING = 100_000
# A stranger decides how long a path is, and so a line.
_MOST_BYTES = 64 * 1024 * 1024
_MOST_AT_ONCE = 1000
_STDOUT = 1
# Made once: json.dumps with options makes one for every line.
_HOLE = secrets.token_hex(16)
Form = str
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
_RETRY_AFTER = 1.0
# Seconds that the end waits for a sink that hangs.
_PATIENCE = 3.0


class Sink(Protocol):
    """Somewhere that audit lines go to."""

    def write(self, lines: bytes) -> int:
        """Append whole lines, and say how many bytes were taken; may block, is called in a thread. Raises OSError."""

    def close(self) -> None:
        """Let go of the place."""


class FileSink:
    """Appends to a file, following it when a log rotation moves it away."""

    def __init__(self, path: Path) -> None:
        """Open *path* for appending, readable by its owner and group only. Raises OSError that names the setting."""
        self._path = path
        try:
            self._descriptor = self._open()
        except OSError as error:
            message = f"audit.file: {path}: {error.strerror}"
            raise OSError(message) from None

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, lines: bytes) -> int:
        """Append *lines*: whole lines in one write keep those of several workers apart."""
        if self._is_moved():
            # Opened first: a descriptor that is closed and cannot be replaced would soon be somebody else's.
            fresh = self._open()
            os.close(self._descriptor)
            self._descriptor = fresh
        return os.write(self._descriptor, lines)

    def _is_moved(self) -> bool:
        ours = os.fstat(self._descriptor)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class StdoutSink:
    """Writes to standard output, for container log collectors."""

    def write(self, lines: bytes) -> int:
        """Write *lines*."""
        return os.write(_STDOUT, lines)

    def close(self) -> None:
        """Nothing to close: standard output is not ours."""


class Outlet:
    """Writes lines to one sink from a thread of its own, in order, so that a full disk or pipe stops nobody."""

    def __init__(self, sink: Sink) -> None:
        """Write to *sink*; the thread begins with the first line."""
        self._sink = sink
        self._waiting: deque[bytes] = deque()
        self._rest = b""
        self._lines_in_rest = 0
        self._put = 0
        # Each is counted by one thread only.
        self._bytes_put = self._bytes_dropped = self._bytes_taken = 0
        self._written = 0
        self._wake = threading.Event()
        self._told = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._is_failing = False
        self.dropped = 0

    def put(self, line: bytes) -> None:
        """Take a line to be written soon; the oldest is dropped when far too many wait."""
        while self._waiting and not self._has_room_for(line):
            with contextlib.suppress(IndexError):
                self._bytes_dropped += len(self._waiting.popleft())
                self.dropped += 1
        self._put += 1
        self._bytes_put += len(line)
        self._waiting.append(line)

    def _has_room_for(self, line: bytes) -> bool:
        waiting = self._bytes_put - self._bytes_dropped - self._bytes_taken
        return len(self._waiting) < _MOST_WAITING and waiting + len(line) <= _MOST_BYTES

    def wake(self) -> None:
        """Begin to write what waits."""
        if self._thread is None:
            # A thread that hangs in a write must not keep the process from ending.
            self._thread = threading.Thread(target=self._work, name="audit", daemon=True)
            self._thread.start()
        self._wake.set()

    def flush(self, patience: float) -> None:
        """Wait until all that waits is written, or cannot be, for at most *patience* seconds."""
        until = self._put
        with self._told:
            if self._done >= until:
                return
            self._is_failing = False
            self.wake()
            self._told.wait_for(lambda: self._is_failing or self._done >= until, patience)

    @property
    def _done(self) -> int:
        return self._written + self.dropped

    def close(self, patience: float) -> None:
        """Write the rest, for at most *patience* seconds, and let go of the sink."""
        self.flush(patience)
        self._is_closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(patience)
        if self._thread is None or not self._thread.is_alive():
            self._sink.close()
        if self._done < self._put:
            _log.error("audit lines are lost", lines=self._put - self._done)

    def _work(self) -> None:
        is_said = False
        while not self._is_closing:
            self._wake.wait(_RETRY_AFTER if self._is_failing else None)
            self._wake.clear()
            fault = self._write_all()
            if fault is not None and not is_said:
                _log.error("audit lines cannot be written, they are kept", error=fault.strerror)
            elif fault is None and is_said:
                _log.info("audit lines are written again", dropped=self.dropped)
            is_said = fault is not None
            with self._told:
                self._is_failing = is_said
                self._told.notify_all()

    def _take(self) -> None:
        lines: list[bytes] = []
        with contextlib.suppress(IndexError):
            while len(lines) < _MOST_AT_ONCE:
                lines.append(self._waiting.popleft())
        self._rest = b"".join(lines)
        self._bytes_taken += len(self._rest)
        self._lines_in_rest = len(lines)

    def _write_all(self) -> OSError | None:
        """Write everything that waits; what the sink did not take is first the next time."""
        while self._waiting or self._rest:
            if not self._rest:
                # Only then: what is taken out of the queue is not counted any more, nor dropped.
                self._take()
            try:
                self._rest = self._rest[self._sink.write(self._rest) :]
            except OSError as error:
                return error
            if not self._rest:
                self._written += self._lines_in_rest
                self._lines_in_rest = 0
        return None


class AuditLog:
    """Collects lines and has them written in the background, in order; ``record`` never blocks."""

    def __init__(self, sinks: Sequence[Sink], clock: Callable[[], float]) -> None:
        """Write to every one of *sinks*; *clock* gives epoch seconds."""
        self._outlets = [Outlet(sink) for sink in sinks]
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

    def record(self, event: Event, fields: Mapping[str, object]) -> None:
        """Note that *event* happened; *fields* are JSON values, empty ones are left out. Never secrets."""
        if not self._outlets:
            return
        line: dict[str, object] = {"time": self._time(), "event": event.value}
        line |= {name: value for name, value in fields.items() if value or value == 0}
        self._put(_written(line))

    def form(self, event: Event, fields: Mapping[str, object], *holes: str) -> Form | None:
        """As ``record``, for a line that will be written often with nothing but the fields *holes* new to it.

        None where nothing is written.
        """
        if not self._outlets:
            return None
        line: dict[str, object] = {"time": _HOLE, "event": event.value}
        line |= {name: value for name, value in fields.items() if value or value == 0}
        line |= dict.fromkeys(holes, _HOLE)
        return _written(line).decode().replace("%", "%%").replace(f'"{_HOLE}"', "%s")

    def fill(self, form: Form, *values: str) -> None:
        """Note *form* with the *values* of its holes, in the order in which they were named."""
        text = form % (f'"{self._time()}"', *map(encode_basestring, values))
        if not text.isascii() or "\x7f" in text:
            text = text.translate(_DECEIVING)
        self._put(text.encode(errors="backslashreplace"))

    def _put(self, text: bytes) -> None:
        for outlet in self._outlets:
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

    def close(self) -> None:
        """Write the rest and let go of the sinks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for outlet in self._outlets:
            outlet.close(_PATIENCE)


def _written(line: Mapping[str, object]) -> bytes:
    """One line of JSON, whatever strangers put into it: bytes that are no UTF-8 come out as escapes."""
    text = _encode(line)
    if not text.isascii() or "\x7f" in text:
        text = text.translate(_DECEIVING)
    return text.encode(errors="backslashreplace") + b"\n"

"""Write audit lines without making anybody wait for the disk."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from sidecar.core.audit import Event

_log = structlog.get_logger("audit")
_FLUSH_AFTER = 0.05
_MOST_WAITING = 100_000


class Sink(Protocol):
    """Somewhere that audit lines go to."""

    def write(self, lines: bytes) -> None:
        """Append whole lines; may block, is called in a thread. Raises OSError."""

    def close(self) -> None:
        """Let go of the place."""


class FileSink:
    """Appends to a file, following it when a log rotation moves it away."""

    def __init__(self, path: Path) -> None:
        """Open *path* for appending, readable by its owner and group only. Raises OSError."""
        self._path = path
        self._descriptor = self._open()

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, lines: bytes) -> None:
        """Append *lines*: whole lines in one write keep those of several workers apart."""
        try:
            moved = self._path.stat().st_ino != os.fstat(self._descriptor).st_ino
        except FileNotFoundError:
            moved = True
        if moved:
            os.close(self._descriptor)
            self._descriptor = self._open()
        view = memoryview(lines)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class StdoutSink:
    """Writes to standard output, for container log collectors."""

    def write(self, lines: bytes) -> None:
        """Write *lines* and flush."""
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()

    def close(self) -> None:
        """Nothing to close: standard output is not ours."""


class AuditLog:
    """Collects lines and writes them in the background, in order; ``record`` never blocks."""

    def __init__(self, sinks: list[Sink], clock: Callable[[], float]) -> None:
        """Write to every one of *sinks*; *clock* gives epoch seconds."""
        self._sinks = sinks
        self._clock = clock
        self._waiting: deque[bytes] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._writing = threading.Lock()
        self.dropped = 0

    def record(self, event: Event, fields: Mapping[str, object]) -> None:
        """Note that *event* happened; *fields* are JSON values, empty ones are left out. Never secrets."""
        if not self._sinks:
            return
        time = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"time": time, "event": event.value}
        line.update((name, value) for name, value in fields.items() if value not in ("", None, (), []))
        if len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=str).encode() + b"\n")
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        self._timer = loop.call_later(_FLUSH_AFTER, self._in_background, loop)

    def _in_background(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        loop.run_in_executor(None, self.flush)

    def flush(self) -> None:
        """Write all that is waiting, in order; what a sink refuses is logged as an error and kept for the next try."""
        with self._writing:
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if not lines:
                return
            for sink in self._sinks:
                try:
                    sink.write(b"".join(lines))
                except OSError as error:
                    _log.error("audit lines could not be written", lines=len(lines), error=error.strerror)
                    self._waiting.extendleft(reversed(lines))
                    return

    def close(self) -> None:
        """Write the rest and let go of the sinks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.flush()
        for sink in self._sinks:
            sink.close()

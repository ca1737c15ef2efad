"""Write lines to one sink from a thread, so that nobody waits for a disk or a network."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque

import structlog

from sidecar.telemetry.chaining import Chain
from sidecar.telemetry.sinks import Deferring, FileSink, Sink, StdoutSink

_log = structlog.get_logger("audit")
_MOST_WAITING = 100_000
# A stranger decides how long a path is, and so a line.
_MOST_BYTES = 64 * 1024 * 1024
_MOST_AT_ONCE = 1000
# A file takes few as quickly as many; requests wait while lines are chained, which is quick as long as few were put.
_MOST_FOR_FILE = 32
# Pieces that wait for the thread: when it is woken before its time, and when no more are made.
_MANY_SEALED, _MOST_SEALED = 40, 160
_RETRY_AFTER = 1.0
# Seconds: time for some requests, and for the thread to write.
_TEND_SOON, _TEND_LATER = 0.002, 0.1
# Longer than any sink that has a patience of its own takes for its first word.
_HANGS_AFTER = 20.0


class Outlet:
    """Writes lines to one sink from a thread of its own, in order, so that a full disk or pipe stops nobody."""

    def __init__(self, sink: Sink, chain: Chain | None = None, name: str = "") -> None:
        """Write to *sink*, as links of *chain*; the thread begins with the first line. *name* is for the log."""
        self._name = name
        self._sink = sink
        self._chain = chain
        self._is_file = isinstance(sink, FileSink | StdoutSink)
        self._most = _MOST_FOR_FILE if self._is_file else _MOST_AT_ONCE
        # Chained, with their number, and their bytes before that. Made by whoever has the lock; the event loop never
        # waits for it.
        self._sealed: deque[tuple[bytes, int, int]] = deque()
        self._sealing = threading.Lock()
        # Whether the thread has to seal, as the event loop does not.
        self._is_alone = True
        self._waiting: deque[bytes] = deque()
        self._rest = b""
        self._lines_in_rest = self._bytes_in_rest = 0
        self._put = 0
        # Each is counted by one thread only.
        self._bytes_put = self._bytes_dropped = self._bytes_written = 0
        self._written = 0
        self._wake = threading.Event()
        self._told = threading.Condition()
        self._writer: threading.Thread | None = None
        self._is_closing = False
        self._fails = False
        # What the sink said when it took nothing.
        self._why = ""
        # When the piece of writing that is under way began, by the monotonic clock.
        self._began: float | None = None
        self.dropped = 0

    @property
    def is_failing(self) -> bool:
        """True while the sink takes no lines: it said so, or says nothing for too long."""
        began = self._began
        return self._fails or (began is not None and time.monotonic() - began > _HANGS_AFTER)

    @property
    def complaint(self) -> str:
        """Why lines do not arrive, and how many wait here; "" while they do."""
        if not self.is_failing:
            return self._sink.complaint if isinstance(self._sink, Deferring) else ""
        why = self._why if self._fails else f"has said nothing for {_HANGS_AFTER:g} s"
        return f"{why or 'takes nothing'}; {max(0, self._put - self._done)} lines wait"

    def put(self, line: bytes) -> None:
        """Take a line to be written soon; the oldest is dropped when far too many wait."""
        size = len(line)
        while self._waiting and not self._has_room_for(size):
            with contextlib.suppress(IndexError):
                self._bytes_dropped += len(self._waiting.popleft())
                self.dropped += 1
        self._put += 1
        self._bytes_put += size
        self._waiting.append(line)
        is_much = len(self._waiting) >= _MOST_FOR_FILE and not self._is_alone
        if is_much and self._advance() and len(self._sealed) >= _MANY_SEALED:
            self._ring()

    def _has_room_for(self, size: int) -> bool:
        # With what is chained already, of which nothing is dropped any more.
        held = self._bytes_put - self._bytes_dropped - self._bytes_written
        return len(self._waiting) < _MOST_WAITING and held + size <= _MOST_BYTES

    def tend(self) -> float | None:
        """Have what waits written; for the event loop, which chains lines for a file itself, a few at a time.

        A thread that did it would keep the event loop from Python's lock whenever the system has no core for it. Gives
        the seconds after which it wants to be tended again; None when nothing is left to do here.
        """
        if not self._is_file or (self._chain is not None and self._chain.wants_anchor):
            self.wake()
            return None
        self._is_alone = False
        if self._advance() and self._waiting:
            return _TEND_SOON
        self._ring()
        return _TEND_LATER if self._waiting else None

    def _advance(self) -> bool:
        """Chain some of the lines here; False when the thread is to write what waits for it first."""
        if len(self._sealed) >= _MOST_SEALED or not self._sealing.acquire(blocking=False):
            return False
        try:
            if self._waiting:
                self._sealed.append(self._seal(may_ask=False))
        finally:
            self._sealing.release()
        return True

    def wake(self) -> None:
        """Have the thread do it all."""
        self._is_alone = True
        self._ring()

    def _ring(self) -> None:
        if self._writer is None:
            # A thread that hangs in a write must not keep the process from ending.
            self._writer = threading.Thread(target=self._work, name="audit", daemon=True)
            self._writer.start()
        self._wake.set()

    def flush(self, patience: float) -> None:
        """Wait until all that waits is written, or cannot be, for at most *patience* seconds."""
        until = self._put
        with self._told:
            if self._done >= until:
                return
            self._fails = False
            self.wake()
            self._told.wait_for(lambda: self._fails or self._done >= until, patience)

    @property
    def _done(self) -> int:
        return self._written + self.dropped

    def close(self, patience: float) -> None:
        """Write the rest, for at most *patience* seconds, and let go of the sink."""
        self.flush(patience)
        self._is_closing = True
        self._wake.set()
        if self._writer is not None:
            self._writer.join(patience)
        if self._writer is None or not self._writer.is_alive():
            self._end()
            self._sink.close()
        if self._done < self._put:
            _log.error("audit lines are lost", sink=self._name, lines=self._put - self._done)

    def _end(self) -> None:
        """Write the last anchor, so that nobody can cut off what stands before it."""
        try:
            last = b"" if self._chain is None or self._rest or self._sealed else self._chain.end(self.dropped)
            while last:
                last = last[self._sink.write(last) :]
        except OSError as error:
            _log.error("the last anchor of the audit lines is lost", sink=self._name, error=error.strerror)

    def _work(self) -> None:
        is_said = False
        while not self._is_closing:
            self._wake.wait(_RETRY_AFTER if self._fails else self._pause())
            self._wake.clear()
            fault = self._write_all()
            if fault is not None and not is_said:
                _log.error("audit lines cannot be written, they are kept", sink=self._name, error=fault.strerror)
            elif fault is None and is_said:
                _log.info("audit lines are written again", sink=self._name, dropped=self.dropped)
            is_said = fault is not None
            self._why = "" if fault is None else fault.strerror or type(fault).__name__
            with self._told:
                self._fails = is_said
                self._told.notify_all()

    def _take(self) -> None:
        with self._sealing:
            if self._sealed:
                pieces = [self._sealed.popleft() for _ in range(len(self._sealed))]
            else:
                pieces = [self._seal(may_ask=True)]
        self._rest = b"".join([text for text, _, _ in pieces])
        self._lines_in_rest = sum([lines for _, lines, _ in pieces])
        self._bytes_in_rest = sum([size for _, _, size in pieces])

    def _seal(self, *, may_ask: bool) -> tuple[bytes, int, int]:
        """The next lines, chained, their number and their bytes before that; under the lock.

        Raises OSError where it *may_ask*.
        """
        lines: list[bytes] = []
        with contextlib.suppress(IndexError):
            while len(lines) < self._most:
                lines.append(self._waiting.popleft())
        if self._chain is None:
            sealed = b"".join(lines)
        else:
            try:
                sealed = self._chain.seal(lines, self.dropped, may_ask=may_ask)
            except OSError:
                self._waiting.extendleft(reversed(lines))
                raise
        return sealed, len(lines), sum(map(len, lines))

    def _pause(self) -> float | None:
        return None if self._chain is None else self._chain.pause()

    def _write_all(self) -> OSError | None:
        """Write everything that waits; what the sink did not take is first the next time."""
        while self._rest or self._sealed or (self._waiting and self._is_alone) or self._pause() == 0:
            self._began = time.monotonic()
            try:
                if not self._rest:
                    # Only then: what is taken out of the queue is not counted any more, nor dropped.
                    self._take()
                self._rest = self._rest[self._sink.write(self._rest) :]
            except OSError as error:
                return error
            finally:
                self._began = None
            if not self._rest:
                self._written += self._lines_in_rest
                self._bytes_written += self._bytes_in_rest
                self._lines_in_rest = self._bytes_in_rest = 0
        return None

"""Leave alone what keeps failing, and bound what is sent twice: two counts, told the time by their caller."""

from __future__ import annotations

# So many repeats are there at the start, and never more in reserve.
_RESERVE = 10.0


class Circuit:
    """Opens after *failures* in a row; then one request may try after each *pause* in seconds."""

    __slots__ = ("_failures", "_in_a_row", "_next_try", "_pause")

    def __init__(self, failures: int, pause: float) -> None:
        """Begin closed: all may pass."""
        self._failures = failures
        self._pause = pause
        self._in_a_row = 0
        self._next_try = 0.0

    @property
    def is_open(self) -> bool:
        """True when too many have failed in a row."""
        return self._in_a_row >= self._failures

    def lets_pass(self, now: float) -> bool:
        """Whether a request may pass; say ``enter`` when one does."""
        return not self.is_open or now >= self._next_try

    def enter(self, now: float) -> None:
        """Note that a request passes; while the circuit is open the next one waits for its turn."""
        if self.is_open:
            self._next_try = now + self._pause

    def fail(self, now: float) -> bool:
        """Note a failure; True when it opens the circuit."""
        self._in_a_row += 1
        self._next_try = now + self._pause
        return self._in_a_row == self._failures

    def succeed(self) -> bool:
        """Note a success; True when it closes the circuit."""
        was_open, self._in_a_row = self.is_open, 0
        return was_open


class Budget:
    """Repeats are at most *percent* of all requests, so that trouble is not doubled when it comes."""

    __slots__ = ("_left", "_share")

    def __init__(self, percent: int) -> None:
        """Begin with a small reserve, unless nothing shall be repeated."""
        self._share = percent / 100
        self._left = _RESERVE if percent else 0.0

    def note(self) -> None:
        """Note one request."""
        if self._left < _RESERVE:
            self._left += self._share

    def spend(self) -> bool:
        """Take one repeat; False when none is left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

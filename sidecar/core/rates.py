"""How often somebody may do something.

Not compiled with those who count: the configuration copies it, which what mypyc makes of it does not allow.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``number`` at once, and as many in every ``seconds``; no limit when ``number`` is 0."""

    number: int
    seconds: float

    @property
    def interval(self) -> float:
        """Seconds in which one more is earned."""
        return self.seconds / self.number

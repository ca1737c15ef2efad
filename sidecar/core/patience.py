"""Say how long to wait until something that failed is tried again."""

from __future__ import annotations


def pause_after(failures: int, first: float, longest: float, luck: float) -> float:
    """Seconds to wait after so many *failures*: *first*, then twice as long each time, up to *longest*.

    *luck* in 0..1 takes up to a quarter off, so that thousands that failed together do not come back together.
    """
    whole = min(first * 2.0 ** min(max(failures - 1, 0), 40), longest)
    return whole * (1.0 - luck / 4)

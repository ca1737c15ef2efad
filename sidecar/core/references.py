"""Name a request so that its lines are found again at once: the second in which it came, and chance."""

from __future__ import annotations

import re

# Eight digits are enough until the year 2106.
_SECOND = 8
CHANCE = 8
_REFERENCE = re.compile(rf"[0-9a-f]{{{_SECOND + CHANCE}}}")


def beginning_of(second: int) -> str:
    """What the references of one *second* (since the epoch) begin with; so many digits of chance follow as CHANCE."""
    return f"{second & 0xFFFFFFFF:08x}"


def is_reference(text: str) -> bool:
    """True for what is made like a reference."""
    return _REFERENCE.fullmatch(text) is not None


def second_in(text: str) -> int | None:
    """The second that a reference names; None where *text* is made otherwise, as those of former versions are."""
    return int(text[:_SECOND], 16) if is_reference(text) else None

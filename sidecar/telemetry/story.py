"""Where the lines of one request are in an audit, and which of the others belong to its story."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core.audit_export import is_bad
from sidecar.core.references import second_in
from sidecar.reason import Reason
from sidecar.telemetry.reading import Line, Query, instant_of

# How far, in seconds, lines of several processes are out of order.
SLACK = 2.0
# Seconds before and after that belong to the story.
_BEFORE, _AFTER = 600.0, 60.0
_SAME = ("session", "subject", "username", "person")


def named_by(reference: str) -> Query | None:
    """The lines with *reference*, in the time that it names; None where it names none."""
    second = second_in(reference)
    return None if second is None else Query(reference=reference, since=second - SLACK, until=second + _AFTER)


def around(lines: Sequence[Line], reference: str) -> Query | None:
    """Other lines near *lines*, which have *reference*, that share something with them; None when nothing can be.

    The address counts only where nobody knows who it was: a whole company may have the same one.
    """
    keys = _shared(lines, _SAME) or _shared(lines, ("client",))
    if not keys:
        return None
    moment = min(map(instant_of, lines))
    return Query(since=max(0.0, moment - _BEFORE), until=moment + _AFTER, any_of=keys, but=reference)


def _shared(lines: Sequence[Line], names: Sequence[str]) -> frozenset[tuple[str, str]]:
    return frozenset((name, str(line[name])) for line in lines for name in names if line.get(name))


def reason_in(lines: Sequence[Line]) -> Reason | None:
    """The reason that somebody was shown: of *lines* the last bad one tells it, else the first that has one."""
    # Whoever was let in may still have met an application, or an account, that was not there.
    for line in (*(line for line in reversed(lines) if is_bad(line)), *lines):
        try:
            return Reason(line.get("reason"))
        except ValueError:
            continue
    return None

"""Read audit lines in the directory's database backward, a bounded piece at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sidecar.telemetry.reading import Line, parsed
from sidecar.telemetry.trail import BUDGET, Looked, Place

if TYPE_CHECKING:
    from sidecar.directory.audit import AuditBook

_PORTION = 200
# Where nothing but an exact look-up can find it, this is how many lines are looked at.
_MOST_LOOKED_AT = 50_000


async def look_back_in(  # noqa: PLR0913 - as look_back
    book: AuditBook,
    fits: Callable[[Line], bool],
    *,
    needles: Sequence[str] = (),
    some: Sequence[str] = (),
    reference: str = "",
    most: int = 50,
    since: float = 0.0,
    until: float = float("inf"),
    begin: Place | None = None,
    budget: int = BUDGET,
) -> Looked:
    """As ``look_back`` of a file; only lines with *reference*, if there is one. Raises Unavailable."""
    from sidecar.directory.audit import Wanted  # noqa: PLC0415 - databases are for those who have one

    wanted = Wanted(reference=reference, needles=tuple(needles), since=since, until=until, some=tuple(some))
    found: list[Line] = []
    before, left = (None if begin is None else begin.offset), _MOST_LOOKED_AT
    while page := await book.backward(before, wanted, _PORTION):
        for entry in page:
            before, left, budget = entry.id, left - 1, budget - len(entry.line)
            line = parsed(entry.line.encode())
            if line is not None and fits(line):
                found.append(line)
            if len(found) == most or budget <= 0 or left <= 0:
                return Looked(tuple(found), Place(0, before))
    return Looked(tuple(found))

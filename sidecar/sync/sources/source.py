"""The seam between a synchronisation and the place where people come from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sidecar.core.sync.entry import Row
from sidecar.faults import Unavailable
from sidecar.reason import Reason

Reading = Literal["full", "changes", "same"]


@dataclass(frozen=True, slots=True)
class End:
    """How a reading ended. ``why`` says in words what is missing when it is not complete.

    ``cursor`` is what the next ``begin`` is given, so that it need not read everything again; "" when it must.
    ``knows_missing``: had somebody who was missing come back, they would be among the changes.
    """

    is_complete: bool
    why: str = ""
    cursor: str = ""
    knows_missing: bool = False


class Source(Protocol):
    """People, as rows of plain JSON values. Every method raises ``Unavailable(SOURCE_DOWN)``.

    Used once: ``begin``, then ``batches`` to its end, then ``end``.
    """

    async def begin(self, since: str) -> Reading:
        """Say what ``batches`` will give: everybody, those that changed since the cursor *since*, or nothing new."""

    def batches(self) -> AsyncIterator[Sequence[Row]]:
        """Give the rows, some hundreds at a time."""

    def end(self) -> End:
        """Say how it ended. In doubt a reading is not complete: nobody loses anything then."""

    async def probe(self) -> str:
        """Reach the source and describe it in a few words."""

    async def close(self) -> None:
        """Let go of connections and files."""


def down(detail: str) -> Unavailable:
    """The exception for a source that cannot be read."""
    return Unavailable(Reason.SOURCE_DOWN, detail)


async def in_thread(chunks: Iterator[list[dict[str, Any]]]) -> AsyncIterator[Sequence[Row]]:
    """Read *chunks* in a thread, one after the other, so that nothing else waits for a disk or a slow server."""
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk

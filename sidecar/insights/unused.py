"""Count what is switched on and nobody uses: accounts and API tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sidecar.config.insights import Insights

if TYPE_CHECKING:
    from sidecar.directory.database import Database

_HELD = 60.0


@dataclass(frozen=True, slots=True)
class Unused:
    """How many accounts and API tokens were not used for as long as ``insights`` says; None where nobody asks."""

    dormant: int | None = None
    silent: int | None = None


@dataclass(slots=True)
class UnusedCount:
    """Asks the directory ``database`` (None: there is none), at most once a minute however many look."""

    section: Insights
    database: Database | None
    application: str
    clock: Callable[[], float]
    has_tokens: bool
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _counted: tuple[float, Unused] = field(default=(0.0, Unused()), init=False)

    async def count(self) -> Unused:
        """What there is, at most a minute old. Raises Unavailable."""
        async with self._turn:
            now = self.clock()
            if not 0 <= now - self._counted[0] < _HELD:
                self._counted = now, await self._ask(now)
            return self._counted[1]

    async def _ask(self, now: float) -> Unused:
        if self.database is None:
            return Unused()
        from sidecar.directory.dormant import dormant, silent  # noqa: PLC0415 - for those who have a directory

        accounts, tokens = self.section.dormant, self.section.silent_token
        unused, unheard = None, None
        if accounts is not None:
            unused, _ = await dormant(self.database, self.application, now - accounts.after.total_seconds(), 1)
        if tokens is not None and self.has_tokens:
            unheard = await silent(self.database, self.application, now - tokens.after.total_seconds(), now)
        return Unused(unused, unheard)

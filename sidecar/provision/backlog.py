"""Keep an eye on what is owed to the application: count it, warn of it, forget what is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from sidecar.config.provision import Outbox
from sidecar.directory import Directory
from sidecar.directory.backlog import Backlog
from sidecar.faults import Unavailable

_EVERY = 10.0
_FORGET_EVERY = 3600.0

# Takes how much is owed, and for how many seconds the oldest has waited.
Tell = Callable[[Backlog, float], None]


class BacklogWatch:
    """Looks at the backlog every few seconds."""

    def __init__(self, section: Outbox, directory: Directory, clock: Callable[[], float], tell: Tell) -> None:
        """Warn by *section*; *tell* hears of every look."""
        self._overdue = section.overdue.total_seconds()
        self._keep = section.keep.total_seconds()
        self._directory = directory
        self._clock = clock
        self._tell = tell
        self._seen = Backlog()
        self._forgot = 0.0

    async def run(self) -> None:
        """Look for ever; a directory that is down is asked again later."""
        while True:
            with contextlib.suppress(Unavailable):
                await self.look()
            await asyncio.sleep(_EVERY)

    async def look(self) -> None:
        """Look once. Raises Unavailable."""
        now = self._clock()
        self._seen = await self._directory.debts.backlog()
        self._tell(self._seen, self._age())
        if now - self._forgot > _FORGET_EVERY:
            await self._directory.debts.forget(now - self._keep)
            self._forgot = now

    def _age(self) -> float:
        return max(0.0, self._clock() - self._seen.oldest) if self._seen.oldest else 0.0

    def complaints(self) -> Mapping[str, str]:
        """What an operator should look at; the sidecar serves all the same."""
        said = []
        if self._seen.dead:
            said.append(f"{self._seen.dead} put aside; see: sidecar outbox list --dead")
        if self._age() > self._overdue:
            said.append(f"the oldest of {self._seen.waiting} waits for {self._age():.0f} s")
        return {"outbox": ", ".join(said)} if said else {}

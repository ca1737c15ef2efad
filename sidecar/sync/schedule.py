"""Run the sources of people when they are due, on one replica only, and say what waits for somebody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from sidecar.directory.sync_runs import RunRecord
from sidecar.faults import Refused, Unavailable
from sidecar.sync.runs import Synchroniser, Wish
from sidecar.sync.sources.files import newest

_POLL = 5.0
_BY = "schedule"
_COMPLAINTS = {
    "quarantined": "a run would change more than it may and waits for approval",
    "incomplete": "the source was not complete",
    "failed": "the last run failed",
}
_log = structlog.get_logger("sync")

# Hears of a source by name, and how its run ended.
Tell = Callable[[str, RunRecord], None]


class Schedule:
    """Looks after all sources. Each replica has one; the directory decides which of them works."""

    def __init__(
        self,
        sources: Mapping[str, Synchroniser],
        watched: Mapping[str, Path],
        clock: Callable[[], float],
        chance: Callable[[], float],
        tell: Tell,
    ) -> None:
        """Run *sources*; of those in *watched* a new file is read at once. *chance* is from 0 to 1."""
        self._sources = sources
        self._watched = watched
        self._clock = clock
        self._chance = chance
        self._tell = tell
        self._files: dict[str, tuple[object, ...]] = {}
        self._complaints: dict[str, str] = {}

    def complaints(self) -> Mapping[str, str]:
        """Source → what is wrong with its newest run; only where something is. People may sign in all the same."""
        return {f"sync.{name}": text for name, text in self._complaints.items()}

    async def work(self) -> None:
        """Look after every source, for ever."""
        async with asyncio.TaskGroup() as group:
            for name in self._sources:
                group.create_task(self._look_after(name))

    async def _look_after(self, name: str) -> None:
        while True:
            try:
                await self.look(name)
            except Unavailable as fault:
                _log.warning("a source could not be synchronised", source=name, because=str(fault))
            await asyncio.sleep(_POLL)

    async def look(self, name: str) -> bool:
        """Run the source if it is time; True when it ran here. Raises Unavailable."""
        one = self._sources[name]
        is_due = await self._is_due(one) or await asyncio.to_thread(self._has_news, name)
        if not is_due:
            await self._note(name)
            return False
        try:
            run = await one.run(Wish(_BY))
        except Refused as refused:
            _log.warning("a source could not be synchronised", source=name, because=str(refused))
            return False
        finally:
            await self._note(name)
        self._tell(name, run)
        return True

    async def _is_due(self, one: Synchroniser) -> bool:
        waiting = await one.waiting()
        if waiting is not None and waiting.state in ("approved", "applying"):
            state = await one.state()
            # Begun by somebody who is at it still, or who was killed.
            return not state.lease or state.lease_until <= self._clock()
        return await one.claim_turn(self._clock(), self._chance())

    def _has_news(self, name: str) -> bool:
        """True when there is another file than the one that was there the last time."""
        path = newest(self._watched[name]) if name in self._watched else None
        if path is None:
            return False
        try:
            status = path.stat()
        except OSError:
            return False
        seen: tuple[object, ...] = (path, status.st_mtime_ns, status.st_size)
        is_settled = self._clock() - status.st_mtime >= _POLL
        if not is_settled or self._files.get(name) == seen:
            return False
        self._files[name] = seen
        return True

    async def _note(self, name: str) -> None:
        runs = await self._sources[name].runs()
        newest_run = next((run for run in runs if run.state != "reading"), None)
        text = _COMPLAINTS.get(newest_run.state, "") if newest_run is not None else ""
        if text:
            self._complaints[name] = text
        else:
            self._complaints.pop(name, None)

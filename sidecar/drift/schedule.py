"""Look for drift when it is due, on one replica only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from sidecar.core.drift import Finding
from sidecar.drift.watch import DriftWatch
from sidecar.faults import Refused, Unavailable

_POLL = 5.0
_BY = "schedule"
_COMPLAINTS = {
    "quarantined": "a repair would change more than it may and waits for approval",
    "incomplete": "the application's accounts could not all be read",
    "failed": "the application's accounts could not be read",
}
_log = structlog.get_logger("drift")


class DriftSchedule:
    """Each replica has one; the directory decides which of them looks."""

    def __init__(
        self,
        watch: DriftWatch,
        chance: Callable[[], float],
        tell: Callable[[Mapping[str, int]], None],
        *,
        repairs: bool,
    ) -> None:
        """Let *watch* look; *tell* hears how many findings of each kind there are. *chance* is from 0 to 1."""
        self._watch = watch
        self._chance = chance
        self._tell = tell
        self._repairs = repairs
        self._complaint = ""
        self._told = ""

    def complaints(self) -> Mapping[str, str]:
        """What is wrong with the last look, if anything is. People may sign in all the same."""
        return {"drift": self._complaint} if self._complaint else {}

    async def work(self) -> None:
        """Look whenever it is time, for ever."""
        while True:
            try:
                await self.look()
            except (Unavailable, Refused) as fault:
                _log.warning("drift could not be looked for", because=str(fault))
            await asyncio.sleep(_POLL)

    async def look(self) -> bool:
        """Look if it is time; True when it was. Raises Unavailable and Refused."""
        try:
            if not await self._watch.is_due(self._chance()):
                return False
            await (self._watch.fix(_BY) if self._repairs else self._watch.look(_BY))
        finally:
            await self._note()
        return True

    async def _note(self) -> None:
        """Say how it stands, whoever looked: another replica, or somebody by command or console."""
        newest = await self._watch.newest()
        self._complaint = _COMPLAINTS.get(newest.state, "") if newest is not None else ""
        if newest is None or newest.id == self._told or newest.state == "failed":
            return
        self._told = newest.id
        counts = newest.head.get("counts", {})
        self._tell({one.value: counts.get(one.value, 0) for one in Finding})

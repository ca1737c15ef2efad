"""Find out whether it is an outage: the emergency door's own judgement, and who is told of the door."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote

from sidecar.cancelling import cancelled
from sidecar.config.break_glass import BreakGlass
from sidecar.core.policy import is_within
from sidecar.faults import Unavailable
from sidecar.model import Visit
from sidecar.portal.lookout import Lookout, Sight

_PROBE_HOLDS, _KNOWN_FOR = 10.0, 60.0
_GLANCE = 1.0
_WATCH_EVERY = 43200.0


class Reach:
    """Whether any provider can be reached: looked at anew when nobody has looked for a while.

    It is an outage when no provider is well, and one that was reached before, at the address that it has now, does not
    answer. Whoever answers with anything but what they should is set up wrongly, here or there, and so is whoever never
    answered: that opens no door, and closes none that an outage has opened.
    """

    def __init__(self, names: Collection[str], lookout: Lookout) -> None:
        """Let *lookout* look at the logins called *names*."""
        self._names = names
        self._lookout = lookout
        self._turn = asyncio.Lock()
        self._asked = float("-inf")
        self._is_outage = False
        self._wondering: asyncio.Task[None] | None = None

    async def is_outage(self) -> bool:
        """True when it is one, as of a moment ago. Raises Unavailable when the store is down."""
        async with self._turn:
            if self._age() >= _PROBE_HOLDS:
                self._is_outage = await self._found_out()
                self._asked = asyncio.get_running_loop().time()
            return self._is_outage

    async def _found_out(self) -> bool:
        sights = await asyncio.gather(*(self._lookout.sight(name) for name in self._names))
        if Sight.WELL in sights:
            return False
        away = [name for name, sight in zip(self._names, sights, strict=True) if sight is Sight.AWAY]
        return any([await self._lookout.was_reached(name) for name in away])

    def seems_outage(self) -> bool:
        """What was found out within the last minute; False when nobody asked."""
        return self._is_outage and self._age() < _KNOWN_FOR

    def wonder(self) -> None:
        """Find it out for whoever comes next: nobody waits."""
        if self._age() >= _PROBE_HOLDS and self._wondering is None:
            self._wondering = asyncio.create_task(self._wonder())

    async def _wonder(self) -> None:
        try:
            with contextlib.suppress(Unavailable):
                await self.is_outage()
        finally:
            self._wondering = None

    async def close(self) -> None:
        """Stop finding out."""
        if self._wondering is not None:
            await cancelled([self._wondering])

    def _age(self) -> float:
        return asyncio.get_running_loop().time() - self._asked

    async def watch(self) -> None:
        """Look now and twice a day, so that there is something to compare an outage with."""
        while True:
            with contextlib.suppress(Unavailable):
                await self.is_outage()
            await asyncio.sleep(_WATCH_EVERY)


@dataclass(frozen=True, slots=True)
class Doorplate:
    """Tells people of the emergency door at ``path``, where they may be told and it is open to them."""

    section: BreakGlass | None
    path: str
    reach: Reach

    def link(self, visit: Visit, to: str) -> str:
        """Address of the door for whoever wants to go *to*; "" for those who would find it closed."""
        section = self.section
        if (
            section is None
            or not section.offered
            or (section.networks and not is_within(visit.client, section.networks))
        ):
            return ""
        if section.while_ == "outage":
            # Who is shown no link now may be shown one after trying again.
            self.reach.wonder()
            if not self.reach.seems_outage():
                return ""
        return f"{self.path}?to={quote(to or '/', safe='/')}"

    @property
    def needs_watch(self) -> bool:
        """True where it opens only in an outage."""
        return self.section is not None and self.section.while_ == "outage"

    async def glance(self) -> None:
        """Find out whether the door is open where that matters: for a second, a person waits for a page."""
        section = self.section
        if section is not None and section.offered and section.while_ == "outage":
            with contextlib.suppress(TimeoutError, Unavailable):
                async with asyncio.timeout(_GLANCE):
                    await self.reach.is_outage()

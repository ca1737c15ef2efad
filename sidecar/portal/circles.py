"""Notice browsers that sign in again and again, and name what keeps anything from coming of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sidecar.core.cookies import values_of
from sidecar.faults import Refused
from sidecar.model import Session, Visit
from sidecar.portal.site import Site
from sidecar.reason import Reason
from sidecar.sessions.store import Store

_WINDOW = 60.0
_RECENT = 30.0
_TURNS = 4
# A browser that restores its tabs brings one answer for each of them, and all but one may name a cookie that is gone.
_ANEW = 20
# What two clocks may differ by without doing harm, network included.
_APART = 5.0


@dataclass(frozen=True, slots=True)
class Circles:
    """Counts beginnings right after an end. Tabs that begin together do not count: none of them has finished yet."""

    site: Site
    store: Store

    async def note_end(self, browser: str, now: float) -> None:
        """Remember for a moment that the browser with this binding cookie has just been given a session, and when."""
        await self.store.put(f"done:{_hashed(browser)}", f"{now:.3f}".encode(), _RECENT)

    async def forget(self, browser: str) -> None:
        """Begin to count anew: this browser came back with its session, and signed out."""
        if browser:
            await self.store.delete(f"loop:{_hashed(browser)}")

    async def refuse(self, visit: Visit, browser: str, session: Session | None, now: float) -> None:
        """Raise Refused, with the cause as its reason, for a browser that keeps coming back right after a sign-in.

        *session* is the one that this request came with, when it is good.
        """
        ended = await self.store.get(f"done:{_hashed(browser)}") if browser else None
        if ended is None:
            return
        if await self.store.count(f"loop:{_hashed(browser)}", _WINDOW) > _TURNS:
            raise self._cause(visit, session, now - float(ended))

    async def may_begin_anew(self, browser: str) -> bool:
        """True while a browser may begin once more by itself what came back with another binding cookie."""
        return bool(browser) and await self.store.count(f"anew:{_hashed(browser)}", _WINDOW) <= _ANEW

    def _cause(self, visit: Visit, session: Session | None, passed: float) -> Refused:
        # The store forgets the end after so long by its own clock; two of ours that see more than that disagree.
        if not -_APART <= passed <= _RECENT + _APART:
            return Refused(Reason.LOGIN_LOOP_CLOCK, 400, f"by this clock the sign-in ended {passed:.0f} s ago")
        if session is not None:
            return Refused(Reason.LOGIN_LOOP_WEAK, 400, "signed in, but not as recently or strongly as the rule asks")
        if values_of(visit.cookies, self.site.session_cookie):
            return Refused(Reason.LOGIN_LOOP, 400, "the session's cookie came back, but there is no such session")
        elsewhere = self.site.difference(visit)
        if elsewhere:
            return Refused(Reason.LOGIN_ADDRESS, 400, elsewhere)
        return Refused(Reason.LOGIN_LOOP_COOKIE, 400, "the session's cookie did not come back")


def _hashed(browser: str) -> str:
    return hashlib.sha256(browser.encode()).hexdigest()

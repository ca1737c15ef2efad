"""Keep a session's claims fresh: ask the provider again when its tokens run out, once, however many ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from sidecar.core.audit import Event
from sidecar.faults import Refused, Unavailable
from sidecar.logins.login import Login
from sidecar.model import Grant, Session, SignedIn
from sidecar.portal.outages import Outages
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper

# Longer than a Redis takes that restarts or fails over, in seconds.
_PATIENCE, _PAUSE = 15.0, 0.1
Record = Callable[[Event, Mapping[str, object]], None]


class Renewal:
    """Refreshes sessions; a provider that is down leaves them for a while, one that says no ends them."""

    def __init__(self, logins: Mapping[str, Login], keeper: SessionKeeper, outages: Outages, record: Record) -> None:
        """Refresh at *logins* that *outages* lets be asked; say what happened to *record*."""
        self._logins = logins
        self._keeper = keeper
        self._record = record
        self._outages = outages

    async def fresh(self, token: str, session: Session, now: float) -> Session | None:
        """Session with fresh claims; the same one while they are fresh enough, None when the provider ended it."""
        if not session.refresh_at or now < session.refresh_at:
            return session
        login = self._logins.get(session.provider)
        if login is None:
            return session
        if not await self._outages.may_ask(session, now):
            return self._outages.bear(session, now)
        async with self._keeper.refreshing(session) as is_ours:
            current = await self._keeper.reread(token, now)
            if current is None or not current.refresh_at or now < current.refresh_at:
                return current
            if not is_ours:
                return self._outages.bear(current, now)
            return await self._renew(login, token, current, now)

    async def _renew(self, login: Login, token: str, session: Session, now: float) -> Session | None:
        grant = await self._keeper.grant(token)
        try:
            signed_in = await self._asked(login, token, session, grant, now)
        except Refused as refused:
            await self._keeper.end(token)
            await self._outages.answered(session.provider, now)
            self._note(Event.SESSION_ENDED, session, refused.reason, detail=refused.detail)
            return None
        except Unavailable as fault:
            # An outage at the provider must not sign anybody out; the session's own lifetimes still bound it.
            if fault.reason is Reason.STORE_DOWN:
                raise
            if fault.is_answer:
                # One person's tokens must not keep everybody else's claims from being refreshed.
                self._outages.put_off(session, fault.detail, now)
                await self._outages.answered(session.provider, now)
            else:
                await self._outages.failed(session.provider, fault, now)
            # It may have ended while the provider was waited for.
            current = await self._keeper.reread(token, now)
            return None if current is None else self._outages.bear(current, now)
        renewed = await self._kept(token, session, signed_in, now)
        await self._outages.answered(session.provider, now)
        if renewed is not None:
            self._note(Event.SESSION_REFRESHED, session, Reason.RULE)
        return renewed

    async def _asked(self, login: Login, token: str, session: Session, grant: Grant, now: float) -> SignedIn:
        try:
            return await login.refresh(session, grant, now)
        except Refused:
            # Who lost the turn (Redis failed over, the machine stood still) asked with what another replica had used up
            # meanwhile: what counts is the provider's word on what that one got for it.
            newer = await self._keeper.grant(token)
            if newer in (grant, Grant()):
                raise
            return await login.refresh(session, newer, now)

    async def _kept(self, token: str, session: Session, signed_in: SignedIn, now: float) -> Session | None:
        """Store the tokens that came, be it a while later: those before are used up, and these come once."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return await self._keeper.renew(token, session, signed_in, now)
            except Unavailable:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(_PAUSE)

    def _note(self, event: Event, session: Session, reason: Reason, **more: str) -> None:
        fields = {"session": session.id, "person": session.identity.username, "provider": session.provider}
        self._record(event, {**fields, "reason": reason.value, **more})

"""Keep a session's claims fresh: ask the provider again when its tokens run out, once, however many ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from sidecar.core.audit import Event
from sidecar.logins.login import Login
from sidecar.model import Refused, Session, Unavailable
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper

_log = structlog.get_logger("renewal")
_PAUSE_AFTER_FAULT = 30.0
Record = Callable[[Event, Mapping[str, object]], None]


class Renewal:
    """Refreshes sessions; a provider that is down leaves them as they are, one that says no ends them."""

    def __init__(self, logins: Mapping[str, Login], keeper: SessionKeeper, record: Record) -> None:
        """Refresh at *logins*; say what happened to *record*."""
        self._logins = logins
        self._keeper = keeper
        self._record = record
        self._paused: dict[str, float] = {}

    async def fresh(self, token: str, session: Session, now: float) -> Session | None:
        """Session with fresh claims; the same one while they are fresh enough, None when the provider ended it."""
        if not session.refresh_at or now < session.refresh_at:
            return session
        login = self._logins.get(session.provider)
        if login is None or now < self._paused.get(session.provider, 0.0):
            return session
        async with self._keeper.refreshing(session) as is_ours:
            current = await self._keeper.reread(token, now)
            if current is None or not is_ours or not current.refresh_at or now < current.refresh_at:
                return current
            return await self._renew(login, token, current, now)

    async def _renew(self, login: Login, token: str, session: Session, now: float) -> Session | None:
        try:
            signed_in = await login.refresh(session, await self._keeper.grant(token), now)
        except Refused as refused:
            await self._keeper.end(token)
            self._note(Event.SESSION_ENDED, session, refused.reason)
            return None
        except Unavailable as fault:
            # An outage at the provider must not sign anybody out; the session's own lifetimes still bound it.
            _log.warning("provider unavailable, session kept", provider=session.provider, detail=fault.detail)
            self._paused[session.provider] = now + _PAUSE_AFTER_FAULT
            return session
        renewed = await self._keeper.renew(token, session, signed_in, now)
        if renewed is not None:
            self._note(Event.SESSION_REFRESHED, session, Reason.RULE)
        return renewed

    def _note(self, event: Event, session: Session, reason: Reason) -> None:
        fields = {"session": session.id, "person": session.identity.username, "provider": session.provider}
        self._record(event, {**fields, "reason": reason.value})

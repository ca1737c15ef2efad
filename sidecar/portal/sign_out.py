"""End sessions: because the person says so, or because the provider does."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from sidecar.core.cookies import values_of
from sidecar.faults import Refused, Unavailable
from sidecar.logins.login import Begin, LoggedOut, Login
from sidecar.model import Grant, Session, Visit
from sidecar.pages.answers import Answers
from sidecar.portal.application import ApplicationSession
from sidecar.portal.attempts import CLOCKS_APART
from sidecar.portal.farewells import Farewells
from sidecar.portal.site import Site
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.store import Store
from sidecar.sessions.turn import once

_LONGEST_MEMORY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Left:
    """A session that was ended ("" when there was none): where to go on at the provider, and cookies to set."""

    session: str
    onward: Begin | None
    cookies: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class SignOut:
    """The way out; the application's session ends too, so that the next person inherits nothing."""

    site: Site
    logins: Mapping[str, Login]
    keeper: SessionKeeper
    store: Store
    farewells: Farewells
    answers: Answers
    application: ApplicationSession

    async def sign_out(self, visit: Visit, now: float) -> tuple[web.Response, str]:
        """End the session that *visit* brings, in the application and at the provider too; (answer, session id or "").

        The application's sign-out is only called for somebody who is signed in.
        """
        left = await self.leave(visit, now, calls=True)
        if left.onward is None:
            return self.answers.go(self.site.path("signed-out"), left.cookies), left.session
        return self.answers.onward(left.onward.url, left.onward.form, left.cookies), left.session

    async def leave(self, visit: Visit, now: float, *, calls: bool) -> Left:
        """End the session that *visit* brings, and with *calls* the application's; what is still to be done."""
        theirs: list[str] = []
        onward: Begin | None = None
        ended = ""
        for token in values_of(visit.cookies, self.site.session_cookie):
            session = await self.keeper.find(token, now)
            if session is None:
                continue
            grant = await self.keeper.grant(token)
            await self.keeper.end(token)
            theirs += await self.application.end(visit) if calls and not ended else []
            ended = session.id
            # The session here has ended; a provider that is down cannot keep anybody signed in with us.
            with contextlib.suppress(Unavailable):
                onward = await self._onward(session, grant) or onward
        return Left(ended, onward, (*theirs, *self.parting_cookies(visit)))

    async def _onward(self, session: Session, grant: Grant) -> Begin | None:
        """How to sign out at the provider too. Raises Unavailable."""
        login = self.logins.get(session.provider)
        if login is None:
            return None
        state = self.farewells.new_state()
        begun = await login.begin_sign_out(session, grant, self.site.origin + self.site.path("signed-out"), state)
        if begun is not None and begun.kept:
            await self.farewells.keep(state, login.name, begun.kept)
        return begun

    def parting_cookies(self, visit: Visit) -> list[str]:
        """Set-Cookie texts that take away what belonged to a session that is over."""
        return [self.site.drop_session(), self.site.drop_form(), *self.application.parting_cookies(visit)]

    async def back_channel(self, name: str, token: str, now: float) -> tuple[LoggedOut, int]:
        """End what the provider's logout *token* names; (what it said, number of sessions ended).

        OpenID Connect Back-Channel Logout 1.0, section 2.5. Raises Refused and Unavailable.
        """
        login = self.logins.get(name)
        if login is None:
            raise Refused(Reason.LOGIN_PROVIDER_UNKNOWN, 404, "no login of that name")
        said = await login.logged_out(token, now)
        lifetime = min(max(said.expires - now, 60.0), _LONGEST_MEMORY) + CLOCKS_APART
        used = f"jti:{len(name)}:{name}:{said.jti}"
        async with once(self.store, used, lifetime) as is_first:
            if not is_first:
                raise Refused(Reason.TOKEN_INVALID, 400, "logout token used before")
            return said, await self._end(said)

    async def _end(self, said: LoggedOut) -> int:
        if said.sid:
            # Section 2.4: without sid all of the person's sessions end. With one that is not known here it has ended
            # already (section 2.7), and the others are those of other browsers.
            return await self.keeper.end_provider_session(said.issuer, said.sid, said.subject)
        return await self.keeper.end_subject(said.issuer, said.subject)

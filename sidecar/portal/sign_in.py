"""Begin and finish sign-ins: choose a provider, send the browser there, open a session when it comes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from aiohttp import web

from sidecar.core.cookies import values_of
from sidecar.faults import Refused, Unavailable
from sidecar.logins.login import Ask, Begin, Login
from sidecar.model import Identity, Requirement, Session, SignedIn, Visit
from sidecar.pages.answers import Answers
from sidecar.portal.application import ApplicationSession
from sidecar.portal.attempts import Attempt, Attempts, browser_of, came_by, new_browser
from sidecar.portal.circles import Circles
from sidecar.portal.forms import KeptForms
from sidecar.portal.lookout import Lookout
from sidecar.portal.reach import Doorplate
from sidecar.portal.site import Site
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.vault import is_token


@dataclass(frozen=True, slots=True)
class Opened:
    """A sign-in that ended well: the session, where to go on, and the Set-Cookie texts that carry it.

    ``is_enough`` is False when the provider did less than the page at ``to`` asks for.
    """

    session: Session
    to: str
    cookies: tuple[str, ...]
    is_enough: bool = True


@dataclass(slots=True, kw_only=True)
class SignIn:
    """The way in. Holds the logins and the attempts under way."""

    site: Site
    logins: Mapping[str, Login]
    attempts: Attempts
    circles: Circles
    keeper: SessionKeeper
    forms: KeptForms
    application: ApplicationSession
    answers: Answers
    accept: Callable[[str, Identity, float], Awaitable[None]] | None = None
    doorplate: Doorplate | None = None
    lookout: Lookout | None = None

    async def begin(  # noqa: PLR0917 - what a sign-in depends on
        self,
        visit: Visit,
        query: Mapping[str, str],
        ask: Ask,
        session: Session | None,
        now: float,
        invitation: str = "",
    ) -> web.Response:
        """Answer ``/login``: a redirect to the provider, or the chooser when several could be meant.

        With *invitation* whoever comes back takes the place that was made for somebody.
        """
        to = self.site.return_to(query.get("to", ""))
        email = query.get("email", "").strip()
        name = query.get("with") or (
            session.provider if session is not None and session.provider in self.logins else ""
        )
        login = self._choose(name, email)
        if login is None and invitation:
            raise Refused(Reason.INVITATION_INVALID, 403, "the link does not say by which login")
        if login is None:
            return self._chooser(visit, to, email)
        browser = browser_of(visit, self.site)
        # With a session that would do, somebody asks for another sign-in by themselves.
        if session is None or not ask.is_met_by(session, now):
            await self.circles.refuse(visit, browser, session, now)
        browser = browser or new_browser()
        state = self.attempts.new_state()
        begin = await self._begun(login, state, replace(ask, login_hint=email), to)
        needs = Requirement(ask.max_age, ask.acr, ask.amr)
        attempt = Attempt(login.name, to, browser, begin.kept, came_by(visit), needs, invitation)
        await self.attempts.keep(state, attempt)
        cookies = [self.site.give_browser(browser)]
        return (
            self.answers.post_on(begin.url, begin.form, cookies) if begin.form else self.answers.go(begin.url, cookies)
        )

    async def _begun(self, login: Login, state: str, ask: Ask, to: str) -> Begin:
        try:
            if self.lookout is not None:
                await self.lookout.before(login.name)
            return await login.begin(state, ask)
        except Unavailable as fault:
            await self._doubt(login, fault)
            fault.at(login.name, to)
            raise

    async def _finished(self, login: Login, attempt: Attempt, answer: Mapping[str, str], now: float) -> SignedIn:
        try:
            signed_in = await login.finish(attempt.kept, answer, now)
        except Unavailable as fault:
            await self._doubt(login, fault)
            fault.at(login.name, attempt.to)
            raise
        if self.lookout is not None:
            await self.lookout.works(login.name)
        return signed_in

    async def _doubt(self, login: Login, fault: Unavailable) -> None:
        if fault.reason is Reason.PROVIDER_DOWN and self.lookout is not None:
            self.lookout.doubt(login.name, fault)
            if self.doorplate is not None:
                await self.doorplate.glance()

    def _choose(self, name: str, email: str) -> Login | None:
        if name:
            if name not in self.logins:
                raise Refused(Reason.LOGIN_PROVIDER_UNKNOWN, 404, "no login of that name")
            return self.logins[name]
        if len(self.logins) == 1:
            return next(iter(self.logins.values()))
        domain = email.rpartition("@")[2].lower()
        at_home = [login for login in self.logins.values() if domain in map(str.lower, login.domains)]
        return at_home[0] if len(at_home) == 1 else None

    def _chooser(self, visit: Visit, to: str, email: str) -> web.Response:
        choices = [
            {
                "name": login.name,
                "title": login.title,
                "is_away": self.lookout is not None and self.lookout.is_away(login.name),
            }
            for login in self.logins.values()
        ]
        asks_email = any(login.domains for login in self.logins.values())
        values = {"choices": choices, "to": to, "asks_email": asks_email, "email": email, "unknown_email": bool(email)}
        values["emergency"] = self.doorplate.link(visit, to) if self.doorplate is not None else ""
        return self.answers.page("chooser", 200, values)

    async def expect_post(self, name: str, form: Mapping[str, str]) -> None:
        """Raise Refused unless a posted answer of the login *name* is expected: nothing else is worth keeping."""
        login = self._login(name)
        if not login.answers_by_post:
            raise Refused(Reason.METHOD_REFUSED, 405, "this provider answers by a redirect")
        state = _state_of(form)
        if login.takes_unsolicited and not is_token(state):
            return
        attempt = await self.attempts.peek(state)
        if attempt.login != name:
            raise Refused(Reason.LOGIN_ISSUER_MIXED, 400, f"begun with {attempt.login}, answered to {name}")

    async def finish(self, visit: Visit, name: str, answer: Mapping[str, str], now: float) -> Opened:
        """Verify the provider's *answer* at the callback of login *name* and open a session.

        The order matters: state and browser first, the code is redeemed last. Raises Refused and Unavailable.
        """
        login = self._login(name)
        state = _state_of(answer)
        browser = browser_of(visit, self.site)
        if login.takes_unsolicited and not is_token(state):
            # Begun at the provider: nothing of ours to compare with, only own paths may be gone to.
            attempt = Attempt(name, self.site.return_to(state), "", {})
        else:
            attempt = await self.attempts.use(state, name, browser, came_by(visit))
        signed_in = await self._finished(login, attempt, answer, now)
        await self.attempts.never_again(name, signed_in.once, now)
        if attempt.invitation:
            if self.accept is None:
                raise Refused(Reason.INVITATION_INVALID, 403, "there are no invitations any more")
            await self.accept(attempt.invitation, signed_in.identity, now)
        token, session, dropped = await self.open(visit, signed_in, now)
        if browser:
            await self.circles.note_end(browser, now)
        is_enough = attempt.needs.is_met_by(session.auth_time, session.acr, session.amr, now)
        return Opened(session, attempt.to, (self.site.give_session(token), *dropped), is_enough)

    def _login(self, name: str) -> Login:
        login = self.logins.get(name)
        if login is None:
            raise Refused(Reason.LOGIN_PROVIDER_UNKNOWN, 404, "no login of that name")
        return login

    async def open(self, visit: Visit, signed_in: SignedIn, now: float) -> tuple[str, Session, list[str]]:
        """Open a session; of the application's cookies only those of the same person stay.

        Whose they are is known by the session before. Where nobody knows, those that are listed go: they may be
        somebody's; the others may be older than any sign-in.
        """
        owner = await self.forms.owner(visit)
        is_same, is_other = owner == signed_in.identity.key, owner not in ("", signed_in.identity.key)
        dropped = [] if is_same else self.application.parting_cookies(visit, everything=is_other)
        foreign = self.application.marks(visit) if is_other else ()
        previous: Sequence[str] = values_of(visit.cookies, self.site.session_cookie)
        token, session = await self.keeper.open(signed_in, now, previous[0] if previous else None, foreign)
        await self.forms.remember_owner(token, session)
        return token, session, dropped

    def knows(self, name: str) -> bool:
        """True when there is a login of that name."""
        return name in self.logins

    async def way_back(self, answer: Mapping[str, str]) -> str:
        """Where the attempt that *answer* belongs to wanted to go; "/" when nobody knows."""
        try:
            return (await self.attempts.peek(_state_of(answer))).to
        except Refused:
            return "/"

    async def is_overtaken(self, visit: Visit, answer: Mapping[str, str]) -> bool:
        """True when it does no harm that this browser sends another binding cookie than the attempt was begun with.

        Tabs whose first requests cross each get a cookie, of which the browser keeps the last. To go to the page again
        opens nothing that a link to it would not open; an answer that belongs to somebody else is not used up. Who was
        invited has their link to begin with.
        """
        attempt = await self.attempts.peek(_state_of(answer))
        return not attempt.invitation and await self.circles.may_begin_anew(browser_of(visit, self.site))


def _state_of(answer: Mapping[str, str]) -> str:
    """State of an answer: OAuth's ``state`` or SAML's ``RelayState``, which carries the same."""
    return answer.get("state") or answer.get("RelayState", "")

"""Answer the link of an invitation: begin the sign-in that takes the place made for somebody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from sidecar.faults import Refused
from sidecar.logins.login import Ask
from sidecar.model import Identity, Visit
from sidecar.pages.answers import Answers
from sidecar.portal.parameters import parameters_of, query_of
from sidecar.portal.sign_in import SignIn
from sidecar.reason import Reason

# Gives the id of the invitation that a code opens at a login; raises Refused.
Open = Callable[[str, str, float], Awaitable[str]]
Accept = Callable[[str, Identity, float], Awaitable[None]]


async def nobody_invites(_code: str, _login: str, _now: float) -> str:
    """Stand for ``Open`` where there are no invitations."""
    raise Refused(Reason.INVITATION_INVALID, 403, "there are no invitations here")


@dataclass(slots=True, kw_only=True)
class InvitationPage:
    """``invitation?code=…``. Looking at it uses nothing up: mail programs open links before people do."""

    open: Open
    sign_in: SignIn
    answers: Answers

    async def got(self, request: web.BaseRequest, visit: Visit, _rest: str, now: float) -> web.Response:
        """Send the browser to the provider, with the invitation kept in the attempt."""
        query = parameters_of(query_of(request))
        try:
            invitation = await self.open(query.get("code", ""), query.get("with", ""), now)
        except Refused as refused:
            return self.answers.refused(visit.but(wants_page=True), refused)
        wanted = {name: query[name] for name in ("with",) if name in query}
        # Whoever is signed in here may be somebody else: the provider is to ask.
        return await self.sign_in.begin(visit, wanted, Ask(prompt="login"), None, now, invitation)

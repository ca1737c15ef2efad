"""Answer the pages that only SAML has: our metadata, and single logout in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from sidecar.core.audit import Event
from sidecar.core.cookies import values_of
from sidecar.faults import Refused
from sidecar.logins.login import Brought, LogoutAsked, SamlParty
from sidecar.model import Visit
from sidecar.pages.answers import Answers
from sidecar.portal.attempts import Attempts
from sidecar.portal.farewells import Farewells
from sidecar.portal.parameters import parameters_of, query_of, read_form
from sidecar.portal.sign_out import SignOut
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.vault import is_token
from sidecar.telemetry.audit import AuditLog

PARTIAL = "partial"
_MEDIA_TYPE = "application/samlmetadata+xml"


@dataclass(slots=True, kw_only=True)
class SamlPages:
    """``saml/NAME/metadata`` and ``saml/NAME/logout``; sessions are found by what the provider calls them.

    A provider's POST comes from another site and brings no cookie, so nothing here needs one.
    """

    parties: Mapping[str, SamlParty]
    keeper: SessionKeeper
    attempts: Attempts
    farewells: Farewells
    sign_out: SignOut
    answers: Answers
    audit: AuditLog

    async def got(self, request: web.BaseRequest, visit: Visit, rest: str, now: float) -> web.Response:
        """Answer a GET: our metadata, or a message by redirect."""
        name, page = self._page(rest)
        if page == "metadata":
            return self.answers.document(await self.parties[name].own_metadata(now), _MEDIA_TYPE)
        query = query_of(request)
        return await self._logout(visit, name, Brought(query=query or "-"), parameters_of(query), now)

    async def posted(self, request: web.BaseRequest, visit: Visit, rest: str, now: float) -> web.Response:
        """Answer a POST: a message by a form."""
        name, page = self._page(rest)
        if page == "metadata":
            raise Refused(Reason.METHOD_REFUSED, 405, "our metadata is read")
        form = parameters_of(await read_form(request))
        return await self._logout(visit, name, Brought(form=form), form, now)

    def _page(self, rest: str) -> tuple[str, str]:
        name, _, page = rest.partition("/")
        if page not in ("metadata", "logout"):
            raise Refused(Reason.NOT_FOUND, 404, "no such page")
        if name not in self.parties:
            raise Refused(Reason.LOGIN_PROVIDER_UNKNOWN, 404, "no SAML login of that name")
        return name, page

    async def _logout(
        self, visit: Visit, name: str, brought: Brought, fields: Mapping[str, str], now: float
    ) -> web.Response:
        if "SAMLResponse" in fields:
            return await self._answered(name, brought, fields.get("RelayState", ""), now)
        person = visit.but(wants_page=True)
        try:
            asked = await self.parties[name].logout_asked(brought, now)
            async with self.attempts.acting_once(name, asked.message, asked.expires, now):
                ended = await self._end(asked)
        except Refused as refused:
            fields = {"provider": name, "reason": refused.reason.value, "detail": refused.detail}
            self.audit.record(Event.PROVIDER_LOGOUT, {**fields, "client": visit.client, "reference": visit.reference})
            return self.answers.refused(person, refused)
        said = {"provider": name, "issuer": asked.issuer, "ended": ended, "client": visit.client}
        self.audit.record(Event.PROVIDER_LOGOUT, said)
        cookies = await self._cookies(visit, now)
        answer = await self.parties[name].logout_answer(asked, now)
        if answer is None:
            return self.answers.page("signed_out", 200, {}, cookies)
        return self.answers.onward(answer.url, answer.form, cookies)

    async def _end(self, asked: LogoutAsked) -> int:
        """End exactly the sessions that were named, all of the person without any name; how many."""
        if not asked.sids:
            return await self.keeper.end_alias(asked.issuer, asked.alias)
        return sum([await self.keeper.end_provider_session(asked.issuer, sid) for sid in asked.sids])

    async def _cookies(self, visit: Visit, now: float) -> list[str]:
        """Take this browser's cookies away if it was its session that ended."""
        tokens = values_of(visit.cookies, self.sign_out.site.session_cookie)
        if not tokens or any([await self.keeper.find(token, now) is not None for token in tokens]):
            return []
        return self.sign_out.parting_cookies(visit)

    async def _answered(self, name: str, brought: Brought, state: str, now: float) -> web.Response:
        """Take the provider's answer to our own request: the session here is over whatever it says."""
        kept = await self.farewells.take(state if is_token(state) else "", name)
        try:
            is_complete = await self.parties[name].logout_answered(brought, kept, now)
        except Refused as refused:
            is_complete = False
            said = {"reason": refused.reason.value, "detail": refused.detail}
        else:
            said = {"result": "complete" if is_complete else PARTIAL}
        self.audit.record(Event.PROVIDER_SIGNED_OUT, {"provider": name, **said})
        page = self.sign_out.site.path("signed-out")
        return self.answers.go(page if is_complete else f"{page}?{PARTIAL}", status=303)

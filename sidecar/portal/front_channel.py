"""Take sign-outs that a provider sends through a frame in the browser (OpenID Connect Front-Channel Logout 1.0)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from sidecar.core.audit import Event
from sidecar.faults import Refused
from sidecar.logins.login import Framing
from sidecar.model import Visit
from sidecar.pages.answers import Answers
from sidecar.portal.parameters import parameters_of, query_of
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper
from sidecar.telemetry.audit import AuditLog

_LONGEST = 1024


@dataclass(slots=True, kw_only=True)
class FrontChannel:
    """``frontchannel/NAME?iss=…&sid=…``: nobody signs it, so it ends nothing but the sessions of that very ``sid``.

    A frame on the provider's site brings no cookie of ours (SameSite), and none is needed or looked at: with one, any
    site could sign people out.
    """

    parties: Mapping[str, Framing]
    keeper: SessionKeeper
    answers: Answers
    audit: AuditLog

    async def got(self, request: web.BaseRequest, visit: Visit, name: str, _now: float) -> web.Response:
        """Answer the frame: with a page that only the provider may frame."""
        party = self.parties.get(name)
        if party is None:
            raise Refused(Reason.LOGIN_PROVIDER_UNKNOWN, 404, "no login of that name takes front-channel logout")
        fields: dict[str, object] = {"provider": name, "way": "front-channel", "client": visit.client}
        try:
            sid = _session(parameters_of(query_of(request)), party.issuer)
        except Refused as refused:
            said = {"reason": refused.reason.value, "detail": refused.detail, "reference": visit.reference}
            self.audit.record(Event.PROVIDER_LOGOUT, {**fields, **said})
            raise
        ended = await self.keeper.end_provider_session(party.issuer, sid)
        self.audit.record(Event.PROVIDER_LOGOUT, {**fields, "issuer": party.issuer, "ended": ended})
        return self.answers.framed("signed_out", {}, await party.frames())


def _session(parameters: Mapping[str, str], issuer: str) -> str:
    """Section 2: both or neither; without, there is no telling whose session it is."""
    said, sid = parameters.get("iss", ""), parameters.get("sid", "")
    if not 0 < len(sid) <= _LONGEST or not said:
        raise Refused(Reason.LOGIN_ANSWER_INVALID, 400, "iss and sid are needed")
    if not secrets.compare_digest(said.encode(), issuer.encode()):
        raise Refused(Reason.LOGIN_ISSUER_MIXED, 400, "iss is another provider")
    return sid

"""The application's own sign-out: whoever leaves there leaves here, too, and at the provider."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from sidecar.core.audit import Event
from sidecar.core.callers import is_ahead, is_embedded
from sidecar.core.headers import Line
from sidecar.core.paths import Target
from sidecar.faults import Refused
from sidecar.model import Visit
from sidecar.portal.sign_out import SignOut
from sidecar.reason import Reason
from sidecar.telemetry.audit import AuditLog
from sidecar.upstream import Head, Upstream, wants_websocket

Alter = Callable[[list[Line]], list[Line]]


@dataclass(frozen=True, slots=True)
class Leaving:
    """Ends our session when the application is told to end its own."""

    sign_out: SignOut
    upstream: Upstream
    audit: AuditLog

    @property
    def takes_over(self) -> bool:
        """Whether the application's sign-out is answered here, and does not reach it as the request that it was."""
        return self.sign_out.application.takes_over

    def may_be(self, visit: Visit) -> bool:
        """True for what the application's own sign-out may be, as far as the path says."""
        return self.sign_out.application.is_sign_out(visit, None)

    def is_meant(self, request: web.BaseRequest, visit: Visit, target: Target) -> bool:
        """True for the application's own sign-out, unless another site, or something embedded, asks for it.

        Raises Refused for one that is fetched ahead: the browser asks anew when somebody really goes there.
        """
        if not self.sign_out.application.is_sign_out(visit, target.raw):
            return False
        if is_ahead(request.headers):
            raise Refused(Reason.CSRF, 403, "sign-out fetched ahead")
        if wants_websocket(request) or is_embedded(request.headers):
            return False
        return not self.sign_out.site.is_asked_elsewhere(request.headers)

    async def take_over(self, visit: Visit, now: float) -> web.StreamResponse:
        """Sign out in the application's place."""
        answer, session = await self.sign_out.sign_out(visit, now)
        self._say(session, visit)
        return answer

    async def carry(
        self,
        request: web.BaseRequest,
        visit: Visit,
        head: Head,
        answering: Callable[[Sequence[Line]], Alter],
        now: float,
    ) -> web.StreamResponse:
        """End our session, let the application have its sign-out, and send the browser on to the provider's."""
        left = await self.sign_out.leave(visit, now, calls=False)
        self._say(left.session, visit)
        onward = self.sign_out.site.path("signed-out")
        if left.onward is not None:
            # What has to be posted cannot stand in for another answer; the page then says that it is not complete.
            onward = f"{onward}?partial" if left.onward.form else left.onward.url
        alter = answering([("Set-Cookie", cookie) for cookie in left.cookies])

        def leading(lines: list[Line]) -> list[Line]:
            if not visit.wants_page or not left.session:
                return alter(lines)
            leads = any(name.lower() == "location" for name, _ in lines)
            kept = [line for line in alter(lines) if line[0].lower() not in ("location", "refresh")]
            return [*kept, ("Location", onward) if leads else ("Refresh", f"0;url={onward}")]

        return await self.upstream.carry(request, head, alter=leading)

    def _say(self, session: str, visit: Visit) -> None:
        if session:
            self.audit.record(Event.SIGNED_OUT, {"session": session, "client": visit.client, "way": "application"})

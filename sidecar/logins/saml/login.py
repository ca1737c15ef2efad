"""Sign people in at a SAML identity provider (SAML 2.0 Profiles, section 4.1: Web Browser SSO)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sidecar.config.saml import SamlLogin
from sidecar.core.claims import IdentityPlan
from sidecar.logins.login import Ask, Begin, LoggedOut
from sidecar.logins.saml.parties import ProviderMetadata, ServiceProvider
from sidecar.model import Grant, Reason, Refused, Session, SignedIn


class SamlSignIn:
    """One SAML identity provider as a Login."""

    answers_by_post = True

    def __init__(
        self,
        name: str,
        section: SamlLogin,
        service: ServiceProvider,
        metadata: ProviderMetadata,
        plan: IdentityPlan,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Sign in at the provider that *metadata* describes, as *service*; no network is used yet."""
        self.name = name
        self.title = section.title or name
        self.domains = section.domains
        self.takes_unsolicited = section.unsolicited
        self.service = service
        self.metadata = metadata
        self.plan = plan
        self._section = section
        self._clock = clock

    async def begin(self, state: str, ask: Ask) -> Begin:
        """Begin a sign-in."""
        raise NotImplementedError(state, ask)

    async def finish(self, kept: Mapping[str, str], answer: Mapping[str, str], now: float) -> SignedIn:
        """Verify the answer."""
        raise NotImplementedError(kept, answer, now)

    async def refresh(self, session: Session, grant: Grant, now: float) -> SignedIn:
        """There is nothing to ask a SAML provider between sign-ins."""
        del session, grant, now
        raise Refused(Reason.REFRESH_REFUSED, detail="SAML has no refresh")

    async def sign_out_url(self, session: Session, grant: Grant, return_to: str, state: str) -> str | None:
        """Where the browser goes to sign out at the provider too."""
        del session, grant, return_to, state
        return None

    async def logged_out(self, token: str, now: float) -> LoggedOut:
        """Refuse: a SAML provider signs people out by messages through the browser, never by a token."""
        del token, now
        raise Refused(Reason.METHOD_REFUSED, 405, "no back-channel sign-out with SAML")

    async def probe(self) -> str:
        """Fetch the provider's metadata anew."""
        return await self.metadata.probe()

    async def close(self) -> None:
        """Let go of connections."""
        await self.metadata.close()

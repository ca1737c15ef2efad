"""Have a token to show at a transmitter: a fixed one, or one that the login's own client is given for it."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.config.signals import SignalTransmitter
from sidecar.faults import Refused, Unavailable
from sidecar.logins.provider import Provider
from sidecar.reason import Reason

_USED_FOR = 0.8


class Access:
    """Gives the token; one that runs out is asked for anew (client credentials; RFC 6749, section 4.4)."""

    def __init__(self, section: SignalTransmitter, provider: Provider, clock: Callable[[], float]) -> None:
        """*provider* is the one of the section's login; *clock* gives epoch seconds."""
        self._fixed = "" if section.access is None else section.access.reveal()
        self._scopes = " ".join(section.scopes)
        self._provider = provider
        self._clock = clock
        self._token = ""
        self._until = 0.0

    async def token(self) -> str:
        """A token that is good now, "" where none was configured. Raises Unavailable."""
        if self._fixed or not self._scopes:
            return self._fixed
        now = self._clock()
        if now >= self._until:
            try:
                tokens = await self._provider.tokens(
                    Reason.REFRESH_REFUSED, now, "client_credentials", scope=self._scopes
                )
            except Refused as refused:
                detail = f"{self._provider.name}: no token for {self._scopes}: {refused.detail}"
                raise Unavailable(Reason.PROVIDER_DOWN, detail) from refused
            self._token, self._until = tokens.access_token, now + _USED_FOR * tokens.lifetime
        return self._token

    def forget(self) -> None:
        """The token was not taken: ask for another next time."""
        self._until = 0.0

    async def close(self) -> None:
        """Let go of connections."""
        await self._provider.close()

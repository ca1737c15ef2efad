"""Take an answer that a provider posts from its own site, and pick it up in a request that brings our cookies.

A cross-site POST arrives without cookies that are SameSite=Lax, so it cannot be tied to the browser that began. It is
sealed in the store under a one-time token, and the browser is sent on (303) to a GET of our own, which brings them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from sidecar.faults import Refused
from sidecar.reason import Reason
from sidecar.sessions.vault import Vault

_LIFETIME = 120.0


class Handover:
    """Keeps posted answers for the moment between the POST and the GET."""

    def __init__(self, vault: Vault) -> None:
        """Seal in *vault*."""
        self._vault = vault

    async def leave(self, answer: Mapping[str, str]) -> str:
        """Keep *answer*; the token that picks it up once."""
        token = self._vault.token()
        await self._vault.put(token, json.dumps(dict(answer)).encode(), _LIFETIME)
        return token

    async def pick_up(self, token: str) -> dict[str, str]:
        """Give the answer, once. Raises Refused(LOGIN_STATE_UNKNOWN) when it was picked up before or is too old."""
        raw = await self._vault.take(token)
        if raw is None:
            raise Refused(Reason.LOGIN_STATE_UNKNOWN, 400, "no posted answer of that name")
        answer: dict[str, str] = json.loads(raw)
        return answer

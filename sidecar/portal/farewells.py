"""Remember sign-outs under way at a provider until its answer comes, once."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sidecar.faults import Refused
from sidecar.reason import Reason
from sidecar.sessions.vault import Vault

_LIFETIME = 600.0


class Farewells:
    """Keeps what the answer must fit, sealed in the store; the session itself has ended before."""

    def __init__(self, vault: Vault) -> None:
        """Seal in *vault*."""
        self._vault = vault

    def new_state(self) -> str:
        """Random state: the record's only key, which travels as RelayState."""
        return self._vault.token()

    async def keep(self, state: str, login: str, kept: Mapping[str, str]) -> None:
        """Keep what the *login* wants back."""
        await self._vault.put(state, json.dumps([login, dict(kept)]).encode(), _LIFETIME)

    async def take(self, state: str, login: str) -> Mapping[str, str]:
        """Give it, once. Raises Refused: LOGIN_STATE_UNKNOWN, or LOGIN_ISSUER_MIXED for another login's."""
        raw = await self._vault.take(state)
        if raw is None:
            raise Refused(Reason.LOGIN_STATE_UNKNOWN, 400, "no sign-out of that name is under way")
        begun_with, kept = json.loads(raw)
        if begun_with != login:
            raise Refused(Reason.LOGIN_ISSUER_MIXED, 400, f"begun with {begun_with}, answered to {login}")
        known: Mapping[str, str] = kept
        return known

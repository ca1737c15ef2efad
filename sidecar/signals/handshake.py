"""Know by its state that a verification event was asked for here: by whichever replica, or by the command."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence

from sidecar.sessions.store import Store

_LASTS = 600.0
_REMEMBERED = 3600.0
_HEARD = 90 * 24 * 3600.0


class Handshake:
    """Makes states that prove themselves, and keeps in the store which of them came back."""

    def __init__(self, store: Store, secret: Sequence[bytes], name: str) -> None:
        """Prove by the server's secrets, the newest first, for the transmitter *name*."""
        self._store = store
        self._secrets = secret
        self._name = name

    def new_state(self, now: float) -> str:
        """State for one verification, good for ten minutes."""
        said = f"{int(now)}.{secrets.token_urlsafe(12)}"
        return f"{said}.{self._proof(self._secrets[0], said)}"

    def is_ours(self, state: str, now: float) -> bool:
        """True for a state that was made here not long ago."""
        said, _, proof = state.rpartition(".")
        known = [hmac.compare_digest(proof.encode(), self._proof(one, said).encode()) for one in self._secrets]
        began = said.partition(".")[0]
        return any(known) and began.isdigit() and -_LASTS <= now - int(began) <= _LASTS

    def _proof(self, secret: bytes, said: str) -> str:
        digest = hmac.new(secret, f"signals:{self._name}:{said}".encode(), hashlib.sha256).digest()
        return urlsafe_b64encode(digest).decode().rstrip("=")

    async def came_back(self, state: str) -> None:
        """Note that the transmitter sent *state*. Raises Unavailable."""
        await self._store.put(self._key(state), b"1", _REMEMBERED)

    async def has_come_back(self, state: str) -> bool:
        """True once it was noted. Raises Unavailable."""
        return await self._store.get(self._key(state)) is not None

    def _key(self, state: str) -> str:
        return f"signal-verified:{hashlib.sha256(f'{self._name}:{state}'.encode()).hexdigest()}"

    async def note_heard(self, now: float) -> None:
        """Note that an event came. Raises Unavailable."""
        await self._store.put(f"signal-heard:{self._name}", str(int(now)).encode(), _HEARD)

    async def heard(self) -> float | None:
        """When the last event came; None when none did for long. Raises Unavailable."""
        raw = await self._store.get(f"signal-heard:{self._name}")
        return None if raw is None else float(raw)

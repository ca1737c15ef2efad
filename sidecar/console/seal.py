"""Prove that a form comes from a page of ours that was made for this very session."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from sidecar.core.callers import is_from_here
from sidecar.faults import Refused
from sidecar.reason import Reason

FIELD = "seal"


class Seal:
    """Makes and checks the hidden field of forms. Nothing is stored: the session's token and a secret make it."""

    def __init__(self, secrets: Sequence[bytes], origin: str) -> None:
        """The first of *secrets* makes, all of them check; *origin* is the console's own."""
        self._secrets = tuple(secrets)
        self._origin = origin

    def of(self, token: str) -> str:
        """The field for the session of *token*."""
        return _made(self._secrets[0], token)

    def refuse_foreign(self, headers: Mapping[str, str], token: str, form: Mapping[str, str]) -> None:
        """Raise Refused(CSRF) unless the browser says that our own page sends this, and it has this session's seal."""
        if not is_from_here(self._origin, headers):
            raise Refused(Reason.CSRF, 403, "not sent by a page of the console")
        sent = form.get(FIELD, "").encode()
        if not any(hmac.compare_digest(sent, _made(secret, token).encode()) for secret in self._secrets):
            raise Refused(Reason.CSRF, 403, "the form is of another session")


def _made(secret: bytes, token: str) -> str:
    return hmac.new(secret, f"console form {token}".encode(), hashlib.sha256).hexdigest()

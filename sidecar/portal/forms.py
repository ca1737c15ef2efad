"""Keep a form that met an expired session, and hand it back once after the sign-in."""

from __future__ import annotations

import json
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass

from aiohttp import web

from sidecar.core.callers import is_from_here
from sidecar.core.cookies import values_of
from sidecar.model import Session, Visit
from sidecar.portal.attempts import browser_of, new_browser
from sidecar.portal.site import Site
from sidecar.sessions.vault import Vault

_FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")


@dataclass(frozen=True, slots=True)
class KeptForm:
    """A form that waits: where it goes, what it holds, which browser it came from."""

    target: str
    content_type: str
    body: bytes
    browser: str


class KeptForms:
    """Seals forms in the store for as long as a sign-in may take."""

    def __init__(self, vault: Vault, site: Site, limit: int, lifetime: float) -> None:
        """Keep bodies up to *limit* bytes (0: none) for *lifetime* seconds."""
        self._vault = vault
        self._site = site
        self._limit = limit
        self._lifetime = lifetime

    async def keep(self, request: web.BaseRequest, visit: Visit, target: str) -> tuple[str, ...] | None:
        """Keep the form of *request*; Set-Cookie texts that lead back to it, None when it cannot be kept.

        Only forms sent from this very site are kept: replaying one that another site sent would turn its request,
        which SameSite had stripped of the session, into a signed-in one.
        """
        length = request.content_length
        plain_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if request.method != "POST" or length is None or not 0 < length <= self._limit:
            return None
        if plain_type not in _FORM_TYPES or "Content-Encoding" in request.headers:
            return None
        if not is_from_here(self._site.origin, request.headers):
            return None
        body = await request.content.readexactly(length)
        browser = browser_of(visit, self._site) or new_browser()
        record = {"t": target, "c": request.headers["Content-Type"], "d": b64encode(body).decode(), "b": browser}
        token = self._vault.token()
        await self._vault.put(token, json.dumps(record).encode(), self._lifetime)
        return self._site.give_browser(browser), self._site.give_form(token)

    async def take(self, visit: Visit, target: str, session: Session) -> KeptForm | None:
        """Give the form that this browser left for *target*, once, now that somebody is signed in."""
        del session  # the signature says it: without a session no form is handed out
        if visit.method != "GET":
            return None
        for token in values_of(visit.cookies, self._site.form_cookie):
            raw = await self._vault.get(token)
            if raw is None:
                continue
            record = json.loads(raw)
            is_same = secrets.compare_digest(record["b"].encode(), browser_of(visit, self._site).encode())
            if record["t"] != target or not is_same or await self._vault.take(token) is None:
                continue
            return KeptForm(record["t"], record["c"], b64decode(record["d"]), record["b"])
        return None

"""Keep a form that met an expired session, and hand it back once after the sign-in."""

from __future__ import annotations

import asyncio
import json
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass

from aiohttp import web

from sidecar.core.callers import is_from_here
from sidecar.core.cookies import values_of
from sidecar.faults import Refused
from sidecar.model import Session, Visit
from sidecar.portal.attempts import browser_of, new_browser
from sidecar.portal.room import Room
from sidecar.portal.site import Site
from sidecar.reason import Reason
from sidecar.sessions.vault import Vault

_FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
_PATIENCE = 15.0
# Anybody can send forms: what all those under way may take of the store together, for each worker.
_MOST_BYTES = 64 * 1024 * 1024
_OVERHEAD = 1024


@dataclass(frozen=True, slots=True)
class KeptForm:
    """A form that waits: where it goes, what it holds, which browser it came from."""

    target: str
    content_type: str
    body: bytes
    browser: str


class KeptForms:
    """Seals forms in the store for as long as a sign-in may take, and remembers whose sessions those were."""

    def __init__(  # noqa: PLR0917 - where, for whom, how much and how long
        self, vault: Vault, owners: Vault, site: Site, limit: int, lifetime: float, memory: float
    ) -> None:
        """Keep bodies up to *limit* bytes (0: none) for *lifetime* seconds, and whose a session was for *memory*.

        The tokens of forms and of sessions both come from browsers, so each kind has a vault of its own: one that is
        sent in the other's place opens nothing.
        """
        self._vault = vault
        self._owners = owners
        self._site = site
        self._limit = limit
        self._lifetime = lifetime
        self._memory = memory
        self._room = Room(_MOST_BYTES, lifetime)

    async def remember_owner(self, token: str, session: Session) -> None:
        """Note who signed in to the session of *token*: what meets its end later is theirs and nobody else's."""
        await self._owners.put(token, session.identity.key.encode(), self._memory)

    async def keep(self, request: web.BaseRequest, visit: Visit, target: str) -> tuple[str, ...] | None:
        """Keep the form of *request*; Set-Cookie texts that lead back to it, None when it cannot be kept.

        Only forms sent from this very site are kept: replaying one that another site sent would turn its request,
        which SameSite had stripped of the session, into a signed-in one. Raises Refused for a body that does not come.
        """
        length = self._length(request)
        # Not the body alone: an address or a type can be many times as long as a form of one byte.
        size = _OVERHEAD + 2 * length + len(target) + len(request.headers.get("Content-Type", ""))
        if not length or not self._room.take(size):
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                body = await request.content.readexactly(length)
        except (TimeoutError, asyncio.IncompleteReadError):
            raise Refused(Reason.HEADERS_INVALID, 400, "the form did not arrive whole") from None
        browser = browser_of(visit, self._site) or new_browser()
        record = {"t": target, "c": request.headers["Content-Type"], "d": b64encode(body).decode(), "b": browser}
        token = self._vault.token()
        sealed = json.dumps({**record, "o": await self.owner(visit)}).encode()
        await self._vault.put(token, sealed, self._lifetime)
        return self._site.give_browser(browser), self._site.give_form(token)

    def _length(self, request: web.BaseRequest) -> int:
        """Length of a form that may be kept, 0 for anything else."""
        length = request.content_length
        plain_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if request.method != "POST" or length is None or not 0 < length <= self._limit:
            return 0
        if plain_type not in _FORM_TYPES or "Content-Encoding" in request.headers:
            return 0
        return length if is_from_here(self._site.origin, request.headers) else 0

    async def owner(self, visit: Visit) -> str:
        """Identity key of whoever signed in to the session that this browser still names, "" when nobody knows."""
        for token in values_of(visit.cookies, self._site.session_cookie):
            owner = await self._owners.get(token)
            if owner is not None:
                return owner.decode()
        return ""

    async def take(self, visit: Visit, target: str, session: Session) -> KeptForm | None:
        """Give the form that this browser left for *target*, once, now that its owner is signed in.

        Only to somebody who goes to the page: a script or a WebSocket that comes by is not answered with it.
        """
        if visit.method != "GET" or not visit.wants_page:
            return None
        for token in values_of(visit.cookies, self._site.form_cookie):
            raw = await self._vault.get(token)
            if raw is None:
                continue
            record = json.loads(raw)
            is_same = secrets.compare_digest(record["b"].encode(), browser_of(visit, self._site).encode())
            is_theirs = record["o"] in ("", session.identity.key)
            if record["t"] != target or not is_same or not is_theirs or await self._vault.take(token) is None:
                continue
            return KeptForm(record["t"], record["c"], b64decode(record["d"]), record["b"])
        return None

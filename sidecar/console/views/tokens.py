"""Pages about tokens: those that the sidecar issued, and those of SCIM clients; never a token itself."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.condition import Accounts
from sidecar.config.models import Config
from sidecar.console.page import Asked, Page
from sidecar.core.audit import Event
from sidecar.directory import Directory
from sidecar.directory.tokens import Standing, standing_of
from sidecar.faults import Refused
from sidecar.reason import Reason
from sidecar.telemetry.reading import Line
from sidecar.telemetry.trail import look_back

PAGE = 50
_ID = re.compile(r"[0-9a-f]{32}")
_SHOWN = {"good": Standing.GOOD, "expired": Standing.EXPIRED, "revoked": Standing.REVOKED, "all": None}


@dataclass(frozen=True, slots=True)
class ScimTold:
    """One token of a SCIM client as the configuration has it."""

    client: str
    number: int
    scope: str
    expires: str
    networks: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class TokenPages:
    """``/tokens`` and ``/tokens/ID``."""

    config: Config
    accounts: Accounts
    audit_file: Path | None

    async def show(self, asked: Asked) -> Page:
        """A page of tokens, or one of them."""
        directory = self.accounts.directory
        if directory is None:
            raise Refused(Reason.NOT_FOUND, 404, "no tokens are kept here")
        if asked.rest:
            return await self._one(directory, asked)
        text, show = asked.query.get("q", "").strip(), asked.query.get("show", "good")
        if show not in _SHOWN:
            raise Refused(Reason.NOT_FOUND, 404, "no such tokens")
        after = _after(asked)
        found = await directory.tokens.page(_SHOWN[show], text, after, PAGE + 1, asked.now)
        more = found[PAGE - 1].token if len(found) > PAGE else None
        values: dict[str, Any] = {"q": text, "show": show, "shows": list(_SHOWN), "found": found[:PAGE], "more": more}
        values |= {"is_begun": after is not None, "scim": self._scim(), "is_on": self.config.tokens is not None}
        return Page("tokens", {**values, "standing_of": standing_of})

    async def _one(self, directory: Directory, asked: Asked) -> Page:
        found = await directory.tokens.get(asked.rest) if _ID.fullmatch(asked.rest) else None
        if found is None:
            raise Refused(Reason.NOT_FOUND, 404, "there is no such token")
        token, person = found
        values = {"token": token, "person": person, "state": standing_of(token, asked.now).value}
        return Page("token", {**values, "last": await self._last(token.id), "has_file": self.audit_file is not None})

    async def _last(self, token_id: str) -> Line | None:
        """The newest audit line of a request that showed this token."""
        if self.audit_file is None:
            return None
        name, decision = f"token-{token_id}", Event.DECISION.value
        try:
            looked = await asyncio.to_thread(
                look_back,
                self.audit_file,
                lambda line: line.get("event") == decision and line.get("session") == name,
                needles=[name],
                most=1,
            )
        except OSError:
            return None
        return looked.lines[0] if looked.lines else None

    def _scim(self) -> Sequence[ScimTold]:
        clients = self.config.scim.clients if self.config.scim is not None else {}
        return [
            ScimTold(
                client=name,
                number=number,
                scope=token.scope,
                expires="" if token.expires is None else token.expires.isoformat(),
                networks=tuple(map(str, client.networks)),
            )
            for name, client in clients.items()
            for number, token in enumerate(client.token, 1)
        ]


def _after(asked: Asked) -> tuple[float, str] | None:
    if "after" not in asked.query:
        return None
    try:
        after = float(asked.query["after"])
    except ValueError:
        after = math.nan
    if not math.isfinite(after):
        raise Refused(Reason.NOT_FOUND, 404, "no such place")
    return after, asked.query.get("id", "")

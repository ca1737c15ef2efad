"""The page that says rule by rule what would happen to somebody's request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.condition import Accounts
from sidecar.config.models import Config
from sidecar.console.acts import operator_fields
from sidecar.console.page import Asked, Page
from sidecar.core.audit import Event
from sidecar.core.policy import ORDINARY_METHODS
from sidecar.core.reasons import EXPLANATIONS
from sidecar.faults import Refused, Unavailable
from sidecar.foresight import Foresight, Question, foresee
from sidecar.telemetry.audit import AuditLog

_FIELDS = ("method", "target", "login", "claims", "client", "host", "via")


class _UnusableError(ValueError):
    """What was typed cannot be asked; the text says why."""


@dataclass(slots=True, kw_only=True)
class AccessPage:
    """``/access``: decided by the very functions of the gate, nothing is called but engines that are inside."""

    config: Config
    accounts: Accounts
    audit: AuditLog

    async def show(self, asked: Asked) -> Page:
        """The form, filled in for somebody where the address names them; with an answer when it was sent."""
        typed = {"method": "GET", "target": "/", "login": next(iter(self.config.logins)), "claims": ""}
        typed |= {"client": "", "host": "", "via": "cookie"}
        typed |= {name: asked.form[name] for name in _FIELDS if name in asked.form}
        if not asked.form and "person" in asked.query:
            typed |= await self._of_person(asked.query["person"])
        values: dict[str, Any] = {
            "typed": typed,
            "logins": list(self.config.logins),
            "methods": sorted(ORDINARY_METHODS),
            "problem": "",
            "seen": None,
        }
        if asked.form:
            values |= await self._answered(asked, typed)
        return Page("access", values)

    async def _of_person(self, person_id: str) -> Mapping[str, str]:
        directory = self.accounts.directory
        told = () if directory is None else await directory.profiles.of_person(person_id)
        logins = sorted((one for one in told if one.is_login), key=lambda one: one.updated)
        if not logins or logins[-1].source not in self.config.logins:
            return {}
        claims = json.dumps(dict(logins[-1].identity.claims), indent=2, ensure_ascii=False)
        return {"login": logins[-1].source, "claims": claims}

    async def _answered(self, asked: Asked, typed: Mapping[str, str]) -> Mapping[str, Any]:
        self.audit.record(Event.CONSOLE_READ, {**operator_fields(asked), "target": typed["target"][:200]})
        try:
            seen = await self._foreseen(_question(self.config, typed), asked.now)
        except _UnusableError as error:
            return {"problem": str(error)}
        except Refused as refused:
            said = EXPLANATIONS[refused.reason].happened
            return {"problem": f"refused: {refused.reason.value}: {said} {refused.detail}".strip()}
        return {"seen": seen, "reason": EXPLANATIONS.get(seen.decision.reason)}

    async def _foreseen(self, question: Question, now: float) -> Foresight:
        try:
            return await foresee(self.config, question, lookup=False, accounts=False, now=now)
        except Unavailable as fault:
            message = f"{fault.reason.value}: {fault.detail}"
            raise _UnusableError(message) from None


def _question(config: Config, typed: Mapping[str, str]) -> Question:
    text = typed["claims"].strip()
    try:
        claims = json.loads(text) if text else None
    except (ValueError, RecursionError):
        raise _UnusableError("the claims are no JSON") from None
    if claims is not None and not isinstance(claims, dict):
        raise _UnusableError('claims are a JSON object, such as {"sub": "ada"}')
    if typed["login"] not in config.logins:
        raise _UnusableError("there is no login of that name")
    return Question(
        login=typed["login"],
        claims=claims,
        method=typed["method"].upper(),
        target=typed["target"] or "/",
        host=typed["host"].strip(),
        client=typed["client"].strip(),
        via="bearer" if typed["via"] == "bearer" else "cookie",
    )

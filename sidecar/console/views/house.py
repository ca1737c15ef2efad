"""Pages about the sidecar itself: how it does, what it depends on, and its configuration."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import yaml

from sidecar import __version__
from sidecar.condition import Condition
from sidecar.config.models import Config
from sidecar.config.redaction import redacted
from sidecar.console.history import ACCOUNTS, HEIGHT, REQUESTS, SIGN_INS, WIDTH, History, level_of, plot_of
from sidecar.console.page import Asked, Page
from sidecar.console.views.trail import TrailPages
from sidecar.directory.browsing import DEAD, WAITING
from sidecar.faults import Unavailable
from sidecar.lasting import Lasting
from sidecar.probing import Finding, probe
from sidecar.telemetry.audit import AuditLog

Probe = Callable[[Config], Awaitable[dict[str, Finding]]]
_KEPT = 10.0
_MOST_COUNTED = 1000
_REFUSALS = 8
_LOADS = 20
_ELSEWHERE = "/health"
_PLACES: Mapping[str, str] = {
    "break_glass": "/audit?event=break-glass-used",
    "configuration": "/configuration",
    "drift": "/drift",
    "outbox": "/owed",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that somebody should look at, and the page where one begins."""

    part: str
    says: str
    page: str


def place_of(part: str) -> str:
    """The page about *part*, which is named as ``/-/ready`` names it."""
    kind, _, name = part.partition(".")
    return f"/sync/{quote(name, safe='')}" if kind == "sync" else _PLACES.get(kind, _ELSEWHERE)


@dataclass(slots=True, kw_only=True)
class HousePages:
    """``/``, ``/health`` and ``/configuration``. What was probed is shown for some seconds to everybody who asks."""

    config: Config
    condition: Condition
    history: History
    trail: TrailPages
    audit: AuditLog
    lasting: Lasting
    _probing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _probed: tuple[float, dict[str, Finding]] = (0.0, {})

    async def overview(self, _asked: Asked) -> Page:
        """What somebody on call wants to see first."""
        plots = [plot_of("Requests", self.history, REQUESTS), plot_of("Sign-ins", self.history, SIGN_INS)]
        if self.config.provision is not None:
            plots.append(plot_of("Accounts", self.history, ACCOUNTS))
        return Page(
            "overview",
            {
                "troubles": await self._troubles(),
                "plots": plots,
                "sessions": level_of("Sessions", self.history.sessions),
                "width": WIDTH,
                "height": HEIGHT,
                "minutes": self.history.minutes,
                "owed": await self._owed(),
                "most": _MOST_COUNTED,
                "refusals": await self.trail.refusals(_REFUSALS),
                "has_file": self.trail.file is not None,
            },
        )

    async def _troubles(self) -> Sequence[Trouble]:
        """All that somebody should look at; nothing when all is well."""
        troubles = []
        try:
            await self.condition.readiness()
        except Unavailable as fault:
            troubles.append(Trouble(fault.reason.value, fault.detail, _ELSEWHERE))
        troubles += [Trouble(name, said, place_of(name)) for name, said in self.condition.complaints().items()]
        return troubles

    async def _owed(self) -> Mapping[str, int]:
        directory = self.condition.accounts.directory
        if directory is None:
            return {}
        try:
            states = {"waiting": WAITING, "dead": DEAD}
            return {name: await directory.browsing.count(state, _MOST_COUNTED) for name, state in states.items()}
        except Unavailable:
            return {}

    async def health(self, asked: Asked) -> Page:
        """Everything that the configuration names, reached just now."""
        # One at a time, and for all who wait: a page that is reloaded must not become load for what it looks at.
        async with self._probing:
            if asked.now - self._probed[0] > _KEPT:
                self._probed = (asked.now, await probe(self.config))
        when, found = self._probed
        values: dict[str, Any] = {"found": found, "when": when, "version": __version__, "process": os.getpid()}
        values |= {"troubles": await self._troubles(), "workers": self.config.server.workers}
        values |= {"audit_fails": self.audit.is_failing, "audit_dropped": self.audit.dropped}
        return Page("health", values)

    async def configuration(self, _asked: Asked) -> Page:
        """The configuration in force, with every default and without its secrets."""
        sections = [(name, _as_yaml(value)) for name, value in redacted(self.config).items() if value not in (None, {})]
        loads = await self.trail.loads(_LOADS)
        values = {"sections": sections, "loads": loads, "has_file": self.trail.file is not None}
        return Page("configuration", {**values, "complaint": self.lasting.complaint, "can_reload": self.lasting.reload})


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100).removesuffix("...\n")

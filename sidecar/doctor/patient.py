"""The deployment under examination: its configuration, where each line stands, and what several checks want to know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sidecar.config.document import Document, Location, written
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.doctor.catalogue import CATALOGUE
from sidecar.doctor.finding import Finding, Severity
from sidecar.portal.site import Site, site_of

T = TypeVar("T")


@dataclass(slots=True)
class Patient:
    """Findings are made by its methods, so that why and way out come from the catalogue and the place from the file."""

    config: Config
    document: Document
    warnings: tuple[Problem, ...] = ()
    clock: Callable[[], float] = time.time
    _asked: dict[str, asyncio.Future[Any]] = field(default_factory=dict)

    @property
    def site(self) -> Site:
        """What the deployment is called from the outside."""
        return site_of(self.config.server, self.config.sessions)

    @property
    def folder(self) -> Path:
        """Where relative paths of the configuration begin."""
        return Path(self.document.file).resolve().parent

    async def once(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer of *ask*, which is asked once for all checks that want to know *what*."""
        if what not in self._asked:
            self._asked[what] = asyncio.ensure_future(ask())
        # One check that gives up must not take the answer from the others.
        answer: T = await asyncio.shield(self._asked[what])
        return answer

    def close(self) -> None:
        """Ask no more."""
        for asked in self._asked.values():
            asked.cancel()

    def ok(self, name: str, seen: str, part: str = "") -> Finding:
        """Make a finding that all is well."""
        return self._finding(Severity.OK, name, seen, part, ("", None))

    def skipped(self, name: str, seen: str, part: str = "") -> Finding:
        """Make a finding that nothing could be seen."""
        return self._finding(Severity.SKIPPED, name, seen, part, ("", None))

    def warning(
        self, name: str, seen: str, place: Location | None = None, *, part: str = "", change: str = ""
    ) -> Finding:
        """Make a finding that somebody should look at; *place* in the configuration where that is the cause."""
        return self._finding(Severity.WARNING, name, seen, part, (change, place))

    def failure(
        self, name: str, seen: str, place: Location | None = None, *, part: str = "", change: str = ""
    ) -> Finding:
        """Make a finding that something does not work or is open."""
        return self._finding(Severity.FAILURE, name, seen, part, (change, place))

    def _finding(
        self, severity: Severity, name: str, seen: str, part: str, way_out: tuple[str, Location | None]
    ) -> Finding:
        subject = CATALOGUE[name]
        change, place = way_out
        if severity in (Severity.OK, Severity.SKIPPED):
            return Finding(name, severity, part, seen, subject.why)
        change = change or subject.change
        if place is None:
            return Finding(name, severity, part, seen, subject.why, change)
        traced = self.document.trace(place)
        line, _ = self.document.place(traced)
        return Finding(name, severity, part, seen, subject.why, change, self.document.file, line, written(traced))

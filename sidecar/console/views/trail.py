"""Pages that search the audit lines, and tell the story behind a reference."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.console.acts import operator_fields
from sidecar.console.page import Asked, Page
from sidecar.console.trail_database import look_back_in
from sidecar.core.audit import Event
from sidecar.core.audit_export import is_bad
from sidecar.core.reasons import EXPLANATIONS
from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.reading import Line, Query
from sidecar.telemetry.story import SLACK, around, named_by, reason_in
from sidecar.telemetry.trail import Looked, look_back, place_of

if TYPE_CHECKING:
    from sidecar.directory.audit import AuditBook

PAGE = 50
_FIELDS = ("event", "person", "client", "path", "reason", "reference", "session", "text")
_MOST_AROUND = 60
# Loads are rare: they are worth a longer look.
_FAR = 64 * 1024 * 1024
# Nor is a reference typed for nothing; blocks without it are passed over at the speed of the disk.
_FARTHEST = 1024 * 1024 * 1024
# How the names of events about it begin, those that say why it was not loaded, too.
_ABOUT_CONFIGURATION = "configuration-"
# What is shown of a line at first glance; the rest unfolds.
_GLANCE = (
    *("event", "effect", "act", "insight", "result", "reason", "method", "path"),
    *("provider", "source", "name", "person", "username", "client"),
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A line for a page."""

    time: str
    glance: tuple[tuple[str, str], ...]
    rest: tuple[tuple[str, str], ...]
    is_bad: bool
    reference: str


@dataclass(slots=True, kw_only=True)
class TrailPages:
    """``/audit`` and ``/why``. ``file`` and ``book`` are None where lines go elsewhere."""

    audit: AuditLog
    file: Path | None
    book: AuditBook | None = None

    @property
    def _source(self) -> object:
        return self.file or self.book

    async def search(self, asked: Asked) -> Page:
        """Lines that fit the query, the newest first."""
        typed = {name: asked.query.get(name, "").strip() for name in (*_FIELDS, "until")}
        values: dict[str, Any] = {"typed": typed, "events": [event.value for event in Event], "file": self._source}
        values |= {"lines": (), "further": None, "has_packed": False, "problem": ""}
        if self._source is not None:
            if any(typed.values()):
                said = {f"asked_{name}": value for name, value in typed.items() if value}
                self.audit.record(Event.CONSOLE_READ, {**operator_fields(asked), **said})
            looked = await self._looked(typed, asked.query.get("from", ""))
            values |= {"lines": list(map(shown, looked.lines)), "further": looked.further}
            values |= {"has_packed": looked.has_packed}
        return Page("audit", values)

    async def _looked(self, typed: Mapping[str, str], begin: str) -> Looked:
        events = frozenset([typed["event"]] if typed["event"] else ())
        until = _instant(typed["until"])
        wanted: dict[str, Any] = {name: typed[name] for name in _FIELDS if name != "event"}
        query = Query(event=events, **wanted)
        # Anchors say nothing about anybody; whoever wants them asks for them.
        quiet = "" if events else Event.AUDIT_ANCHOR.value

        def fits(line: Line) -> bool:
            return line.get("event") != quiet and query.fits(line)

        return await self._back(fits, needles=query.needles, most=PAGE, until=until, begin=place_of(begin))

    async def _back(self, fits: Callable[[Line], bool], **how: Any) -> Looked:
        if self.file is None:
            assert self.book is not None  # noqa: S101 - the callers looked
            return await look_back_in(self.book, fits, **how)
        try:
            return await asyncio.to_thread(look_back, self.file, fits, **how)
        except OSError as error:
            raise Unavailable(Reason.AUDIT_DOWN, f"the audit file cannot be read: {error.strerror}") from None

    async def refusals(self, most: int) -> Sequence[Shown]:
        """The newest decisions that let nobody in."""
        if self._source is None:
            return ()
        decision = Event.DECISION.value
        looked = await self._back(
            lambda line: line.get("event") == decision and line.get("effect") in ("deny", "unavailable"),
            needles=[decision],
            most=most,
            budget=1024 * 1024,
        )
        return list(map(shown, looked.lines))

    async def loads(self, most: int) -> Sequence[Shown]:
        """The newest loads of the configuration, with all that is said of them."""
        if self.file is None:
            return ()
        looked = await self._back(
            lambda line: str(line.get("event", "")).startswith(_ABOUT_CONFIGURATION),
            needles=[_ABOUT_CONFIGURATION],
            most=most,
            budget=_FAR,
        )
        return list(map(shown, looked.lines))

    async def why(self, asked: Asked) -> Page:
        """What happened in the request with a reference, why, and what was around it."""
        reference = asked.query.get("reference", "").strip()
        values: dict[str, Any] = {"reference": reference, "file": self._source, "lines": (), "around": ()}
        values |= {"words": None, "reason": "", "is_asked": bool(reference)}
        if self._source is None or not reference:
            return Page("why", values)
        self.audit.record(Event.CONSOLE_READ, {**operator_fields(asked), "target": reference[:100]})
        looked = await self._found(reference)
        if looked.lines:
            reason = reason_in(looked.lines)
            values |= {"lines": list(map(shown, looked.lines)), "reason": reason.value if reason else ""}
            values |= {"words": EXPLANATIONS.get(reason) if reason else None}
            values["around"] = list(map(shown, await self._around(looked.lines, reference)))
        return Page("why", values)

    async def _found(self, reference: str) -> Looked:
        """Lines with *reference*: looked for where it says that they are, and else far back."""
        query = Query(reference=reference)
        if self.file is None:
            assert self.book is not None  # noqa: S101 - the callers looked
            return await look_back_in(self.book, query.fits, reference=reference, most=20)
        named = named_by(reference)
        if named is not None and (looked := await self._near(named, most=20, budget=_FARTHEST, slack=SLACK)).lines:
            return looked
        return await self._back(query.fits, needles=query.needles, most=20, budget=_FARTHEST)

    async def _around(self, lines: Sequence[Line], reference: str) -> Sequence[Line]:
        near = around(lines, reference)
        return () if near is None else (await self._near(near, most=_MOST_AROUND)).lines

    async def _near(self, query: Query, **how: Any) -> Looked:
        """Lines that fit *query*, in its time."""
        how |= {"needles": query.needles, "some": query.some, "since": query.since, "until": query.until}
        return await self._back(query.fits, **how)


def _instant(text: str) -> float:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() if text else float("inf")
    except ValueError:
        return float("inf")


def _text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shown(line: Line) -> Shown:
    """*line* for a page, whatever its values are."""
    texts = {name: _text(value) for name, value in line.items()}
    hidden = (*_GLANCE, "time", "chain", "n", "hash")
    return Shown(
        time=texts.get("time", "")[:19].replace("T", " "),
        glance=tuple((name, texts[name]) for name in _GLANCE if texts.get(name)),
        rest=tuple((name, value) for name, value in texts.items() if name not in hidden),
        is_bad=is_bad(line),
        reference=texts.get("reference", ""),
    )

"""Pages about sources of people: how they stand, their runs, and what a run would change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.config.drift import Drift
from sidecar.config.models import Config
from sidecar.config.sync import Sync
from sidecar.console.acts import operator_fields
from sidecar.console.errands import asker_of
from sidecar.console.page import Asked, Page, span
from sidecar.console.syncs import Syncs
from sidecar.core.audit import Event
from sidecar.core.sync.plan import QUIET, Item, Kind, shown
from sidecar.directory.sync import SourceState
from sidecar.directory.sync_runs import PlannedItem, RunRecord
from sidecar.faults import Refused
from sidecar.reason import Reason
from sidecar.sync import Synchroniser
from sidecar.sync.consent import WAITING, is_asker
from sidecar.sync.lease import process_of
from sidecar.sync.runs import READY, Which
from sidecar.telemetry.audit import AuditLog

PAGE = 50
_LONGEST = 200
_FARTHEST = 2**31 - 1
_LOUD = tuple(kind.value for kind in Kind if kind not in QUIET or kind is Kind.INVALID)
WORDS: Mapping[str, str] = {
    "create": "come",
    "update": "change",
    "reactivate": "switched on again",
    "deactivate": "switched off",
    "delete": "deleted",
    "invalid": "not readable",
    "wait": "missing, left alone for now",
    "skip": "left alone",
    "note": "as before",
}
_BESIDES = {
    "remove_roles": "lose a role",
    "grant_privileged": "get a privileged role",
    "rename": "are renamed",
}
TONES = {"done": "good", "approved": "good", "quarantined": "warn", "failed": "bad", "incomplete": "bad"}


@dataclass(frozen=True, slots=True)
class Standing:
    """A source for a page."""

    name: str
    schedule: str
    state: SourceState
    process: str
    runs: list[RunRecord]

    @property
    def newest(self) -> RunRecord | None:
        """The newest run."""
        return self.runs[0] if self.runs else None


@dataclass(frozen=True, slots=True)
class Change:
    """One person of a plan for a page: ``parts`` are (what, before, after)."""

    number: int
    kind: str
    words: str
    external: str
    person_id: str
    username: str
    reason: str
    parts: tuple[tuple[str, str, str], ...]
    state: str
    error: str


@dataclass(slots=True, kw_only=True)
class SyncPages:
    """``/sync``, ``/sync/SOURCE`` and ``/sync/SOURCE/RUN``."""

    config: Config
    syncs: Syncs
    audit: AuditLog

    async def show(self, asked: Asked) -> Page:
        """All sources, one, or one run."""
        if not asked.rest:
            sources = [await self._standing(one) for one in self.syncs.sources.values()]
            return Page("sync", {"sources": sources, "tones": TONES})
        name, _, run_id = asked.rest.partition("/") if asked.rest not in self.syncs.sources else (asked.rest, "", "")
        one = self.syncs.sources.get(name)
        if one is None:
            raise Refused(Reason.NOT_FOUND, 404, "there is no such source")
        return await self._run(asked, one, run_id) if run_id else await self._source(one)

    async def _standing(self, one: Synchroniser) -> Standing:
        name, state = one.rules.name, await one.state()
        return Standing(name, timetable_of(self.config.sync[name]), state, process_of(state.lease), await one.runs())

    async def _source(self, one: Synchroniser) -> Page:
        standing = await self._standing(one)
        values = {"one": standing, "tones": TONES, "late": self.syncs.errands.late.get(standing.name)}
        return Page("source", {**values, "changes_of": changes_of})

    async def _run(self, asked: Asked, one: Synchroniser, run_id: str) -> Page:
        run = await one.look(run_id)
        if run is None:
            raise Refused(Reason.NOT_FOUND, 404, "there is no such run; old ones are forgotten")
        fields = {**operator_fields(asked), "target": f"{run.source} {run.id}"}
        self.audit.record(Event.CONSOLE_READ, fields)
        show, external = asked.query.get("show", "changes"), asked.query.get("q", "").strip()
        after = number_in(asked.query.get("after", "-1"))
        found = await one.page(run, after, PAGE + 1, _which(show, external))
        asker = await asker_of(self.syncs.accounts, asked.operator)
        counts: Mapping[str, int] = run.head.get("counts", {})
        values: dict[str, Any] = {
            "run": run,
            "name": one.rules.name,
            "target": f"{one.rules.name}/{run.id}",
            "show": show,
            "q": external,
            "changes": [_change(row, item) for row, item in found[:PAGE]],
            "more": found[PAGE - 1][0].number if len(found) > PAGE else None,
            "is_begun": after >= 0,
            "tabs": [("changes", "All changes", changes_of(run))]
            + [(kind, words, counts[kind]) for kind, words in WORDS.items() if counts.get(kind)]
            + ([("dead", "could not be done", run.head["dead"])] if run.head.get("dead") else []),
            "besides": [(words, counts[name]) for name, words in _BESIDES.items() if counts.get(name)],
            "tones": TONES,
            "is_own": is_asker(run, asker.by, asker.keys),
            "can_apply": run.state in READY or run.state == "applying",
            "can_reject": run.state in WAITING,
            "late": self.syncs.errands.late.get(one.rules.name),
        }
        return Page("run", values)


def changes_of(run: RunRecord) -> int:
    """How many people a run changes something for, or could not read."""
    counts: Mapping[str, int] = run.head.get("counts", {})
    return sum(number for kind, number in counts.items() if kind in _LOUD)


def _which(show: str, external: str) -> Which:
    # Whoever asks for one person wants to see them, whatever becomes of them.
    if show in WORDS:
        return Which(kinds=(show,), external=external)
    if show == "dead":
        return Which(state="dead", external=external)
    if show != "changes":
        raise Refused(Reason.NOT_FOUND, 404, "no such changes")
    return Which(external=external) if external else Which(kinds=_LOUD)


def number_in(text: str) -> int:
    """The place that a page begins after. Raises Refused for what is none."""
    if text.removeprefix("-").isascii() and text.removeprefix("-").isdecimal() and len(text) <= 10:
        return min(int(text), _FARTHEST)
    raise Refused(Reason.NOT_FOUND, 404, "no such place")


def _change(row: PlannedItem, item: Item) -> Change:
    who = item.after or item.before
    pairs = {} if item.after is None else shown(item.before, item.after)
    parts = [(name, _short(before), _short(after)) for name, (before, after) in pairs.items()]
    lost, got = (sorted(item.roles.get(name, ())) for name in ("before", "after"))
    if lost != got:
        parts.append(("roles", _short(lost), _short(got)))
    return Change(
        number=row.number,
        kind=item.kind.value,
        words=WORDS[item.kind.value],
        external=item.external,
        person_id=item.person_id,
        username=who.username if who is not None else "",
        reason=item.reason,
        parts=tuple(parts),
        state=row.state,
        error=row.error,
    )


def _short(value: Any) -> str:
    if value is None or value in ("", [], ()):
        return "nothing"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def timetable_of(section: Sync | Drift) -> str:
    """When a section's work is done, in words."""
    if section.cron is not None:
        return f"cron {section.cron} (UTC)"
    return f"every {span(section.every.total_seconds())}" if section.every is not None else "by hand"

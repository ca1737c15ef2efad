"""Read a source and work out what would change, without changing any of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sidecar.core.roles import roles_of
from sidecar.core.sync.document import digest_of, read, written
from sidecar.core.sync.entry import Entry, Row, entry_of, external_of, is_off, mark_of
from sidecar.core.sync.guards import Past, Tally, breaches
from sidecar.core.sync.plan import Item, Kind, Standing, absent, present, unreadable
from sidecar.core.sync.plan import Track as Known
from sidecar.directory.sync import KnownPerson, SourceState, SyncBook, Track
from sidecar.directory.sync_runs import PlannedItem
from sidecar.directory.tables import digest
from sidecar.faults import Refused
from sidecar.model import Identity
from sidecar.reason import Reason
from sidecar.sync.rules import SourceRules
from sidecar.sync.sources.source import Reading, Source

_AT_ONCE = 250
_WHOLE = 1 << 256

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Planned:
    """What a plan comes to; everything but its items."""

    hash: str
    reading: Reading
    is_complete: bool
    why: str
    people: int
    cursor: str
    source: str
    target: str
    unchanged: int
    items: int
    counts: Mapping[str, int]
    breaches: tuple[str, ...]
    groups: Mapping[str, int]

    def head(self) -> dict[str, Any]:
        """Plain data, as they are stored."""
        return {name: getattr(self, name) for name in Planned.__slots__} | {"breaches": list(self.breaches)}


def planned_of(head: Mapping[str, Any]) -> Planned:
    """What ``head`` wrote down."""
    values = {name: head[name] for name in Planned.__slots__}
    return Planned(**{**values, "breaches": tuple(head["breaches"])})


@dataclass(slots=True)
class _Work:
    """A plan that is being made."""

    tracks: dict[str, Track] | None
    now: float
    seen: set[str] = field(default_factory=set)
    twice: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    waiting: list[tuple[str, str, Row]] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)
    # Who is not active in the source, also those of whom nothing else can be read.
    off: set[str] = field(default_factory=set)
    digests: dict[str, bytes] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    number: int = 0
    unchanged: int = 0
    broken: int = 0
    source: int = 0
    target: int = 0


class Planner:
    """Makes one plan. With *run_id* its items are stored under that run, without it only counted."""

    def __init__(self, rules: SourceRules, book: SyncBook, run_id: str, progress: Progress) -> None:
        """Decide by *rules*; *progress(what, done, of)* hears how far it is."""
        self._rules = rules
        self._book = book
        self._run_id = run_id
        self._progress = progress

    async def plan(self, source: Source, state: SourceState, now: float, *, since: str = "", only: str = "") -> Planned:
        """Read *source*, all of it or what changed since the cursor *since*, or of one person *only*.

        Raises Unavailable.
        """
        reading = await source.begin("" if only else since)
        is_all = reading == "full" and not only
        work = _Work(await self._book.tracks(self._rules.source) if is_all else None, now)
        async for rows in source.batches():
            for row in rows:
                self._read(work, row, only)
                if len(work.waiting) >= _AT_ONCE:
                    await self._judge(work)
            self._progress("read", len(work.seen), state.people or 0)
        await self._judge(work)
        await self._refuse_twice(work)
        end = source.end()
        is_complete, why = end.is_complete, end.why
        if work.broken:
            is_complete, why = False, f"{work.broken} without a usable {self._rules.entry.id}"
        elif is_all and not work.seen and is_complete:
            is_complete, why = False, "there is nobody in it"
        if is_complete and not only and (reading != "changes" or end.knows_missing):
            await self._look_for_missing(work, is_all=is_all)
        people = len(work.seen) if is_all else None
        if not is_complete:
            why = why or "not everything was read"
        return await self._sum_up(work, state, _Ended(reading, is_complete, why, end.cursor, people))

    def _read(self, work: _Work, row: Row, only: str) -> None:
        external = external_of(row, self._rules.entry.id)
        if not external:
            work.broken += 1
            return
        if only and external != only:
            return
        key = digest(external)
        if key in work.seen:
            work.twice[key] = external
            return
        work.seen.add(key)
        mark = mark_of(row, self._rules.salt)
        work.source = (work.source + _number(f"{key}{mark}")) % _WHOLE
        if work.tracks is not None:
            track = work.tracks.get(key)
            if track is not None and track[1] == mark and track[2] == 0:
                work.unchanged += 1
                return
        work.marks[key] = mark
        work.waiting.append((key, external, row))

    async def _judge(self, work: _Work) -> None:
        """Turn the rows that wait into items."""
        waiting, work.waiting = work.waiting, []
        if not waiting:
            return
        keys = [key for key, _, _ in waiting]
        tracks = work.tracks if work.tracks is not None else await self._book.tracks_of(self._rules.source, keys)
        read: list[tuple[str, str, Entry | str]] = []
        for key, external, row in waiting:
            track = tracks.get(key)
            if track is not None and track[1] == work.marks[key] and track[2] == 0:
                work.unchanged += 1
            else:
                read.append((key, external, self._entry(row)))
                if is_off(row, self._rules.entry):
                    work.off.add(key)
        fresh = [one for key, _, one in read if key not in tracks and isinstance(one, Entry)]
        joins = await self._book.partners(self._rules.source, [value for one in fresh for value in one.joins])
        ids = {tracks[key][0] for key, _, _ in read if key in tracks} | {one for many in joins.values() for one in many}
        people = await self._book.people(self._rules.source, ids)
        items = []
        for key, external, entry in read:
            found = self._person(work, tracks.get(key), entry, joins)
            items.append(self._item(work, (key, external), entry, found, people))
        await self._store(work, items)

    def _entry(self, row: Row) -> Entry | str:
        try:
            return entry_of(row, self._rules.entry)
        except Refused as refused:
            return refused.detail or refused.reason.value

    def _person(
        self, work: _Work, track: Track | None, entry: Entry | str, joins: Mapping[str, list[str]]
    ) -> str | Refused:
        """Id of the person that an entry is about, "" for nobody yet; a refusal's words as an exception."""
        if track is not None or isinstance(entry, str):
            return track[0] if track is not None else ""
        theirs = {one for value in entry.joins for one in joins.get(value, ())}
        if len(theirs) > 1 or theirs & work.taken:
            return Refused(Reason.ACCOUNT_AMBIGUOUS, 409, "more than one person is meant")
        work.taken |= theirs
        return next(iter(theirs), "")

    def _item(
        self,
        work: _Work,
        key: tuple[str, str],
        entry: Entry | str,
        found: str | Refused,
        people: Mapping[str, KnownPerson],
    ) -> tuple[str, Item]:
        external = key[1]
        if isinstance(entry, str) and isinstance(found, str) and found and key[0] in work.off:
            theirs = self._standing(external, people[found])
            self._note_target(work, key[0], theirs)
            return key[0], unreadable(self._rules.source, external, theirs, entry, work.marks[key[0]])
        if isinstance(entry, str) or isinstance(found, Refused):
            why = entry if isinstance(entry, str) else str(found.detail if isinstance(found, Refused) else "")
            person_id = found if isinstance(found, str) else ""
            return key[0], Item(Kind.INVALID, external, person_id, why)
        standing = self._standing(external, people[found]) if found else None
        if standing is not None and standing.identity is not None and standing.identity.subject != external:
            return key[0], Item(Kind.INVALID, external, found, "that person has another id in the source already")
        if standing is None and self._rules.is_protected(external, entry.identity.username, ""):
            return key[0], Item(Kind.SKIP, external, "", "protected")
        self._note_target(work, key[0], standing)
        return key[0], self._with_roles(present(self._rules.source, entry, work.marks[key[0]], standing))

    def _standing(self, external: str, person: KnownPerson) -> Standing:
        return Standing(
            person.person_id,
            person.owner,
            person.is_on,
            person.off_by,
            person.is_gone,
            self._rules.protects(external, person),
            person.identity,
        )

    def _note_target(self, work: _Work, key: str, standing: Standing | None) -> None:
        facts = ""
        if standing is not None:
            facts = f"{standing.person_id}{standing.owner}{standing.is_on}{','.join(standing.off_by)}"
        work.target = (work.target + _number(f"{key}{facts}")) % _WHOLE

    def _with_roles(self, item: Item) -> Item:
        """*item* with the roles before and after, as far as this source says them."""
        if item.kind not in (Kind.CREATE, Kind.UPDATE, Kind.REACTIVATE, Kind.DEACTIVATE):
            return item
        try:
            before = self._roles(item.before if item.kind is not Kind.REACTIVATE else None)
            after = self._roles(item.after if item.active else None)
        except Refused as refused:
            return Item(Kind.INVALID, item.external, item.person_id, refused.detail)
        return replace(item, roles={"before": before, "after": after}) if before or after else item

    def _roles(self, who: Identity | None) -> tuple[str, ...]:
        return () if who is None else roles_of(who, self._rules.roles)

    async def _look_for_missing(self, work: _Work, *, is_all: bool) -> None:
        tracks = work.tracks if is_all and work.tracks is not None else await self._book.unsettled(self._rules.source)
        # Who is switched off and not missing is in the source, and not active there.
        gone = [key for key, track in tracks.items() if key not in work.seen and (is_all or track[2] > 0)]
        for start in range(0, len(gone), _AT_ONCE):
            keys = gone[start : start + _AT_ONCE]
            externals = await self._book.externals(self._rules.source, keys)
            people = await self._book.people(self._rules.source, [tracks[key][0] for key in keys])
            items = []
            for key in keys:
                standing = self._standing(externals[key], people[tracks[key][0]])
                self._note_target(work, key, standing)
                item = absent(Known(*tracks[key]), externals[key], standing, self._rules.grace, work.now)
                if item is not None:
                    items.append((key, item))
            await self._store(work, items)
            self._progress("missing", start + len(keys), len(gone))

    async def _store(self, work: _Work, items: Sequence[tuple[str, Item]]) -> None:
        rows = []
        for key, item in items:
            text = written(item)
            rows.append(PlannedItem(work.number, item.kind.value, key, item.person_id, text))
            work.digests[key] = digest_of(item.kind, item.person_id, text)
            work.tally.add(item, self._rules.limits.privileged)
            work.number += 1
        if rows and self._run_id:
            await self._book.add_items(self._run_id, rows)

    async def _refuse_twice(self, work: _Work) -> None:
        """Of whom the source tells twice nobody knows what is true: nothing is changed about them."""
        if not work.twice:
            return
        if self._run_id:
            for row in await self._book.drop_items(self._run_id, work.twice):
                item = read(self._rules.source, row.kind, row.person_id, row.document)
                work.tally.add(item, self._rules.limits.privileged, -1)
        items = [
            (key, Item(Kind.INVALID, work.twice[key], "", "there twice in the source")) for key in sorted(work.twice)
        ]
        await self._store(work, items)

    async def _sum_up(self, work: _Work, state: SourceState, end: _Ended) -> Planned:
        past = Past(state.people, await self._book.count_on(self._rules.source), state.groups)
        found = breaches(work.tally, self._rules.limits, past, end.people)
        source, target = f"{work.source:x}", f"{work.target:x}"
        parts = [self._rules.digest, source, target, end.reading, str(end.is_complete)]
        parts += [digest.hex() for _, digest in sorted(work.digests.items())]
        return Planned(
            hash=hashlib.sha256("\n".join(parts).encode()).hexdigest(),
            reading=end.reading,
            is_complete=end.is_complete,
            why=end.why,
            people=len(work.seen),
            cursor=end.cursor,
            source=source,
            target=target,
            unchanged=work.unchanged,
            items=len(work.digests),
            counts=work.tally.counts(),
            breaches=tuple(map(str, found)),
            groups=_grown(state.groups, work.tally),
        )


@dataclass(frozen=True, slots=True)
class _Ended:
    reading: Reading
    is_complete: bool
    why: str
    cursor: str
    people: int | None


def _grown(before: Mapping[str, int], tally: Tally) -> dict[str, int]:
    """How many members each group has when everything is done."""
    names = {*before, *tally.come, *tally.leave}
    after = {name: before.get(name, 0) + tally.come[name] - tally.leave[name] for name in sorted(names)}
    return {name: number for name, number in after.items() if number > 0}


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")

"""Keep the books of synchronisations: how each source stands, and what it said of whom."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory.database import Database
from sidecar.directory.profiles import profile_of
from sidecar.directory.switching import blockers_of_people, in_order
from sidecar.directory.sync_runs import SyncRuns, batches
from sidecar.directory.sync_tables import sync_source, sync_track
from sidecar.directory.tables import account, digest, join, person, profile
from sidecar.model import Identity

_PAGE = 5000
Track = tuple[str, str, int, float | None, float | None]


@dataclass(frozen=True, slots=True)
class SourceState:
    """How a source stands. ``cursor`` is where its changes go on; ``people`` None before the first good run."""

    source: str
    cursor: str = ""
    people: int | None = None
    groups: Mapping[str, int] = field(default_factory=dict)
    config: str = ""
    last_run: float = 0.0
    last_good: float = 0.0
    last_full: float = 0.0
    due: float = 0.0
    lease: str = ""
    lease_until: float = 0.0


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """A person as far as a synchronisation must know; ``identity`` is what the source last said of them."""

    person_id: str
    owner: str
    is_on: bool
    off_by: tuple[str, ...]
    is_gone: bool
    username: str
    account_key: str
    identity: Identity | None


class SyncBook(SyncRuns):
    """The books. Every coroutine raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, database: Database, application: str) -> None:
        """Look at accounts of *application* only."""
        super().__init__(database)
        self._application = application

    # Sources, and who works on them

    async def state(self, source: str) -> SourceState:
        """How *source* stands."""
        chosen = select(sync_source).where(sync_source.c.source == source)

        async def work(connection: AsyncConnection) -> SourceState:
            row = (await connection.execute(chosen)).mappings().first()
            return SourceState(source) if row is None else _state(row)

        return await self._database.read(work)

    async def _make(self, source: str) -> None:
        row: dict[str, object] = {"source": source, "cursor": "", "people": None, "groups": "{}", "config": ""}
        row |= dict.fromkeys(("last_run", "last_good", "last_full", "due", "lease_until"), 0.0) | {"lease": ""}
        try:
            await self._database.write(lambda connection: connection.execute(insert(sync_source).values(**row)))
        except IntegrityError:
            return

    async def prepared(self, source: str) -> SourceState:
        """How *source* stands, noted from now on even if nothing was known of it."""
        before = await self.state(source)
        if before != SourceState(source):
            return before
        await self._make(source)
        return await self.state(source)

    async def take(self, source: str, token: str, now: float, until: float, is_dead: Callable[[str], bool]) -> bool:
        """Let the holder of *token* alone work on *source* until then; False while somebody else does.

        *is_dead* says of another's token that its holder is gone for sure.
        """
        before = await self.prepared(source)
        if before.lease and before.lease_until > now and not is_dead(before.lease):
            return False
        mine = and_(sync_source.c.source == source, sync_source.c.lease == before.lease)
        same = sync_source.c.lease_until == before.lease_until
        claim = update(sync_source).where(mine, same).values(lease=token, lease_until=until)

        async def work(connection: AsyncConnection) -> bool:
            return bool((await connection.execute(claim)).rowcount == 1)

        return await self._database.write(work)

    async def renew(self, source: str, token: str, until: float) -> bool:
        """Hold on to it; False when it was taken away."""

        async def work(connection: AsyncConnection) -> bool:
            return await holds(connection, source, token, until)

        return await self._database.write(work)

    async def release(self, source: str, token: str, **values: object) -> None:
        """Let others work on *source*, and note *values* about it."""
        mine = and_(sync_source.c.source == source, sync_source.c.lease == token)
        free = update(sync_source).where(mine).values(lease="", lease_until=0.0, **values)
        await self._database.write(lambda connection: connection.execute(free))

    async def note(self, source: str, token: str, values: Mapping[str, object]) -> None:
        """Note *values* about a source that *token* holds."""
        mine = and_(sync_source.c.source == source, sync_source.c.lease == token)
        await self._database.write(
            lambda connection: connection.execute(update(sync_source).where(mine).values(**values))
        )

    async def postpone(self, source: str, before: float, due: float) -> bool:
        """Say when *source* is due again, unless somebody has said so since it was *before*."""
        same = and_(sync_source.c.source == source, sync_source.c.due == before)

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(update(sync_source).where(same).values(due=due))).rowcount == 1

        return await self._database.write(work)

    # What a source said of whom

    async def tracks(self, source: str) -> dict[str, Track]:
        """By the hash of their id (person id, mark, missing, since, off) of everybody the source ever told of."""
        found: dict[str, Track] = {}
        columns = [sync_track.c[name] for name in ("external_hash", "person_id", "mark", "missing", "since", "off")]
        last = ""
        while True:
            page = select(*columns).where(sync_track.c.source == source, sync_track.c.external_hash > last)
            page = page.order_by(sync_track.c.external_hash).limit(_PAGE)

            async def work(connection: AsyncConnection, page: Any = page) -> Sequence[Any]:
                return (await connection.execute(page)).all()

            rows = await self._database.read(work)
            for row in rows:
                found[row[0]] = (row[1], row[2], row[3], row[4], row[5])
            if len(rows) < _PAGE:
                return found
            last = rows[-1][0]

    async def tracks_of(self, source: str, hashes: Iterable[str]) -> dict[str, Track]:
        """As ``tracks``, of these only."""
        wanted = list(dict.fromkeys(hashes))
        columns = [sync_track.c[name] for name in ("external_hash", "person_id", "mark", "missing", "since", "off")]

        async def work(connection: AsyncConnection) -> dict[str, Track]:
            found: dict[str, Track] = {}
            for some in batches(wanted):
                chosen = select(*columns).where(sync_track.c.source == source, sync_track.c.external_hash.in_(some))
                found |= {row[0]: (row[1], row[2], row[3], row[4], row[5]) for row in await connection.execute(chosen)}
            return found

        return await self._database.read(work)

    async def unsettled(self, source: str) -> dict[str, Track]:
        """As ``tracks``, of those who are missing or were switched off: all that time alone can change."""
        chosen = select(sync_track).where(sync_track.c.source == source)
        chosen = chosen.where((sync_track.c.missing > 0) | sync_track.c.off.is_not(None))

        async def work(connection: AsyncConnection) -> dict[str, Track]:
            rows = (await connection.execute(chosen)).mappings()
            return {r["external_hash"]: (r["person_id"], r["mark"], r["missing"], r["since"], r["off"]) for r in rows}

        return await self._database.read(work)

    async def count_on(self, source: str) -> int:
        """How many of its people the source has switched on."""
        chosen = select(func.count()).select_from(sync_track)
        chosen = chosen.where(sync_track.c.source == source, sync_track.c.off.is_(None))

        async def work(connection: AsyncConnection) -> int:
            return int((await connection.execute(chosen)).scalar_one())

        return await self._database.read(work)

    async def externals(self, source: str, hashes: Iterable[str]) -> dict[str, str]:
        """Ids of people by their hash."""
        wanted = list(hashes)

        async def work(connection: AsyncConnection) -> dict[str, str]:
            found: dict[str, str] = {}
            for some in batches(wanted):
                chosen = select(sync_track.c.external_hash, sync_track.c.external)
                chosen = chosen.where(sync_track.c.source == source, sync_track.c.external_hash.in_(some))
                found |= {row[0]: row[1] for row in await connection.execute(chosen)}
            return found

        return await self._database.read(work)

    # People

    async def people(self, source: str, person_ids: Iterable[str]) -> dict[str, KnownPerson]:
        """These people, by our id."""
        wanted = list(dict.fromkeys(person_ids))

        async def work(connection: AsyncConnection) -> dict[str, KnownPerson]:
            found: dict[str, KnownPerson] = {}
            for some in batches(wanted):
                said = select(profile).where(profile.c.source == source, profile.c.person_id.in_(some))
                rows = (await connection.execute(said)).mappings()
                identities = {row["person_id"]: profile_of(row).identity for row in rows}
                off_by = await blockers_of_people(connection, some)
                theirs = and_(account.c.person_id == person.c.id, account.c.application == self._application)
                chosen = select(person, account.c.account_key).outerjoin(account, theirs).where(person.c.id.in_(some))
                for row in (await connection.execute(chosen)).mappings():
                    found[row["id"]] = _known(row, identities.get(row["id"]), off_by.get(row["id"], ()))
            return found

        return await self._database.read(work)

    async def partners(self, source: str, values: Iterable[str]) -> dict[str, list[str]]:
        """By join value the ids of living people who signed in with it."""
        hashes = {digest(value): value for value in values if value}

        async def work(connection: AsyncConnection) -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for some in batches(list(hashes)):
                theirs = select(join.c.value_hash, join.c.person_id).join(person, person.c.id == join.c.person_id)
                theirs = theirs.where(join.c.source == source, join.c.value_hash.in_(some), join.c.side != "")
                for row in await connection.execute(theirs.where(person.c.tombstone.is_(None))):
                    found.setdefault(hashes[row[0]], []).append(row[1])
            return found

        return await self._database.read(work)


async def holds(connection: AsyncConnection, source: str, token: str, until: float) -> bool:
    """Inside a transaction: hold on to the source until then; False when it was taken away."""
    mine = and_(sync_source.c.source == source, sync_source.c.lease == token)
    return (await connection.execute(update(sync_source).where(mine).values(lease_until=until))).rowcount == 1


def _state(row: Mapping[Any, Any]) -> SourceState:
    values = {name: row[name] for name in SourceState.__slots__ if name != "groups"}
    return SourceState(**values, groups=json.loads(row["groups"]))


def _known(row: Mapping[Any, Any], identity: Identity | None, off_by: Iterable[str]) -> KnownPerson:
    return KnownPerson(
        person_id=row["id"],
        owner=row["source"],
        is_on=bool(row["active"]),
        off_by=() if row["active"] else in_order(row["disabled_by"], off_by),
        is_gone=row["tombstone"] is not None,
        username=row["username"],
        account_key=row["account_key"] or "",
        identity=identity,
    )

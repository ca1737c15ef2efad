"""Look through people and what is owed by key, so that the last page costs what the first does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory import records
from sidecar.directory.database import Database
from sidecar.directory.tables import outbox, person, searchable
from sidecar.faults import Refused
from sidecar.model import Duty, Person
from sidecar.reason import Reason

WAITING, DEAD, DONE = "due", "dead", "done"
_OPEN = (WAITING, DEAD)
_CANCELLED = "cancelled by an operator"


@dataclass(frozen=True, slots=True)
class Owing:
    """One change that is, or was, owed to the application; times in epoch seconds."""

    id: str
    person_id: str
    username: str
    duty: Duty
    due: float
    tries: int
    state: str
    last_error: str


class Browsing:
    """What operators look at. Every coroutine raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, database: Database, application: str) -> None:
        """Show accounts in, and what is owed to, *application*."""
        self._database = database
        self._application = application

    async def people(self, text: str, after: tuple[str, str] | None, limit: int) -> tuple[Person, ...]:
        """People whose user name or e-mail address begins with *text*, those after (user name, id) in that order."""
        page = records.people(self._application)
        if text:
            start = searchable(text)
            columns = (person.c.search_username, person.c.search_email)
            page = page.where(or_(*(column.startswith(start, autoescape=True) for column in columns)))
        if after is not None:
            name, key = searchable(after[0]), after[1]
            later = or_(person.c.search_username > name, and_(person.c.search_username == name, person.c.id > key))
            # The first condition is what an index answers.
            page = page.where(person.c.search_username >= name, later)
        page = page.order_by(person.c.search_username, person.c.id).limit(limit)

        async def work(connection: AsyncConnection) -> tuple[Person, ...]:
            return await records.with_identities(connection, list((await connection.execute(page)).mappings()))

        return await self._database.read(work)

    async def owed(self, state: str, after: tuple[float, str] | None, limit: int) -> tuple[Owing, ...]:
        """What is in *state*, by when it is due; the newest first of what is done."""
        page = self._owings().where(outbox.c.state == state)
        place = tuple_(outbox.c.due, outbox.c.id)
        if state == DONE:
            page = page.order_by(outbox.c.due.desc(), outbox.c.id.desc())
            page = page if after is None else page.where(place < after)
        else:
            page = page.order_by(outbox.c.due, outbox.c.id)
            page = page if after is None else page.where(place > after)
        return await self._read(page.limit(limit))

    async def owed_for(self, person_id: str, limit: int) -> tuple[Owing, ...]:
        """What is, or was, owed for one person, the newest first."""
        page = self._owings().where(outbox.c.person_id == person_id)
        return await self._read(page.order_by(outbox.c.due.desc(), outbox.c.id).limit(limit))

    def _owings(self) -> Select[Any]:
        columns = [outbox.c[name] for name in ("id", "person_id", "change", "due", "tries", "state", "last_error")]
        joined = outbox.join(person, person.c.id == outbox.c.person_id)
        return select(*columns, person.c.username).select_from(joined).where(outbox.c.application == self._application)

    async def _read(self, page: Select[Any]) -> tuple[Owing, ...]:
        async def work(connection: AsyncConnection) -> tuple[Owing, ...]:
            rows = (await connection.execute(page)).mappings()
            return tuple(
                Owing(**{name: row[name] for name in row if name != "change"}, duty=Duty(row["change"])) for row in rows
            )

        return await self._database.read(work)

    async def count(self, state: str, most: int) -> int:
        """How many are in *state*; never counts beyond *most*."""
        some = select(outbox.c.id).where(outbox.c.application == self._application, outbox.c.state == state)
        counted = select(func.count()).select_from(some.limit(most).subquery())

        async def work(connection: AsyncConnection) -> int:
            return int((await connection.execute(counted)).scalar_one())

        return await self._database.read(work)

    async def retry(self, item_id: str, now: float) -> str:
        """Let what is waiting or dead be tried at once; the person's id. Raises as ``cancel``."""
        return await self._change(item_id, now, state=WAITING, due=now, tries=0)

    async def cancel(self, item_id: str, now: float) -> str:
        """Owe it no longer; the person's id.

        Raises Refused: NOT_FOUND for what is not there or done, CONFLICT while somebody works on it.
        """
        return await self._change(item_id, now, state=DONE, last_error=_CANCELLED)

    async def _change(self, item_id: str, now: float, **values: object) -> str:
        this = and_(outbox.c.id == item_id, outbox.c.application == self._application, outbox.c.state.in_(_OPEN))

        async def work(connection: AsyncConnection) -> str:
            found = (await connection.execute(select(outbox.c.person_id).where(this))).scalar_one_or_none()
            if found is None:
                raise Refused(Reason.NOT_FOUND, 404, "nothing of that id is owed")
            # A dead one is nobody's, whatever its lease says.
            free = or_(outbox.c.state == DEAD, outbox.c.lease_until <= now)
            new = {**values, "lease": "", "lease_until": 0.0}
            if (await connection.execute(update(outbox).where(this, free).values(**new))).rowcount != 1:
                raise Refused(Reason.CONFLICT, 409, "it is being worked on")
            return str(found)

        return await self._database.write(work)

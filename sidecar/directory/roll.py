"""Find people for operators: by what they are called, where they come from, and whether they are switched on."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory import records
from sidecar.directory.database import Database
from sidecar.directory.tables import person, searchable
from sidecar.faults import Refused
from sidecar.model import Person
from sidecar.reason import Reason


@dataclass(frozen=True, slots=True)
class Search:
    """Whom to look for: all conditions that say something must hold. ``text`` begins a user name or an address."""

    text: str = ""
    source: str = ""
    active: bool | None = None
    is_gone: bool = False


class Roll:
    """Everybody. Every coroutine raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, database: Database, application: str) -> None:
        """Show their accounts in *application*."""
        self._database = database
        self._application = application

    async def page(self, search: Search, *, limit: int = 100, offset: int = 0) -> tuple[tuple[Person, ...], int]:
        """(those people, by user name; how many there are in all). Whoever is gone for good only when asked for."""
        gone = person.c.tombstone
        conditions: list[ColumnElement[bool]] = [gone.is_not(None) if search.is_gone else gone.is_(None)]
        if search.text:
            start = searchable(search.text)
            columns = (person.c.search_username, person.c.search_email)
            conditions.append(or_(*(column.startswith(start, autoescape=True) for column in columns)))
        conditions.append(person.c.source == search.source if search.source else true())
        conditions.append(person.c.active.is_(search.active) if search.active is not None else true())
        wanted = and_(*conditions)
        chosen = records.people(self._application).where(wanted).order_by(person.c.search_username, person.c.id)
        chosen = chosen.limit(limit).offset(offset)

        async def work(connection: AsyncConnection) -> tuple[tuple[Person, ...], int]:
            rows = list((await connection.execute(chosen)).mappings())
            counted = select(func.count()).select_from(person).where(wanted)
            total = int((await connection.execute(counted)).scalar_one())
            return await records.with_identities(connection, rows), total

        return await self._database.read(work)

    async def one(self, called: str) -> Person:
        """The one person with this id, user name or e-mail address; those who are gone only by their id.

        Raises Refused: NOT_FOUND, and ACCOUNT_AMBIGUOUS that names the ids when several are called so.
        """
        name = searchable(called)
        same = or_(person.c.search_username == name, person.c.search_email == name)
        which = or_(person.c.id == called, and_(same, person.c.tombstone.is_(None)))

        async def work(connection: AsyncConnection) -> tuple[Person, ...]:
            rows = list((await connection.execute(records.people(self._application).where(which))).mappings())
            return await records.with_identities(connection, rows)

        found = await self._database.read(work) if called else ()
        exact = [one for one in found if one.id == called] or list(found)
        if not exact:
            raise Refused(Reason.NOT_FOUND, 404, f"nobody is called {called!r}")
        if len(exact) > 1:
            ids = ", ".join(sorted(one.id for one in exact))
            raise Refused(Reason.ACCOUNT_AMBIGUOUS, 409, f"several are called {called!r}; say which by id: {ids}")
        return exact[0]

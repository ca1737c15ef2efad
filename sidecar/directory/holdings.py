"""Read who holds which account, everybody at once; and owe again what the application has forgotten."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.core.drift import Held, Living
from sidecar.directory.database import Database
from sidecar.directory.outbox import Owed, add, owe_settling
from sidecar.directory.switching import load_present
from sidecar.directory.tables import account, person
from sidecar.model import Duty

_PAGE = 1000


class Holdings:
    """The accounts of one application. Every coroutine raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, database: Database, application: str) -> None:
        """Read those of *application*."""
        self._database = database
        self._application = application

    async def all(self) -> list[Held]:
        """Every account that is somebody's, also of people who were switched off or are gone."""
        columns = (
            account.c.person_id,
            person.c.username,
            person.c.email,
            person.c.active,
            person.c.tombstone,
            account.c.account_key,
            account.c.account_id,
            account.c.roles,
        )
        chosen = select(*columns).join(person, person.c.id == account.c.person_id)
        chosen = chosen.where(account.c.application == self._application, account.c.state == "bound")
        return [
            Held(
                person_id=row[0],
                username=row[1],
                email=row[2],
                is_on=bool(row[3]) and row[4] is None,
                key=row[5],
                id=row[6] or "",
                roles=tuple(json.loads(row[7])) if row[7] else None,
                is_gone=row[4] is not None,
            )
            async for row in self._pages(chosen, account.c.person_id)
        ]

    async def without(self) -> list[Living]:
        """People who are switched on and have no account."""
        theirs = select(account.c.person_id).where(
            account.c.application == self._application, account.c.person_id == person.c.id, account.c.state == "bound"
        )
        chosen = select(person.c.id, person.c.username, person.c.email)
        chosen = chosen.where(person.c.active.is_(True), person.c.tombstone.is_(None), ~theirs.exists())
        return [Living(*row) async for row in self._pages(chosen, person.c.id)]

    async def _pages(self, chosen: Any, key: Any) -> AsyncIterator[Sequence[Any]]:
        last = ""
        while True:
            page = chosen.where(key > last).order_by(key).limit(_PAGE)

            async def work(connection: AsyncConnection, page: Any = page) -> Sequence[Any]:
                return (await connection.execute(page)).all()

            rows = await self._database.read(work)
            for row in rows:
                yield row
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    async def owe_again(self, person_id: str, once: str, now: float) -> Duty | None:
        """Owe somebody's account what it should be like already; None when they have none any more.

        Whether it is to be switched off or put right is read here, so that nothing is done that is out of date.
        *once* keeps one repair from being owed twice. Raises Refused(NOT_FOUND).
        """

        async def work(connection: AsyncConnection) -> Duty | None:
            known = await load_present(connection, self._application, person_id, lock=True)
            if known.account is None:
                return None
            mine = (account.c.application == self._application) & (account.c.person_id == person_id)
            # The mark of the last success would say that there is nothing to do.
            await connection.execute(update(account).where(mine).values(fingerprint=""))
            if known.active and known.tombstone is None:
                await owe_settling(connection, self._application, [person_id], now)
                return Duty.SETTLE
            await add(connection, self._application, Owed(person_id, Duty.DEACTIVATE, now, f"drift:{once}:{person_id}"))
            return Duty.DEACTIVATE

        return await self._database.write(work)

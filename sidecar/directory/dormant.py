"""Find accounts that nobody has used for long."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory.database import Database
from sidecar.directory.tables import account, person


async def dormant(database: Database, application: str, before: float, most: int) -> tuple[int, Sequence[str]]:
    """How many accounts that are switched on were not used since *before*, and ids of *most* of their people.

    Raises Unavailable.
    """
    seen = func.coalesce(func.nullif(person.c.last_seen, 0), person.c.created)
    where = (
        account.c.application == application,
        account.c.person_id == person.c.id,
        account.c.state == "bound",
        account.c.deactivated.is_(False),
        person.c.active.is_(True),
        person.c.tombstone.is_(None),
        seen < before,
    )

    async def look(connection: AsyncConnection) -> tuple[int, Sequence[str]]:
        count = await connection.scalar(select(func.count()).select_from(account, person).where(*where))
        oldest = select(person.c.id).select_from(account, person).where(*where).order_by(seen).limit(most)
        rows = await connection.execute(oldest)
        return int(count or 0), [name for (name,) in rows]

    return await database.read(look)

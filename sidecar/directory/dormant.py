"""Find accounts and API tokens that nobody has used for long."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory.database import Database
from sidecar.directory.tables import account, person, token


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


async def silent(database: Database, application: str, before: float, now: float) -> int:
    """How many API tokens that are good *now* were not used since *before*. Raises Unavailable."""
    used = func.coalesce(func.nullif(token.c.last_used, 0), token.c.created)
    where = token.c.application == application, token.c.revoked.is_(None), token.c.expires > now, used < before
    asked = select(func.count()).select_from(token).where(*where)

    async def look(connection: AsyncConnection) -> int:
        return int(await connection.scalar(asked) or 0)

    return await database.read(look)

"""Remember who was invited, and let each invitation be used once by whom it is for."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.core.wanted import folded
from sidecar.directory import records
from sidecar.directory.database import Database
from sidecar.directory.switching import load_present
from sidecar.directory.tables import digest, identity, invitation, person
from sidecar.faults import Refused
from sidecar.model import Identity
from sidecar.reason import Reason


@dataclass(frozen=True, slots=True)
class Invitation:
    """One invitation. ``email`` is whom it was sent to; times are epoch seconds, ``used`` None while it was not.

    ``expires`` is 0.0 for one that a newer one has replaced.
    """

    id: str
    person_id: str
    email: str
    created: float
    expires: float
    used: float | None = None


class InvitationBook:
    """The invitations. Every coroutine raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, database: Database, application: str) -> None:
        """Keep them in *database*; *application* as in the outbox."""
        self._database = database
        self._application = application

    async def make(self, person_id: str, email: str, now: float, lifetime: float) -> Invitation:
        """Invite somebody who is active; what they were sent before cannot be used any more.

        Raises Refused: NOT_FOUND, PERSON_DISABLED.
        """
        made = Invitation(uuid.uuid4().hex, person_id, email, now, now + lifetime)

        async def work(connection: AsyncConnection) -> Invitation:
            known = await load_present(connection, self._application, person_id, lock=True)
            if not known.active or known.tombstone is not None:
                raise Refused(Reason.PERSON_DISABLED, 409, "switched off")
            theirs = (invitation.c.person_id == person_id) & invitation.c.used.is_(None)
            # No time of ours: by the clock of another replica it might be still to come.
            await connection.execute(update(invitation).where(theirs).values(expires=0.0))
            row = {"id": made.id, "person_id": person_id, "email": email, "created": now, "expires": made.expires}
            await connection.execute(insert(invitation).values(**row))
            return made

        return await self._database.write(work)

    async def of_person(self, person_id: str) -> tuple[Invitation, ...]:
        """Everything that was sent to somebody, the newest first."""
        chosen = select(invitation).where(invitation.c.person_id == person_id).order_by(invitation.c.created.desc())

        async def work(connection: AsyncConnection) -> tuple[Invitation, ...]:
            return tuple(_invitation(row) for row in (await connection.execute(chosen)).mappings())

        return await self._database.read(work)

    async def usable(self, invitation_id: str, now: float) -> Invitation:
        """The invitation, while it can be used. Raises Refused: INVITATION_INVALID, _USED, _EXPIRED."""
        return await self._database.read(lambda connection: _usable(connection, invitation_id, now))

    async def accept(self, invitation_id: str, who: Identity, now: float, *, strict: bool) -> str:
        """Bind *who* signed in to the person who was invited; their id. It can never be used again.

        Raises Refused: as ``usable``; INVITATION_OTHER when it is *strict* and their verified address is another one;
        PERSON_DISABLED; ACCOUNT_BOUND when either of the two is somebody else already.
        """
        records.refuse_unstorable(who)

        async def work(connection: AsyncConnection) -> str:
            found = await _usable(connection, invitation_id, now)
            if strict and (not who.email or folded(who.email) != folded(found.email)):
                raise Refused(Reason.INVITATION_OTHER, 403, "signed in with another address, or none was verified")
            known = await load_present(connection, self._application, found.person_id, lock=True)
            if not known.active or known.tombstone is not None:
                raise Refused(Reason.PERSON_DISABLED, 403, "switched off")
            await _use(connection, found, who, now)
            await _bind(connection, found.person_id, who)
            step = {"version": person.c.version + 1, "updated": now}
            await connection.execute(update(person).where(person.c.id == found.person_id).values(**step))
            return found.person_id

        try:
            return await self._database.write(work)
        except IntegrityError:
            raise Refused(Reason.ACCOUNT_BOUND, 403, "whoever signed in is somebody else already") from None


async def _use(connection: AsyncConnection, found: Invitation, who: Identity, now: float) -> None:
    mine = (invitation.c.id == found.id) & invitation.c.used.is_(None)
    # Of two who come at once one changes the row.
    use = update(invitation).where(mine).values(used=now, used_by=digest(who.key))
    if (await connection.execute(use)).rowcount != 1:
        raise Refused(Reason.INVITATION_USED, 403, "used a moment ago")


async def _bind(connection: AsyncConnection, person_id: str, who: Identity) -> None:
    holder = select(identity.c.person_id).where(identity.c.key_hash == digest(who.key))
    bound = (await connection.execute(holder)).scalar_one_or_none()
    if bound == person_id:
        return
    theirs = select(identity.c.issuer).where(identity.c.person_id == person_id)
    if bound is not None or who.issuer in set((await connection.execute(theirs)).scalars()):
        raise Refused(Reason.ACCOUNT_BOUND, 403, "one of the two is somebody else at this provider already")
    await records.insert_identity(connection, person_id, who)


async def _usable(connection: AsyncConnection, invitation_id: str, now: float) -> Invitation:
    row = (await connection.execute(select(invitation).where(invitation.c.id == invitation_id))).mappings().first()
    if row is None:
        raise Refused(Reason.INVITATION_INVALID, 403, "there is no such invitation")
    found = _invitation(row)
    if found.used is not None:
        raise Refused(Reason.INVITATION_USED, 403, "used before")
    if now >= found.expires:
        raise Refused(Reason.INVITATION_EXPIRED, 403, "too old, or a newer one was sent")
    return found


def _invitation(row: Mapping[Any, Any]) -> Invitation:
    return Invitation(row["id"], row["person_id"], row["email"], row["created"], row["expires"], row["used"])

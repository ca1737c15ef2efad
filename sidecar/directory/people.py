"""The durable record of people and of the accounts that are theirs in one application."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.core.wanted import folded
from sidecar.directory import records
from sidecar.directory.backlog import Debts
from sidecar.directory.browsing import Browsing
from sidecar.directory.database import Database, Work
from sidecar.directory.groups import Groups
from sidecar.directory.holdings import Holdings
from sidecar.directory.invitations import InvitationBook
from sidecar.directory.migrate import migrate
from sidecar.directory.outbox import Outbox, Owed, add
from sidecar.directory.profiles import Profiles
from sidecar.directory.progress import ProgressReader
from sidecar.directory.relinking import Relinker
from sidecar.directory.roll import Roll
from sidecar.directory.scim import ScimUsers
from sidecar.directory.switching import blockers, lifted_by, load_present, switch_off, switch_on
from sidecar.directory.sync import SyncBook
from sidecar.directory.tables import LONGEST_APPLICATION, account, digest, identity, person, searchable
from sidecar.directory.tokens import Tokens
from sidecar.faults import Refused
from sidecar.model import Account, Duty, Identity, Person
from sidecar.reason import Reason

T = TypeVar("T")
_MOST_NAMESAKES = 1000


class Directory:
    """People, and their accounts in *application*. Every coroutine raises Unavailable(DIRECTORY_DOWN).

    Several applications may share a database: people are common to all, accounts and the outbox are each one's own.
    """

    def __init__(self, database: Database, application: str) -> None:
        """Use a database whose tables are ready; ``open`` is the ordinary way in."""
        self._database = database
        # The column is short, and a name may be an address.
        self.application = application if len(application) <= LONGEST_APPLICATION else digest(application)
        self.outbox = Outbox(database, self.application)
        self.debts = Debts(database, self.application)
        self.profiles = Profiles(database, self.application)
        self.groups = Groups(database, self.application)
        self.scim = ScimUsers(database, self.application)
        self.invitations = InvitationBook(database, self.application)
        self.relinker = Relinker(database, self.application)
        self.roll = Roll(database, self.application)
        self.tokens = Tokens(database, self.application)
        self.browsing = Browsing(database, self.application)
        self.progress = ProgressReader(database, self.application)
        self.sync = SyncBook(database, self.application)
        self.holdings = Holdings(database, self.application)

    @classmethod
    async def open(cls, url: str, application: str, patience: float = 5.0) -> Directory:
        """Connect to *url*, bring its tables up to date and answer a directory; *patience* in seconds per call."""
        database = Database(url, patience)
        try:
            await migrate(database)
        except BaseException:
            await database.close()
            raise
        return cls(database, application)

    async def ping(self) -> str:
        """Reach the database and describe it in a few words."""
        return await self._database.ping()

    async def close(self) -> None:
        """Let go of connections."""
        await self._database.close()

    # Looking people up

    async def person(self, person_id: str) -> Person | None:
        """Give the person with this id of ours."""
        return await self._one(person.c.id == person_id)

    async def person_by_identity(self, key: str) -> Person | None:
        """Give the person that an identity's ``key`` is bound to."""
        theirs = select(identity.c.person_id).where(identity.c.key_hash == digest(key)).scalar_subquery()
        return await self._one(person.c.id == theirs)

    async def person_by_account(self, key: str) -> Person | None:
        """Give the person who has, or is about to get, the account with this key."""
        return await self._one(account.c.key_hash == digest(folded(key)))

    async def holders(self, key: str, account_id: str) -> frozenset[str]:
        """Ids of the people who have, or are about to get, the account with this key or this id ("" for none)."""
        same = [account.c.key_hash == digest(folded(key))]
        if account_id:
            same.append(account.c.id_hash == digest(account_id))
        held = select(account.c.person_id).where(account.c.application == self.application, or_(*same))

        async def work(connection: AsyncConnection) -> frozenset[str]:
            return frozenset((await connection.execute(held)).scalars())

        return await self._database.read(work)

    async def find(self, text: str, offset: int = 0, limit: int = 50) -> tuple[Person, ...]:
        """Give people whose user name or e-mail address begins with *text*, in the order of user names."""
        start = searchable(text)
        begins = [
            column.startswith(start, autoescape=True) for column in (person.c.search_username, person.c.search_email)
        ]
        page = records.people(self.application).where(or_(*begins))
        page = page.order_by(person.c.search_username, person.c.id).offset(offset).limit(limit)

        async def work(connection: AsyncConnection) -> tuple[Person, ...]:
            return await records.with_identities(connection, list((await connection.execute(page)).mappings()))

        return await self._database.read(work)

    async def called(self, text: str) -> tuple[Person, ...]:
        """Give everybody whose user name or e-mail address is *text*, however many others begin with it.

        Raises Refused(ACCOUNT_AMBIGUOUS) when those are more than anybody could tell apart.
        """
        name = searchable(text)
        same = or_(person.c.search_username == name, person.c.search_email == name)
        page = records.people(self.application).where(same).order_by(person.c.id).limit(_MOST_NAMESAKES)

        async def work(connection: AsyncConnection) -> tuple[Person, ...]:
            return await records.with_identities(connection, list((await connection.execute(page)).mappings()))

        found = await self._database.read(work)
        if len(found) == _MOST_NAMESAKES:
            raise Refused(Reason.ACCOUNT_AMBIGUOUS, 400, f"{_MOST_NAMESAKES} people or more are called so")
        return found

    async def _one(self, which: ColumnElement[bool]) -> Person | None:
        return await self._database.read(lambda connection: records.load(connection, self.application, which))

    async def drop_account(self, person_id: str) -> None:
        """Forget the account of somebody whose account was deleted in the application: its key is free again."""
        gone = delete(account).where(self._theirs(person_id))
        await self._database.write(lambda connection: connection.execute(gone))

    # People come, are switched off and on, and go

    async def admit(self, who: Identity, now: float) -> Person:
        """Give the person of this identity, made now if need be, and keep their names up to date."""
        records.refuse_unstorable(who)
        known = await self.person_by_identity(who.key)
        if known is None:
            # Of several who come at once one is faster; that one's record is as good.
            with suppress(IntegrityError):
                await self._database.write(
                    lambda connection: records.insert_person(connection, uuid.uuid4().hex, who, now)
                )
            known = await self.person_by_identity(who.key)
            if known is None:
                message = "a person vanished while being admitted"
                raise LookupError(message)
            return known
        return await self.seen(known, who, now)

    async def join(self, holder: Person, who: Identity) -> None:
        """Let an identity that nobody has be one more of *holder*'s."""
        records.refuse_unstorable(who)
        # Whoever comes twice at once has joined once.
        with suppress(IntegrityError):
            await self._database.write(lambda connection: records.insert_identity(connection, holder.id, who))

    async def seen(self, known: Person, who: Identity, now: float) -> Person:
        """Note that somebody was here, under the names that they have now."""
        values = {**records.described(who), "last_seen": now}

        async def work(connection: AsyncConnection) -> Person:
            await connection.execute(update(person).where(person.c.id == known.id).values(**values))
            return await self._reload(connection, known.id)

        return await self._database.write(work)

    async def disable(self, person_id: str, by: str, now: float, *, forever: bool = False) -> Person:
        """Switch a person off on behalf of *by*, and owe every application they have an account in a deactivation.

        Whoever else does so too has a say of their own. *forever* sets the tombstone. Raises Refused(NOT_FOUND).
        """

        async def work(connection: AsyncConnection) -> Person:
            return await switch_off(connection, self.application, person_id, (by, now), forever=forever)

        return await self._database.write(work)

    async def remove(self, person_id: str, by: str, now: float) -> Person:
        """Switch a person off for good, and owe the deletion of their account. Raises Refused(NOT_FOUND)."""

        async def work(connection: AsyncConnection) -> Person:
            gone = await switch_off(connection, self.application, person_id, (by, now), forever=True)
            await add(connection, self.application, Owed(person_id, Duty.DELETE, now, f"delete:{person_id}"))
            return gone

        return await self._database.write(work)

    async def tombstone(self, person_id: str, by: str, now: float) -> Person:
        """Switch a person off for good: nobody can switch them on again."""
        return await self.disable(person_id, by, now, forever=True)

    async def enable(self, person_id: str, by: str, now: float) -> Person:
        """Lift what *by* had said: the person is on again unless others have them switched off, too.

        Raises Refused(PERSON_DISABLED) when only others have.
        """

        async def work(connection: AsyncConnection) -> Person:
            return await switch_on(connection, self.application, person_id, by, now)

        return await self._database.write(work)

    async def blockers(self, who: Person, without: str = "") -> tuple[str, ...]:
        """Everybody who has somebody switched off, the first of them first; *without* what that one could lift."""

        async def work(connection: AsyncConnection) -> tuple[str, ...]:
            lifted = await lifted_by(connection, who, without)
            return tuple(one for one in await blockers(connection, who) if one not in lifted)

        return await self._database.read(work)

    async def _reload(self, connection: AsyncConnection, person_id: str) -> Person:
        return await load_present(connection, self.application, person_id)

    # Their account

    async def reserve(self, who: Person, key: str, now: float) -> Person | None:
        """Note durably that an account with *key* is about to be created for *who*.

        None when their record changed meanwhile (read it again). Raises Refused(ACCOUNT_BOUND) when it is another's.
        """
        row = records.account_row("reserved", Account(key), uuid.uuid4().hex, now)
        return await self._put(who, row, now)

    async def link(self, who: Person, theirs: Account, now: float) -> Person | None:
        """Bind an account that was there before us; None and Refused as for ``reserve``."""
        return await self._put(who, records.account_row("bound", theirs, "", now), now)

    async def _put(self, who: Person, row: dict[str, object], now: float) -> Person | None:
        async def work(connection: AsyncConnection) -> Person | None:
            if not await records.advance(connection, who, now):
                return None
            await records.put_account(connection, self.application, who.id, row)
            return await self._reload(connection, who.id)

        return await self._bound_once(work)

    async def settle(self, who: Person, made: Account, now: float) -> Person:
        """Bind the account whose creation was begun with ``reserve``: it is there now, whatever else has changed."""

        async def work(connection: AsyncConnection) -> Person:
            row = records.account_row("bound", made, "", now)
            await records.put_account(connection, self.application, who.id, row)
            await connection.execute(
                update(person).where(person.c.id == who.id).values(version=person.c.version + 1, updated=now)
            )
            return await self._reload(connection, who.id)

        return await self._bound_once(work)

    async def _bound_once(self, work: Work[T]) -> T:
        try:
            return await self._database.write(work)
        except IntegrityError:
            raise Refused(Reason.ACCOUNT_BOUND, 403, "the account is another person's") from None

    async def release(self, who: Person) -> None:
        """Forget a reservation whose account was surely not created."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(account).where(self._theirs(who.id), account.c.attempt == who.attempt))

        await self._database.write(work)

    async def record(
        self, who: Person, theirs: Account, *, fingerprint: str, roles: Sequence[str], now: float
    ) -> Person | None:
        """Note how the account was left; "" as *fingerprint* makes the next sign-in look again.

        None when the person's record changed meanwhile or was switched off (read it again). Raises
        Refused(ACCOUNT_BOUND) when the account's id is another person's.
        """
        values = {
            "fingerprint": fingerprint,
            "roles": json.dumps(list(roles)),
            "outputs": json.dumps(dict(theirs.outputs)),
            "account_id": theirs.id,
            "id_hash": digest(theirs.id) if theirs.id else None,
            "updated": now,
        }

        async def work(connection: AsyncConnection) -> Person | None:
            if not await records.advance(connection, who, now):
                return None
            await connection.execute(update(account).where(self._theirs(who.id)).values(**values))
            return await self._reload(connection, who.id)

        return await self._bound_once(work)

    async def begin_renaming(self, who: Person, key: str, now: float) -> Person | None:
        """Note durably that the application is about to be told to call the account *key*; None as for ``reserve``."""
        return await self._rename(who, now, renaming=key)

    async def end_renaming(self, who: Person, key: str | None, now: float) -> Person | None:
        """Note that the account is called *key* now, or (None) as before; None as for ``reserve``.

        Raises Refused(ACCOUNT_BOUND) when an account of that key is another person's.
        """
        values = {} if key is None else {"account_key": key, "key_hash": digest(folded(key))}
        return await self._rename(who, now, renaming=None, **values)

    async def _rename(self, who: Person, now: float, **values: str | None) -> Person | None:
        async def work(connection: AsyncConnection) -> Person | None:
            if not await records.advance(connection, who, now):
                return None
            await connection.execute(update(account).where(self._theirs(who.id)).values(**values, updated=now))
            return await self._reload(connection, who.id)

        return await self._bound_once(work)

    async def mark_deactivated(self, person_id: str, now: float, *, deactivated: bool) -> None:
        """Note that we switched the account off inside the application, or on again."""
        values = {"deactivated": deactivated, "fingerprint": "", "updated": now}

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(update(account).where(self._theirs(person_id)).values(**values))

        await self._database.write(work)

    def _theirs(self, person_id: str) -> ColumnElement[bool]:
        return and_(account.c.application == self.application, account.c.person_id == person_id)

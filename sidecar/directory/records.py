"""Read and write the rows of one person."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, and_, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.core.wanted import folded
from sidecar.directory.tables import account, digest, identity, person, searchable
from sidecar.faults import Refused
from sidecar.model import Account, Identity, Person, identity_key
from sidecar.reason import Reason

_UNSTORABLE = frozenset(["Cc", "Cs"])
_ACCOUNT_COLUMNS = [
    account.c.account_key,
    account.c.account_id,
    account.c.outputs,
    account.c.state,
    account.c.attempt,
    account.c.linked,
    account.c.deactivated,
    account.c.fingerprint,
    account.c.roles,
    account.c.renaming,
]


def people(application: str) -> Select[Any]:
    """Select people with their account in *application*."""
    theirs = and_(account.c.person_id == person.c.id, account.c.application == application)
    return select(person, *_ACCOUNT_COLUMNS).outerjoin(account, theirs)


async def load(connection: AsyncConnection, application: str, which: ColumnElement[bool]) -> Person | None:
    """Read the person that *which* says, None when there is none."""
    row = (await connection.execute(people(application).where(which))).mappings().first()
    return None if row is None else (await with_identities(connection, [row]))[0]


async def with_identities(connection: AsyncConnection, rows: list[RowMapping]) -> tuple[Person, ...]:
    """Make people of *rows*, adding the identities bound to them."""
    mine = identity.c.person_id.in_([row["id"] for row in rows])
    keys: dict[str, list[str]] = {}
    for found in (await connection.execute(select(identity).where(mine))).mappings():
        keys.setdefault(found["person_id"], []).append(identity_key(found["issuer"], found["subject"]))
    return tuple(_person(row, tuple(sorted(keys.get(row["id"], ())))) for row in rows)


def _person(row: RowMapping, identities: tuple[str, ...]) -> Person:
    is_reserved = row["state"] == "reserved"
    return Person(
        id=row["id"],
        identities=identities,
        source=row["source"],
        active=row["active"],
        disabled_by=row["disabled_by"],
        account=None if row["state"] is None or is_reserved else _account(row),
        fingerprint=row["fingerprint"] or "",
        roles=tuple(json.loads(row["roles"] or "[]")),
        tombstone=row["tombstone"],
        username=row["username"],
        email=row["email"],
        name=row["name"],
        last_seen=row["last_seen"],
        reserved=row["account_key"] if is_reserved else "",
        attempt=row["attempt"] if is_reserved else "",
        version=row["version"],
    )


def _account(row: RowMapping) -> Account:
    return Account(
        key=row["account_key"],
        id=row["account_id"],
        outputs=json.loads(row["outputs"]),
        linked=row["linked"],
        deactivated=row["deactivated"],
        renaming=row["renaming"] or "",
    )


async def insert_person(connection: AsyncConnection, person_id: str, who: Identity, now: float) -> None:
    """Write a new person with one identity."""
    row = {
        "id": person_id,
        "source": who.provider,
        "active": True,
        "disabled_by": "",
        "created": now,
        "updated": now,
        "last_seen": now,
        "tombstone": None,
        "version": 1,
        **described(who),
    }
    await connection.execute(insert(person).values(**row))
    await insert_identity(connection, person_id, who)


async def insert_identity(connection: AsyncConnection, person_id: str, who: Identity) -> None:
    """Bind an identity to a person who is there."""
    key = {"key_hash": digest(who.key), "issuer": who.issuer, "subject": who.subject, "person_id": person_id}
    await connection.execute(insert(identity).values(**key))


def described(who: Identity) -> dict[str, str]:
    """The columns by which operators recognise a person."""
    return {
        "username": who.username,
        "email": who.email,
        "name": who.name,
        "search_username": searchable(who.username),
        "search_email": searchable(who.email),
    }


def refuse_unstorable(who: Identity) -> None:
    """Raise Refused(IDENTITY_INCOMPLETE) for an issuer or subject that no database can hold exactly."""
    if any(unicodedata.category(letter) in _UNSTORABLE for letter in who.issuer + who.subject):
        raise Refused(Reason.IDENTITY_INCOMPLETE, 403, "control characters in the subject")


def account_row(state: str, theirs: Account, attempt: str, now: float) -> dict[str, Any]:
    """The columns of an account in *state* (reserved or bound)."""
    return {
        "key_hash": digest(folded(theirs.key)),
        "account_key": theirs.key,
        "id_hash": digest(theirs.id) if theirs.id else None,
        "account_id": theirs.id,
        "outputs": json.dumps(dict(theirs.outputs)),
        "state": state,
        "attempt": attempt,
        "linked": theirs.linked,
        "deactivated": theirs.deactivated,
        "fingerprint": "",
        "roles": "[]",
        "updated": now,
        "renaming": None,
    }


async def put_account(connection: AsyncConnection, application: str, person_id: str, row: dict[str, Any]) -> None:
    """Write a person's account, over the one that they have in this application."""
    mine = (account.c.application == application) & (account.c.person_id == person_id)
    if (await connection.execute(update(account).where(mine).values(**row))).rowcount == 0:
        await connection.execute(insert(account).values(application=application, person_id=person_id, **row))


async def advance(connection: AsyncConnection, who: Person, now: float) -> bool:
    """Step the version on from what *who* says; False when the record changed since, or is switched off."""
    unchanged = (person.c.id == who.id) & (person.c.version == who.version) & person.c.active.is_(True)
    step = update(person).where(unchanged).values(version=who.version + 1, updated=now)
    return (await connection.execute(step)).rowcount == 1

"""Keep API tokens: whose they are, what they are good for, and until when; never the tokens themselves."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, and_, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.config.callers import SERVICE_ISSUER
from sidecar.directory import records
from sidecar.directory.database import Database
from sidecar.directory.tables import digest, identity, person, searchable, token
from sidecar.model import Person, identity_key


class Kind(Enum):
    """Whose a token is: a person's, or that of a service that nobody signs in as."""

    PERSONAL = "personal"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class ApiToken:
    """One token as it is kept. Times are epoch seconds; ``last_used`` is 0.0 when it never was, ``revoked`` None.

    A personal token has a ``person_id``, a service token a ``subject`` and ``roles``. An empty ``scope`` narrows
    nothing.
    """

    id: str
    kind: Kind
    name: str
    person_id: str | None
    subject: str
    roles: tuple[str, ...]
    scope: tuple[str, ...]
    created: float
    created_by: str
    expires: float
    last_used: float = 0.0
    revoked: float | None = None
    revoked_by: str = ""


class Standing(Enum):
    """How a token stands: good, past its end, or ended by somebody."""

    GOOD = "good"
    EXPIRED = "expired"
    REVOKED = "revoked"


def standing_of(one: ApiToken, now: float) -> Standing:
    """How *one* stands at *now*."""
    if one.revoked is not None:
        return Standing.REVOKED
    return Standing.EXPIRED if now >= one.expires else Standing.GOOD


@dataclass(frozen=True, slots=True)
class Listed:
    """A token in a list, and what its owner is called."""

    token: ApiToken
    owner: str


class Tokens:
    """The tokens of one application. Every coroutine raises Unavailable(DIRECTORY_DOWN)."""

    def __init__(self, database: Database, application: str) -> None:
        """A token for one *application* is none for another that shares the directory."""
        self._database = database
        self._application = application

    async def add(self, made: ApiToken, secret_hash: str) -> None:
        """Keep a new token, by the hash of its secret."""
        row = {
            "id": made.id,
            "application": self._application,
            "secret_hash": secret_hash,
            "kind": made.kind.value,
            "name": made.name,
            "person_id": made.person_id,
            "subject": made.subject,
            "roles": json.dumps(list(made.roles)),
            "scope": json.dumps(list(made.scope)),
            "created": made.created,
            "created_by": made.created_by[:190],
            "expires": made.expires,
            "last_used": made.last_used,
            "revoked": made.revoked,
            "revoked_by": made.revoked_by,
        }
        await self._database.write(lambda connection: connection.execute(insert(token).values(**row)))

    async def shown(self, secret_hash: str) -> tuple[ApiToken, Person | None] | None:
        """The token with this hash, and the person whose it is; a service has one once it has been here."""
        found = await self._with_person(token.c.secret_hash == secret_hash)
        if found is None or not hmac.compare_digest(found[2], secret_hash):
            return None
        return found[:2]

    async def get(self, token_id: str) -> tuple[ApiToken, Person | None] | None:
        """The token with this id, and the person whose it is."""
        found = await self._with_person(token.c.id == token_id)
        return None if found is None else found[:2]

    async def find(self, *, person_id: str = "", subject: str = "") -> tuple[ApiToken, ...]:
        """All tokens, or those of one person or service, the newest first."""
        page = select(token).where(self._mine()).order_by(token.c.created.desc(), token.c.id)
        page = page.where(token.c.person_id == person_id) if person_id else page

        async def work(connection: AsyncConnection) -> tuple[ApiToken, ...]:
            return tuple(_token(row) for row in (await connection.execute(page)).mappings())

        found = await self._database.read(work)
        return tuple(one for one in found if one.kind is Kind.SERVICE and one.subject == subject) if subject else found

    async def page(
        self, standing: Standing | None, text: str, after: tuple[float, str] | None, limit: int, now: float
    ) -> tuple[Listed, ...]:
        """Tokens in that standing, the newest first, those after (created, id).

        *text* is an id, or the beginning of the owner's user name, of a service or of the token's own name.
        """
        joined = token.outerjoin(person, person.c.id == token.c.person_id)
        page = select(token, person.c.username).select_from(joined).where(self._mine())
        if standing is not None:
            page = page.where(_stands(standing, now))
        if text:
            begins = [column.startswith(text, autoescape=True) for column in (token.c.subject, token.c.name)]
            owned = person.c.search_username.startswith(searchable(text), autoescape=True)
            page = page.where(or_(token.c.id == text, token.c.person_id == text, owned, *begins))
        if after is not None:
            # The first condition is what an index answers.
            page = page.where(token.c.created <= after[0], tuple_(token.c.created, token.c.id) < after)
        page = page.order_by(token.c.created.desc(), token.c.id.desc()).limit(limit)

        async def work(connection: AsyncConnection) -> tuple[Listed, ...]:
            rows = (await connection.execute(page)).mappings()
            return tuple(Listed(_token(row), row["subject"] or row["username"] or "") for row in rows)

        return await self._database.read(work)

    async def revoke(self, token_id: str, by: str, now: float) -> bool:
        """End a token for good; False when there is none of that id that is not revoked yet."""
        still = token.c.id == token_id, self._mine(), token.c.revoked.is_(None)
        step = update(token).where(*still).values(revoked=now, revoked_by=by[:190])

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(step)).rowcount == 1

        return await self._database.write(work)

    async def used(self, token_id: str, now: float, pause: float) -> None:
        """Note that a token was used, unless somebody did within *pause* seconds."""
        due = token.c.id == token_id, token.c.last_used <= now - pause
        await self._database.write(
            lambda connection: connection.execute(update(token).where(*due).values(last_used=now))
        )

    def _mine(self) -> ColumnElement[bool]:
        return token.c.application == self._application

    async def _with_person(self, which: ColumnElement[bool]) -> tuple[ApiToken, Person | None, str] | None:
        async def work(connection: AsyncConnection) -> tuple[ApiToken, Person | None, str] | None:
            row = (await connection.execute(select(token).where(which, self._mine()))).mappings().first()
            if row is None:
                return None
            found = _token(row)
            owner = await records.load(connection, self._application, _owner_of(found))
            return found, owner, row["secret_hash"]

        return await self._database.read(work)


def _stands(standing: Standing, now: float) -> ColumnElement[bool]:
    if standing is Standing.REVOKED:
        return token.c.revoked.is_not(None)
    ended = token.c.expires <= now if standing is Standing.EXPIRED else token.c.expires > now
    return and_(token.c.revoked.is_(None), ended)


def _owner_of(found: ApiToken) -> ColumnElement[bool]:
    if found.kind is Kind.PERSONAL:
        return person.c.id == found.person_id
    key = digest(identity_key(SERVICE_ISSUER, found.subject))
    return person.c.id == select(identity.c.person_id).where(identity.c.key_hash == key).scalar_subquery()


def _token(row: RowMapping | dict[str, Any]) -> ApiToken:
    return ApiToken(
        id=row["id"],
        kind=Kind(row["kind"]),
        name=row["name"],
        person_id=row["person_id"],
        subject=row["subject"],
        roles=tuple(json.loads(row["roles"])),
        scope=tuple(json.loads(row["scope"])),
        created=row["created"],
        created_by=row["created_by"],
        expires=row["expires"],
        last_used=row["last_used"],
        revoked=row["revoked"],
        revoked_by=row["revoked_by"],
    )

"""Issue API tokens and end them, so that every worker hears of it."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sidecar.core.accounts import refusal_of
from sidecar.core.api_tokens import ENTROPY, digest_of, written
from sidecar.core.audit import Event
from sidecar.core.scopes import path_in
from sidecar.directory import Directory
from sidecar.directory.tokens import ApiToken, Kind
from sidecar.faults import Refused
from sidecar.model import Person
from sidecar.people import Changes
from sidecar.reason import Reason

Record = Callable[[Event, Mapping[str, object]], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for: a token of a ``person``, or of the service ``subject`` with ``roles``.

    ``lifetime`` in seconds.
    """

    name: str
    lifetime: float
    scope: tuple[str, ...] = ()
    person: Person | None = None
    subject: str = ""
    roles: tuple[str, ...] = ()


class Issuer:
    """Issues and revokes; everything that it does is noted."""

    def __init__(
        self, directory: Directory, changes: Changes, record: Record, rules: Sequence[str], roles: Collection[str]
    ) -> None:
        """Scopes name *rules*, services have *roles*: both as the configuration has them."""
        self._directory = directory
        self._changes = changes
        self._record = record
        self._rules = frozenset(rules)
        self._roles = frozenset(roles)

    async def plan(self, order: Order, by: str, now: float) -> ApiToken:
        """The token that *order* would come to. Raises Refused: PERSON_DISABLED, CONFLICT, NOT_FOUND."""
        self._refuse_unknown(order)
        if order.person is not None and refusal_of(order.person) is not None:
            raise Refused(Reason.PERSON_DISABLED, 403, f"{order.person.username} is switched off")
        if order.subject:
            await self._refuse_borrowed(order.subject)
        return ApiToken(
            id=uuid.uuid4().hex,
            kind=Kind.SERVICE if order.person is None else Kind.PERSONAL,
            name=order.name,
            person_id=None if order.person is None else order.person.id,
            subject=order.subject,
            roles=order.roles,
            scope=order.scope,
            created=now,
            created_by=by,
            expires=now + order.lifetime,
        )

    async def issue(self, order: Order, by: str, now: float) -> tuple[str, ApiToken]:
        """Issue it: the token itself, which is told this once, and what is kept of it. Raises as ``plan``."""
        made = await self.plan(order, by, now)
        secret = written(secrets.token_bytes(ENTROPY))
        await self._directory.tokens.add(made, digest_of(secret))
        self._record(Event.TOKEN_CREATED, {**told(made), "by": by, "roles": made.roles, "scope": made.scope})
        return secret, made

    async def revoke(self, token_id: str, by: str, now: float) -> ApiToken:
        """End a token everywhere. Raises Refused: NOT_FOUND, CONFLICT when it is revoked already."""
        found = await self._directory.tokens.get(token_id)
        if found is None:
            raise Refused(Reason.NOT_FOUND, 404, "there is no such token")
        # Said again, for the case that the one who revoked it first could not tell the others.
        is_news = await self._directory.tokens.revoke(token_id, by, now)
        await self._changes.announce([token_id])
        if not is_news:
            raise Refused(Reason.CONFLICT, 409, "it is revoked already")
        self._record(Event.TOKEN_REVOKED, {**told(found[0]), "by": by})
        return found[0]

    def _refuse_unknown(self, order: Order) -> None:
        for role in order.roles:
            if role not in self._roles:
                raise Refused(Reason.NOT_FOUND, 404, f"there is no role {role}")
        for one in order.scope:
            if not path_in(one) and one not in self._rules:
                raise Refused(Reason.NOT_FOUND, 404, f"there is no access rule {one}; paths begin with /")

    async def _refuse_borrowed(self, subject: str) -> None:
        """A service must not be called what a person is called: the application could not tell them apart."""
        for person in await self._directory.called(subject):
            is_itself = any(key.endswith(f":{subject}") for key in person.identities) and person.source == "tokens"
            if person.username.casefold() == subject.casefold() and not is_itself:
                raise Refused(Reason.CONFLICT, 409, f"a person is called {subject}")


def told(token: ApiToken) -> dict[str, object]:
    """What audit lines say of a token; nothing that opens anything."""
    return {
        "token": token.id,
        "kind": token.kind.value,
        "name": token.name,
        "person": token.person_id or "",
        "subject": token.subject,
    }

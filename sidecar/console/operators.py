"""Know who of those who signed in is an operator, and how far they may go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from sidecar.condition import Accounts
from sidecar.config.console import Operator as Section
from sidecar.config.console import Operators as Sections
from sidecar.core.accounts import refusal_of
from sidecar.core.cookies import values_of
from sidecar.core.policy import Who, group_line, origin_line, role_line, when_line
from sidecar.core.roles import Role, roles_of
from sidecar.core.standing import standing_of
from sidecar.faults import Refused
from sidecar.model import Session, Visit
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper


class Level(IntEnum):
    """How far somebody may go; each includes those below it."""

    NONE = 0
    VIEW = 1
    OPERATE = 2
    ADMINISTER = 3

    @property
    def word(self) -> str:
        """As the configuration has it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody who is signed in at the console. ``token`` is that of their session: what it opens is theirs alone."""

    session: Session
    token: str
    level: Level

    @property
    def name(self) -> str:
        """What they are called."""
        return self.session.identity.username

    def may(self, level: Level) -> bool:
        """True when they may do what *level* may; nobody may do what NONE may."""
        return level is not Level.NONE and self.level >= level


def rules_of(sections: Sections) -> Mapping[Level, Sequence[Who]]:
    """Compile who has which level."""
    return {Level[key.upper()]: tuple(map(_who, whos)) for key, whos in sections.levels}


def _who(section: Section) -> Who:
    lines = [role_line(frozenset(section.role))] if section.role else []
    lines += [group_line(frozenset(section.group))] if section.group else []
    lines += [origin_line("login", frozenset(section.login))] if section.login else []
    lines += [when_line(section.when)] if section.when is not None else []
    return Who(tuple(lines))


@dataclass(slots=True, kw_only=True)
class Operators:
    """Finds the operator who sends a request."""

    keeper: SessionKeeper
    cookie: str
    rules: Mapping[Level, Sequence[Who]]
    roles: Sequence[Role]
    accounts: Accounts

    async def find(self, visit: Visit, now: float) -> Operator | None:
        """Who is signed in, be it with no level at all; None when nobody is.

        Raises Refused(PERSON_DISABLED) for whoever was switched off, and Unavailable when nobody can know.
        """
        for token in values_of(visit.cookies, self.cookie):
            session = await self.keeper.find(token, now)
            if session is not None:
                return await self._judged(session, token, now)
        return None

    async def _judged(self, session: Session, token: str, now: float) -> Operator:
        # What sources say of them by now counts, as at the gate: a group that was taken away takes its level away.
        identity = await self.accounts.known(session.identity, now)
        if self.accounts.directory is not None:
            person = await self.accounts.directory.person_by_identity(identity.key)
            if refusal_of(person) is not None:
                raise Refused(Reason.PERSON_DISABLED, 403, "switched off")
        session = replace(session, identity=identity)
        return Operator(session, token, self._level(session))

    def _level(self, session: Session) -> Level:
        standing = standing_of(session, "cookie", roles_of(session.identity, self.roles))
        held = (
            level
            for level, whos in self.rules.items()
            # A set without lines would fit everybody.
            if any(who.lines and who.fits(standing) for who in whos)
        )
        return max(held, default=Level.NONE)

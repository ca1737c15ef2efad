"""Pages about people and their sessions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.condition import Accounts
from sidecar.console.acts import SOURCE, operator_fields
from sidecar.console.page import Asked, Page
from sidecar.core.audit import Event
from sidecar.directory import Directory
from sidecar.faults import Refused
from sidecar.model import Person, identity_key
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.reading import Line
from sidecar.telemetry.trail import look_back

PAGE = 50
_ID = re.compile(r"[0-9a-f]{32}")
_MOST_SESSIONS = 200
_MOST_OWED = 20


@dataclass(slots=True, kw_only=True)
class PeoplePages:
    """``/people`` and ``/sessions``. ``issuers`` are those of the logins, as far as they are known."""

    accounts: Accounts
    keeper: SessionKeeper
    issuers: Mapping[str, str]
    audit: AuditLog
    audit_file: Path | None

    async def people(self, asked: Asked) -> Page:
        """Find people by the beginning of their name or address, by account or id; or show one."""
        directory = self.accounts.directory
        if directory is None:
            raise Refused(Reason.NOT_FOUND, 404, "no accounts are kept here")
        if asked.rest:
            return await self._person(directory, asked)
        text = asked.query.get("q", "").strip()
        after = (asked.query["after"], asked.query.get("id", "")) if "after" in asked.query else None
        found = await self._found(directory, text, after)
        more = found[PAGE - 1] if len(found) > PAGE else None
        return Page("people", {"q": text, "people": found[:PAGE], "more": more, "is_begun": after is not None})

    @staticmethod
    async def _found(directory: Directory, text: str, after: tuple[str, str] | None) -> Sequence[Person]:
        if _ID.fullmatch(text):
            person = await directory.person(text)
            return () if person is None else (person,)
        found = await directory.browsing.people(text, after, PAGE + 1)
        if not found and text and after is None:
            by_account = await directory.person_by_account(text)
            return () if by_account is None else (by_account,)
        return found

    async def _person(self, directory: Directory, asked: Asked) -> Page:
        person = await directory.person(asked.rest)
        if person is None:
            raise Refused(Reason.NOT_FOUND, 404, "there is no such person")
        fields = {**operator_fields(asked), "target": person.id, "username": person.username}
        self.audit.record(Event.CONSOLE_READ, fields)
        sessions = [await self._sessions(key) for key in person.identities]
        return Page(
            "person",
            {
                "person": person,
                "identities": list(zip(map(parts_of, person.identities), sessions, strict=True)),
                "opened": await self._opened([one for some in sessions for one in some]),
                "off_by": await directory.blockers(person),
                "others": await directory.blockers(person, SOURCE),
                "profiles": await directory.profiles.of_person(person.id),
                "owed": await directory.browsing.owed_for(person.id, _MOST_OWED),
                "source": SOURCE,
            },
        )

    async def _sessions(self, key: str) -> Sequence[str]:
        return (await self.keeper.list_person(key))[:_MOST_SESSIONS]

    async def sessions(self, asked: Asked) -> Page:
        """Find a session by its id, or those of somebody by what the provider calls them."""
        session = asked.query.get("id", "").strip()
        login, subject = asked.query.get("login", ""), asked.query.get("subject", "").strip()
        values: dict[str, Any] = {"logins": sorted(self.issuers), "id": session, "login": login, "subject": subject}
        found: Sequence[str] = ()
        key = ""
        if session and await self.keeper.is_open(session):
            found = (session,)
        elif subject and login in self.issuers:
            key = identity_key(self.issuers[login], subject)
            found = await self._sessions(key)
        is_asked = bool(session or subject)
        more = {"found": found, "key": key, "is_asked": is_asked, "opened": await self._opened(found)}
        return Page("sessions", {**values, **more})

    async def _opened(self, sessions: Sequence[str]) -> Mapping[str, Line]:
        """By session the audit line of the sign-in that opened it, where it is not too long ago."""
        path, wanted = self.audit_file, frozenset(sessions)
        if path is None or not wanted:
            return {}
        event = Event.LOGIN_SUCCEEDED.value

        def fits(line: Line) -> bool:
            return line.get("event") == event and line.get("session") in wanted

        try:
            looked = await asyncio.to_thread(look_back, path, fits, needles=[event], most=len(wanted))
        except OSError:
            return {}
        return {str(line["session"]): line for line in looked.lines}


def parts_of(key: str) -> tuple[str, str, str]:
    """(key, issuer, subject) of an identity's key."""
    length, _, rest = key.partition(":")
    issuer = rest[: int(length)]
    return key, issuer, rest[int(length) :].partition(":")[2]

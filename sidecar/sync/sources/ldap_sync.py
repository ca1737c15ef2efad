"""Ask an LDAP server for what has changed since a cookie (RFC 4533, refreshOnly)."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sidecar.sync.sources.ldap_server import Entry, LdapServer, library, limits
from sidecar.sync.sources.source import down

_CHUNK = 500
# Section 2.7: what the client has cannot be brought up to date, it must begin anew.
_REFRESH_REQUIRED = 4096
_WHOLE = 1 << 128


class StaleCookieError(Exception):
    """The server does not know the cookie (any more): everything must be read."""


class Refresh:
    """One search. When it is over it says how the server stands, and whether somebody may have gone.

    ``cookie`` is "" where the server gave none; ``crowd`` stands for exactly those who are there, "" where only changes
    were told.
    """

    def __init__(self, server: LdapServer) -> None:
        """Ask *server*."""
        self._server = server
        self._there: set[bytes] = set()
        self._is_told_gone = False
        self._has_begun = False
        self._only_changes = False
        self.cookie = ""

    @property
    def crowd(self) -> str:
        """Digest of who is there, in any order."""
        # A sum of digests: numbers that follow one another would make up for each other.
        total = sum(int.from_bytes(hashlib.sha256(one).digest()[:16], "big") for one in self._there)
        return "" if self._only_changes else f"{total % _WHOLE:x}"

    def may_lack_somebody(self, crowd: str) -> bool:
        """True unless all of the *crowd* of before are there still."""
        return self._is_told_gone if self._only_changes else self._is_told_gone or self.crowd != crowd

    def chunks(self, attributes: Sequence[str], cookie: str = "") -> Iterator[list[Entry]]:
        """Those who are new or changed since *cookie*, or everybody. Raises StaleCookieError and Unavailable."""
        ldap, section = library(), self._server.section
        self._has_begun = bool(cookie)
        request = ldap.syncrepl.SyncRequestControl(cookie=cookie or None, mode="refreshOnly")
        entries: list[Entry] = []
        with self._server.connected() as connection:
            number = connection.search_ext(
                section.base, ldap.SCOPE_SUBTREE, section.filter, list(attributes), serverctrls=[request]
            )
            try:
                for entry in self._entries(connection, number):
                    entries.append(entry)
                    if len(entries) == _CHUNK:
                        yield entries
                        entries = []
            except limits(ldap) as limit:
                self._server.stopped(limit)
            except ldap.LDAPError as error:
                if cookie and _is_about_cookie(ldap, error):
                    raise StaleCookieError from None
                raise
        yield entries

    def _entries(self, connection: Any, number: int) -> Iterator[Entry]:
        ldap = library()
        while True:
            try:
                kind, found, _, told, _, _ = connection.result4(
                    number, 0, self._server.seconds, add_ctrls=1, add_intermediates=1
                )
            except (ValueError, TypeError, UnicodeError):
                raise down(f"{self._server.name}: the server's word on changes cannot be read") from None
            if kind == ldap.RES_SEARCH_ENTRY:
                for name, values, controls in found:
                    if self._is_there(ldap, controls):
                        yield name, values
            elif kind == ldap.RES_SEARCH_REFERENCE:
                for _, addresses, _ in found:
                    self._server.referred(addresses)
            elif kind == ldap.RES_INTERMEDIATE:
                self._note(ldap, found)
            elif kind == ldap.RES_SEARCH_RESULT:
                self._finish(ldap, told)
                return

    def _is_there(self, ldap: Any, controls: Iterable[Any]) -> bool:
        """True for an entry that comes with its values."""
        state = next((one for one in controls if isinstance(one, ldap.syncrepl.SyncStateControl)), None)
        if state is None:
            raise down(f"{self._server.name}: the server does not say what became of an entry")
        if state.state == "delete":
            self._is_told_gone = True
            return False
        self._count([state.entryUUID])
        return bool(state.state != "present")

    def _note(self, ldap: Any, messages: Iterable[Any]) -> None:
        for name, value, _ in messages:
            if name != ldap.syncrepl.SyncInfoMessage.responseName:
                continue
            several = ldap.syncrepl.SyncInfoMessage(value).syncIdSet
            if several is None:
                continue
            if several["refreshDeletes"]:
                self._is_told_gone |= bool(several["syncUUIDs"])
            else:
                self._count(several["syncUUIDs"])

    def _finish(self, ldap: Any, controls: Iterable[Any]) -> None:
        done = next((one for one in controls if isinstance(one, ldap.syncrepl.SyncDoneControl)), None)
        if done is None:
            raise down(f"{self._server.name}: the server does not synchronise (OpenLDAP needs the overlay syncprov)")
        self.cookie = done.cookie or ""
        # Whoever is gone was told of; else whoever was not told of is gone (section 3.3.2).
        self._only_changes = self._has_begun and bool(done.refreshDeletes)

    def _count(self, uuids: Iterable[str]) -> None:
        # Whoever has changed may be told of twice.
        self._there.update(uuid.UUID(one).bytes for one in uuids)


def _is_about_cookie(ldap: Any, error: Exception) -> bool:
    told = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    # OpenLDAP is unwilling when its data are older than the cookie: it was restored, or is another server.
    return isinstance(error, ldap.PROTOCOL_ERROR | ldap.UNWILLING_TO_PERFORM) or told.get("result") == _REFRESH_REQUIRED

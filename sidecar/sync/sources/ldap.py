"""Read people and groups from an LDAP server, OpenLDAP or Active Directory."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from sidecar.config.sync_source import LdapSource
from sidecar.core.sync.entry import Row
from sidecar.sync.sources.ldap_groups import Groups, primary_key, read_groups
from sidecar.sync.sources.ldap_server import Entry, LdapServer, Values
from sidecar.sync.sources.ldap_sync import Refresh, StaleCookieError
from sidecar.sync.sources.source import End, Reading, in_thread

_DISABLED = 0x2
_LOCKED = 0x10
# These are octets, not text.
_OCTETS = frozenset(["objectguid", "objectsid"])
# What somebody has many of, also when they have one.
_MANY = frozenset(["memberof", "objectclass"])
_MOST_CHANGES = 20_000
_BY_TIME = frozenset(["modifyTimestamp", "uSNChanged"])


class LdapPeople:
    """People below one entry. A limit of the server, or a reference to another server, makes it incomplete."""

    def __init__(self, name: str, section: LdapSource) -> None:
        """Read what *section* says; *name* is for messages."""
        self._name = name
        self._section = section
        self._server = LdapServer(name, section)
        self._since = ""
        self._newest = ""
        self._changed: list[Entry] | None = None
        self._cursor: dict[str, str] = {}
        self._groups: Groups | None = None
        self._groups_digest = ""

    async def begin(self, since: str) -> Reading:
        """See Source. When a group has changed everybody is read, since it does not say of whom."""
        before: Mapping[str, str] = json.loads(since) if since else {}
        if self._section.groups is not None:
            self._groups, self._groups_digest = await asyncio.to_thread(read_groups, self._server, self._section.groups)
        if before.get("groups") != self._groups_digest:
            return "full"
        if self._section.changes in _BY_TIME and before.get("at"):
            self._since = self._newest = before["at"]
            return "changes"
        if self._section.changes == "syncrepl" and before.get("cookie"):
            self._changed = await asyncio.to_thread(self._changes_since, before)
        return "full" if self._changed is None else "changes"

    def _changes_since(self, before: Mapping[str, str]) -> list[Entry] | None:
        """Who has changed, where nobody has gone; None when everybody must be read to see who is missing."""
        refresh, found = Refresh(self._server), []
        # A server that cannot read the cookie may tell of everybody without a word: then nobody knows who is gone.
        most = min(_MOST_CHANGES, int(before.get("people", 0)) // 2)
        try:
            for chunk in refresh.chunks(self._attributes(), before["cookie"]):
                found += chunk
                if len(found) > most:
                    return None
        except StaleCookieError:
            return None
        if not self._server.faults and refresh.may_lack_somebody(before.get("crowd", "")):
            return None
        # A server that has nothing to tell may leave the cookie as it is (section 3.3).
        crowd = refresh.crowd or ("" if found else before.get("crowd", ""))
        self._cursor = {**before, "cookie": refresh.cookie or before["cookie"], "crowd": crowd}
        return found

    def batches(self) -> AsyncIterator[Sequence[Row]]:
        """See Source."""
        return in_thread(self._chunks())

    def _chunks(self) -> Iterator[list[dict[str, Any]]]:
        for page in self._pages():
            yield [self._row(name, values) for name, values in page]

    def _pages(self) -> Iterator[list[Entry]]:
        section = self._section
        if self._changed is not None:
            yield self._changed
        elif section.changes == "syncrepl":
            refresh, people = Refresh(self._server), 0
            for chunk in refresh.chunks(self._attributes()):
                people += len(chunk)
                yield chunk
            if refresh.cookie:
                self._cursor = {"cookie": refresh.cookie, "crowd": refresh.crowd, "people": str(people)}
        else:
            since = f"(&{section.filter}({section.changes}>={self._since}))"
            yield from self._server.pages(section.base, since if self._since else section.filter, self._attributes())

    def _attributes(self) -> list[str]:
        section = self._section
        more = ["entryUUID", *([section.changes] if section.changes in _BY_TIME else [])]
        return [*section.attributes, *more, *(["primaryGroupID"] if section.groups is not None else [])]

    def _row(self, name: str, values: Values) -> dict[str, Any]:
        row: dict[str, Any] = {key: _value(key, many) for key, many in values.items()}
        row["dn"] = name
        row["disabled"] = _has_bit(row.get("userAccountControl"), _DISABLED)
        if "msDS-User-Account-Control-Computed" in row:
            row["locked"] = _has_bit(row["msDS-User-Account-Control-Computed"], _LOCKED)
        if self._groups is not None:
            keys = (name.lower(), str(row.get("uid", "")).lower(), primary_key(str(row.get("primaryGroupID", ""))))
            row["groups"] = sorted({group for key in keys for group in self._groups.get(key, ())})
        changed = row.get(self._section.changes)
        if isinstance(changed, str):
            self._newest = max(self._newest, changed, key=lambda text: (len(text), text))
            # It says when, and nothing about the person.
            del row[self._section.changes]
        return row

    def end(self) -> End:
        """See Source."""
        if self._server.faults:
            return End(is_complete=False, why=f"{self._name}: {self._server.faults[0]}")
        if self._section.changes in _BY_TIME and self._newest:
            self._cursor = {"at": self._newest}
        cursor = json.dumps({**self._cursor, "groups": self._groups_digest}) if self._cursor else ""
        return End(is_complete=True, cursor=cursor, knows_missing=self._section.changes == "syncrepl")

    async def probe(self) -> str:
        """See Source."""
        return await asyncio.to_thread(self._server.probe)

    async def close(self) -> None:
        """Nothing stays open."""


def _has_bit(number: Any, bit: int) -> bool:
    return isinstance(number, str) and number.isdigit() and bool(int(number) & bit)


def _value(key: str, many: Sequence[bytes]) -> Any:
    if key.lower() == "objectguid":
        return str(uuid.UUID(bytes_le=many[0])) if len(many[0]) == 16 else many[0].hex()
    if key.lower() in _OCTETS:
        return many[0].hex()
    texts = []
    for one in many:
        try:
            texts.append(one.decode())
        except UnicodeDecodeError:
            texts.append(one.hex())
    return texts[0] if len(texts) == 1 and key.lower() not in _MANY else sorted(texts)

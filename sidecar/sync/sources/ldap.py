"""Read people and groups from an LDAP server; the library is python-ldap, in a thread, since it waits."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from sidecar.config.sync_source import LdapSource
from sidecar.core.sync.entry import Row
from sidecar.core.sync.nesting import memberships
from sidecar.sync.sources.source import End, Reading, down, in_thread

_DISABLED = 0x2
# These are octets, not text.
_OCTETS = frozenset(["objectguid", "objectsid"])
# What somebody has many of, also when they have one.
_MANY = frozenset(["memberof", "objectclass"])
_BROKEN = ("SIZELIMIT_EXCEEDED", "ADMINLIMIT_EXCEEDED", "TIMELIMIT_EXCEEDED", "PARTIAL_RESULTS")


def _library() -> Any:
    try:
        import ldap  # noqa: PLC0415 - an extra, for those who have such a server
        import ldap.controls  # noqa: PLC0415 - as above
    except ImportError:
        raise down("LDAP needs python-ldap: pip install 'auth-sidecar[ldap]'") from None
    return ldap


class LdapPeople:
    """People below one entry. A limit of the server, or a reference to another server, makes it incomplete."""

    def __init__(self, name: str, section: LdapSource) -> None:
        """Read what *section* says; *name* is for messages."""
        self._name = name
        self._section = section
        self._since = ""
        self._newest = ""
        self._groups: dict[str, tuple[str, ...]] | None = None
        self._groups_digest = ""
        self._faults: list[str] = []

    async def begin(self, since: str) -> Reading:
        """See Source. When a group has changed everybody is read, since it does not say of whom."""
        before: Mapping[str, str] = json.loads(since) if since else {}
        self._groups, self._groups_digest = await asyncio.to_thread(self._read_groups)
        if before.get("groups") == self._groups_digest and before.get("at") and self._section.changes != "none":
            self._since = self._newest = before["at"]
            return "changes"
        return "full"

    def batches(self) -> AsyncIterator[Sequence[Row]]:
        """See Source."""
        return in_thread(self._chunks())

    def _chunks(self) -> Iterator[list[dict[str, Any]]]:
        section = self._section
        attributes = [*section.attributes, "entryUUID", *([section.changes] if section.changes != "none" else [])]
        which = section.filter
        if self._since:
            which = f"(&{which}({section.changes}>={self._since}))"
        for page in self._search(section.base, which, attributes):
            yield [self._row(name, values) for name, values in page]

    def _search(self, base: str, which: str, attributes: Sequence[str]) -> Iterator[list[tuple[str, Any]]]:
        """Pages of entries (DN, attributes); what the server did not give goes to the faults."""
        ldap = _library()
        connection = self._connected(ldap)
        cookie: Any = b""
        try:
            while True:
                controls = []
                if self._section.page:
                    controls = [ldap.controls.SimplePagedResultsControl(True, self._section.page, cookie)]  # noqa: FBT003 - critical
                number = connection.search_ext(base, ldap.SCOPE_SUBTREE, which, list(attributes), serverctrls=controls)
                entries: list[tuple[str, Any]] = []
                told: Sequence[Any] = ()
                # One message at a time: what came before a limit is given all the same.
                while True:
                    try:
                        kind, found, _, told = connection.result3(number, 0, self._section.timeout.total_seconds())
                    except tuple(getattr(ldap, name) for name in _BROKEN) as limit:
                        self._faults.append(f"the server stopped: {type(limit).__name__.lower().replace('_', ' ')}")
                        yield entries
                        return
                    entries += [(name, values) for name, values in found if name is not None]
                    if any(name is None for name, _ in found):
                        self._faults.append("the server refers to another one for some of it")
                    if kind == ldap.RES_SEARCH_RESULT:
                        break
                yield entries
                cookies = [one.cookie for one in told if getattr(one, "cookie", None) is not None]
                cookie = cookies[0] if cookies else b""
                if not cookie:
                    return
        except ldap.LDAPError as error:
            raise down(f"{self._name}: {_words(error)}") from None
        finally:
            _close(connection, ldap)

    def _connected(self, ldap: Any) -> Any:
        section = self._section
        try:
            connection = ldap.initialize(section.url)
            connection.set_option(ldap.OPT_PROTOCOL_VERSION, 3)
            connection.set_option(ldap.OPT_REFERRALS, 0)
            connection.set_option(ldap.OPT_NETWORK_TIMEOUT, section.timeout.total_seconds())
            connection.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND)
            if section.ca is not None:
                connection.set_option(ldap.OPT_X_TLS_CACERTFILE, str(section.ca))
            connection.set_option(ldap.OPT_X_TLS_NEWCTX, 0)
            if section.start_tls:
                connection.start_tls_s()
            if section.bind and section.password is not None:
                connection.simple_bind_s(section.bind, section.password.reveal())
        except ldap.LDAPError as error:
            raise down(f"{self._name}: {_words(error)}") from None
        return connection

    def _row(self, name: str, values: Mapping[str, list[bytes]]) -> dict[str, Any]:
        row: dict[str, Any] = {key: _value(key, many) for key, many in values.items()}
        row["dn"] = name
        control = row.get("userAccountControl")
        row["disabled"] = isinstance(control, str) and control.isdigit() and bool(int(control) & _DISABLED)
        if self._groups is not None:
            keys = (name.lower(), str(row.get("uid", "")).lower())
            row["groups"] = sorted({group for key in keys for group in self._groups.get(key, ())})
        changed = row.get(self._section.changes)
        if isinstance(changed, str):
            self._newest = max(self._newest, changed, key=lambda text: (len(text), text))
            # It says when, and nothing about the person.
            del row[self._section.changes]
        return row

    def _read_groups(self) -> tuple[dict[str, tuple[str, ...]] | None, str]:
        """By member (lower case) the names of all their groups, and a digest of that."""
        section = self._section.groups
        if section is None:
            return None, ""
        members: dict[str, list[str]] = {}
        names: dict[str, str] = {}
        for page in self._search(section.base, section.filter, [section.name, section.member]):
            for dn, values in page:
                plain = {key.lower(): many for key, many in values.items()}
                if any(key.startswith(f"{section.member.lower()};range=") for key in plain):
                    self._faults.append("a group has more members than the server gives at once")
                called = plain.get(section.name.lower())
                if called:
                    names[dn.lower()] = called[0].decode(errors="replace")
                    members[dn.lower()] = [
                        one.decode(errors="replace").lower() for one in plain.get(section.member.lower(), [])
                    ]
        if self._faults:
            # Groups that nobody was told of are not groups that somebody has left.
            return None, ""
        found = memberships(members, names, nested=section.nested)
        text = json.dumps(sorted((key, list(many)) for key, many in found.items()))
        return found, uuid.uuid5(uuid.NAMESPACE_OID, text).hex

    def end(self) -> End:
        """See Source."""
        if self._faults:
            return End(is_complete=False, why=f"{self._name}: {self._faults[0]}")
        has_cursor = self._section.changes != "none" and self._newest
        cursor = json.dumps({"at": self._newest, "groups": self._groups_digest}) if has_cursor else ""
        return End(is_complete=True, cursor=cursor)

    async def probe(self) -> str:
        """See Source."""

        def reach() -> str:
            ldap = _library()
            connection = self._connected(ldap)
            try:
                connection.search_ext_s(self._section.base, ldap.SCOPE_BASE, "(objectClass=*)", ["1.1"])
            except ldap.LDAPError as error:
                raise down(f"{self._name}: {_words(error)}") from None
            finally:
                _close(connection, ldap)
            return f"answers at {self._section.base}"

        return await asyncio.to_thread(reach)

    async def close(self) -> None:
        """Nothing stays open."""


def _value(key: str, many: list[bytes]) -> Any:
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


def _words(error: Exception) -> str:
    """The kind of error and the server's word for it, never what was sent."""
    told = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return f"{type(error).__name__} {told.get('desc', '')}".strip()


def _close(connection: Any, ldap: Any) -> None:
    try:
        connection.unbind_ext_s()
    except ldap.LDAPError:
        return

"""Read the groups of an LDAP server, whole ones only."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

from sidecar.config.sync_source import LdapGroups
from sidecar.core.sync.nesting import memberships
from sidecar.sync.sources.ldap_server import LdapServer, Values

Groups = dict[str, tuple[str, ...]]

# The last part of a SID is the number that people name their primary group by.
_RID = 4
_MOST_RANGES = 10_000


def primary_key(number: str) -> str:
    """The member that everybody with this primary group is; Active Directory does not list them under member."""
    return f"\nprimary {number}"


def read_groups(server: LdapServer, section: LdapGroups) -> tuple[Groups | None, str]:
    """By member (lower case) the names of all their groups, and a digest of that; None when some were not told."""
    members: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for page in server.pages(section.base, section.filter, [section.name, section.member, "objectSid"]):
        for dn, values in page:
            plain = {key.lower(): many for key, many in values.items()}
            called = plain.get(section.name.lower())
            if called:
                names[dn.lower()] = called[0].decode(errors="replace")
                members[dn.lower()] = [*_members(server, dn, section.member, plain), *_primary(plain)]
    if server.faults:
        # Groups that nobody was told of are not groups that somebody has left.
        return None, ""
    found = memberships(members, names, nested=section.nested)
    text = json.dumps(sorted((key, list(many)) for key, many in found.items()))
    return found, uuid.uuid5(uuid.NAMESPACE_OID, text).hex


def _members(server: LdapServer, dn: str, attribute: str, plain: Values) -> Iterator[str]:
    begun = any(key.startswith(f"{attribute.lower()};range=") for key in plain)
    for one in _whole(server, dn, attribute) if begun else plain.get(attribute.lower(), ()):
        yield one.decode(errors="replace").lower()


def _whole(server: LdapServer, dn: str, attribute: str) -> Iterator[bytes]:
    """All values of an attribute of which Active Directory gives some hundreds at a time ([MS-ADTS] 3.1.1.3.1.3.3)."""
    start = 0
    with server.connected() as connection:
        for _ in range(_MOST_RANGES):
            values = server.values(connection, dn, f"{attribute};range={start}-*")
            part = next(((key, many) for key, many in values.items() if ";range=" in key.lower()), None)
            if part is None or not part[1]:
                break
            yield from part[1]
            last = part[0].rpartition("-")[2]
            if last == "*":
                return
            start = int(last) + 1
    server.faults.append("a group has more members than the server gives")


def _primary(plain: Values) -> list[str]:
    sid = (plain.get("objectsid") or [b""])[0]
    return [primary_key(str(int.from_bytes(sid[-_RID:], "little")))] if len(sid) > _RID else []

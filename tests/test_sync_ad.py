"""People and groups of a real Active Directory domain controller, with all its peculiarities."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import ldap
import pytest

from sidecar.config.secret import Secret
from sidecar.config.sync_source import LdapSource
from sidecar.sync.sources.ldap import LdapPeople
from sidecar.sync.sources.ldap_server import LdapServer
from tests.services.samba import ADMIN, DOMAIN, PASSWORD, DomainController, missing

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.timeout(300)]

PEOPLE = 1600
STAFF = f"OU=staff,{DOMAIN}"
GROUPS = f"OU=groups,{DOMAIN}"
WHO = "(&(objectCategory=person)(objectClass=user))"


def person(number: int) -> dict[str, Any]:
    login = f"p{number:05}"
    return {
        "dn": f"CN={login},{STAFF}",
        "objectClass": "user",
        "sAMAccountName": login,
        "mail": f"{login}@example.com",
        "userAccountControl": "544",
    }


def group(name: str, members: Sequence[str] = (), base: str = GROUPS) -> dict[str, Any]:
    entry: dict[str, Any] = {"dn": f"CN={name},{base}", "objectClass": "group", "sAMAccountName": name}
    return entry | ({"member": list(members)} if members else {})


def dn(number: int) -> str:
    return str(person(number)["dn"])


@pytest.fixture(scope="module")
def domain() -> Iterator[DomainController]:
    server = DomainController()
    try:
        server.provision()
        server.load(
            [
                {"dn": STAFF, "objectClass": "organizationalUnit"},
                {"dn": GROUPS, "objectClass": "organizationalUnit"},
                *map(person, range(PEOPLE)),
                group("large", [dn(number) for number in range(PEOPLE)]),
                group("inner", [dn(1), dn(2)]),
                group("middle", [f"CN=inner,{GROUPS}"]),
                group("outer", [f"CN=middle,{GROUPS}", dn(3)]),
                group("first"),
            ]
        )
        yield server.start()
    finally:
        server.discard()


def section(domain: DomainController, **changes: Any) -> LdapSource:
    values = {
        "url": domain.url,
        "bind": ADMIN,
        "base": STAFF,
        "filter": WHO,
        "attributes": ["sAMAccountName", "mail", "objectGUID", "userAccountControl", "memberOf"],
        "groups": {"base": DOMAIN},
    }
    made = LdapSource.model_validate({**values, **changes})
    return made.model_copy(update={"password": Secret(PASSWORD)})


async def read(domain: DomainController, since: str = "", **changes: Any) -> tuple[str, dict[str, Any], Any]:
    source = LdapPeople("ad", section(domain, **changes))
    kind = await source.begin(since)
    rows = [dict(row) async for page in source.batches() for row in page]
    await source.close()
    return kind, {row["sAMAccountName"]: row for row in rows}, source.end()


async def test_everybody_is_read_beyond_a_page_with_ids_that_never_change(domain: DomainController) -> None:
    _, people, end = await read(domain)
    assert (len(people), end.is_complete) == (PEOPLE, True)
    ids = {uuid.UUID(row["objectGUID"]) for row in people.values()}
    assert len(ids) == PEOPLE
    admin = domain.admin()
    admin.rename_s(dn(5), "CN=renamed")
    try:
        _, again, _ = await read(domain)
    finally:
        admin.rename_s(f"CN=renamed,{STAFF}", "CN=p00005")
    assert again["p00005"]["objectGUID"] == people["p00005"]["objectGUID"]
    assert again["p00005"]["dn"] == f"CN=renamed,{STAFF}"
    # What the domain itself calls it: the same text finds the same entry.
    found = admin.search_ext_s(f"<GUID={people['p00005']['objectGUID']}>", ldap.SCOPE_BASE, attrlist=["cn"])
    assert found[0][1]["cn"] == [b"p00005"]


async def test_the_root_of_the_domain_may_be_read(domain: DomainController) -> None:
    """The domain refers to parts of itself there, which have no people in them."""
    _, people, end = await read(domain, base=DOMAIN)
    assert (end.is_complete, end.why) == (True, "")
    assert {"Administrator", "p00001"} <= set(people)


async def test_groups_within_groups_and_the_primary_one(domain: DomainController) -> None:
    _, people, _ = await read(domain)
    assert set(people["p00001"]["groups"]) >= {"Domain Users", "inner", "large", "middle", "outer"}
    assert set(people["p00003"]["groups"]) & {"inner", "middle", "outer"} == {"outer"}
    # The domain's own way to the same answer, for what it lists under member.
    admin = domain.admin()
    which = f"(member:1.2.840.113556.1.4.1941:={dn(1)})"
    told = admin.search_ext_s(GROUPS, ldap.SCOPE_SUBTREE, which, ["cn"])
    named = {values["cn"][0].decode() for name, values in told if name}
    assert set(people["p00001"]["groups"]) - named == {"Domain Users", "Users"}
    _, flat, _ = await read(domain, groups={"base": DOMAIN, "nested": "false"})
    assert set(flat["p00001"]["groups"]) == {"Domain Users", "inner", "large"}


async def test_another_primary_group_takes_the_place_of_the_first(domain: DomainController) -> None:
    admin = domain.admin()
    first = f"CN=first,{GROUPS}"
    sid = admin.search_ext_s(first, ldap.SCOPE_BASE, attrlist=["objectSid"])[0][1]["objectSid"][0]
    number = str(int.from_bytes(sid[-4:], "little")).encode()
    admin.modify_s(first, [(ldap.MOD_ADD, "member", [dn(6).encode()])])
    admin.modify_s(dn(6), [(ldap.MOD_REPLACE, "primaryGroupID", [number])])
    members = admin.search_ext_s(first, ldap.SCOPE_BASE, attrlist=["member"])[0][1]
    assert "member" not in members, "the domain does not list them any more"
    _, people, _ = await read(domain)
    assert "first" in people["p00006"]["groups"]


async def test_who_is_disabled_and_who_is_locked(domain: DomainController) -> None:
    admin = domain.admin()
    admin.modify_s(dn(7), [(ldap.MOD_REPLACE, "userAccountControl", [b"546"])])
    attributes = ["sAMAccountName", "userAccountControl", "msDS-User-Account-Control-Computed"]
    _, people, _ = await read(domain, attributes=attributes)
    assert [people[name]["disabled"] for name in ("p00007", "p00008")] == [True, False]
    assert people["p00008"]["locked"] is False


async def test_only_changes_are_read(domain: DomainController) -> None:
    kind, people, end = await read(domain, changes="uSNChanged")
    assert (kind, len(people)) == ("full", PEOPLE)
    admin = domain.admin()
    admin.modify_s(dn(9), [(ldap.MOD_REPLACE, "mail", [b"new@example.com"])])
    kind, people, end = await read(domain, end.cursor, changes="uSNChanged")
    assert (kind, end.is_complete) == ("changes", True)
    assert people["p00009"]["mail"] == "new@example.com"
    assert len(people) <= 2, "the newest of before may come again"
    # Somebody in a group says nothing about the person: everybody is read.
    admin.modify_s(f"CN=inner,{GROUPS}", [(ldap.MOD_ADD, "member", [dn(10).encode()])])
    kind, people, _ = await read(domain, end.cursor, changes="uSNChanged")
    assert (kind, "outer" in people["p00010"]["groups"]) == ("full", True)
    admin.modify_s(f"CN=inner,{GROUPS}", [(ldap.MOD_DELETE, "member", [dn(10).encode()])])


async def test_members_that_come_in_parts_are_put_together(
    domain: DomainController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows gives 1,500 members at once and names the part; Samba gives as many as are asked for."""
    pages, values, asked = LdapServer.pages, LdapServer.values, []

    def of_pages(self: LdapServer, base: str, which: str, attributes: Sequence[str]) -> Any:
        return pages(self, base, which, ["member;range=0-499" if one == "member" else one for one in attributes])

    def of_values(self: LdapServer, connection: Any, name: str, attribute: str) -> Any:
        start = int(attribute.partition("=")[2].partition("-")[0])
        asked.append(start)
        return values(self, connection, name, f"member;range={start}-{start + 499}")

    monkeypatch.setattr(LdapServer, "pages", of_pages)
    monkeypatch.setattr(LdapServer, "values", of_values)
    large = {"base": GROUPS, "filter": "(cn=large)"}
    _, people, end = await read(domain, groups=large)
    assert end.is_complete
    assert asked == [0, 500, 1000, 1500]
    assert all("large" in row["groups"] for row in people.values())


async def test_a_deleted_person_is_missing_in_the_next_full_reading(domain: DomainController) -> None:
    domain.admin().delete_s(dn(PEOPLE - 1))
    _, people, end = await read(domain)
    assert (len(people), end.is_complete) == (PEOPLE - 1, True)

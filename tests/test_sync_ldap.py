"""People and groups of a real OpenLDAP server: all of them, or nothing is believed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.config.sync_source import LdapSource
from sidecar.core.sync.nesting import memberships
from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.sync.sources.ldap import LdapPeople
from tests.services.process import free_port
from tests.services.slapd import PASSWORD, READER, SUFFIX, SlapdServer

PEOPLE, GROUPS = 5000, 500


def uid(number: int) -> str:
    return f"uid=p{number:05},ou=people,{SUFFIX}"


def group(name: str, *members: str) -> str:
    lines = "".join(f"member: {member}\n" for member in members)
    return f"dn: cn={name},ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: {name}\n{lines}\n"


def company() -> str:
    people = "".join(
        f"dn: {uid(number)}\nobjectClass: inetOrgPerson\nuid: p{number:05}\ncn: Person {number}\nsn: {number}\n"
        f"mail: p{number:05}@example.com\n\n"
        for number in range(PEOPLE)
    )
    groups = "".join(group(f"g{number:03}", *map(uid, range(number, PEOPLE, GROUPS))) for number in range(GROUPS))
    # Two that contain each other, and one of them a third.
    nested = group("outer", f"cn=inner,ou=groups,{SUFFIX}", uid(1))
    nested += group("inner", f"cn=outer,ou=groups,{SUFFIX}", f"cn=g007,ou=groups,{SUFFIX}")
    return people + groups + nested


@pytest.fixture(scope="module")
def slapd() -> Iterator[SlapdServer]:
    server = SlapdServer(free_port())
    server.load(company())
    yield server.start()
    server.discard()


def section(slapd: SlapdServer, **changes: Any) -> LdapSource:
    values = {
        "url": slapd.url,
        "bind": READER,
        "base": f"ou=people,{SUFFIX}",
        "attributes": ["uid", "mail", "cn"],
        "groups": {"base": f"ou=groups,{SUFFIX}"},
    }
    made = LdapSource.model_validate({**values, **changes})
    from sidecar.config.secret import Secret  # noqa: PLC0415

    return made.model_copy(update={"password": Secret(PASSWORD)})


async def read(slapd: SlapdServer, since: str = "", **changes: Any) -> tuple[str, list[dict[str, Any]], Any]:
    source = LdapPeople("ad", section(slapd, **changes))
    kind = await source.begin(since)
    rows = [dict(row) async for page in source.batches() for row in page]
    await source.close()
    return kind, rows, source.end()


@pytest.mark.parametrize("page", [500, 0])
async def test_everybody_is_read_with_all_their_groups(slapd: SlapdServer, page: int) -> None:
    _, rows, end = await read(slapd, page=page)
    people = {row["uid"]: row for row in rows}
    assert (len(rows), len(people), end.is_complete) == (PEOPLE, PEOPLE, True)
    assert people["p00003"]["groups"] == ["g003"]
    assert people["p00007"]["groups"] == ["g007", "inner", "outer"]
    assert people["p00001"]["groups"] == ["g001", "inner", "outer"]
    assert people["p00001"]["mail"] == "p00001@example.com"
    assert len({row["entryUUID"] for row in rows}) == PEOPLE


@pytest.mark.parametrize(
    "limits",
    [
        "size.soft=700 size.hard=700",
        "size.soft=700 size.hard=700 size.pr=unlimited size.prtotal=700",
        "size.soft=700 size.hard=700 size.pr=100",
    ],
)
@pytest.mark.parametrize("page", [500, 0])
async def test_a_limit_of_the_server_in_the_middle_is_noticed(slapd: SlapdServer, limits: str, page: int) -> None:
    slapd.limit(limits)
    try:
        _, rows, end = await read(slapd, page=page, groups=None)
        assert not end.is_complete
        assert len(rows) < PEOPLE
        assert "stopped" in end.why
        assert end.cursor == ""
    except Unavailable as fault:
        # Some servers refuse a page that is too large altogether: nothing was read then, either.
        assert fault.reason is Reason.SOURCE_DOWN  # noqa: PT017 - either end is right
    finally:
        slapd.limit("size=unlimited")


async def test_groups_that_were_cut_off_are_unknown_and_not_empty(slapd: SlapdServer) -> None:
    slapd.limit("size.soft=700 size.hard=700 size.prtotal=100")
    try:
        _, rows, end = await read(slapd, page=0, base=f"{uid(1)}", groups={"base": SUFFIX, "filter": "(objectClass=*)"})
    finally:
        slapd.limit("size=unlimited")
    assert not end.is_complete
    assert [("groups" in row) for row in rows] == [False]


async def test_only_changes_are_read_until_a_group_changes(slapd: SlapdServer) -> None:
    import ldap  # noqa: PLC0415

    kind, _, end = await read(slapd, changes="modifyTimestamp")
    assert (kind, bool(end.cursor)) == ("full", True)
    admin = slapd.admin()
    admin.modify_s(uid(9), [(ldap.MOD_REPLACE, "mail", [b"new@example.com"])])
    kind, rows, end = await read(slapd, end.cursor, changes="modifyTimestamp")
    assert (kind, end.is_complete) == ("changes", True)
    changed = {row["uid"]: row for row in rows}
    assert changed["p00009"]["mail"] == "new@example.com"
    assert "modifyTimestamp" not in changed["p00009"]
    admin.modify_s(f"cn=g009,ou=groups,{SUFFIX}", [(ldap.MOD_ADD, "member", [uid(1).encode()])])
    kind, rows, _ = await read(slapd, end.cursor, changes="modifyTimestamp")
    admin.modify_s(f"cn=g009,ou=groups,{SUFFIX}", [(ldap.MOD_DELETE, "member", [uid(1).encode()])])
    assert (kind, len(rows)) == ("full", PEOPLE), "membership is polled, too"
    assert "g009" in next(row["groups"] for row in rows if row["uid"] == "p00001")


@pytest.mark.parametrize(
    "changes",
    [{"bind": f"cn=nobody,{SUFFIX}"}, {"base": "dc=elsewhere"}, {"url": "ldap://127.0.0.1:9"}, {"filter": "(("}],
)
async def test_a_server_that_cannot_be_read_is_down(slapd: SlapdServer, changes: dict[str, Any]) -> None:
    with pytest.raises(Unavailable) as fault:
        await read(slapd, **changes)
    assert fault.value.reason is Reason.SOURCE_DOWN
    assert PASSWORD not in str(fault.value)


async def test_the_probe_says_where_it_answers(slapd: SlapdServer) -> None:
    assert "ou=people" in await LdapPeople("ad", section(slapd)).probe()


def test_what_active_directory_says_is_read() -> None:
    source = LdapPeople("ad", LdapSource.model_validate({"url": "ldap://h", "base": "dc=x"}))
    guid = bytes(range(16))
    row = source._row("CN=A,DC=x", {"objectGUID": [guid], "userAccountControl": [b"514"], "memberOf": [b"CN=g"]})
    assert row["objectGUID"] == "03020100-0504-0706-0809-0a0b0c0d0e0f"
    assert (row["disabled"], row["memberOf"]) == (True, ["CN=g"])
    assert source._row("CN=A,DC=x", {"userAccountControl": [b"512"]})["disabled"] is False


def test_groups_in_groups() -> None:
    members = {"a": ["x", "b"], "b": ["y", "a"], "c": ["b"]}
    names = {"a": "A", "b": "B", "c": "C"}
    assert memberships(members, names, nested=True) == {"x": ("A", "B", "C"), "y": ("A", "B", "C")}
    assert memberships(members, names, nested=False) == {"x": ("A",), "y": ("B",)}

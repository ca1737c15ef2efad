"""What has changed on a real OpenLDAP server is read by RFC 4533; who may be missing is looked for among all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ldap
import pytest

from sidecar.config.secret import Secret
from sidecar.config.sync_source import LdapSource
from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.sync.sources.ldap import LdapPeople
from tests.services.process import free_port
from tests.services.slapd import PASSWORD, READER, SUFFIX, SlapdServer
from tests.sync_world import Company

PEOPLE = 1200
LOGGED = "overlay syncprov\nsyncprov-checkpoint 100 10\nsyncprov-sessionlog 500"
UNLOGGED = "overlay syncprov"


def uid(number: int) -> str:
    return f"uid=p{number:05},ou=people,{SUFFIX}"


def entry(number: int, more: str = "") -> str:
    login = f"p{number:05}"
    return (
        f"dn: {uid(number)}\nobjectClass: inetOrgPerson\nuid: {login}\ncn: Person {number}\nsn: {number}\n"
        f"mail: {login}@example.com\n{more}\n"
    )


def started(overlay: str, people: int = PEOPLE, more: str = "") -> SlapdServer:
    server = SlapdServer(free_port(), overlay=overlay)
    server.load("".join(entry(number, more) for number in range(people)))
    return server.start()


@pytest.fixture(params=[LOGGED, UNLOGGED], ids=["deletes told", "present told"])
def slapd(request: pytest.FixtureRequest) -> Iterator[SlapdServer]:
    server = started(request.param)
    yield server
    server.discard()


def section(slapd: SlapdServer, **changes: Any) -> LdapSource:
    values = {
        "url": slapd.url,
        "bind": READER,
        "base": f"ou=people,{SUFFIX}",
        "attributes": ["uid", "mail", "cn"],
        "changes": "syncrepl",
    }
    made = LdapSource.model_validate({**values, **changes})
    return made.model_copy(update={"password": Secret(PASSWORD)})


async def read(slapd: SlapdServer, since: str = "", **changes: Any) -> tuple[str, list[str], Any]:
    source = LdapPeople("ad", section(slapd, **changes))
    kind = await source.begin(since)
    rows = [dict(row) async for page in source.batches() for row in page]
    await source.close()
    return kind, sorted(row["uid"] for row in rows), source.end()


def add(slapd: SlapdServer, number: int) -> None:
    values = {"objectClass": b"inetOrgPerson", "uid": f"p{number:05}".encode(), "cn": b"New", "sn": b"New"}
    slapd.admin().add_s(uid(number), [(name, [value]) for name, value in values.items()])


def rename(slapd: SlapdServer, number: int, mail: bytes = b"new@example.com") -> None:
    slapd.admin().modify_s(uid(number), [(ldap.MOD_REPLACE, "mail", [mail])])


async def test_only_changes_are_read_and_whoever_is_gone_is_noticed(slapd: SlapdServer) -> None:
    kind, logins, end = await read(slapd)
    assert (kind, len(logins), end.is_complete, end.knows_missing) == ("full", PEOPLE, True, True)
    kind, logins, end = await read(slapd, end.cursor)
    assert (kind, logins, end.is_complete) == ("changes", [], True)
    rename(slapd, 7)
    rename(slapd, 8)
    kind, logins, end = await read(slapd, end.cursor)
    assert (kind, logins, end.is_complete) == ("changes", ["p00007", "p00008"], True)
    kind, logins, end = await read(slapd, end.cursor)
    assert (kind, logins) == ("changes", [])
    slapd.admin().delete_s(uid(9))
    rename(slapd, 10)
    kind, logins, end = await read(slapd, end.cursor)
    assert (kind, len(logins)) == ("full", PEOPLE - 1), "who is missing is found among all"
    assert "p00009" not in logins
    add(slapd, 9)
    kind, logins, end = await read(slapd, end.cursor)
    assert "p00009" in logins
    assert end.is_complete


async def test_one_who_comes_as_another_goes_does_not_hide_them(slapd: SlapdServer) -> None:
    _, _, end = await read(slapd)
    slapd.admin().delete_s(uid(9))
    add(slapd, PEOPLE)
    kind, logins, _ = await read(slapd, end.cursor)
    assert (kind, len(logins)) == ("full", PEOPLE)


async def test_who_is_not_among_the_people_any_more_is_gone(slapd: SlapdServer) -> None:
    which = "(&(objectClass=inetOrgPerson)(!(employeeType=left)))"
    _, _, end = await read(slapd, filter=which)
    slapd.admin().modify_s(uid(9), [(ldap.MOD_ADD, "employeeType", [b"left"])])
    kind, logins, _ = await read(slapd, end.cursor, filter=which)
    assert (kind, len(logins)) == ("full", PEOPLE - 1)


@pytest.mark.parametrize(
    "cookie",
    ["", "nonsense", "rid=000,csn=20990101000000.000000Z#000000#000#000000", "rid=000,csn=20010101000000.000000Z#0"],
    ids=["lost", "unreadable", "of a newer server", "broken"],
)
async def test_a_cookie_that_is_worth_nothing_leads_to_everybody(slapd: SlapdServer, cookie: str) -> None:
    _, _, end = await read(slapd)
    broken = json.dumps({**json.loads(end.cursor), "cookie": cookie})
    _, logins, end = await read(slapd, broken)
    assert (len(logins), end.is_complete) == (PEOPLE, True)
    slapd.admin().delete_s(uid(9))
    kind, logins, end = await read(slapd, broken)
    assert (kind, len(logins), end.is_complete) == ("full", PEOPLE - 1, True)
    assert json.loads(end.cursor)["cookie"]


async def test_a_cookie_from_before_the_server_s_memory_loses_nobody() -> None:
    server = started(LOGGED.replace("500", "5"))
    try:
        _, _, end = await read(server)
        server.admin().delete_s(uid(9))
        for number in range(20, 60):
            rename(server, number)
        kind, logins, _ = await read(server, end.cursor)
        assert (kind, len(logins)) == ("full", PEOPLE - 1)
    finally:
        server.discard()


async def test_a_server_that_was_started_again_still_knows(slapd: SlapdServer) -> None:
    _, _, end = await read(slapd)
    rename(slapd, 7)
    slapd.admin().delete_s(uid(9))
    slapd.stop()
    slapd.start()
    kind, logins, end = await read(slapd, end.cursor)
    assert (kind, len(logins), "p00009" in logins) == ("full", PEOPLE - 1, False)
    assert (await read(slapd, end.cursor))[:2] == ("changes", [])


async def test_a_server_that_ends_in_the_middle_is_down() -> None:
    server = started(LOGGED, 3000, f"description: {'x' * 9000}\n")
    try:
        source = LdapPeople("ad", section(server, attributes=["*"]))
        await source.begin("")

        async def interrupted() -> None:
            async for _ in source.batches():
                await asyncio.to_thread(server.stop)

        with pytest.raises(Unavailable) as fault:
            await interrupted()
        assert fault.value.reason is Reason.SOURCE_DOWN
    finally:
        server.discard()


async def test_a_limit_in_the_middle_is_noticed_in_all_and_in_changes(slapd: SlapdServer) -> None:
    _, _, whole = await read(slapd)
    for number in range(500):
        rename(slapd, number)
    slapd.limit("size.soft=400 size.hard=400")
    _, logins, end = await read(slapd)
    assert (len(logins), end.is_complete, end.cursor) == (400, False, "")
    assert "stopped" in end.why
    kind, logins, end = await read(slapd, whole.cursor)
    assert (kind, end.is_complete, end.cursor) == ("changes", False, "")


async def test_groups_are_asked_for_as_well(slapd: SlapdServer) -> None:
    admin = slapd.admin()
    group = f"cn=editors,ou=groups,{SUFFIX}"
    values = {"objectClass": b"groupOfNames", "cn": b"editors", "member": uid(1).encode()}
    admin.add_s(group, [(name, [value]) for name, value in values.items()])
    groups = {"base": f"ou=groups,{SUFFIX}"}
    _, _, end = await read(slapd, groups=groups)
    assert (await read(slapd, end.cursor, groups=groups))[0] == "changes"
    admin.modify_s(group, [(ldap.MOD_ADD, "member", [uid(2).encode()])])
    kind, logins, end = await read(slapd, end.cursor, groups=groups)
    assert (kind, len(logins)) == ("full", PEOPLE), "it says nothing of whom it is about"
    assert (await read(slapd, end.cursor, groups=groups))[0] == "changes"


async def test_a_server_without_the_overlay_is_down() -> None:
    server = started("")
    try:
        with pytest.raises(Unavailable) as fault:
            await read(server)
        assert fault.value.reason is Reason.SOURCE_DOWN
    finally:
        server.discard()


# The whole way


def company(tmp_path: Path, slapd: SlapdServer) -> Company:
    source = {
        "url": slapd.url,
        "bind": READER,
        "password": {"file": "password"},
        "base": f"ou=people,{SUFFIX}",
        "attributes": ["uid", "mail"],
        "changes": "syncrepl",
    }
    (tmp_path / "password").write_text(PASSWORD)
    made = Company(tmp_path)
    text = made.file.read_text().replace("csv: people.csv", f"ldap: {json.dumps(source)}")
    for before, after in (
        ("id: number", "id: entryUUID"),
        ("active: '{{ claims.status == ''active'' }}'", "on: ''"),
        ("'{{ claims.login }}'", "'{{ claims.uid }}'"),
        ("'{{ claims.name }}'", "'{{ claims.uid }}'"),
        ("'{{ claims.teams.split('';'') }}'", "'{{ [] }}'"),
    ):
        assert before in text, before
        text = text.replace(before, after)
    made.file.write_text(text)
    return made


async def test_whoever_is_deleted_is_switched_off_after_grace_and_a_limit_switches_nobody_off(
    tmp_path: Path,
) -> None:
    server = SlapdServer(free_port(), overlay=LOGGED)
    server.load("".join(entry(number) for number in range(30)))
    server.start()
    try:
        made = company(tmp_path, server)
        run = await made.run()
        assert (run.state, run.head["reading"], len(made.active())) == ("done", "full", 30)
        assert (await made.run()).head["reading"] == "changes"
        server.admin().delete_s(uid(9))
        run = await made.run()
        assert (run.head["reading"], run.head["counts"]) == ("full", {"wait": 1})
        # A limit in the middle: nobody is missing for it, and nobody comes nearer to their end.
        for number in range(10, 20):
            rename(server, number)
        server.limit("size.soft=5 size.hard=5")
        made.pass_time(2)
        for full in (False, True):
            run = await made.run(full=full)
            assert (run.state, run.head["is_complete"]) == ("incomplete", False)
        assert len(made.active()) == 30
        server.limit("size=unlimited")
        run = await made.run()
        assert (run.state, run.head["reading"]) == ("done", "changes")
        # The second complete run without them, though it read changes only.
        assert run.head["counts"] == {"deactivate": 1, "update": 10}
        assert "p00009" not in made.active()
    finally:
        server.discard()

"""The SCIM server of a running sidecar: who may come in, people, groups, lists, versions, bulk."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest

from sidecar.directory.groups import Group
from tests.scim_world import (
    ENTERPRISE,
    OTHER_TOKEN,
    PATCH,
    STATE,
    TOKEN,
    USER,
    Answer,
    ScimClient,
    client_section,
    with_scim,
)
from tests.test_journey import users_of
from tests.test_scim_core import OFF
from tests.world import World, until

NOBODY = "0" * 32


# Who may come in


async def test_nobody_comes_in_without_the_token_and_nothing_reaches_the_application(scim: ScimClient) -> None:
    for authorization in ("", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"):
        answer = await scim("GET", "/Users", Authorization=authorization)
        assert answer.status == 401, authorization
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.body["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
        assert answer.body["status"] == "401"
    scim.name = "other"
    assert (await scim("GET", "/Users")).status == 401
    scim.name = "okta/../okta"
    assert (await scim("GET", "/Users")).status in (200, 400)
    assert scim.running.application.seen == []
    refused = [line for line in scim.running.audit() if line["event"] == "scim-refused"]
    assert {line["reason"] for line in refused} == {"scim-client-refused"}
    assert TOKEN not in scim.running.audit_file.read_text()


async def test_t75_whoever_tries_tokens_is_slowed_down_and_the_client_is_not(scim: ScimClient) -> None:
    statuses = [(await scim("GET", "/Users", Authorization=f"Bearer {number}")).status for number in range(32)]
    assert statuses[:30] == [401] * 30
    last = await scim("GET", "/Users", Authorization="Bearer x")
    assert (last.status, last.headers["Retry-After"]) == (429, "60")
    assert (await scim("GET", "/Users")).status == 200


async def test_t75_whoever_has_addresses_without_number_is_slowed_down_like_anybody(
    world: World, tmp_path: Path
) -> None:
    running = await with_scim(world, tmp_path, changes={"server": {"trusted_proxies": ["127.0.0.0/8"]}})
    async with ScimClient(running) as client:
        for number in range(31):
            told = {"X_Forwarded_For": f"2001:db8::{number:x}", "Authorization": "Bearer wrong"}
            answer = await client("GET", "/Users", **told)
        assert answer.status == 429
        other = {"X_Forwarded_For": "2001:db8:0:1::1", "Authorization": "Bearer wrong"}
        assert (await client("GET", "/Users", **other)).status == 401


async def test_t75_a_client_has_its_rate_and_its_place(world: World, tmp_path: Path) -> None:
    running = await with_scim(
        world,
        tmp_path,
        slow=client_section(rate=2),
        far=client_section(token={"env": "SCIM_OTHER"}, networks=["192.0.2.0/24"]),
    )
    async with ScimClient(running, "slow") as client:
        assert [(await client("GET", "/Users?count=1")).status for _ in range(3)] == [200, 200, 429]
    async with ScimClient(running, "far", OTHER_TOKEN) as client:
        assert (await client("GET", "/Users")).status == 403
        assert (await client("GET", "/Users", X_Forwarded_For="192.0.2.1")).status == 403
        # Whoever has no token does not learn which clients there are, and is slowed down like anybody.
        tries = [(await client("GET", "/Users", Authorization="Bearer x")).status for _ in range(31)]
        assert (tries[0], tries[-1]) == (401, 429)


async def test_t75_the_operations_of_a_bulk_message_count_one_by_one(world: World, tmp_path: Path) -> None:
    running = await with_scim(world, tmp_path, slow=client_section(rate=6))
    async with ScimClient(running, "slow") as client:
        look = {"method": "DELETE", "path": f"/Users/{NOBODY}"}

        async def bulk(number: int) -> Answer:
            return await client("POST", "/Bulk", {"Operations": [look] * number})

        assert [(await bulk(number)).status for number in (1, 2)] == [200, 200]
        # One that begins in time is carried out, however long it is; of those at the same time it is one.
        answers = await asyncio.gather(*(bulk(20) for _ in range(3)))
        assert sorted(answer.status for answer in answers) == [200, 429, 429]
        assert {len(one.body["Operations"]) for one in answers if one.status == 200} == {20}
        late = await client("GET", "/Users?count=1")
        assert (late.status, "Retry-After" in late.headers) == (429, True)


async def test_what_no_program_may_ask_is_refused_in_scim_terms(scim: ScimClient) -> None:
    assert (await scim("GET", "/Me")).status == 501
    assert (await scim("PUT", "/Users", {})).status == 405
    assert (await scim("GET", "/Nothing")).status == 404
    assert (await scim("GET", "/Schemas?filter=id%20pr")).status == 403
    assert (await scim("POST", "/Users", b"{")).body["scimType"] == "invalidSyntax"
    assert (await scim("POST", "/Users", b'{"userName": NaN}')).body["scimType"] == "invalidSyntax"
    assert (await scim("POST", "/Users", b"[" * 100_000)).body["scimType"] == "invalidSyntax"
    assert (await scim("POST", "/Users", io.BytesIO(b" " * (4 * 1024 * 1024 + 1)))).status == 413
    assert (await scim("POST", "/Users", b"{}", Content_Encoding="gzip")).status == 415
    assert (await scim("GET", "/Users/" + NOBODY)).status == 404
    assert (await scim("GET", "/Users?filter=userName%20is%20x")).body["scimType"] == "invalidFilter"


# People


async def test_a_person_is_made_gets_an_account_changes_and_goes(scim: ScimClient, tmp_path: Path) -> None:
    made = await scim.make("ada", emails=[{"value": "ada@example.com", "primary": True}], externalId="e-1")
    assert made["meta"]["location"] == f"{scim.base}/Users/{made['id']}"
    assert (made["active"], made["schemas"]) == (True, [USER])
    path = f"/Users/{made['id']}"

    async def row_is(*row: object) -> bool:
        return row in users_of(tmp_path / "users.db")

    await until(lambda: row_is("ada", "ada@example.com", "reader", 1))

    async def state_is(state: str) -> bool:
        return bool((await scim("GET", f"{path}?attributes={STATE}")).body[STATE]["state"] == state)

    await until(lambda: state_is("provisioned"))
    await scim.patch(path, {"op": "replace", "path": "emails", "value": [{"value": "ada@new.example"}]})
    await until(lambda: row_is("ada", "ada@new.example", "reader", 1))
    await scim.patch(path, {"op": "replace", "value": {"active": False}})
    await until(lambda: row_is("ada", "ada@new.example", "reader", 0))
    assert (await scim("GET", path)).body["active"] is False
    await until(lambda: state_is("deactivated"))
    await scim.patch(path, {"op": "replace", "value": {"active": True}})
    await until(lambda: row_is("ada", "ada@new.example", "reader", 1))
    assert (await scim("DELETE", path)).status == 204
    await until(lambda: row_is("ada", "ada@new.example", "reader", 0))
    assert (await scim("GET", path)).status == (await scim("DELETE", path)).status == 404
    changes = [line["change"] for line in scim.running.audit() if line["event"] == "scim-changed"]
    assert changes == ["created", "updated", "deactivated", "activated", "deleted"]


async def test_names_are_taken_in_any_case_of_their_letters(scim: ScimClient) -> None:
    made = await scim.make("Ada", externalId="e-1")
    other = await scim.make("grace")
    for body in ({"userName": "aDA"}, {"userName": "alan", "externalId": "e-1"}):
        answer = await scim("POST", "/Users", {"schemas": [USER], **body})
        assert (answer.status, answer.body["scimType"]) == (409, "uniqueness")
    answer = await scim.patch(f"/Users/{other['id']}", {"op": "replace", "path": "userName", "value": "ADA"})
    assert (answer.status, answer.body["scimType"]) == (409, "uniqueness")
    assert await scim.ids('filter=userName eq "ADA"') == [made["id"]]
    both = await asyncio.gather(*(scim("POST", "/Users", {"schemas": [USER], "userName": "turing"}) for _ in range(5)))
    assert sorted(answer.status for answer in both) == [201, 409, 409, 409, 409]


async def test_t72_a_whole_person_who_says_nothing_of_active_is_not_switched_on(scim: ScimClient) -> None:
    made = await scim.make("ada", active=False)
    path = f"/Users/{made['id']}"
    answer = await scim("PUT", path, {"schemas": [USER], "userName": "ada", "title": "Countess"})
    assert (answer.body["active"], answer.body["title"]) == (False, "Countess")
    await scim.patch(path, {"op": "remove", "path": "active"})
    assert await scim.ids("filter=active eq true") == []
    assert await scim.ids("filter=active eq false") == [made["id"]]


async def test_a_change_that_changes_nothing_leaves_no_trace(scim: ScimClient) -> None:
    made = await scim.make("ada", title="Countess", emails=[{"value": "a@example.com", "type": "work"}])
    path = f"/Users/{made['id']}"

    def owed() -> int:
        return len([line for line in scim.running.audit() if line["event"].startswith(("account-", "roles-"))])

    async def is_done() -> bool:
        answer = await scim("GET", f"{path}?attributes={STATE}")
        return bool(answer.body[STATE]["state"] == "provisioned")

    await until(is_done)
    before, version = owed(), made["meta"]["version"]
    for operation in (
        {"op": "replace", "path": "title", "value": "Countess"},
        {"op": "add", "path": "emails", "value": [{"value": "a@example.com", "type": "work"}]},
        {"op": "Replace", "value": {"active": "True"}},
    ):
        answer = await scim.patch(path, operation)
        assert (answer.status, answer.headers["ETag"]) == (200, version)
    whole = {key: value for key, value in made.items() if key not in ("id", "meta")}
    assert (await scim("PUT", path, whole)).headers["ETag"] == version
    assert owed() == before
    assert (await scim.patch(path, {"op": "replace", "path": "title", "value": "x"})).headers["ETag"] != version


async def test_versions_guard_against_changes_by_others(scim: ScimClient) -> None:
    made = await scim.make("ada")
    path, version = f"/Users/{made['id']}", made["meta"]["version"]
    assert (await scim("GET", path, If_None_Match=version)).status == 304
    changed = await scim.patch(path, {"op": "add", "path": "title", "value": "x"}, If_Match=version)
    assert changed.status == 200
    assert (await scim("GET", path, If_None_Match=version)).status == 200
    for method, body in (("PUT", {"schemas": [USER], "userName": "ada"}), ("DELETE", None)):
        assert (await scim(method, path, body, If_Match=version)).status == 412
    assert (await scim.patch(path, {"op": "add", "path": "title", "value": "y"}, If_Match=version)).status == 412
    group = await scim.group("team")
    there, tag = f"/Groups/{group['id']}", group["meta"]["version"]
    assert (await scim("GET", there, If_None_Match=tag)).status == 304
    add = {"op": "add", "path": "members", "value": [{"value": made["id"]}]}
    assert (await scim.patch(there, add, If_Match=tag)).status == 200
    assert (await scim.patch(there, {"op": "remove", "path": "members"}, If_Match=tag)).status == 412
    assert (await scim("DELETE", path, If_Match=changed.headers["ETag"])).status == 204


async def test_a_group_that_changed_since_it_was_read_is_not_deleted(
    scim: ScimClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, grace = (await scim.make("ada"))["id"], (await scim.make("grace"))["id"]
    group = await scim.group("team", ada)
    directory = scim.running.sidecar.condition.accounts.directory
    assert directory is not None
    groups, people = directory.groups, await directory.scim.people_of("scim:okta", [grace])
    read = groups.group

    async def read_before_somebody_comes(group_id: str) -> Group | None:
        found = await read(group_id)
        await groups.change(group_id, 1, add=[people[grace]])
        return found

    monkeypatch.setattr(groups, "group", read_before_somebody_comes)
    path, tag = f"/Groups/{group['id']}", {"If_Match": group["meta"]["version"]}
    assert (await scim("DELETE", path, **tag)).status == 412
    monkeypatch.undo()
    assert len((await scim("GET", path)).body["members"]) == 2
    assert (await scim("DELETE", path, **tag)).status == 412
    assert (await scim("DELETE", path, If_Match="*")).status == 204


async def test_the_names_of_one_client_are_none_of_another_ones(world: World, tmp_path: Path) -> None:
    running = await with_scim(world, tmp_path, a=client_section(), b=client_section(token={"env": "SCIM_OTHER"}))
    async with ScimClient(running, "a") as one, ScimClient(running, "b", OTHER_TOKEN) as other:
        made, group = await one.make("ada"), await one.group("team")
        assert (await other("GET", f"/Users/{made['id']}")).status == 404
        assert (await other("DELETE", f"/Groups/{group['id']}")).status == 404
        assert await other.ids("") == await other.ids("", "Groups") == []
        await other.make("ada")
        await other.group("team")


async def test_whoever_takes_the_list_of_people_out_is_noted_and_no_lookup_is(scim: ScimClient) -> None:
    async def noted(method: str, path: str, body: Any = None) -> list[tuple[str, int, int]]:
        before = len(scim.running.audit())
        assert (await scim(method, path, body)).status == 200
        lines = [line for line in scim.running.audit()[before:] if line["event"] == "scim-read"]
        assert all((line["client"], line["address"]) == ("okta", "127.0.0.1") for line in lines)
        assert "secret-name" not in str(lines)
        return [(line["resource"], line["given"], line["found"]) for line in lines]

    ada = await scim.make("ada secret-name")
    assert await noted("GET", "/Users") == []
    for name in ("bob secret-name", "eve"):
        await scim.make(name)
    for path in (f"/Users/{ada['id']}", '/Users?filter=userName eq "eve"', '/Users?filter=userName eq "x"'):
        assert await noted("GET", path) == [], path
    assert await noted("GET", "/Users?count=0") == []
    assert await noted("GET", '/Users?filter=userName co "secret-name"') == [("User", 2, 2)]
    # One at a time takes them out as well.
    assert await noted("GET", "/Users?count=1&startIndex=2") == [("User", 1, 3)]
    assert await noted("GET", "/Users?count=2&cursor=") == [("User", 2, 3)]
    assert await noted("POST", "/Users/.search", {"count": 3}) == [("User", 3, 3)]
    assert await noted("GET", "") == [("any", 3, 3)]
    assert await noted("GET", "/Groups") == []


# Groups


async def test_groups_know_their_members_and_members_their_groups(scim: ScimClient) -> None:
    ada, grace = (await scim.make("ada"))["id"], (await scim.make("grace"))["id"]
    team = await scim.group("Team", ada, grace)
    assert sorted(one["value"] for one in team["members"]) == sorted([ada, grace])
    mine = (await scim("GET", f"/Users/{ada}")).body["groups"]
    assert mine == [
        {"value": team["id"], "$ref": f"{scim.base}/Groups/{team['id']}", "display": "Team", "type": "direct"}
    ]
    assert "members" not in (await scim("GET", f"/Groups/{team['id']}?excludedAttributes=members")).body
    assert await scim.ids(f'filter=members eq "{ada}"', "Groups") == [team["id"]]
    assert await scim.ids(f'filter=groups.value eq "{team["id"]}"') == [ada, grace]
    answer = await scim("POST", "/Groups", {"displayName": "tEAM"})
    assert (answer.status, answer.body["scimType"]) == (409, "uniqueness")
    await scim("DELETE", f"/Users/{grace}")
    assert [one["value"] for one in (await scim("GET", f"/Groups/{team['id']}")).body["members"]] == [ada]
    path = f"/Groups/{team['id']}"
    assert (await scim.patch(path, {"op": "Remove", "path": f'members[value eq "{ada}"]'})).body.get("members") is None
    assert "groups" not in (await scim("GET", f"/Users/{ada}")).body
    await scim.patch(path, {"op": "Add", "path": "members", "value": [{"value": ada, "$ref": None}]})
    renamed = await scim.patch(path, {"op": "Replace", "value": {"id": team["id"], "displayName": "Crew"}})
    assert (renamed.body["displayName"], len(renamed.body["members"])) == ("Crew", 1)
    assert (await scim("DELETE", path)).status == 204
    assert "groups" not in (await scim("GET", f"/Users/{ada}")).body


@pytest.mark.parametrize("profile", ["strict", "okta", "entra"])
async def test_whoever_is_in_a_group_is_in_the_groups_around_it(world: World, tmp_path: Path, profile: str) -> None:
    running = await with_scim(world, tmp_path, okta=client_section(profile=profile))
    async with ScimClient(running) as scim:
        ada, grace = (await scim.make("ada"))["id"], (await scim.make("grace"))["id"]
        inner = await scim.group("Inner", grace)
        middle = await scim.group("Middle", inner["id"])
        outer = await scim.group("Outer", ada, middle["id"])
        assert {(one["value"], one["type"]) for one in outer["members"]} == {(ada, "User"), (middle["id"], "Group")}
        assert f"{scim.base}/Groups/{middle['id']}" in [one["$ref"] for one in outer["members"]]

        async def groups_of_grace() -> list[tuple[str, str]]:
            found = (await scim("GET", f"/Users/{grace}")).body.get("groups", [])
            return [(one["display"], one["type"]) for one in found]

        assert await groups_of_grace() == [("Inner", "direct"), ("Middle", "indirect"), ("Outer", "indirect")]
        assert await scim.ids(f'filter=members.value eq "{middle["id"]}"', "Groups") == [outer["id"]]
        assert await scim.ids(f'filter=groups.value eq "{outer["id"]}"') == [ada, grace]
        # The same again changes nothing, and neither version.
        path = f"/Groups/{outer['id']}"
        again = await scim.patch(path, {"op": "add", "path": "members", "value": [{"value": middle["id"]}]})
        assert again.body["meta"] == outer["meta"]
        gone = await scim.patch(path, {"op": "remove", "path": f'members[value eq "{middle["id"]}"]'})
        assert [one["value"] for one in gone.body["members"]] == [ada]
        assert await groups_of_grace() == [("Inner", "direct"), ("Middle", "indirect")]
        whole = {"schemas": outer["schemas"], "displayName": "Outer", "members": [{"value": middle["id"]}]}
        assert [one["type"] for one in (await scim("PUT", path, whole)).body["members"]] == ["Group"]
        assert (await scim("DELETE", f"/Groups/{middle['id']}")).status == 204
        assert await groups_of_grace() == [("Inner", "direct")]
        assert "members" not in (await scim("GET", path)).body


async def test_a_group_is_never_in_itself(scim: ScimClient) -> None:
    inner = await scim.group("inner")
    middle = await scim.group("middle", inner["id"])
    outer = await scim.group("outer", middle["id"])
    for one in (inner, middle, outer):
        add = {"op": "add", "path": "members", "value": [{"value": outer["id"]}]}
        answer = await scim.patch(f"/Groups/{one['id']}", add)
        assert (answer.status, answer.body["scimType"]) == (400, "invalidValue")
        assert (await scim("GET", f"/Groups/{one['id']}")).body["meta"] == one["meta"]


async def test_what_no_index_answers_is_looked_at_up_to_a_bound(
    scim: ScimClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await scim.make(f"p{number}", title="Prof")
    monkeypatch.setattr("sidecar.scim_api.listing.MOST_LOOKED_AT", 3)
    assert len(await scim.ids('filter=title eq "prof"')) == 3
    monkeypatch.setattr("sidecar.scim_api.listing.MOST_LOOKED_AT", 2)
    answer = await scim("GET", '/Users?filter=title eq "prof"')
    assert (answer.status, answer.body["scimType"]) == (400, "tooMany")


async def test_the_first_page_counts_anew_and_later_ones_do_not(scim: ScimClient) -> None:
    async def total(start: int) -> Any:
        return (await scim("GET", f"/Users?count=2&startIndex={start}")).body["totalResults"]

    for number in range(5):
        await scim.make(f"p{number}")
    assert (await total(1), await total(3)) == (5, 5)
    last = await scim.make("p5")
    assert (await total(3), await total(1), await total(3)) == (5, 6, 6)
    await scim("DELETE", f"/Users/{last['id']}")
    # Where the end is seen nothing needs to be counted or remembered.
    assert (await total(5), await total(1), await total(9)) == (5, 5, 5)


async def test_a_group_of_another_client_is_no_member(world: World, tmp_path: Path) -> None:
    sections = {"one": client_section(), "two": client_section(token={"env": "SCIM_OTHER"}, profile="okta")}
    running = await with_scim(world, tmp_path, **sections)
    async with ScimClient(running, "one") as one, ScimClient(running, "two", OTHER_TOKEN) as two:
        foreign = await one.group("theirs")
        assert "members" not in await two.group("ours", foreign["id"])


async def test_two_who_add_to_a_group_at_once_do_not_undo_each_other(scim: ScimClient) -> None:
    people = [(await scim.make(f"p{number}"))["id"] for number in range(8)]
    path = f"/Groups/{(await scim.group('team'))['id']}"
    adds = [{"op": "add", "path": "members", "value": [{"value": one}]} for one in people]
    await asyncio.gather(*(scim.patch(path, add) for add in adds))
    assert len((await scim("GET", path)).body["members"]) == 8


async def test_a_strict_client_is_told_of_members_that_there_are_not(world: World, tmp_path: Path) -> None:
    running = await with_scim(world, tmp_path, strict=client_section())
    async with ScimClient(running, "strict") as client:
        path = f"/Groups/{(await client.group('team'))['id']}"
        answer = await client.patch(path, {"op": "add", "path": "members", "value": [{"value": NOBODY}]})
        assert (answer.status, answer.body["scimType"]) == (400, "invalidValue")


# Lists


async def test_lists_are_filtered_ordered_and_cut(scim: ScimClient) -> None:
    names = ["delta", "Alpha", "charlie", "bravo", "echo"]
    for number, one in enumerate(names):
        department = {ENTERPRISE: {"department": "X" if number % 2 else "Y"}}
        await scim.make(
            one, displayName=one.upper(), active=number != 4, emails=[{"value": f"{one}@e.example"}], **department
        )

    async def names_of(query: str) -> list[str]:
        answer = await scim("GET", f"/Users?{query}")
        assert answer.status == 200, answer.body
        return [str(one["userName"]) for one in answer.body["Resources"]]

    assert await names_of("") == names
    assert await names_of("sortBy=userName") == ["Alpha", "bravo", "charlie", "delta", "echo"]
    assert await names_of("sortBy=displayName&sortOrder=descending&count=2") == ["echo", "delta"]
    assert await names_of("startIndex=2&count=2") == ["Alpha", "charlie"]
    assert await names_of("startIndex=-5&count=1") == ["delta"]
    assert await names_of("count=0") == await names_of("startIndex=99") == []
    assert await names_of('filter=userName sw "A"') == ["Alpha"]
    assert await names_of('filter=userName sw "_"') == await names_of('filter=userName co "%25"') == []
    assert await names_of("filter=active eq false") == ["echo"]
    assert await names_of('filter=emails[value eq "BRAVO@e.example"]') == ["bravo"]
    assert await names_of(f'filter={ENTERPRISE}:department eq "x" and userName co "a"') == ["Alpha", "bravo"]
    assert await names_of('filter=displayName eq "CHARLIE"') == ["charlie"]
    assert await names_of('filter=not (userName eq "delta")&count=1') == ["Alpha"]
    nothing = await scim("GET", '/Users?filter=userName eq "nobody"')
    assert (nothing.status, nothing.body["totalResults"], nothing.body["Resources"]) == (200, 0, [])
    page = (await scim("GET", "/Users?startIndex=2&count=2")).body
    assert (page["totalResults"], page["startIndex"], page["itemsPerPage"]) == (5, 2, 2)
    found = await scim("POST", "/Users/.search", {"filter": 'userName sw "e"', "attributes": ["userName"]})
    assert [set(one) for one in found.body["Resources"]] == [{"schemas", "id", "userName"}]
    both = await scim("POST", "/.search", {"startIndex": 5, "count": 3})
    assert (both.body["totalResults"], [one["userName"] for one in both.body["Resources"]]) == (5, ["echo"])
    moment = (await scim("GET", '/Users?filter=userName eq "charlie"')).body["Resources"][0]["meta"]["lastModified"]
    assert await names_of(f'filter=meta.lastModified gt "{moment}"') == ["bravo", "echo"]
    assert await names_of(f'filter=meta.lastModified ge "{moment}"') == ["charlie", "bravo", "echo"]


@pytest.mark.parametrize("query", ["", "&sortBy=userName", "&filter=displayName pr", "&filter=active eq true"])
async def test_cursors_lead_to_everybody_once_although_people_come_meanwhile(scim: ScimClient, query: str) -> None:
    for number in range(7):
        await scim.make(f"p{number}", displayName="x")
    found, cursor = [], ""
    for page in range(10):
        body = (await scim("GET", f"/Users?count=3&cursor={cursor}{query}")).body
        assert "startIndex" not in body
        found += [one["userName"] for one in body["Resources"]]
        cursor = body.get("nextCursor", "")
        if not cursor:
            break
        if page == 0:
            await scim.make("z-late", displayName="x")
    assert found == [f"p{number}" for number in range(7)] + ["z-late"]
    for wrong in ("nonsense", "W10"):
        answer = await scim("GET", f"/Users?cursor={wrong}")
        assert (answer.status, answer.body["scimType"]) == (400, "invalidCursor")
    cursor = (await scim("GET", "/Users?count=1&cursor=")).body["nextCursor"]
    assert (await scim("GET", f"/Users?cursor={cursor}&filter=title pr")).body["scimType"] == "invalidCursor"


# Bulk


async def test_many_operations_in_one_message_with_references_among_them(scim: ScimClient) -> None:
    operations = [
        {"method": "POST", "path": "/Users", "bulkId": "a", "data": {"schemas": [USER], "userName": "ada"}},
        {"method": "POST", "path": "/Groups", "bulkId": "g",
         "data": {"displayName": "team", "members": [{"value": "bulkId:a"}]}},
        {"method": "PATCH", "path": "/Users/bulkId:a",
         "data": {"schemas": [PATCH], "Operations": [{"op": "add", "path": "title", "value": "x"}]}},
        {"method": "POST", "path": "/Users", "data": {"userName": "ADA"}},
        {"method": "POST", "path": "/Bulk", "data": {"Operations": []}},
        {"method": "GET", "path": "/Users"},
        {"method": "DELETE", "path": "/Users/bulkId:a"},
    ]  # fmt: skip
    answer = await scim("POST", "/Bulk", {"Operations": operations})
    assert [one["status"] for one in answer.body["Operations"]] == ["201", "201", "200", "409", "400", "400", "204"]
    assert answer.body["Operations"][3]["response"]["scimType"] == "uniqueness"
    assert answer.body["Operations"][0]["version"] == 'W/"1"'
    stopped = await scim("POST", "/Bulk", {"failOnErrors": 1, "Operations": operations[4:]})
    assert [one["status"] for one in stopped.body["Operations"]] == ["400"]
    assert (await scim("POST", "/Bulk", {"Operations": [{}] * 1001})).status == 413
    changed = [line for line in scim.running.audit() if line["event"] == "scim-changed"]
    assert [line["change"] for line in changed] == ["created", "created", "updated", "deleted"]


async def test_what_refers_to_something_that_was_not_made_is_refused_and_changes_nothing(scim: ScimClient) -> None:
    ada, _ = await scim.make("ada"), await scim.make("bob")
    team = await scim.group("team", ada["id"])
    path = f"/Groups/{team['id']}"
    nobody = [{"value": "bulkId:b"}]

    def patch(**operation: Any) -> dict[str, Any]:
        return {"method": "PATCH", "path": path, "data": {"schemas": [PATCH], "Operations": [operation]}}

    operations = [
        # Taken, so it is not made; the group that refers to itself is not made yet.
        {"method": "POST", "path": "/Users", "bulkId": "b", "data": {"userName": "bob"}},
        {"method": "POST", "path": "/Groups", "bulkId": "g",
         "data": {"displayName": "circle", "members": [{"value": "bulkId:g"}]}},
        {"method": "PUT", "path": path, "data": {"displayName": "team", "members": nobody}},
        patch(op="replace", path="members", value=nobody),
        patch(op="remove", path="members", value=nobody),
        patch(op="remove", path='members[value eq "bulkId:b"]'),
        {"method": "DELETE", "path": "/Users/bulkId:b"},
    ]  # fmt: skip
    answer = await scim("POST", "/Bulk", {"Operations": operations})
    assert [one["status"] for one in answer.body["Operations"]] == ["409"] * len(operations)
    assert "bulkId:b" in answer.body["Operations"][-1]["response"]["detail"]
    assert [one["value"] for one in (await scim("GET", path)).body["members"]] == [ada["id"]]
    refused = [line["reason"] for line in scim.running.audit() if line["event"] == "scim-refused"]
    assert refused == ["conflict"] * len(operations)

    made = [
        {"method": "POST", "path": "/Users", "bulkId": "c", "data": {"userName": "carol"}},
        patch(op="add", path="members", value=[{"value": "bulkId:c"}]),
        patch(op="remove", path='members[value eq "bulkId:c"]'),
    ]
    answer = await scim("POST", "/Bulk", {"Operations": made})
    assert [one["status"] for one in answer.body["Operations"]] == ["201", "200", "200"]
    assert [one["value"] for one in (await scim("GET", path)).body["members"]] == [ada["id"]]


# Deactivation


@pytest.mark.parametrize("way", [*range(len(OFF)), "put", "delete", "bulk"])
async def test_t72_every_way_of_switching_somebody_off_does(scim: ScimClient, way: Any) -> None:
    made = await scim.make("ada")
    path = f"/Users/{made['id']}"
    person = await scim.running.sidecar.condition.accounts.directory.scim.user("scim:okta", made["id"])  # type: ignore[union-attr]
    assert person is not None
    match way:
        case "put":
            answer = await scim("PUT", path, {**made, "active": False})
        case "delete":
            answer = await scim("DELETE", path)
        case "bulk":
            data = {"Operations": [OFF[0]]}
            answer = await scim("POST", "/Bulk", {"Operations": [{"method": "PATCH", "path": path, "data": data}]})
        case _:
            answer = await scim.patch(path, OFF[way])
    assert answer.status in (200, 204)
    directory = scim.running.sidecar.condition.accounts.directory
    assert directory is not None
    known = await directory.person(person.person_id)
    assert known is not None
    assert (known.active, known.disabled_by) == (False, "scim:okta")
    if way != "delete":
        assert await scim.ids("filter=active eq false") == [made["id"]]


async def test_it_is_the_same_on_every_database(world: World, tmp_path: Path, database_url: str) -> None:
    running = await with_scim(world, tmp_path, changes={"directory": database_url})
    async with ScimClient(running) as scim:
        ada = await scim.make("Ädä", externalId="Ä-1", emails=[{"value": "ada@example.com"}], title="Müller \U0001f600")
        bob = await scim.make("bob", active=False)
        assert await scim.ids('filter=userName eq "äDÄ"') == [ada["id"]]
        assert await scim.ids('filter=userName sw "a"') == []
        assert await scim.ids('filter=userName sw "Ä"') == [ada["id"]]
        assert await scim.ids('filter=externalId eq "Ä-1" and active eq true') == [ada["id"]]
        assert await scim.ids('filter=externalId eq "ä-1"') == []
        assert await scim.ids('filter=emails[value eq "ADA@example.com"]') == [ada["id"]]
        assert await scim.ids("filter=active eq false&sortBy=userName") == [bob["id"]]
        moment = ada["meta"]["lastModified"]
        assert await scim.ids(f'filter=meta.lastModified le "{moment}"') == [ada["id"]]
        first = (await scim("GET", "/Users?count=1&cursor=")).body
        assert (first["Resources"][0]["id"], first["Resources"][0]["title"]) == (ada["id"], "Müller \U0001f600")
        assert await scim.ids(f"count=1&cursor={first['nextCursor']}") == [bob["id"]]
        team = await scim.group("Täam", ada["id"], bob["id"])
        assert await scim.ids('filter=displayName sw "ta"', "Groups") == []
        assert await scim.ids(f'filter=members eq "{bob["id"]}"', "Groups") == [team["id"]]
        assert (await scim("POST", "/Users", {"userName": "ädä"})).status == 409
        assert (await scim("POST", "/Groups", {"displayName": "täam"})).status == 409
        added = await asyncio.gather(*(scim("POST", "/Users", {"userName": "turing"}) for _ in range(4)))
        assert sorted(answer.status for answer in added) == [201, 409, 409, 409]
        for active in (False, True, False):
            answer = await scim.patch(f"/Users/{ada['id']}", {"op": "replace", "value": {"active": active}})
            assert (answer.status, answer.body["active"]) == (200, active)
        assert (await scim("DELETE", f"/Users/{ada['id']}")).status == 204
        left = (await scim("GET", f"/Groups/{team['id']}")).body["members"]
        assert [one["value"] for one in left] == [bob["id"]]


async def test_a_token_ends_with_its_day_and_one_that_only_reads_changes_nothing(world: World, tmp_path: Path) -> None:
    tokens = [
        {"value": {"env": "SCIM_TOKEN"}, "expires": "2999-12-31", "scope": "read"},
        {"value": {"env": "SCIM_OTHER"}, "expires": "2001-01-01"},
    ]
    running = await with_scim(world, tmp_path, okta=client_section(profile="okta", token=tokens))
    async with ScimClient(running) as reader, ScimClient(running, token=OTHER_TOKEN) as late:
        assert (await reader("GET", "/Users")).status == 200
        assert (await reader("POST", "/Users/.search", {})).status == 200
        for method, path in [("POST", "/Users"), ("PATCH", "/Users/x"), ("DELETE", "/Users/x"), ("POST", "/Bulk")]:
            answer = await reader(method, path, {"schemas": [USER], "userName": "ada"})
            assert (answer.status, "only read" in answer.body["detail"]) == (403, True), method
        assert (await reader.ids("")) == []
        assert (await late("GET", "/Users")).status == 401
    details = [line["detail"] for line in running.audit() if line["event"] == "scim-refused"]
    assert details[-1] == "the token has ended"

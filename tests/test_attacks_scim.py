"""A client that SCIM lets in, and that means ill, or whose people do: what breaks, what hangs, and who stays."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar.directory.scim import Window
from sidecar.scim_api.users import Users
from tests.scim_world import PATCH, Answer, ScimClient, with_scim
from tests.world import World

# A family of three as one picture: letters that are joined by signs which show nothing.
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


async def is_on(scim: ScimClient, user_id: str) -> bool:
    """Whether the person of that user is switched on."""
    directory = scim.running.sidecar.condition.accounts.directory
    assert directory is not None
    user = await directory.scim.user("scim:okta", user_id)
    assert user is not None
    person = await directory.person(user.person_id)
    assert person is not None
    return person.active


def cursor(place: Any, *, kind: str = "User") -> str:
    """A cursor as it would be, were it ours."""
    digest = hashlib.sha256(json.dumps([kind, None, None, "ascending"]).encode()).hexdigest()[:16]
    text = place if isinstance(place, str) else json.dumps([digest, place])
    return base64.urlsafe_b64encode(text.replace("DIGEST", digest).encode()).decode().rstrip("=")


# What breaks


async def test_what_cannot_be_kept_is_refused_on_every_database_and_breaks_nothing(
    world: World, tmp_path: Path, database_url: str
) -> None:
    running = await with_scim(world, tmp_path, changes={"directory": database_url})
    async with ScimClient(running) as scim:
        path = f"/Users/{(await scim.make('ada'))['id']}"
        team = f"/Groups/{(await scim.group('team'))['id']}"
        for sign in (r"\ud800", r"\u0000"):
            for query in (f'id eq "{sign}"', f'userName co "{sign}"', f'externalId eq "{sign}"', f'title eq "{sign}"'):
                answer = await scim("GET", f"/Users?filter={query}")
                assert (answer.status, answer.body.get("scimType")) == (400, "invalidFilter"), query
            assert (await scim("GET", f'/Groups?filter=members.value eq "{sign}"')).status == 400
            for text in (
                f'{{"op": "add", "path": "{sign}", "value": "x"}}',
                f'{{"op": "add", "value": {{"{sign}": "x"}}}}',
                f'{{"op": "{sign}", "path": "title", "value": "x"}}',
                f'{{"op": "remove", "path": "members[value eq \\"{sign}\\"]"}}',
            ):
                for place in (path, team):
                    sent = f'{{"schemas": ["{PATCH}"], "Operations": [{text}]}}'.encode()
                    assert (await scim("PATCH", place, sent)).status == 400, text
            operation = f'{{"method": "DELETE", "path": "/Users/x{sign}"}}'
            answer = await scim("POST", "/Bulk", f'{{"Operations": [{operation}]}}'.encode())
            assert (answer.status, (answer.body.get("Operations") or [{"status": "400"}])[0]["status"][0]) in (
                (200, "4"), (400, "4"),
            )  # fmt: skip
        assert (await scim("POST", "/Users", b'{"userName": "\xed\xa0\x80"}')).status == 400
        assert (await scim("GET", path)).status == 200
        # What is asked of databases so that nothing grows without end is understood by all of them.
        await scim.group("other", path.rpartition("/")[2], team.rpartition("/")[2])
        assert len(await scim.ids("", "Groups")) == 2
        assert len(await scim.ids("filter=not (title pr)&sortBy=title")) == 1


@pytest.mark.parametrize(
    "place",
    [
        ["x", "y"], [None, "y"], [float("nan"), "y"], [1e400, "y"], [1.0], {"a": 1}, "x",
        '["DIGEST", [1.0, "\\ud800"]]', '["DIGEST", [1.0, "\\u0000"]]', "[" * 5000,
    ],
)  # fmt: skip
async def test_a_cursor_that_somebody_made_up_is_none(scim: ScimClient, place: Any) -> None:
    answer = await scim("GET", f"/Users?cursor={cursor(place)}")
    assert (answer.status, answer.body["scimType"]) == (400, "invalidCursor")


@pytest.mark.parametrize("place", [-1, 10**30, True, 1.5, [1.0, "x"]])
async def test_nor_is_one_for_a_list_in_an_order(scim: ScimClient, place: Any) -> None:
    digest = hashlib.sha256(json.dumps(["User", None, "title", "ascending"]).encode()).hexdigest()[:16]
    text = base64.urlsafe_b64encode(json.dumps([digest, place]).encode()).decode().rstrip("=")
    answer = await scim("GET", f"/Users?sortBy=title&cursor={text}")
    assert (answer.status, answer.body["scimType"]) == (400, "invalidCursor")
    digest = hashlib.sha256(json.dumps(["User", None, "userName", "ascending"]).encode()).hexdigest()[:16]
    text = base64.urlsafe_b64encode(json.dumps([digest, place]).encode()).decode().rstrip("=")
    assert (await scim("GET", f"/Users?sortBy=userName&cursor={text}")).status == 400


@pytest.mark.parametrize("depth", [200, 460, 600, 900, 940, 960, 100_000])
async def test_what_is_nested_without_end_is_refused_or_left_out(scim: ScimClient, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    for path, text in (
        ("/Bulk", f'{{"Operations": [{{"method": "POST", "path": "/Users", "data": {deep}}}]}}'),
        ("/Users/.search", f'{{"filter": {deep}}}'),
        ("/Users/.search", f'{{"count": {deep}}}'),
        ("/Users/.search", f'{{"sortOrder": {deep}}}'),
        ("/Users/.search", f'{{"sortBy": {deep}}}'),
        ("/Users", f'{{"userName": "x", "emails": {deep}}}'),
    ):
        answer = await scim("POST", path, text.encode())
        assert answer.status in (200, 201, 400, 409), (path, text[:60], answer.status)


# Who stays


async def test_nobody_stays_because_of_what_they_are_called(scim: ScimClient) -> None:
    made = await scim.make("ada", displayName="Ada")
    path = f"/Users/{made['id']}"
    # Providers that send the whole person send the name with everything, also with the word that they are to go.
    called = {**made, "displayName": FAMILY}
    assert (await scim("PUT", path, called)).status == 400
    answer = await scim("PUT", path, {**called, "active": False})
    assert (answer.status, answer.body["active"]) == (200, False)
    assert not await is_on(scim, made["id"])
    # On again they come by a name that can be used, and no other.
    assert (await scim.patch(path, {"op": "replace", "path": "active", "value": True})).status == 400
    assert not await is_on(scim, made["id"])
    assert (await scim("PUT", path, {**made, "active": True})).status == 200
    assert await is_on(scim, made["id"])
    assert (await scim("PUT", path, {**called, "active": False})).status == 200
    assert (await scim("DELETE", path)).status == 204


async def test_nobody_stays_because_they_fill_their_record(scim: ScimClient) -> None:
    made = await scim.make("ada", addresses=[{"formatted": f"{number:04}" + "x" * 4000} for number in range(14)])
    path = f"/Users/{made['id']}"
    directory = scim.running.sidecar.condition.accounts.directory
    assert directory is not None
    user = await directory.scim.user("scim:okta", made["id"])
    assert user is not None
    room = 60_000 - len(json.dumps(user.document, separators=(",", ":")).encode())
    assert (
        await scim.patch(path, {"op": "add", "path": "title", "value": "x" * (room - len(',"title":""') + 1)})
    ).status == 413
    assert (
        await scim.patch(path, {"op": "add", "path": "title", "value": "x" * (room - len(',"title":""'))})
    ).status == 200
    answer = await scim.patch(path, {"op": "replace", "path": "active", "value": False})
    assert (answer.status, answer.body.get("active")) == (200, False)
    assert not await is_on(scim, made["id"])


# What is seen


async def test_what_a_bulk_message_is_refused_is_audited_and_it_looks_for_nothing(scim: ScimClient) -> None:
    wrong = [
        {"method": "POST", "path": "/Users/.search", "data": {"filter": "title pr"}},
        {"method": "DELETE", "path": "/Users/" + "0" * 32},
        {"method": "POST", "path": "/Users", "data": {"userName": ""}},
    ]
    answer = await scim("POST", "/Bulk", {"Operations": wrong})
    assert [one["status"] for one in answer.body["Operations"]] == ["400", "404", "400"]
    lines = [line for line in scim.running.audit() if line["event"] == "scim-refused"]
    assert [(line.get("method", ""), line["reason"]) for line in lines] == [
        ("", "scim-invalid"),
        ("DELETE", "not-found"),
        ("POST", "scim-invalid"),
    ]
    assert all(line["client"] == "okta" and line["reference"] for line in lines)


# What hangs


async def waits(scim: ScimClient, method: str, path: str, body: Any) -> tuple[int, float]:
    """Status of a request, and the longest that the event loop was kept from everybody else meanwhile.

    In seconds of work of its thread, so that what else the machine does is not in it.
    """
    longest, last, done = 0.0, time.thread_time(), False

    async def beat() -> None:
        nonlocal longest, last
        while not done:
            await asyncio.sleep(0)
            longest, last = max(longest, time.thread_time() - last), time.thread_time()

    text = io.BytesIO(json.dumps(body).encode())
    await scim("GET", "/ServiceProviderConfig")
    last = time.thread_time()
    task = asyncio.create_task(beat())
    answer = await scim(method, path, text)
    done = True
    await task
    return answer.status, longest


async def test_a_list_of_attributes_without_end_keeps_nobody_waiting(scim: ScimClient) -> None:
    await asyncio.gather(*(scim.make(f"p{number}", title="x") for number in range(20)))
    names = ["userName"] * 300_000
    for word in ("attributes", "excludedAttributes"):
        status, longest = await waits(scim, "POST", "/Users/.search", {word: names})
        assert status == 400
        assert longest < 0.5
    many = [f"emails.{part}" for part in ("value", "type", "display", "primary")] * 200
    status, longest = await waits(scim, "POST", "/Users/.search", {"attributes": many})
    assert status == 200
    assert longest < 0.5


async def test_a_change_of_many_values_many_times_keeps_nobody_waiting(scim: ScimClient) -> None:
    made = await scim.make(
        "ada", emails=[{"value": f"{number}@example.com", "display": f"{number}"} for number in range(199)]
    )
    which = " or ".join(f'display co "{number}"' for number in range(199))
    for operation in (
        {"op": "replace", "path": f"emails[{which}].type", "value": "work"},
        {"op": "add", "path": "emails", "value": [{"value": "0@example.com"}]},
    ):
        body = {"schemas": [PATCH], "Operations": [operation] * 400}
        status, longest = await waits(scim, "PATCH", f"/Users/{made['id']}", body)
        assert status in (200, 413)
        assert longest < 1.0


async def test_what_is_looked_at_one_by_one_is_not_held_all_at_once(
    scim: ScimClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        await scim.make(f"p{number}", title="x", nickName=f"{number % 3}", displayName=f"{9 - number}")
    held: list[int] = []
    real = Users.rows

    async def rows(self: Users, client: Any, condition: Any, window: Window) -> Sequence[Any]:
        found = await real(self, client, condition, window)
        held.append(len(found))
        return found

    monkeypatch.setattr(Users, "rows", rows)
    monkeypatch.setattr("sidecar.scim_api.listing._AT_ONCE", 2)

    async def names(query: str) -> list[str]:
        answer = await scim("GET", f"/Users?{query}")
        assert answer.status == 200, answer.body
        assert answer.body["totalResults"] == 9
        return [one["userName"] for one in answer.body["Resources"]]

    assert await names("filter=title pr&startIndex=4&count=2") == ["p3", "p4"]
    assert await names("filter=title pr&sortBy=displayName&startIndex=2&count=2") == ["p7", "p6"]
    assert await names("sortBy=nickName&sortOrder=descending&startIndex=8&count=2") == ["p3", "p6"]
    assert max(held) == 2


@pytest.mark.parametrize(
    ("term", "is_narrow"),
    [
        ('userName eq "a{}"', True),
        ('emails[value eq "a{}"]', True),
        ('userName co "a{}"', False),
        ('userName sw "a{}"', False),
        ('userName ne "a{}"', False),
        ('not (userName eq "a{}")', False),
        ('emails[value co "a{}"]', False),
        ("active eq true", False),
        ('meta.lastModified eq "2026-01-01T00:00:00Z"', False),
        ("title pr", False),
    ],
)
async def test_parts_of_names_are_looked_for_a_few_at_a_time(scim: ScimClient, term: str, is_narrow: bool) -> None:
    async def asked(number: int) -> Answer:
        return await scim("POST", "/Users/.search", {"filter": " or ".join(term.format(one) for one in range(number))})

    assert (await asked(20)).status == 200
    answer = await asked(21)
    if is_narrow:
        assert (answer.status, (await asked(100)).status) == (200, 200)
        return
    assert (answer.status, answer.body["scimType"]) == (400, "invalidFilter")
    assert "more than 20 terms" in answer.body["detail"]


async def test_many_terms_are_held_against_fewer(scim: ScimClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.scim_api.listing._MOST_COMPARED", 12)
    for number in range(4):
        await scim.make(f"p{number}", title="x")
    assert len(await scim.ids("filter=title pr or nickName pr or locale pr")) == 4
    answer = await scim("GET", "/Users?filter=title pr or nickName pr or locale pr or timezone pr")
    assert (answer.status, answer.body["scimType"]) == (400, "tooMany")


@pytest.mark.parametrize("way", ["index", "cursor", "filter", "all"])
async def test_large_groups_come_a_few_at_a_time(scim: ScimClient, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    people = [(await scim.make(f"p{number}"))["id"] for number in range(4)]
    for number in range(5):
        await scim.group(f"g{number}", *people[: 4 if number == 1 else 2])
    monkeypatch.setattr("sidecar.scim_api.groups.MOST_MEMBERS", 4)
    query = {"cursor": "cursor=", "filter": "filter=displayName pr and members.type pr"}.get(way, "startIndex=1")
    path = "" if way == "all" else "/Groups"
    found: list[tuple[str, int]] = []
    for _ in range(9):
        page = (await scim("GET", f"{path}?count=100&{query}")).body
        groups = [one for one in page["Resources"] if "displayName" in one]
        assert len(groups) == 1 or sum(len(one.get("members", ())) for one in groups) <= 4
        assert page["totalResults"] == (9 if way == "all" else 5)
        assert page["itemsPerPage"] == len(page["Resources"])
        found += [(one["displayName"], len(one["members"])) for one in groups]
        if way == "cursor":
            if "nextCursor" not in page:
                break
            query = f"cursor={page['nextCursor']}"
        else:
            if page["startIndex"] + page["itemsPerPage"] > page["totalResults"]:
                break
            query = "filter=displayName pr and members.type pr&" if way == "filter" else ""
            query += f"startIndex={page['startIndex'] + page['itemsPerPage']}"
    assert found == [("g0", 2), ("g1", 4), ("g2", 2), ("g3", 2), ("g4", 2)]
    # Who does not ask for members gets all at once.
    assert len(await scim.ids("excludedAttributes=members", "Groups")) == 5

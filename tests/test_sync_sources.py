"""Every kind of source says what it read, and whether that was everything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sidecar.config.secret import Dsn
from sidecar.config.sync_source import SourceSection
from sidecar.config.values import Surroundings
from sidecar.core.template import Compiler
from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.sync.sources.opening import open_source
from sidecar.sync.sources.source import End


async def read(section: dict[str, Any], folder: Path, since: str = "") -> tuple[str, list[dict[str, Any]], End]:
    around = Surroundings(folder, {}, Compiler())
    source = open_source("hr", SourceSection.model_validate(section, context=around))
    try:
        kind = await source.begin(since)
        rows = [dict(row) async for page in source.batches() for row in page]
        return kind, rows, source.end()
    finally:
        await source.close()


# Files

CSV: list[tuple[str, dict[str, Any], int, str]] = [
    ("id,name\n1,Ada\n2,Bob\n", {}, 2, ""),
    ("id,name\n1,Ada\n2,Bob", {}, 2, ""),
    ("\ufeffid,name\r\n1,Ada\r\n\r\n", {}, 1, ""),
    ('id,name\n1,"Ada, ""the\nfirst"""\n', {}, 1, ""),
    ("id;name\n1;Ada\n", {"delimiter": ";"}, 1, ""),
    ("id\tname\n1\tAda\n", {"delimiter": "\t"}, 1, ""),
    ("1,Ada\n", {"header": ["id", "name"]}, 1, ""),
    ("Nr,Name\n1,Ada\n", {"rename": {"Nr": "id", "Name": "name"}}, 1, ""),
    ("id,name\n1,Ada\nEND,1\n", {"trailer": "END"}, 1, ""),
    ("id,name\n1,Ada\n", {"trailer": "END"}, 1, "the last line is missing"),
    ("id,name\n1,Ada\nEND,2\n", {"trailer": "END"}, 1, "says '2' people"),
    ("id,name\nEND,1\n1,Ada\n", {"trailer": "END"}, 0, "stands after the last one"),
    ("id,name\n1,Ada\n2,B,x\n", {}, 1, "line 3 has 3 columns in place of 2"),
    ("id,name\n1,Ada\n2", {}, 1, "line 3 has 1 columns"),
    ("id,id\n1,Ada\n", {}, 0, "same name"),
    ("", {}, 0, "empty"),
    ('id,name\n1,"Ada\n', {}, 0, "unexpected end"),
]


@pytest.mark.parametrize(("content", "changes", "number", "why"), CSV)
async def test_csv(tmp_path: Path, content: str, changes: dict[str, Any], number: int, why: str) -> None:
    (tmp_path / "people.csv").write_bytes(content.encode())
    _, rows, end = await read({"csv": {"path": "people.csv", **changes}}, tmp_path)
    assert len(rows) == number
    assert all(row["id"] == "1" for row in rows[:1])
    assert (end.is_complete, why in end.why) == (not why, True)


async def test_another_encoding_and_a_wrong_one(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_bytes("id,name\n1,Müller\n".encode("cp1252"))
    _, rows, _ = await read({"csv": {"path": "people.csv", "encoding": "cp1252"}}, tmp_path)
    assert rows == [{"id": "1", "name": "Müller"}]
    _, _, end = await read({"csv": "people.csv"}, tmp_path)
    assert "not utf-8-sig" in end.why


JSON: list[tuple[Any, dict[str, Any], int, str]] = [
    ([{"id": 1}, {"id": 2}], {}, 2, ""),
    ({"r": {"people": [{"id": 1}], "n": 1}}, {"at": "r.people", "count": "r.n"}, 1, ""),
    ({"r": {"people": [{"id": 1}], "n": 2}}, {"at": "r.people", "count": "r.n"}, 1, "does not say 1"),
    ({"r": 1}, {"at": "r.people"}, 0, "no list at r.people"),
    ([{"id": 1}, 2], {}, 1, "[1] is no object"),
]


@pytest.mark.parametrize(("content", "changes", "number", "why"), JSON)
async def test_json(tmp_path: Path, content: Any, changes: dict[str, Any], number: int, why: str) -> None:
    (tmp_path / "people.json").write_text(json.dumps(content))
    _, rows, end = await read({"json": {"path": "people.json", **changes}}, tmp_path)
    assert (len(rows), end.is_complete, why in end.why) == (number, not why, True)


@pytest.mark.parametrize(
    ("content", "number", "why"),
    [
        ('{"id": 1}\n\n{"id": 2}\n', 2, ""),
        ('{"id": 1}\n{"id"', 1, "line 2 is no JSON"),
        ('{"id": 1}\n2\n', 1, "line 2 is no object"),
    ],
)
async def test_json_lines(tmp_path: Path, content: str, number: int, why: str) -> None:
    (tmp_path / "people.jsonl").write_text(content)
    _, rows, end = await read({"json": {"path": "people.jsonl", "lines": True}}, tmp_path)
    assert (len(rows), end.is_complete, why in end.why) == (number, not why, True)


async def test_half_a_json_file_is_not_complete(tmp_path: Path) -> None:
    (tmp_path / "people.json").write_text('[{"id": 1}, {"id"')
    _, rows, end = await read({"json": "people.json"}, tmp_path)
    assert (rows, end.is_complete) == ([], False)


async def test_the_newest_file_is_read_and_the_same_one_not_again(tmp_path: Path) -> None:
    for number, name in enumerate(("people-2.csv", "people-1.csv")):
        (tmp_path / name).write_text(f"id\n{number}\n")
        import os  # noqa: PLC0415

        os.utime(tmp_path / name, (100 + number, 100 + number))
    kind, rows, end = await read({"csv": "people-*.csv"}, tmp_path)
    assert (kind, rows) == ("full", [{"id": "1"}])
    assert (await read({"csv": "people-*.csv"}, tmp_path, end.cursor))[:2] == ("same", [])
    (tmp_path / "people-1.csv").write_text("id\n7\n")
    assert (await read({"csv": "people-*.csv"}, tmp_path, end.cursor))[:2] == ("full", [{"id": "7"}])


@pytest.mark.parametrize(
    "section", [{"csv": "none.csv"}, {"csv": "none-*.csv"}, {"csv": {"path": "large.csv", "largest": 3}}]
)
async def test_a_file_that_is_not_there_or_too_large_is_down(tmp_path: Path, section: dict[str, Any]) -> None:
    (tmp_path / "large.csv").write_text("id\n1\n")
    with pytest.raises(Unavailable) as fault:
        await read(section, tmp_path)
    assert fault.value.reason is Reason.SOURCE_DOWN


async def test_a_file_that_changes_while_it_is_read_is_not_complete(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("id\n" + "".join(f"{number}\n" for number in range(2000)))
    source = open_source("hr", SourceSection.model_validate({"csv": str(path)}))
    await source.begin("")
    count = 0
    async for page in source.batches():
        if count == 0:
            path.write_text("id\n1\n")
        count += len(page)
    assert not source.end().is_complete


# Databases


async def table(url: str, rows: int) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(
            text("CREATE TABLE staff (id INTEGER PRIMARY KEY, login VARCHAR(50), changed INTEGER)")
        )
        if rows:
            values = [{"id": number, "login": f"p{number}", "changed": number} for number in range(1, rows + 1)]
            await connection.execute(text("INSERT INTO staff VALUES (:id, :login, :changed)"), values)
    await engine.dispose()


async def run_sql(url: str, statement: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


def sql(url: str, **changes: Any) -> dict[str, Any]:
    plain = url.replace("+asyncpg", "").replace("+aiomysql", "").replace("+aiosqlite", "").split("?")[0]
    return {
        "sql": {
            "url": Dsn(plain),
            "query": "SELECT id, login, changed FROM staff WHERE id > :after ORDER BY id LIMIT :limit",
            "key": "id",
            "page": 10,
            **changes,
        }
    }


async def test_a_database_is_read_page_by_page_and_then_only_what_changed(database_url: str, tmp_path: Path) -> None:
    await table(database_url, 30)
    changes = "SELECT id, login, changed FROM staff WHERE changed >= :since AND id > :after ORDER BY id LIMIT :limit"
    section = sql(database_url, count="SELECT COUNT(*) FROM staff", changes=changes, changed="changed")
    kind, rows, end = await read(section, tmp_path)
    assert (kind, [row["id"] for row in rows], end.is_complete) == ("full", list(range(1, 31)), True)
    await run_sql(database_url, "UPDATE staff SET login = 'new', changed = 31 WHERE id = 3")
    kind, rows, end = await read(section, tmp_path, end.cursor)
    assert (kind, [row["login"] for row in rows]) == ("changes", ["new", "p30"])
    assert json.loads(end.cursor) == 31


async def test_a_count_that_does_not_fit_is_not_complete(sqlite_url: str, tmp_path: Path) -> None:
    await table(sqlite_url, 15)
    query = "SELECT id FROM staff WHERE id > :after AND id <> 7 ORDER BY id LIMIT :limit"
    _, rows, end = await read(sql(sqlite_url, query=query, count="SELECT COUNT(*) FROM staff"), tmp_path)
    assert (len(rows), end.is_complete, end.why) == (14, False, "14 were read, and there are 15")


async def test_a_database_that_cannot_be_asked_is_down(sqlite_url: str, tmp_path: Path) -> None:
    await table(sqlite_url, 1)
    with pytest.raises(Unavailable) as fault:
        await read(sql(sqlite_url, query="SELECT nothing FROM nowhere WHERE 1 > :after LIMIT :limit"), tmp_path)
    assert fault.value.reason is Reason.SOURCE_DOWN


# Programs

PEOPLE = [{"id": number, "login": f"p{number}"} for number in range(25)]


@pytest.fixture
async def api() -> AsyncIterator[Callable[[Any], Any]]:
    runners = []

    async def start(handle: Any) -> str:
        app = web.Application()
        app.router.add_get("/{tail:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        return f"http://127.0.0.1:{runner.addresses[0][1]}/api"

    yield start
    for runner in runners:
        await runner.cleanup()


async def listing(request: web.Request) -> web.Response:
    """One page of ten, whichever way it is asked for."""
    query = request.query
    start = int(query.get("cursor") or query.get("offset") or int(query.get("page", 0)) * 10)
    more = start + 10 < len(PEOPLE)
    body: dict[str, Any] = {"people": PEOPLE[start : start + 10], "total": len(PEOPLE)}
    if more:
        body["next"] = str(start + 10)
    links = {"link": f'<{request.path}?offset={start + 10}>; rel="next", </x>; rel="last"'} if more else {}
    return web.json_response(body, headers=links)


WAYS: list[dict[str, Any]] = [
    {"by": "page", "parameter": "page", "first": 0},
    {"by": "offset", "parameter": "offset"},
    {"by": "cursor", "parameter": "cursor", "cursor": "{{ body.next }}"},
    {"by": "link"},
]


@pytest.mark.parametrize("paging", WAYS, ids=[way["by"] for way in WAYS])
async def test_an_api_is_read_page_by_page(api: Any, tmp_path: Path, paging: dict[str, Any]) -> None:
    rest = {
        "base_url": await api(listing),
        "path": "/people",
        "people": "{{ body.people }}",
        "total": "{{ body.total }}",
    }
    _, rows, end = await read({"rest": {**rest, "paging": paging}}, tmp_path)
    assert (rows, end.is_complete) == (PEOPLE, True)


async def test_an_api_that_gives_fewer_than_it_says_is_not_complete(api: Any, tmp_path: Path) -> None:
    async def short(_request: web.Request) -> web.Response:
        return web.json_response({"people": PEOPLE[:10], "total": 25})

    rest = {"base_url": await api(short), "path": "/people", "people": "{{ body.people }}", "total": "{{ body.total }}"}
    _, rows, end = await read({"rest": rest}, tmp_path)
    assert (len(rows), end.is_complete) == (10, False)


async def test_an_api_that_goes_round_in_circles_is_not_complete(api: Any, tmp_path: Path) -> None:
    async def circle(_request: web.Request) -> web.Response:
        return web.json_response({"people": PEOPLE[:1], "next": "a"})

    paging = {"by": "cursor", "parameter": "c", "cursor": "{{ body.next }}"}
    rest = {"base_url": await api(circle), "path": "/people", "people": "{{ body.people }}", "paging": paging}
    _, _, end = await read({"rest": rest}, tmp_path)
    assert "leads back" in end.why


@pytest.mark.parametrize("answer", ["elsewhere", "500", "page", "no list"])
async def test_an_api_that_answers_nonsense_is_down(api: Any, tmp_path: Path, answer: str) -> None:
    async def wrong(_request: web.Request) -> web.Response:
        if answer == "elsewhere":
            return web.json_response({"people": []}, headers={"link": '<http://evil.example/api/x>; rel="next"'})
        if answer == "page":
            return web.Response(text="<html>", content_type="text/html")
        return web.json_response({"people": {}}, status=500 if answer == "500" else 200)

    rest = {"base_url": await api(wrong), "path": "/people", "people": "{{ body.people }}"}
    with pytest.raises(Unavailable) as fault:
        await read({"rest": rest}, tmp_path)
    assert fault.value.reason is Reason.SOURCE_DOWN


@pytest.mark.parametrize("total", [3, 4])
async def test_a_scim_server_is_read_with_its_groups(api: Any, tmp_path: Path, total: int) -> None:
    users = [
        {
            "id": str(number),
            "userName": f"p{number}",
            "name": {"givenName": "P"},
            "emails": [{"value": f"p{number}@x.com"}],
        }
        for number in range(3)
    ]

    async def scim(request: web.Request) -> web.Response:
        if request.path.endswith("/Groups"):
            found = [{"displayName": "g", "members": [{"value": "1"}]}]
            return web.json_response({"totalResults": 1, "Resources": found})
        start = int(request.query["startIndex"]) - 1
        return web.json_response({"totalResults": total, "Resources": users[start : start + 2]})

    _, rows, end = await read({"scim": {"base_url": await api(scim), "page": 2}}, tmp_path)
    assert [(row["userName"], row["email"], row["groups"]) for row in rows] == [
        ("p0", "p0@x.com", []),
        ("p1", "p1@x.com", ["g"]),
        ("p2", "p2@x.com", []),
    ]
    assert end.is_complete is (total == 3)

"""Audit lines in the database: each once, found again, verifiable also when old ones are gone, in nobody's way."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from sidecar.cli import main
from sidecar.console.trail_database import look_back_in
from sidecar.core.audit import EVERY, Event
from sidecar.core.chain import Verifier
from sidecar.directory.audit import AuditBook, Wanted, entry_of
from sidecar.directory.audit_sink import DatabaseSink
from sidecar.directory.database import Database
from sidecar.directory.migrate import migrate
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.chaining import Anchoring, signer, verifier
from sidecar.telemetry.reading import Query
from tests.test_audit_chain import KEY, TAMPERING, Lines, Ticking, made

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sidecar.telemetry.reading import Line
    from tests.services.postgres import PostgresServer

START = Ticking().now


@pytest.fixture
async def book(database_url: str) -> AsyncIterator[AuditBook]:
    database = Database(database_url, 15)
    await migrate(database)
    yield AuditBook(database)
    await database.close()


def log_into(url: str, clock: Ticking, key: str | None = KEY, **how: float) -> AuditLog:
    return AuditLog([DatabaseSink(url, how.get("timeout", 15))], clock, Anchoring(60, signer(key) if key else None))


def write(url: str, clock: Ticking, count: int, *, ends: bool = True, **fields: object) -> None:
    """What one process writes: a line each ten seconds."""
    sink = DatabaseSink(url, 15)
    log = AuditLog([sink], clock, Anchoring(60, signer(KEY)))
    for number in range(count):
        log.record(Event.DECISION, {"path": f"/{number}", "person": "ada", **fields})
        log.flush()
        clock.now += 10
    if ends:
        log.close()
    else:
        sink.close()


async def problems(book: AuditBook, pruned_before: float | None = None) -> list[str]:
    check, found, after = Verifier(verifier(KEY), is_partial=False, pruned_before=pruned_before), [], 0
    while page := await book.forward(after):
        for entry in page:
            found += list(check.read(entry.where, entry.line.encode()))
            assert entry.is_true
        after = page[-1].id
    return [one.says for one in (*found, *check.finish()) if one.kind == "problem"]


async def paths(book: AuditBook) -> list[str]:
    page = await book.forward(0, Wanted(events=frozenset(["decision"])))
    return [json.loads(entry.line)["path"] for entry in page]


async def test_lines_are_written_in_order_and_verify(book: AuditBook, database_url: str) -> None:
    clock = Ticking()
    await asyncio.to_thread(write, database_url, clock, 20, reference="r1", username="Zoë 🦊")
    await asyncio.to_thread(write, database_url, clock, 3)
    assert await paths(book) == [f"/{n}" for n in (*range(20), *range(3))]
    assert await problems(book) == []
    newest = await book.backward(None, Wanted(reference="r1", needles=("ada",), until=START + 95), 3)
    assert [json.loads(one.line)["path"] for one in newest] == ["/9", "/8", "/7"]
    assert json.loads(newest[0].line)["username"] == "Zoë 🦊"
    assert await book.backward(None, Wanted(needles=("100%",))) == []


async def test_what_was_written_without_an_answer_is_not_written_twice(book: AuditBook) -> None:
    lines = [entry_of(line.rstrip(b"\n"), "-", 0) for line in made(KEY)[0].splitlines()]
    await book.add(lines[:5])
    await book.add(lines[:8])
    await book.add(lines)
    assert len(await book.forward(0)) == len(lines)
    assert await problems(book) == []


async def test_old_lines_go_and_what_is_left_verifies(book: AuditBook, database_url: str) -> None:
    clock = Ticking()
    for _ in range(3):
        await asyncio.to_thread(write, database_url, clock, 30)
        clock.now += 1000
    # Into the middle of the second process.
    cutoff = START + 1300 + 155
    before = await book.newest()
    gone = await book.prune(cutoff)
    left = await book.forward(0)
    assert gone == before - len(left) > 30
    assert left[0].kind == "middle"
    assert left[0].time <= cutoff < left[0].time + 70
    assert all(one.time > cutoff - 70 for one in left)
    assert await problems(book, cutoff + 3600) == []
    # Whoever may not delete anything yet may not have deleted this.
    assert await problems(book) != []
    assert await problems(book, cutoff - 120) != []
    assert await book.prune(cutoff) == 0
    # Everything is old by now: what is left is where the last chain ended.
    await book.prune(clock.now + 1)
    assert [one.kind for one in await book.forward(0)] == ["last"]


async def test_a_chain_that_was_killed_keeps_its_anchor_only(book: AuditBook, database_url: str) -> None:
    clock = Ticking()
    await asyncio.to_thread(write, database_url, clock, 20, ends=False)
    clock.now += 5000
    killed = (await book.forward(0))[0].chain
    await asyncio.to_thread(write, database_url, clock, 20)
    # The next one's first anchor names the last line of the killed one, as long as it counts.
    await book.prune(START + 4000)
    assert await problems(book, START + 4000) == []
    assert len([one for one in await book.forward(0) if one.chain == killed]) > 1
    clock.now += 5000
    await asyncio.to_thread(write, database_url, clock, 20)
    await book.prune(START + 5300)
    left = [one for one in await book.forward(0) if one.chain == killed]
    assert [one.kind for one in left] == ["middle"]
    assert await problems(book, START + 5300) == []
    await book.prune(START + 400 * 86400)
    assert killed not in {one.chain for one in await book.forward(0)}


async def test_bare_lines_go_by_their_age(book: AuditBook, database_url: str) -> None:
    clock = Ticking()
    log = AuditLog([DatabaseSink(database_url, 15)], clock)

    def work() -> None:
        for number in range(6):
            log.record(Event.DECISION, {"path": f"/{number}"})
            log.flush()
            clock.now += 10
        log.close()

    await asyncio.to_thread(work)
    assert await book.prune(START + 25) == 3
    assert await paths(book) == ["/3", "/4", "/5"]


async def test_a_reference_is_looked_up_and_what_is_around_it_sorted_out_there(
    book: AuditBook, database_url: str
) -> None:
    write(database_url, Ticking(), 3, reference="one", session="session-a")
    write(database_url, Ticking(), 3, reference="other", session="session-b")
    seen = []

    def is_seen(line: Line) -> bool:
        seen.append(line.get("reference"))
        return True

    looked = await look_back_in(book, is_seen, reference="one")
    assert [line["path"] for line in looked.lines] == ["/2", "/1", "/0"]
    assert set(seen) == {"one"}
    near = Query(any_of=frozenset([("session", "session-b"), ("client", "10.0.0.1")]))
    seen.clear()
    assert len((await look_back_in(book, lambda line: is_seen(line) and near.fits(line), some=near.some)).lines) == 3
    assert set(seen) == {"other"}


async def test_one_replica_has_the_turn(book: AuditBook, database_url: str) -> None:
    other = Database(database_url, 15)
    both = [book, AuditBook(other)]
    assert sum(await asyncio.gather(*(one.take_turn("audit-prune", 100, 60) for one in both * 4))) == 1
    assert not await both[1].take_turn("audit-prune", 159, 60)
    assert sum(await asyncio.gather(*(one.take_turn("audit-prune", 160, 60) for one in both * 4))) == 1
    await other.close()


async def test_a_database_that_comes_back_gets_everything(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.telemetry.outlet._RETRY_AFTER", 0.05)
    clock = Ticking()
    log = log_into(postgres_url, clock, timeout=2)
    log.record(Event.DECISION, {"path": "/0"})
    await asyncio.to_thread(log.flush)
    postgres_server.stop()
    try:
        began = time.perf_counter()
        for number in range(1, 3000):
            log.record(Event.DECISION, {"path": f"/{number}"})
        assert time.perf_counter() - began < 1
        clock.now += 61
        await asyncio.to_thread(log.flush)
        assert log.is_failing
    finally:
        postgres_server.start()
    for _ in range(100):
        await asyncio.sleep(0.1)
        if not log.is_failing:
            break
    await asyncio.to_thread(log.close)
    assert log.dropped == 0
    database = Database(postgres_url, 15)
    book = AuditBook(database)
    found = []
    after = 0
    while page := await book.forward(after):
        found += [json.loads(one.line)["path"] for one in page if one.event == "decision"]
        after = page[-1].id
    assert found == [f"/{number}" for number in range(3000)]
    assert await problems(book) == []
    await database.close()


# Commands, and whoever meddles with the table


CONFIG = """\
server: {listen: 127.0.0.1:0, public_url: http://127.0.0.1:8080}
app: {upstream: http://127.0.0.1:3000}
logins: {corp: {type: oidc, issuer: http://127.0.0.1:9, client_id: a, client_secret: {env: SECRET}}}
identity: {username: "{{ claims.sub }}"}
access: [{path: /**, allow: signed_in}]
directory: DIRECTORY
audit:
  database: {RETENTION}
  chain: {key: {file: audit.key}, anchors: anchors}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration and its directory, with the lines of two processes."""
    monkeypatch.setenv("SECRET", "s")
    (tmp_path / "audit.key").write_text(KEY)
    configure(tmp_path)
    return tmp_path


def configure(folder: Path, retention: str = "") -> None:
    text = CONFIG.replace("DIRECTORY", f"sqlite:///{folder}/directory.db").replace("RETENTION", retention)
    (folder / "config.yaml").write_text(text)


def fill(folder: Path, lines: Lines, copies: bytes) -> None:
    """Put *lines* into the table as somebody would who can write to the database: also its columns."""
    (folder / "anchors").write_bytes(copies)

    async def ready() -> None:
        database = Database(f"sqlite:///{folder}/directory.db", 15)
        await migrate(database)
        await database.close()

    asyncio.run(ready())
    with closing(sqlite3.connect(folder / "directory.db")) as connection, connection:
        taken = set()
        for number, line in enumerate(lines):
            entry = entry_of(line.rstrip(b"\n"), "-foreign", number)
            place = (entry.chain, entry.number)
            place = (entry.chain, 10_000 + number) if place in taken else place
            taken.add(place)
            values = (*place, entry.kind, entry.time, entry.event, entry.reference, entry.line)
            connection.execute(
                "INSERT INTO sidecar_audit (chain, number, kind, time, event, reference, line) VALUES (?,?,?,?,?,?,?)",
                values,
            )


def audit(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["audit", *arguments, str(folder / "config.yaml")])


def test_what_nobody_touched_is_whole(folder: Path) -> None:
    lines, copies = made(KEY)
    fill(folder, lines.splitlines(keepends=True), copies)
    result = audit(folder, "verify", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["findings"] == []


@pytest.mark.parametrize("retention", ["", "retention: 30d"])
@pytest.mark.parametrize("how", TAMPERING)
def test_tampering_is_found(how: str, retention: str, folder: Path) -> None:
    configure(folder, retention)
    lines, copies = made(KEY)
    fill(folder, TAMPERING[how](lines.splitlines(keepends=True)), copies)
    result = audit(folder, "verify")
    assert result.exit_code == 1, how
    assert "problem" in result.output


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE sidecar_audit SET time = 0 WHERE id = 5",
        "UPDATE sidecar_audit SET event = 'login-failed' WHERE id = 5",
        "UPDATE sidecar_audit SET reference = 'x' WHERE id = 5",
        "UPDATE sidecar_audit SET kind = 'last' WHERE id = 5",
        "UPDATE sidecar_audit SET number = 999 WHERE id = 5",
        "UPDATE sidecar_audit SET chain = '-x' WHERE id = 5",
        "UPDATE sidecar_audit SET id = 999 WHERE id = 5",
        "UPDATE sidecar_audit SET line = replace(line, 'ada', 'eve') WHERE id = 5",
        "DELETE FROM sidecar_audit WHERE id = 5",
        "DELETE FROM sidecar_audit WHERE id < 8",
        "DELETE FROM sidecar_audit",
    ],
)
def test_what_hides_a_line_from_a_search_is_found(statement: str, folder: Path) -> None:
    lines, copies = made(KEY)
    fill(folder, lines.splitlines(keepends=True), copies)
    with closing(sqlite3.connect(folder / "directory.db")) as connection, connection:
        assert connection.execute(statement).rowcount > 0
    assert audit(folder, "verify").exit_code == 1


def test_commands_read_in_the_database(folder: Path) -> None:
    lines, copies = made(KEY)
    fill(folder, lines.splitlines(keepends=True), copies)
    found = audit(folder, "search", "--path", "/1/", "--limit", "3", "--json").output.splitlines()
    assert [json.loads(line)["path"] for line in found] == ["/1/9", "/1/10", "/1/11"]
    assert audit(folder, "search", "--person", "eve").exit_code == 1
    exported = audit(folder, "export", "--format", "csv", "--event", "decision").output.splitlines()
    assert len(exported) == 1 + 24
    assert audit(folder, "search", "--file", str(folder / "none")).exit_code == 3
    (folder / "config.yaml").write_text(
        re.sub(r"(?m)^  database: .*$", "  stdout: true", (folder / "config.yaml").read_text())
    )
    assert audit(folder, "search", "--database").exit_code == 2
    assert CliRunner().invoke(main, ["why", "ref", str(folder / "config.yaml"), "--database"]).exit_code == 2


def test_a_sink_gets_the_events_that_it_is_for() -> None:
    class Kept:
        def __init__(self) -> None:
            self.lines: list[bytes] = []

        def write(self, lines: bytes) -> int:
            self.lines += lines.splitlines()
            return len(lines)

        def place(self) -> str:
            return ""

        def close(self) -> None:
            pass

    few, rest = Kept(), Kept()
    log = AuditLog([few, rest], Ticking(), None, None, [frozenset([Event.LOGIN_FAILED]), EVERY - {Event.LOGIN_FAILED}])
    form = log.form(Event.DECISION, {"effect": "allow"}, "path")
    assert form is not None
    log.fill(form, 1.5, "/a")
    log.record(Event.LOGIN_FAILED, {"reason": "x"})
    log.record(Event.TOKEN_REFUSED, {"reason": "y"})
    log.close()
    assert [json.loads(line)["event"] for line in few.lines] == ["login-failed"]
    assert [json.loads(line)["event"] for line in rest.lines] == ["decision", "token-refused"]

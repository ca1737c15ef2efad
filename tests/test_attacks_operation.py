"""What somebody could do to the ways in which the sidecar is operated: reload, commands, files, reports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import socket
import threading
import time
import unicodedata
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pytest
import structlog
import yarl
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.cli.audit import told
from sidecar.cli.control import control
from sidecar.cli.levels import asked_of
from sidecar.cli.saying import complain, say, say_json
from sidecar.config import bounded
from sidecar.config.redaction import redacted
from sidecar.core.audit import Event
from sidecar.core.audit_export import COLUMNS, cef, csv_row
from sidecar.telemetry import outlet
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.chaining import Anchoring
from sidecar.telemetry.log import set_up
from sidecar.telemetry.personal import Policy
from sidecar.telemetry.sinks import FileSink
from tests.configurations import loaded, text_of
from tests.console_world import a_console, act
from tests.scim_world import TOKEN, ScimClient
from tests.test_reloading import Reloadable, reloadable
from tests.world import SECRET, World, until


async def test_t59_the_change_that_silences_the_audit_is_itself_in_the_audit_that_it_silences(world: World) -> None:
    one = await reloadable(world)
    outcome = await one.change({"audit": {"events": {"file": ["decision"]}}})
    assert outcome.is_loaded
    await until(lambda: _told(one))
    (line,) = one.events("configuration-loaded")
    assert any("audit.events" in change for change in line["changes"])


async def test_t59_audit_lines_that_move_away_say_where_they_went(world: World, tmp_path: Path) -> None:
    one = await reloadable(world)
    other = tmp_path / "other.jsonl"
    assert (await one.change({"audit": {"file": str(other)}})).is_loaded
    await until(lambda: _told(one))
    assert one.events("configuration-loaded")
    one.reloading.sidecar.audit.flush()
    assert any(json.loads(line)["event"] == "configuration-loaded" for line in other.read_text().splitlines())


async def _told(one: Reloadable) -> bool:
    return bool(one.events("configuration-loaded"))


# What a path may hold: the first is the beginning of a command for a terminal, the second turns text around.
ESCAPES = "\x9b2Jowned\u202e"


def is_harmless(text: str) -> bool:
    """Whether a terminal only shows *text*: no controls but line ends and tabs, none of those that turn text around."""
    return not any(
        unicodedata.category(sign) in {"Cc", "Cf"} and sign not in "\n\t" and sign not in "\u00ad\u200d"
        for sign in text
    )


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_t59_what_a_stranger_asks_for_does_nothing_to_an_operators_terminal(
    world: World, options: tuple[str, ...]
) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.http.get(yarl.URL(f"{running.url}/x{quote(ESCAPES)}/y", encoded=True))
    lines = [line for line in running.audit() if line["event"] == "decision"]
    reference = next(line["reference"] for line in lines if "owned" in line["path"])
    for words in (["why", reference], ["audit", "search"]):
        told = CliRunner().invoke(main, [*words, "--file", str(running.audit_file), *options])
        assert told.exit_code == 0, told.output
        assert "owned" in told.output
        assert is_harmless(told.output), repr(told.output)


def test_what_is_said_on_a_terminal_obeys_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b]52;c;cm0=\x07b\rc\x9b2J\u202ed\x00\n\te")
    assert capsys.readouterr().out == "a\\x1b]52;c;cm0=\\x07b\\x0dc\\u009b2J\\u202ed\\x00\\x0a        e\n"
    complain("\x1b[2J\nall is well")
    assert capsys.readouterr().err == "\\x1b[2J\\x0aall is well\n"
    say_json({"\x1b": "\x9b\u2066\x7f"})
    assert capsys.readouterr().out == '{\n  "\\u001b": "\\u009b\\u2066\\u007f"\n}\n'


async def test_a_name_says_nothing_in_a_line_of_its_own(scim: ScimClient) -> None:
    ada = await scim.make("ada")
    await scim.group("team\n  roles admin\x1b[8m\n  sessions 0", ada["id"])
    running = scim.running
    environment = {"ISSUER": running.provider.issuer, "OIDC_SECRET": "x", "SESSION_SECRET": SECRET, "SCIM_TOKEN": TOKEN}
    environment["USERS_DB"] = f"sqlite:///{running.folder.parent}/users.db"
    command = ["users", "show", "ada", str(running.folder / "config.yaml")]
    # In a thread: the command has an event loop of its own.
    told = await asyncio.to_thread(CliRunner().invoke, main, command, env=environment)
    structlog.reset_defaults()
    assert told.exit_code == 0, told.output
    assert [line for line in told.output.splitlines() if line.startswith("  roles")] == ["  roles -"]
    assert is_harmless(told.output)


def test_no_field_begins_a_line_of_its_own_or_a_formula() -> None:
    line = {"event": "decision", "path": "/\x85CEF:0|x|\u2028", "username": "\n=1+1", "person": "＝1+1"}
    assert len(cef(line, "1").splitlines()) == 1
    assert len(told(line | {"detail": "a\n2026-01-01 forged"}).splitlines()) == 1
    cells = dict(zip(COLUMNS, csv_row(line), strict=True))
    assert (cells["username"], cells["person"]) == ("'\n'=1+1", "'＝1+1")
    assert cells["path"] == "/\\u0085CEF:0|x|\\u2028"


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Path]:
    """A control socket that gives back what it is asked."""

    async def serve(message: Mapping[str, Any]) -> Mapping[str, Any]:
        if "seconds" in message:
            asked_of(message)
        return {"do": message.get("do")}

    async with control(tmp_path / "control", serve):
        yield tmp_path / "control"


async def said(door: Path, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(door)
    writer.write(data)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 60_000 + b"\n",
        b'{"do": "log-level", "seconds": 1' + b"0" * 400 + b"}\n",
        b'{"do": "log-level", "seconds": {}}\n',
        b"[]\n",
        b"null\n",
        b"\xff\n",
        b"x" * 200_000,
    ],
)
async def test_t58_no_command_ends_the_control_socket(door: Path, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        assert await said(door, data) == b""
    assert await said(door, b'{"do": "x"}\n') == b'{"do": "x"}\n'


async def test_t58_a_moment_without_descriptors_does_not_end_the_control_socket(door: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    with socket.socket(socket.AF_UNIX) as one:
        one.setblocking(False)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (one.fileno() + 20, before[1]))
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.dup(0))
            # The kernel connects it; nobody can accept it.
            one.connect(str(door))
            await asyncio.sleep(0.3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for number in held:
                os.close(number)
    await until(lambda: _answers(door))


async def _answers(door: Path) -> bool:
    return await said(door, b'{"do": "x"}\n') == b'{"do": "x"}\n'


async def test_t63_a_named_pipe_among_the_files_keeps_nobody_waiting(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "_PATIENCE", 100)
    secret = tmp_path / "secret"
    secret.write_text("a client secret")
    one = await reloadable(world, {"logins": {"corp": {"client_secret": {"file": str(secret)}}}})
    secret.unlink()
    os.mkfifo(secret)
    async with asyncio.timeout(5):
        outcome = await one.reloading.reload("signal")
    assert not outcome.is_loaded
    assert "it is no file" in str(outcome.problems)
    one.file.unlink()
    os.mkfifo(one.file)
    async with asyncio.timeout(5):
        assert not (await one.reloading.reload("signal")).is_loaded


@pytest.mark.parametrize("style", ["text", "json"])
def test_t59_the_log_obeys_nobody_either(capsys: pytest.CaptureFixture[str], style: Literal["text", "json"]) -> None:
    try:
        set_up("info", style)
        structlog.get_logger("front").warning("odd", path="/\x9b2J\x1b[2J", host="a\n2026-01-01 [info] forged")
        logging.getLogger("asyncio").warning("odd %s", "\x9b2J\nforged")
        written = capsys.readouterr().err
    finally:
        set_up("info", "auto")
    assert len(written.splitlines()) == 2
    assert is_harmless(written)


@pytest.mark.parametrize("parameter", ["token", "api_key", "access-key", "sig"])
def test_t59_what_a_receivers_address_carries_is_shown_nowhere(tmp_path: Path, parameter: str) -> None:
    url = f"https://siem.example.com/hook?{parameter}=hunter2&source=wiki"
    webhook = f"{{url: '{url}', secret: {{env: SESSION_SECRET}}, spool: spool}}"
    text = text_of(audit=f"audit: {{webhook: {webhook}}}", insights=f"insights: {{webhook: {webhook}}}")
    config = loaded(tmp_path, text).config
    assert config.audit.webhook is not None
    assert config.audit.webhook.url.reveal() == url
    shown = json.dumps(redacted(config)) + repr(config)
    assert "hunter2" not in shown
    assert f"siem.example.com/hook?{parameter}=***&source=wiki" in shown


def test_a_pipe_that_somebody_writes_to_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"x" * 200_000))
    writer.start()
    assert bounded.read_at_most(pipe, 300_000) == b"x" * 200_000
    writer.join()
    assert bounded.read_at_most(Path("/dev/zero"), 100_000) == bytes(100_000)
    with pytest.raises(IsADirectoryError):
        bounded.read_at_most(tmp_path, 10)


def test_what_is_said_of_people_is_treated_under_every_name_that_it_has() -> None:
    policy = Policy({"person": "pseudonym", "client": "drop"}, b"key")
    said = {"asked_person": "ada", "person": "ada", "address": "192.0.2.1", "asked_client": "192.0.2.1", "event": "x"}
    treated = policy.applied(said)
    assert treated["asked_person"] == treated["person"] != "ada"
    assert (treated["address"], treated["asked_client"], treated["event"]) == ("", "", "x")


async def test_t58_a_sink_that_hangs_is_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "_HANGS_AFTER", 0.3)
    pipe = tmp_path / "audit"
    os.mkfifo(pipe)
    log = AuditLog([FileSink(pipe)], time.time)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for number in range(40):
        log.record(Event.DECISION, {"path": f"/{number}/{'x' * 4000}"})
    # The pipe is full, nobody reads: somebody who may only be served while it is written must hear of that.
    await until(lambda: _claims(log.is_failing))
    assert await asyncio.to_thread(_drained, reader, 40) == 40
    await until(lambda: _claims(not log.is_failing))
    log.close()
    os.close(reader)


async def _claims(claim: bool) -> bool:
    return claim


def _drained(reader: int, number: int) -> int:
    read = 0
    end = time.monotonic() + 5
    while read < number and time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            read += os.read(reader, 1 << 20).count(b"\n")
    return read


def test_t58_copies_of_anchors_hold_up_nobody(tmp_path: Path) -> None:
    copies = tmp_path / "anchors"
    os.mkfifo(copies)
    log = AuditLog([FileSink(tmp_path / "audit")], time.time, Anchoring(60, copies=copies))
    log.record(Event.DECISION, {"path": "/x"})
    log.flush()
    assert '"path":"/x"' in (tmp_path / "audit").read_text()
    log.close()


async def test_t58_no_address_makes_the_console_say_that_the_directory_is_down(
    world: World, tmp_path: Path, database_url: str
) -> None:
    console = await a_console(world, tmp_path, {"directory": {"url": database_url}, "tokens": {}})
    async with await console.operator("ada") as browser:
        asked = [
            "/people?q=%00",
            "/people?after=a%00",
            "/people/%00",
            "/owed?after=nan",
            "/tokens?after=1e400",
            "/tokens?q=%00",
        ]
        answers = [(await browser.page(path)).status for path in asked]
        assert answers == [400, 400, 400, 404, 404, 400]
        assert (await act(browser, "disable", "a\x00b")).status == 400

"""``sidecar audit search|tail|export`` and ``sidecar why`` on the lines of a sidecar that ran."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sidecar.cli import main
from sidecar.core.audit import Event
from sidecar.core.audit_export import COLUMNS, cef, csv_row, ocsf
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.chaining import Anchoring
from sidecar.telemetry.sinks import FileSink
from tests.world import World

# What each class of OCSF 1.3 must have.
ALWAYS = {"time", "category_uid", "class_uid", "activity_id", "type_uid", "severity_id", "metadata"}
REQUIRED = {
    0: ALWAYS,
    3001: ALWAYS | {"user"},
    3002: ALWAYS | {"user", "service"},
    4002: ALWAYS | {"http_request"},
    6002: ALWAYS | {"app"},
}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def found(*arguments: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("audit", "search", "--json", *arguments).output.splitlines()]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit file of three days, one day an hour apart from the next line."""
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    now = [1_800_000_000.0]
    log = AuditLog([FileSink(path)], lambda: now[0], Anchoring(60))
    for number in range(6):
        now[0] += 12 * 3600
        person = "ada" if number % 2 else "grace"
        log.record(Event.LOGIN_SUCCEEDED, {"person": person, "subject": f"s-{person}", "client": f"10.0.0.{number}"})
        fields = {"effect": "deny", "reason": "no-rule", "method": "GET", "path": f"/admin/{number}"}
        log.record(Event.DECISION, {**fields, "person": person, "reference": f"ref{number}", "session": "abc"})
    log.record(Event.PROVISIONING_FAILED, {"username": "=cmd|'/C calc'!A0", "detail": "a=b|c\\d\ne"})
    log.close()
    return path


def test_search_finds_what_fits_all_that_is_asked(file: Path) -> None:
    at = ("--file", file)
    assert len(found(*at)) == 13
    assert {line["person"] for line in found(*at, "--person", "ada")} == {"ada"}
    assert len(found(*at, "--person", "s-ada")) == 3
    assert len(found(*at, "--event", "decision", "--event", "login-succeeded")) == 12
    assert [line["path"] for line in found(*at, "--path", "/admin/3")] == ["/admin/3"]
    assert [line["client"] for line in found(*at, "--client", "10.0.0.4")] == ["10.0.0.4"]
    assert [line["reference"] for line in found(*at, "--reference", "ref2")] == ["ref2"]
    assert len(found(*at, "--reason", "no-rule", "--session", "abc", "--person", "ada")) == 3
    assert len(found(*at, "--text", "calc")) == 1
    assert len(found(*at, "--since", "2027-01-17T00:00")) == 7
    assert len(found(*at, "--until", "2027-01-17T00:00+00:00")) == 6
    assert len(found(*at, "--limit", "2")) == 2
    assert run("audit", "search", *at, "--person", "nobody").exit_code == 1
    assert run("audit", "search", *at, "--since", "yesterday").exit_code == 2
    assert run("audit", "search", "--file", file.with_name("other")).exit_code == 3
    # Anchors are not in the way of those who search, and there for those who ask.
    assert len(found(*at, "--event", "audit-anchor")) >= 2


def test_who_looks_for_a_line_needs_neither_secrets_nor_a_configuration_without_mistakes(
    file: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    logins = "logins: {corp: {client_secret: {env: NOT_SET_HERE}}}"
    config.write_text(f"audit: {{file: '{file}'}}\n{logins}\nacces: []\n")
    assert len(found(config)) == 13
    assert run("audit", "export", config).exit_code == run("why", "ref1", config).exit_code == 0
    # What proves something wants to know by which key.
    assert run("audit", "verify", config).exit_code == 1
    config.write_text("audit: [\n")
    assert "config.yaml:" in run("audit", "search", config).output


def test_why_explains_what_the_person_was_shown_and_not_that_they_were_let_in_before(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    story = [("allow", "public"), ("unavailable", "application-unavailable")]
    lines = [{"event": "decision", "effect": effect, "reason": reason, "reference": "r1"} for effect, reason in story]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    output = run("why", "r1", "--file", file).output
    assert "The application does not answer right now." in output
    assert "There is nothing to do" not in output


def test_the_help_fits_a_screen() -> None:
    for command in (("audit", "search"), ("audit", "tail"), ("audit", "export"), ("why",)):
        assert all(len(line) <= 100 for line in run(*command, "--help").output.splitlines()), command


def test_search_reads_well(file: Path) -> None:
    output = run("audit", "search", "--file", file, "--reference", "ref1").output
    assert (
        output
        == "2027-01-16 08:00:00.000  decision  deny  no-rule  GET  /admin/1  person=ada  reference=ref1  session=abc\n"
    )


def test_export_speaks_the_dialects_of_others(file: Path, tmp_path: Path) -> None:
    def exported(style: str) -> str:
        target = tmp_path / style
        result = run("audit", "export", "--file", file, "--format", style, "--output", target)
        assert result.exit_code == 0, result.output
        return target.read_text()

    assert len(exported("jsonl").splitlines()) == 13
    rows = list(csv.DictReader(io.StringIO(exported("csv"))))
    assert rows[1]["path"] == "/admin/0"
    # No cell is a formula when a spreadsheet opens it.
    assert rows[-1]["username"] == "'=cmd|'/C calc'!A0"
    lines = exported("cef").splitlines()
    assert re.fullmatch(
        r"CEF:0\|sidecar\|sidecar\|[^|]+\|decision\|decision\|5\|rt=1800043200000 outcome=deny request=/admin/0 "
        r"requestMethod=GET suser=grace cs1=abc cs1Label=session externalId=ref0 reason=no-rule",
        lines[1],
    )
    assert r"msg=a\=b|c\\d\ne" in lines[-1]
    events = [json.loads(line) for line in exported("ocsf").splitlines()]
    assert {event["class_uid"] for event in events} == {3001, 3002, 4002}
    assert all(event["service"] and event["user"] for event in events if event["class_uid"] == 3002)
    assert all(event["type_uid"] == event["class_uid"] * 100 + event["activity_id"] for event in events)
    assert events[1]["status_id"] == 2
    assert events[1]["metadata"]["correlation_uid"] == "ref0"


@pytest.mark.parametrize("style", ["jsonl", "csv", "cef", "ocsf"])
async def test_what_a_stranger_sends_neither_ends_an_export_nor_speaks_to_a_terminal(
    world: World, tmp_path: Path, style: str
) -> None:
    running = await world()
    await running.raw(b"GET / HTTP/1.1\r\nHost: half\xff\r\nConnection: close\r\n\r\n")
    await running.raw(b"GET /after HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nConnection: close\r\n\r\n")
    running.audit()
    with running.audit_file.open("a") as stream:
        stream.write('{"event":"login-failed","detail":"\\u001b[2J\\u009b"}\n')
    at = ("--file", running.audit_file)
    target = tmp_path / style
    result = run("audit", "export", *at, "--format", style, "--output", target)
    assert result.exit_code == 0, result.exception
    text = target.read_text()
    assert r"half\udcff" in text.replace(r"\\", "\\")
    assert "/after" in text
    assert not set(text) & {"\x1b", "\x9b"}
    # In a process of its own: a terminal is stricter than the runner of tests.
    for more in ((), ("--json",)):
        command = [sys.executable, "-m", "sidecar", "audit", "search", *map(str, at), *more]
        surroundings = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        shown = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False, env=surroundings)
        assert shown.returncode == 0, shown.stderr
        assert b"/after" in shown.stdout


FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"


@pytest.mark.parametrize("delimiter", list(",;\t|"))
@pytest.mark.parametrize(
    "text",
    [
        "=1",
        "\t=1",
        "a;=1;b",
        "a\t=1\tb",
        "a|=1|b",
        "a\n=1",
        "a\r\n@x",
        'a;"=1"',
        "a; \uff1d1",
        ";;-1",
        'a"\n";+1',
        "a\n\n=1",
    ],
)
def test_no_cell_is_a_formula_whatever_a_spreadsheet_takes_for_its_end(text: str, delimiter: str) -> None:
    table = io.StringIO()
    csv.writer(table).writerows([COLUMNS, csv_row({"event": "login-failed", "username": text, "detail": text})])
    # Where lists are separated by semicolons, as in half of Europe, quotation marks in the middle mean nothing.
    for row in csv.reader(io.StringIO(table.getvalue(), newline=""), delimiter=delimiter):
        for cell in row:
            assert not cell.lstrip(' "').startswith(tuple(FORMULA)), (cell, row)


def test_every_event_has_a_line_in_every_dialect() -> None:
    for event in Event:
        line = {"time": "2027-01-15T08:00:00.250+00:00", "event": event.value, "person": "ada"}
        assert cef(line, "1").count("|") == 7
        assert ocsf(line, "1")["time"] == 1_800_000_000_250
        assert "ada" in csv_row(line)
        assert ocsf(line, "1").keys() >= REQUIRED[ocsf(line, "1")["class_uid"]]


def test_no_dialect_loses_what_a_line_says() -> None:
    line = {
        "time": "2027-01-15T08:00:00.250+00:00", "event": "console-act", "person": "ada", "client": "2001:db8::1",
        "act": "end-sessions", "target": "grace", "changes": [{"before": "a=b|c", "after": 1}], "hash": "0" * 64,
    }  # fmt: skip
    more = {"act": "end-sessions", "target": "grace", "changes": [{"before": "a=b|c", "after": 1}]}
    row = dict(zip(COLUMNS, csv_row(line), strict=True))
    assert json.loads(row["more"]) == more
    fields = dict(re.findall(r"(\w+)=((?:\\.|[^=\\])*?)(?= \w+=|$)", cef(line, "1").split("|", 7)[7]))
    assert json.loads(re.sub(r"\\(.)", r"\1", fields["cs4"])) == more
    # What stands in src is an IPv4 address.
    assert (fields["c6a2"], fields["c6a2Label"]) == ("2001:db8::1", "Source IPv6 Address")
    assert ocsf(line, "1")["unmapped"] == line


def test_an_address_that_was_made_a_network_or_a_pseudonym_is_no_address() -> None:
    line = {"event": "decision", "method": "GET", "host": "wiki.example.com:8443", "client": "192.0.2.0/24"}
    assert ocsf(line, "1")["src_endpoint"] == {"name": "192.0.2.0/24"}
    assert ocsf(line | {"client": "192.0.2.7"}, "1")["src_endpoint"] == {"ip": "192.0.2.7"}
    assert "src=" not in cef(line, "1")
    assert "src=192.0.2.7" in cef(line | {"client": "192.0.2.7"}, "1")
    assert ocsf(line, "1")["http_request"]["url"] == {"hostname": "wiki.example.com", "port": 8443}


def test_the_use_of_an_emergency_account_is_grave() -> None:
    line = {"event": "break-glass-used", "person": "ops"}
    assert cef(line, "1").split("|")[6] == "8"
    assert ocsf(line, "1")["severity_id"] == 4


def test_events_have_the_class_that_they_are_about() -> None:
    classes = {event.value: ocsf({"event": event.value}, "1")["class_uid"] for event in Event}
    assert classes["account-linked"] == classes["roles-changed"] == classes["token-created"] == 3001
    assert classes["session-refreshed"] == classes["sessions-ended"] == classes["token-refused"] == 3002
    assert classes["configuration-refused"] == classes["log-level-changed"] == 6002
    # An account did not change because a provider is away.
    assert classes["provider-outage-began"] == classes["audit-anchor"] == classes["drift-found"] == 0


def test_tail_follows_through_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"time":"2026-01-01T00:00:00","event":"decision","path":"/old"}\n')
    command = [sys.executable, "-m", "sidecar", "audit", "tail", "--file", str(path), "--json", "--event", "decision"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        sink = FileSink(path, rotate_at=200, keep=500)
        try:
            number, seen = 0, list[str]()
            # Written until the first comes out: then it follows.
            done = threading.Event()

            def write() -> None:
                nonlocal number
                while not done.wait(0.05):
                    sink.write(b'{"event":"decision","path":"/%d"}\n{"event":"signed-out"}\n' % number)
                    number += 1

            writer = threading.Thread(target=write)
            writer.start()
            try:
                for line in tail.stdout:
                    seen.append(json.loads(line)["path"])
                    if len(seen) == 20:
                        break
            finally:
                done.set()
                writer.join()
        finally:
            sink.close()
            tail.kill()
    first = int(seen[0][1:])
    assert seen == [f"/{first + step}" for step in range(20)]
    assert path.with_name("audit.jsonl.1").exists()


async def test_why_tells_the_story_of_a_reference(world: World) -> None:
    running = await world(
        {"access": [{"path": "/admin/**", "allow": {"role": "admin"}}, {"path": "/**", "allow": "signed_in"}]}
    )
    async with running.browser() as alan:
        await alan.sign_in("alan")
        page = await alan.page("/admin/users")
        assert page.status == 403
    (line,) = [line for line in running.audit() if line.get("effect") == "deny"]
    result = run("why", line["reference"], "--file", running.audit_file)
    assert result.exit_code == 0, result.output
    assert "decision  deny" in result.output
    assert line["reason"] in result.output
    assert "You do not have access" in result.output
    assert "login-succeeded" in result.output
    told = json.loads(run("why", line["reference"], "--file", running.audit_file, "--json").output)
    assert told["reason"] == line["reason"]
    assert [one["path"] for one in told["lines"]] == ["/admin/users"]
    assert "login-succeeded" in {one["event"] for one in told["around"]}
    assert run("why", "nothing", "--file", running.audit_file).exit_code == 1


def test_the_story_of_somebody_who_is_known_is_not_that_of_all_who_share_the_address(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog([FileSink(path)], lambda: 1_800_000_000.0)
    for person, reference in (("ada", "aaa"), ("grace", "bbb"), ("ada", "ccc"), ("", "ddd")):
        said = {"effect": "deny", "reason": "no-rule", "client": "192.0.2.1", "person": person}
        log.record(Event.DECISION, said | {"reference": reference})
    log.close()

    def around(reference: str) -> list[str]:
        told = json.loads(run("why", reference, "--file", path, "--json").output)
        return [line["reference"] for line in told["around"]]

    assert around("aaa") == ["ccc"]
    assert around("ddd") == ["aaa", "bbb", "ccc"]


def _speaking(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "sidecar", "audit", *map(str, words)]


@pytest.mark.parametrize("words", [("export",), ("export", "--format", "csv"), ("search", "--limit", "99999")])
def test_a_reader_who_has_seen_enough_ends_the_command_without_a_word(tmp_path: Path, words: tuple[str, ...]) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text("".join(f'{{"event":"decision","path":"/{number}"}}\n' for number in range(20_000)))
    command = _speaking(*words, "--file", file)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asked:
        assert asked.stdout is not None
        assert asked.stderr is not None
        assert asked.stdout.readline()
        asked.stdout.close()
        assert asked.stderr.read() == ""
        # As `cat` and `grep` end; 1 would say that no line fits.
        assert asked.wait(30) == -signal.SIGPIPE


@pytest.mark.parametrize("words", [("export",), ("search",)])
def test_a_full_disk_is_said_in_one_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text('{"event":"decision","path":"/"}\n')
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            _speaking(*words, "--file", file), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "cannot write: No space left on device\n")

"""Whoever changes the audit file is found out: twenty ways to tamper with it, and what each looks like afterwards."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.cli import main
from sidecar.core.audit import Event
from sidecar.core.chain import Verifier, beginning, linked
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.chaining import Anchoring, signer, verifier
from sidecar.telemetry.sinks import FileSink

CHAIN_FIELDS = re.compile(rb',"chain":"([0-9a-f]{16})","n":([0-9]+)')
Lines = list[bytes]


def pem() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


KEY, OTHER_KEY = pem(), pem()


class Ticking:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def written(folder: Path, *, key: str | None = KEY, copies: Path | None = None) -> Path:
    """An audit file of two processes, one after another, with an anchor in the middle of each."""
    path = folder / "audit.jsonl"
    lines, anchors = made(key)
    path.write_bytes(lines)
    if copies is not None:
        copies.write_bytes(anchors)
    return path


@cache
def made(key: str | None) -> tuple[bytes, bytes]:
    """Such a file, and the copies of its anchors."""
    with tempfile.TemporaryDirectory() as folder:
        path, copies = Path(folder, "audit.jsonl"), Path(folder, "anchors")
        _write(path, key, copies)
        return path.read_bytes(), copies.read_bytes()


def _write(path: Path, key: str | None, copies: Path) -> None:
    clock = Ticking()
    for process in range(2):
        sign = None if key is None else signer(key)
        log = AuditLog([FileSink(path)], clock, Anchoring(60, sign, copies))
        for number in range(12):
            log.record(Event.DECISION, {"effect": "allow", "path": f"/{process}/{number}", "person": "ada"})
            log.flush()
            clock.now += 10
        log.close()


def lines_of(path: Path) -> Lines:
    return path.read_bytes().splitlines(keepends=True)


def audit(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["audit", *map(str, arguments)])


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "audit.key"
    path.write_text(KEY)
    return path


def _old(signature: bytes, _message: bytes) -> bytes:
    return base64.b64decode(signature)


def rechained(lines: Sequence[bytes], chain: str, begin: int = 1, last: bytes | None = None) -> Lines:
    """What somebody without the key can make: hashes that are right again from line *begin* on."""
    made: Lines = []
    last = beginning(chain) if last is None else last
    for number, line in enumerate(lines, begin):
        bare = CHAIN_FIELDS.split(line)[0] + b"}\n"
        signature = re.search(rb'"signature":"([^"]+)"', line)
        sign = None if signature is None else partial(_old, signature[1])
        text, last = linked(bare, chain, number, last, sign)
        made.append(text)
    return made


def changed(line: bytes) -> bytes:
    return line.replace(b'"person":"ada"', b'"person":"eve"')


def _parts(lines: Lines) -> tuple[Lines, Lines]:
    """Lines of the first and of the second process."""
    first = CHAIN_FIELDS.search(lines[0])
    assert first is not None
    one = [line for line in lines if b'"chain":"' + first[1] + b'"' in line]
    return one, lines[len(one) :]


def _name(lines: Lines) -> str:
    found = CHAIN_FIELDS.search(lines[0])
    assert found is not None
    return found[1].decode()


def _rewritten_to_the_end(lines: Lines) -> Lines:
    one, two = _parts(lines)
    return [*rechained([changed(line) for line in one], _name(one)), *two]


def _rewritten_after_the_last_anchor(lines: Lines) -> Lines:
    """The lines behind the last anchor but one, chained anew, and the last anchor taken away."""
    one, two = _parts(lines)
    at = max(number for number, line in enumerate(one[:-1]) if b"audit-anchor" in line)
    before = bytes.fromhex(re.findall(rb'"hash":"([0-9a-f]{64})"', one[at])[0].decode())
    rest = rechained([changed(line) for line in one[at + 1 : -1]], _name(one), at + 2, before)
    return [*one[: at + 1], *rest, *two]


def _signed_by_another(lines: Lines) -> Lines:
    sign = signer(OTHER_KEY)
    one, two = _parts(lines)
    last, made = beginning(_name(one)), Lines()
    for number, line in enumerate(one, 1):
        bare = changed(CHAIN_FIELDS.split(line)[0] + b"}\n")
        text, last = linked(bare, _name(one), number, last, sign if b"audit-anchor" in line else None)
        made.append(text)
    return [*made, *two]


def _unsigned(lines: Lines) -> Lines:
    bare = [re.sub(rb',"signature":"[^"]+"', b"", line) for line in lines]
    one, two = _parts(bare)
    return [*rechained(one, _name(one)), *rechained(two, _name(two))]


TAMPERING: dict[str, Callable[[Lines], Lines]] = {
    "a value changed": lambda lines: [*lines[:5], changed(lines[5]), *lines[6:]],
    "one letter of the time": lambda lines: [*lines[:5], lines[5].replace(b"2027", b"2026", 1), *lines[6:]],
    "a field added": lambda lines: [*lines[:5], b'{"extra":1,' + lines[5][1:], *lines[6:]],
    "a field taken out": lambda lines: [*lines[:5], lines[5].replace(b'"effect":"allow",', b""), *lines[6:]],
    "white space put in": lambda lines: [*lines[:5], lines[5].replace(b":", b": ", 1), *lines[6:]],
    "a line taken out": lambda lines: [*lines[:5], *lines[6:]],
    "the first line taken out": lambda lines: lines[1:],
    "the first five taken out": lambda lines: lines[5:],
    "the last line taken out": lambda lines: lines[:-1],
    "the end cut off": lambda lines: lines[:-5],
    "a line cut short": lambda lines: [*lines[:5], lines[5][:40] + b"\n", *lines[6:]],
    "a line twice": lambda lines: [*lines[:6], lines[5], *lines[6:]],
    "two lines exchanged": lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]],
    "a line moved to the end": lambda lines: [*lines[:5], *lines[6:], lines[5]],
    "all reversed": lambda lines: lines[::-1],
    "a foreign line put in": lambda lines: [*lines[:5], b'{"time":"x","event":"decision"}\n', *lines[5:]],
    "an empty line put in": lambda lines: [*lines[:5], b"\n", *lines[5:]],
    "a number changed": lambda lines: [*lines[:5], lines[5].replace(b'"n":6', b'"n":7'), *lines[6:]],
    "the hash changed": lambda lines: [*lines[:5], lines[5][:-8] + b'00000"}\n', *lines[6:]],
    "an anchor taken out": lambda lines: [line for line in lines if b'"kind":"middle"' not in line],
    "the whole first process taken out": lambda lines: _parts(lines)[1],
    "the processes exchanged": lambda lines: [*_parts(lines)[1], *_parts(lines)[0]],
    "all lines chained anew, old signatures": _rewritten_to_the_end,
    "the end of a process chained anew": _rewritten_after_the_last_anchor,
    "all lines chained and signed anew by another key": _signed_by_another,
    "all signatures taken out, all chained anew": _unsigned,
    "a line appended by hand": lambda lines: [*lines, *rechained(lines[5:6], _name(_parts(lines)[1]), 99)],
}  # fmt: skip


def test_what_nobody_touched_is_whole(tmp_path: Path, key_file: Path) -> None:
    copies = tmp_path / "anchors"
    path = written(tmp_path, copies=copies)
    result = audit("verify", "--file", path, "--public-key", key_file, "--anchors", copies)
    assert result.exit_code == 0, result.output
    assert "whole: " in result.output
    told = json.loads(audit("verify", "--file", path, "--public-key", key_file, "--json").output)
    assert (told["whole"], told["lines"], told["chains"]) == (True, len(lines_of(path)), 2)
    assert told["anchors"] >= 6
    assert told["findings"] == []


@pytest.mark.parametrize("how", TAMPERING)
def test_tampering_is_found(how: str, tmp_path: Path, key_file: Path) -> None:
    copies = tmp_path / "anchors"
    path = written(tmp_path, copies=copies)
    before = lines_of(path)
    after = TAMPERING[how](before)
    assert after != before
    path.write_bytes(b"".join(after))
    result = audit("verify", "--file", path, "--public-key", key_file, "--anchors", copies)
    assert result.exit_code == 1, how
    assert "problem" in result.output


def test_what_was_cut_off_or_deleted_is_said_once_with_the_way_out(tmp_path: Path, key_file: Path) -> None:
    copies = tmp_path / "anchors"
    path = written(tmp_path, copies=copies)
    lines = lines_of(path)

    def told(left: Lines) -> list[str]:
        path.write_bytes(b"".join(left))
        output = audit("verify", "--file", path, "--public-key", key_file, "--anchors", copies, "--json").output
        return [one["says"] for one in json.loads(output)["findings"] if one["kind"] == "problem"]

    first, second = _parts(lines)
    # Several copies of anchors know of them.
    assert told([]) == [f"chain {_name(part)} is missing" for part in (first, second)]
    (cut,) = [says for says in told(lines[: -len(second) + 1]) if "cut off" in says]
    assert cut == f"lines 2 to {len(second)} of chain {_name(second)} were cut off"
    assert told(lines[3:])[0].endswith("; --partial, if older files were deleted on purpose")


def test_a_file_that_was_converted_floods_no_terminal(tmp_path: Path, key_file: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(b"".join(lines_of(path)).replace(b"\n", b"\r\n") * 50)
    result = audit("verify", "--file", path, "--public-key", key_file)
    assert len(result.output.splitlines()) == 202
    assert "--json tells them all" in result.output


def test_without_copies_all_is_found_but_what_is_cut_off_the_very_end(tmp_path: Path, key_file: Path) -> None:
    for number, (how, tamper) in enumerate(TAMPERING.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = written(folder)
        path.write_bytes(b"".join(tamper(lines_of(path))))
        code = audit("verify", "--file", path, "--public-key", key_file).exit_code
        assert code == (0 if how in {"the last line taken out", "the end cut off"} else 1), how


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_edit_of_any_line_is_found(data: st.DataObject) -> None:
    last, lines = beginning("00" * 8), Lines()
    for number in range(1, 8):
        text, last = linked(b'{"event":"decision","n":"%d"}\n' % number, "00" * 8, number, last)
        lines.append(text[:-1])
    at = data.draw(st.integers(0, 5))
    kind = data.draw(st.sampled_from(["flip", "drop", "swap"]))
    if kind == "flip":
        place = data.draw(st.integers(0, len(lines[at]) - 1))
        letter = lines[at][place] ^ data.draw(st.integers(1, 255))
        lines[at] = lines[at][:place] + bytes([letter]) + lines[at][place + 1 :]
    elif kind == "drop":
        del lines[at]
    else:
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    check = Verifier(None, is_partial=False)
    found = [finding for number, line in enumerate(lines) for finding in check.read(str(number), line)]
    assert any(finding.kind == "problem" for finding in found)


def test_several_workers_share_a_file_and_each_has_its_chain(tmp_path: Path, key_file: Path) -> None:
    path = tmp_path / "audit.jsonl"
    program = """
import sys
from pathlib import Path
from sidecar.core.audit import Event
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.chaining import Anchoring, signer
from sidecar.telemetry.sinks import FileSink
import time
log = AuditLog([FileSink(Path(sys.argv[1]), 20_000, 50)], time.time, Anchoring(0.01, signer(sys.stdin.read())))
for number in range(400):
    log.record(Event.DECISION, {"path": f"/{number}"})
    if number % 7 == 0:
        log.flush()
log.close()
"""
    workers = [
        subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(KEY)
        worker.stdin.close()
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert (tmp_path / "audit.jsonl.2").exists()
    result = audit("verify", "--file", path, "--public-key", key_file)
    assert result.exit_code == 0, result.output
    decisions = audit("search", "--file", path, "--event", "decision", "--limit", "9999", "--json").output
    assert len(decisions.splitlines()) == 3 * 400
    # What was rotated away belongs to it: without one of the files there is a hole.
    (tmp_path / "audit.jsonl.2").unlink()
    assert audit("verify", "--file", path, "--public-key", key_file).exit_code == 1


def test_old_files_may_be_compressed_or_gone(tmp_path: Path, key_file: Path) -> None:
    path = written(tmp_path)
    lines = lines_of(path)
    path.write_bytes(b"".join(lines[8:]))
    with gzip.open(tmp_path / "audit.jsonl.1.gz", "wb") as old:
        old.write(b"".join(lines[:8]))
    assert audit("verify", "--file", path, "--public-key", key_file).exit_code == 0
    (tmp_path / "audit.jsonl.1.gz").unlink()
    assert audit("verify", "--file", path, "--public-key", key_file).exit_code == 1
    assert audit("verify", "--file", path, "--public-key", key_file, "--partial").exit_code == 0
    # Also then nothing may be missing in the middle.
    path.write_bytes(b"".join([*lines[8:12], *lines[13:]]))
    assert audit("verify", "--file", path, "--public-key", key_file, "--partial").exit_code == 1


@pytest.mark.parametrize("begin", [1, 7])
@pytest.mark.parametrize("with_anchor", [False, True])
def test_a_chain_that_somebody_made_up_is_none_where_old_files_are_gone_either(
    tmp_path: Path, key_file: Path, begin: int, *, with_anchor: bool
) -> None:
    path = written(tmp_path)
    lines = lines_of(path)
    anchor = next(line for line in lines if b'"signature"' in line)
    some = ([anchor] if with_anchor else []) + list(map(changed, lines[3:6]))
    forged = rechained(some, "f" * 16, begin, None if begin == 1 else bytes(32))
    path.write_bytes(b"".join([*lines[8:], *forged]))
    told = audit("verify", "--file", path, "--public-key", key_file, "--partial")
    assert told.exit_code == 1, told.output
    assert "f" * 16 in told.output
    path.write_bytes(b"".join(lines[8:]))
    assert audit("verify", "--file", path, "--public-key", key_file, "--partial").exit_code == 0


def test_a_process_that_was_killed_is_a_note_and_a_line_cut_by_it_is_a_problem(tmp_path: Path, key_file: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(b"".join(lines_of(path)[:-1]))
    killed = audit("verify", "--file", path, "--public-key", key_file)
    assert killed.exit_code == 0
    assert "has not ended" in killed.output
    with path.open("ab") as file:
        file.write(b'{"time":"2026')
    log = AuditLog([FileSink(path)], Ticking(), Anchoring(60))
    log.record(Event.SERVICE_STARTED, {})
    log.close()
    cut = audit("verify", "--file", path)
    assert cut.exit_code == 1
    assert cut.output.count("is in no chain") == 1


def test_lines_that_were_lost_are_owned_up_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.telemetry.outlet._MOST_WAITING", 5)
    path = tmp_path / "audit.jsonl"
    log = AuditLog([FileSink(path)], Ticking(), Anchoring(60))
    for number in range(8):
        log.record(Event.DECISION, {"path": f"/{number}"})
    log.close()
    result = audit("verify", "--file", path)
    assert result.exit_code == 0
    assert "3 lines could not be written and were lost" in result.output


def test_a_clock_that_was_set_back_puts_off_no_anchor(tmp_path: Path) -> None:
    clock, path = Ticking(), tmp_path / "audit.jsonl"
    log = AuditLog([FileSink(path)], clock, Anchoring(60))
    for set_back in (0.0, 7200.0, 1.0, 1.0):
        clock.now -= set_back
        log.record(Event.DECISION, {"path": "/"})
        log.flush()
        clock.now += 2
    anchors = [json.loads(line)["kind"] for line in lines_of(path) if b"audit-anchor" in line]
    assert anchors == ["first", "middle"]
    log.close()
    assert audit("verify", "--file", path).exit_code == 0


def test_without_a_key_it_is_said_what_that_is_worth(tmp_path: Path) -> None:
    result = audit("verify", "--file", written(tmp_path, key=None))
    assert result.exit_code == 0
    assert "not signed" in result.output


def test_keys_are_made_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    made = audit("key")
    public = CliRunner().invoke(main, ["audit", "key", "--public"], input=made.output)
    message = random.Random(1).randbytes(99)
    assert verifier(public.output)(signer(made.output)(message), message)
    assert not verifier(public.output)(signer(KEY)(message), message)
    path = written(tmp_path)
    (tmp_path / "pub").write_text(public.output)
    assert audit("verify", "--file", path, "--public-key", tmp_path / "pub").exit_code == 1
    (tmp_path / "pub").write_text("nonsense")
    assert audit("verify", "--file", path, "--public-key", tmp_path / "pub").exit_code == 2
    assert CliRunner().invoke(main, ["audit", "key", "--public"], input="nonsense").exit_code == 2

"""What audit lines that cannot be written may take of the memory."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sidecar.core.audit import Event
from sidecar.core.chain import Verifier
from sidecar.telemetry import outlet as outlets
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.chaining import Anchoring, Chain
from sidecar.telemetry.outlet import Outlet
from sidecar.telemetry.sinks import FileSink
from tests.services.upstream import until


class FullDisk:
    """A sink that takes nothing until it is told to."""

    def __init__(self) -> None:
        self.is_full = True
        self.tries = threading.Semaphore(0)
        self.written = b""

    def write(self, lines: bytes) -> int:
        self.tries.release()
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.written += lines
        return len(lines)

    def place(self) -> str:
        return ""

    def close(self) -> None:
        pass


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlets, "_MOST_WAITING", 100)
    monkeypatch.setattr(outlets, "_MOST_AT_ONCE", 10)
    monkeypatch.setattr(outlets, "_RETRY_AFTER", 0.01)


@pytest.mark.usefixtures("small")
def test_a_disk_that_is_full_for_long_does_not_fill_the_memory() -> None:
    disk = FullDisk()
    outlet = Outlet(disk)
    for number in range(1000):
        outlet.put(b"%d\n" % number)
        if number % 10 == 0:
            outlet.wake()
            assert disk.tries.acquire(timeout=5)
    assert outlet.dropped >= 1000 - 100 - 10
    disk.is_full = False
    outlet.close(5)
    written = disk.written.split()
    assert len(written) + outlet.dropped == 1000
    assert written == sorted(written, key=int)
    assert written[-1] == b"999"


@pytest.mark.usefixtures("small")
def test_long_lines_of_strangers_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlets, "_MOST_BYTES", 1000)
    disk = FullDisk()
    outlet = Outlet(disk)
    for _ in range(50):
        outlet.put(b"x" * 99 + b"\n")
    assert outlet.dropped == 40
    disk.is_full = False
    outlet.flush(5)
    assert len(disk.written) == 1000
    # What was written makes room again.
    for _ in range(10):
        outlet.put(b"y" * 99 + b"\n")
    assert outlet.dropped == 40
    outlet.close(5)
    assert len(disk.written) == 2000


def test_nobody_else_on_the_machine_reads_the_audit_file(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        FileSink(tmp_path / "audit.jsonl").close()
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) & 0o027 == 0


class Stubborn(FileSink):
    """A file on a disk that is full until it is told otherwise."""

    is_full = True

    def write(self, lines: bytes) -> int:
        if self.is_full:
            raise OSError(28, "No space left on device")
        return super().write(lines)


class Counted(Chain):
    """Counts who chained how many lines."""

    by_loop = by_thread = 0

    def seal(self, lines: Sequence[bytes], lost: int, *, may_ask: bool = True) -> bytes:
        if threading.current_thread() is threading.main_thread():
            assert not may_ask
            self.by_loop += len(lines)
        else:
            self.by_thread += len(lines)
        return super().seal(lines, lost, may_ask=may_ask)


def numbers_in(file: Path) -> list[int]:
    """What the lines count, but for anchors."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line["number"] for line in lines if "number" in line]


def problems_in(file: Path) -> list[str]:
    verifier = Verifier(None, is_partial=False)
    found = [finding for line in file.read_bytes().splitlines() for finding in verifier.read("here", line)]
    return [finding.says for finding in [*found, *verifier.finish()] if finding.kind == "problem"]


@pytest.mark.parametrize("every", [0.002, 60.0])
def test_lines_are_in_order_whoever_chains_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: float) -> None:
    monkeypatch.setattr(outlets, "_MOST_FOR_FILE", 7)
    file = tmp_path / "audit.jsonl"
    sink = FileSink(file)
    chain = Counted(Anchoring(every), time.time, sink.place)
    outlet = Outlet(sink, chain)
    for number in range(3000):
        outlet.put(b'{"number":%d}\n' % number)
        # By turns the event loop and the thread, which then goes on beside the event loop for a while.
        if number % 500 < 250:
            outlet.tend()
        else:
            outlet.wake()
        if number % 10 == 0:
            time.sleep(0.001)
    outlet.close(10)
    assert chain.by_loop > 100
    assert chain.by_thread > 100
    assert chain.by_loop + chain.by_thread == 3000
    assert numbers_in(file) == list(range(3000))
    assert not problems_in(file)


def test_lines_are_chained_as_they_come_and_many_are_written_before_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlets, "_MOST_FOR_FILE", 10)
    monkeypatch.setattr(outlets, "_MANY_SEALED", 3)
    file = tmp_path / "audit.jsonl"
    sink = FileSink(file)
    chain = Counted(Anchoring(60.0), time.time, sink.place)
    outlet = Outlet(sink, chain)
    outlet.put(b'{"number":0}\n')
    outlet.tend()
    while numbers_in(file) != [0]:
        time.sleep(0.001)
    # From here on it is the event loop's, and the thread has gone to sleep.
    outlet.tend()
    while outlet._wake.is_set():
        time.sleep(0.001)
    time.sleep(0.02)
    for number in range(1, 30):
        outlet.put(b'{"number":%d}\n' % number)
    assert chain.by_loop == 20
    outlet.put(b'{"number":30}\n')
    while numbers_in(file) != list(range(31)):
        time.sleep(0.001)
    outlet.close(10)
    assert not problems_in(file)


def test_the_event_loop_makes_only_so_much_ready_for_a_disk_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlets, "_MOST_WAITING", 100)
    monkeypatch.setattr(outlets, "_MOST_FOR_FILE", 10)
    monkeypatch.setattr(outlets, "_MOST_SEALED", 10)
    monkeypatch.setattr(outlets, "_RETRY_AFTER", 0.01)
    file = tmp_path / "audit.jsonl"
    sink = Stubborn(file)
    chain = Chain(Anchoring(60.0), time.time, sink.place)
    outlet = Outlet(sink, chain)
    outlet.put(b'{"number":-1}\n')
    outlet.tend()
    while chain.wants_anchor:
        time.sleep(0.001)
    for number in range(1000):
        outlet.put(b'{"number":%d}\n' % number)
        outlet.tend()
    # Of what is kept some waits, some is ready, and the thread has some in its hands.
    kept = 1001 - outlet.dropped
    assert 100 <= kept <= 100 + 10 * 10 + 3 * 10
    assert outlet.tend() == 0.1
    sink.is_full = False
    outlet.close(10)
    written = numbers_in(file)
    assert len(written) == kept
    assert written == sorted(written)
    assert written[-1] == 999
    assert not problems_in(file)


def test_what_is_chained_for_a_disk_that_is_full_counts_among_the_bytes_that_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlets, "_MOST_BYTES", 50_000)
    monkeypatch.setattr(outlets, "_MOST_FOR_FILE", 10)
    monkeypatch.setattr(outlets, "_RETRY_AFTER", 0.01)
    sink = Stubborn(tmp_path / "audit.jsonl")
    chain = Chain(Anchoring(60.0), time.time, sink.place)
    outlet = Outlet(sink, chain)
    for _ in range(2):
        outlet.put(b'{"number":0}\n')
        outlet.tend()
        while chain.wants_anchor:
            time.sleep(0.001)
    long = b'{"number":1,"path":"%s"}\n' % (b"/" * 1000)
    for _ in range(1000):
        outlet.put(long)
    # The last one is kept whatever waits for the disk.
    assert 40 <= 1002 - outlet.dropped <= 52
    sink.is_full = False
    outlet.flush(10)
    for _ in range(40):
        outlet.put(long)
    outlet.close(10)
    assert len(numbers_in(tmp_path / "audit.jsonl")) + outlet.dropped == 1042
    assert outlet.dropped < 970


async def test_the_event_loop_goes_on_until_everything_is_written(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    log = AuditLog([FileSink(file)], time.time, Anchoring(60.0))
    form = log.form(Event.DECISION, {"effect": "allow"}, "path")
    assert form is not None
    for number in range(1500):
        log.fill(form, 1.0, f"/{number}")

    def there_are(many: int) -> bool:
        return file.read_bytes().count(b'"path"') == many

    await until(lambda: there_are(1500))
    # Now the chain has begun: the event loop does it, with nobody who flushes.
    for number in range(1500, 4000):
        log.fill(form, 1.0, f"/{number}")
    await until(lambda: there_are(4000))
    paths = [json.loads(line).get("path") for line in file.read_bytes().splitlines()]
    assert [path for path in paths if path] == [f"/{number}" for number in range(4000)]
    log.close()
    assert not problems_in(file)

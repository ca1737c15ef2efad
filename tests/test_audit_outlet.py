"""What audit lines that cannot be written may take of the memory."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from sidecar.telemetry import outlet as outlets
from sidecar.telemetry.outlet import Outlet
from sidecar.telemetry.sinks import FileSink


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

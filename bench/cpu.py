"""Account for what a server costs: CPU time and memory of all its processes, from /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Processes:
    """A server's first process, and everything below it."""

    root: int

    def ids(self) -> list[int]:
        """Every process that is alive now."""
        found = [self.root]
        for pid in found:
            found += _children(pid)
        return found

    def seconds(self) -> float:
        """CPU seconds so far, user and system, of all of them and of those that have ended."""
        return sum(_ticks(pid) for pid in self.ids()) * _TICK

    def memory(self) -> float:
        """Megabytes that they hold together; what several share counts once."""
        return sum(_proportional(pid) for pid in self.ids()) / 1024

    def resident(self) -> list[float]:
        """Megabytes resident of each process that serves: all but a first one that only watches over others."""
        pids = self.ids()
        return [_status(pid, "VmRSS") / 1024 for pid in (pids[1:] or pids)]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        # Any thread can be the parent.
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, file.read_text().split())
    return found


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    # utime, stime, and those of children that were waited for: proc(5).
    return sum(map(int, fields[11:15]))


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return _status(pid, "VmRSS")
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _status(pid: int, field: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    return 0

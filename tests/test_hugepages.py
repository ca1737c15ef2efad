"""Memory in use is gathered in huge pages where the system has them, and memory that is hardly used is not."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.cli import hugepages

SIZE = 8 << 20
PAGE = mmap.PAGESIZE
KERNEL = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2] if part.isdecimal())
HAS_HUGE = KERNEL >= (6, 1) and hugepages.SWITCH.exists() and "[never]" not in hugepages.SWITCH.read_text()
needs_huge = pytest.mark.skipif(not HAS_HUGE, reason="Linux 6.1 or later with transparent huge pages is needed")


@contextmanager
def memory(step: int) -> Iterator[int]:
    """Address of 8 MiB of which each *step*-th page is in use."""
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
        for start in range(0, SIZE, PAGE * step):
            room[start] = 1
        seen = ctypes.c_char.from_buffer(room)
        yield ctypes.addressof(seen)
        del seen


def in_use(address: int) -> int:
    """Pages of the 8 MiB there that take memory."""
    with Path("/proc/self/pagemap").open("rb") as pages:
        pages.seek(address // PAGE * 8)
        return sum(word >> 63 for word in memoryview(pages.read(SIZE // PAGE * 8)).cast("Q"))


def huge(address: int) -> int:
    """KiB in huge pages of the mapping that holds *address*."""
    is_here = False
    for line in Path(f"/proc/{os.getpid()}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            first, end = (int(word, 16) for word in words[0].split("-"))
            is_here = first <= address < end
        elif is_here and words[0] == "AnonHugePages:":
            return int(words[1])
    raise AssertionError


@needs_huge
def test_memory_in_use_is_gathered() -> None:
    with memory(1) as address:
        before = huge(address)
        assert hugepages.gather() > 0
        # It may begin and end within such a page.
        assert huge(address) - before >= (SIZE - (4 << 20)) // 1024


def test_memory_that_is_hardly_used_stays_as_small_as_it_is() -> None:
    with memory(3) as address:
        before = in_use(address)
        hugepages.gather()
        assert in_use(address) == before < SIZE // PAGE // 2


async def test_who_wants_no_huge_pages_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(hugepages, "gather", lambda: asked.append("gather") or 0)
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    for name in ("enabled", "missing"):
        monkeypatch.setattr(hugepages, "SWITCH", tmp_path / name)
        await hugepages.keep_gathered()
    assert not asked
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    monkeypatch.setattr(hugepages, "SWITCH", tmp_path / "enabled")
    # And whoever gives none is not asked again.
    await hugepages.keep_gathered()
    assert asked == ["gather"]

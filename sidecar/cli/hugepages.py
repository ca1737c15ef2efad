"""Gather the memory of this process in huge pages: requests look at more of it than a processor has at hand."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_HUGE = 2 << 20
_PAGE = mmap.PAGESIZE
_COLLAPSE = 25  # MADV_COLLAPSE of madvise(2), since Linux 6.1
# Pages in use of those that a huge one takes the place of; the others cost memory from then on.
_LEAST_USED = _HUGE // _PAGE // 2
# Bit 63 of each word of /proc/self/pagemap: the page is there (proc_pid_pagemap(5)).
_THERE = int.from_bytes((1 << 63).to_bytes(8, "little") * (_HUGE // _PAGE), "little")
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")


async def keep_gathered() -> None:
    """Gather what is there at the start, and go on with what comes; returns where the system has no such pages."""
    if not _may():
        return
    pause = _FIRST_PAUSE
    # In a thread: copying takes tens of milliseconds, during which the event loop goes on.
    while await asyncio.to_thread(gather):
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def gather() -> int:
    """Bytes of this process that are in huge pages now; 0 where the system gives none."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    with suppress(OSError):
        # What fails now, for want of memory in one piece, may succeed the next time.
        return sum(_HUGE for start in _used() if madvise(start, _HUGE, _COLLAPSE) == 0)
    return 0


def _may() -> bool:
    # The call itself does not ask.
    with suppress(OSError):
        return "[never]" not in SWITCH.read_text()
    return False


def _used() -> Iterator[int]:
    """Where pieces as large as a huge page begin that are in use; no stacks of threads, which are nearly empty."""
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pages:
        for line in Path("/proc/self/maps").read_text().splitlines():
            words = line.split()
            if not words[1].startswith("rw-p") or words[4] != "0" or words[5:] not in ([], ["[heap]"]):
                continue
            first, end = (int(word, 16) for word in words[0].split("-"))
            for start in range(-(-first // _HUGE) * _HUGE, end - _HUGE + 1, _HUGE):
                pages.seek(start // _PAGE * 8)
                if (int.from_bytes(pages.read(_HUGE // _PAGE * 8), "little") & _THERE).bit_count() >= _LEAST_USED:
                    yield start

"""Work on a source while nobody else does, on any replica, and take turns by its timetable."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from sidecar.core.sync.timetable import Timetable
from sidecar.directory.sync import SyncBook
from sidecar.faults import Unavailable
from sidecar.reason import Reason

_PROC = Path("/proc")
# Seconds; it is renewed while the work goes on.
LEASE = 60.0


@asynccontextmanager
async def alone(book: SyncBook, source: str, clock: Callable[[], float], busy: str) -> AsyncIterator[str]:
    """Hold *source* in *book*, under the name that is given, until the end of the block.

    *clock* gives epoch seconds. Raises Unavailable(SYNC_BUSY), which says *busy*, while somebody else holds it.
    """
    token = new_token()
    if not await book.take(source, token, clock(), clock() + LEASE, is_dead):
        raise Unavailable(Reason.SYNC_BUSY, busy)
    keeping = asyncio.create_task(_keep(book, source, clock, token))
    try:
        yield token
    finally:
        keeping.cancel()
        with suppress(Unavailable):
            await book.release(source, token, last_run=clock())


async def _keep(book: SyncBook, source: str, clock: Callable[[], float], token: str) -> None:
    while True:
        await asyncio.sleep(LEASE / 3)
        with suppress(Unavailable):
            await book.renew(source, token, clock() + LEASE)


async def claim_turn(book: SyncBook, source: str, timetable: Timetable, now: float, chance: float) -> bool:
    """True when *source* is due by its *timetable*, for the one who asks first; it is due again later then."""
    later = timetable.after(now, chance)
    if later is None:
        return False
    state = await book.prepared(source)
    if state.due == 0.0 and timetable.cron is not None:
        # Nobody has ever planned it: the first time is the next one of the timetable.
        await book.postpone(source, state.due, later)
        return False
    return state.due <= now and await book.postpone(source, state.due, later)


def new_token() -> str:
    """A name for this process and this piece of work: machine, process, when that began, and a random end."""
    return f"{_here()}|{os.getpid()}|{_began(os.getpid())}|{secrets.token_hex(8)}"


def process_of(token: str) -> str:
    """Number of the process that made *token*, "" for a name that is none of ours."""
    parts = token.split("|")
    return parts[1] if len(parts) == 4 and parts[1].isdigit() else ""


def is_dead(token: str) -> bool:
    """True when the process that made *token* ran here and does so no longer; in doubt False."""
    parts = token.split("|")
    here = _here()
    if len(parts) != 4 or not here or parts[0] != here or not parts[1].isdigit():
        return False
    return _began(int(parts[1])) != parts[2]


def _here() -> str:
    """What tells this start of the machine and our numbering of processes from others; "" where nobody can tell."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink().name}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When a process began, in ticks since the machine did; "" when there is none: numbers are used again."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    # A process that has ended, and whose parent has not noticed yet.
    return "" if fields[0] in "ZX" else fields[19]

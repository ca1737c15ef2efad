"""Name the process that works on a source, so that another one on the same machine knows when it is gone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_PROC = Path("/proc")


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

"""Read audit files backward, a bounded piece at a time, so that their size does not matter to whoever looks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from sidecar.telemetry.reading import Line, files_of, instant_of, parsed, raw_lines

BUDGET = 16 * 1024 * 1024
_BLOCK = 64 * 1024
_LONGEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a look ended: a file, by its inode, which it keeps when it is rotated, and an offset in it."""

    inode: int
    offset: int

    def __str__(self) -> str:
        """As it stands in a link."""
        return f"{self.inode}-{self.offset}"


def place_of(text: str) -> Place | None:
    """The place that a link names, None for none."""
    inode, dash, offset = text.partition("-")
    whole = bool(dash) and all(part.isascii() and part.isdecimal() and len(part) < 20 for part in (inode, offset))
    return Place(int(inode), int(offset)) if whole else None


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found, the newest first; ``further`` is where to go on, None when everything was looked at."""

    lines: tuple[Line, ...]
    further: Place | None = None
    has_packed: bool = False


@dataclass(slots=True)
class _Look:
    """One look, and what is left of what it may read and find."""

    fits: Callable[[Line], bool]
    needles: Sequence[bytes]
    some: Sequence[bytes]
    since: float
    until: float
    slack: float
    most: int
    budget: float
    found: list[Line] = field(default_factory=list)
    # Everything further back is too old.
    is_over: bool = False

    def may_hold(self, text: bytes) -> bool:
        """False where nothing in *text* can fit."""
        return all(one in text for one in self.needles) and (not self.some or any(one in text for one in self.some))

    def take(self, text: bytes) -> None:
        """Keep the line *text* if it fits."""
        line = parsed(text) if text and self.may_hold(text) else None
        if line is None:
            return
        instant = instant_of(line)
        if self.since <= instant <= self.until and self.fits(line):
            self.found.append(line)
        self.is_over = 0 < instant < self.since - self.slack


def look_back(  # noqa: PLR0913 - each narrows the look, and a call names two or three
    path: Path,
    fits: Callable[[Line], bool],
    *,
    needles: Sequence[str] = (),
    some: Sequence[str] = (),
    most: int = 50,
    since: float = 0.0,
    until: float = float("inf"),
    slack: float = 1.0,
    begin: Place | None = None,
    budget: float = BUDGET,
    unpacks: bool = False,
) -> Looked:
    """The newest lines that *fit*, between the times, from *begin* backward, out of *budget* bytes. Raises OSError.

    Each of *needles*, and one of *some* where there are any, must stand in a line's text before it is parsed at all.
    Lines are in the order of time but for *slack* seconds: several processes write them. Files that were compressed are
    read only where it *unpacks*, and count as nothing then.
    """
    raw, any_of = [needle.encode() for needle in needles], [one.encode() for one in some]
    look = _Look(fits, raw, any_of, since, until, slack, most, budget)
    files = files_of(path)
    has_packed = not unpacks and any(one.suffix == ".gz" for one in files)
    for file in reversed(files):
        if file.suffix == ".gz":
            if unpacks and begin is None and _unpacked(file, look):
                break
            continue
        with file.open("rb") as stream:
            inode, end = os.fstat(stream.fileno()).st_ino, stream.seek(0, os.SEEK_END)
            if begin is not None:
                if inode != begin.inode:
                    continue
                end, begin = min(end, begin.offset), None
            elif until != float("inf"):
                end = _end_of(stream, end, until + slack)
            start = _start_of(stream, end, since - slack) if since > 0 else 0
            stopped = _read_back(stream, start, end, look)
            if stopped is not None:
                return Looked(tuple(look.found), Place(inode, stopped), has_packed)
            if start or look.is_over:
                break
    return Looked(tuple(look.found), None, has_packed)


def _read_back(stream: BinaryIO, start: int, end: int, look: _Look) -> int | None:
    """Look between two offsets; the one where it ended early because *look* has enough, None when it did not."""
    for offset, text, passed in _backward(stream, start, end, look.may_hold):
        look.budget -= passed
        look.take(text)
        if look.is_over:
            return None
        if len(look.found) == look.most or look.budget <= 0:
            return offset
    return None


def _unpacked(file: Path, look: _Look) -> bool:
    """Look through a compressed *file*, from its beginning, as there is no other way; True when that is enough."""
    here = replace(look, found=[])
    begins = 0.0
    for number, text in raw_lines(file):
        if number == 1:
            begins = instant_of(parsed(text) or {})
            if begins > look.until + look.slack:
                return False
        here.take(text)
        # The newest of them come last.
        del here.found[: -(look.most - len(look.found))]
    look.found += here.found[::-1]
    return len(look.found) == look.most or 0 < begins < look.since - look.slack


def _backward(
    stream: BinaryIO, begin: int, end: int, may_hold: Callable[[bytes], bool]
) -> Iterator[tuple[int, bytes, int]]:
    """(offset, bytes, bytes passed) of each line between *begin*, where one begins, and *end*, the last first.

    One that is too long is no line. A block that may hold nothing is passed over as one empty line.
    """
    rest = b""
    while end > begin:
        start = max(begin, end - _BLOCK)
        stream.seek(start)
        block = stream.read(end - start) + rest
        first, feed, others = block.partition(b"\n")
        lines = others.split(b"\n") if feed else []
        offset = start + len(block)
        if lines and not may_hold(block):
            yield start + len(first) + 1, b"", len(block) - len(first)
            lines = []
        for text in reversed(lines):
            offset -= len(text)
            if text:
                yield offset, text, len(text) + 1
            offset -= 1
        rest = first if len(first) <= _LONGEST else b""
        end = start
    if rest:
        yield begin, rest, len(rest)


def _end_of(stream: BinaryIO, size: int, until: float) -> int:
    """Offset behind which every line is later than *until*."""
    low, high = 0, size
    while high - low > _BLOCK:
        middle = (low + high) // 2
        instant = _instant_at(stream, middle)
        if not instant:
            return size
        low, high = (low, middle) if instant > until else (middle, high)
    stream.seek(high)
    stream.readline(_LONGEST)
    return min(size, stream.tell())


def _start_of(stream: BinaryIO, size: int, since: float) -> int:
    """Offset of a line before which every line is earlier than *since*."""
    low, high = 0, size
    while high - low > _BLOCK:
        middle = (low + high) // 2
        instant = _instant_at(stream, middle)
        if not instant:
            return 0
        low, high = (middle, high) if instant < since else (low, middle)
    if low:
        stream.seek(low)
        stream.readline(_LONGEST)
    return stream.tell() if low else 0


def _instant_at(stream: BinaryIO, offset: int) -> float:
    """When the first line that begins behind *offset* was written; 0 where nobody can know."""
    stream.seek(offset)
    stream.readline(_LONGEST)
    return instant_of(parsed(stream.readline(_LONGEST)) or {})

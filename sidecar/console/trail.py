"""Read the audit file backward, a bounded piece at a time, so that its size does not matter to whoever looks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sidecar.telemetry.reading import Line, files_of, instant_of, parsed

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


def look_back(
    path: Path,
    fits: Callable[[Line], bool],
    *,
    needles: Sequence[str] = (),
    most: int = 50,
    since: float = 0.0,
    until: float = float("inf"),
    begin: Place | None = None,
    budget: int = BUDGET,
) -> Looked:
    """The newest lines that *fit*, between the times, from *begin* backward, out of *budget* bytes. Raises OSError.

    *needles* must stand in a line's text before it is parsed at all. Files that were compressed are not read.
    """
    raw = [needle.encode() for needle in needles]
    files = [one for one in files_of(path) if one.suffix != ".gz"]
    has_packed = len(files) < len(files_of(path))
    found: list[Line] = []
    for file in reversed(files):
        with file.open("rb") as stream:
            inode, end = os.fstat(stream.fileno()).st_ino, stream.seek(0, os.SEEK_END)
            if begin is not None:
                if inode != begin.inode:
                    continue
                end, begin = min(end, begin.offset), None
            elif until != float("inf"):
                end = _end_of(stream, end, until)
            for offset, text, passed in _backward(stream, end, raw):
                budget -= passed
                line = parsed(text) if text and all(needle in text for needle in raw) else None
                if line is not None and instant_of(line) < since:
                    return Looked(tuple(found), None, has_packed)
                if line is not None and instant_of(line) <= until and fits(line):
                    found.append(line)
                if len(found) == most or budget <= 0:
                    return Looked(tuple(found), Place(inode, offset), has_packed)
    return Looked(tuple(found), None, has_packed)


def _backward(stream: BinaryIO, end: int, raw: Sequence[bytes]) -> Iterator[tuple[int, bytes, int]]:
    """(offset, bytes, bytes passed) of each line that ends before *end*, the last first.

    One that is too long is no line. A block in which one of *raw* is nowhere is passed over as one empty line.
    """
    rest = b""
    while end > 0:
        start = max(0, end - _BLOCK)
        stream.seek(start)
        block = stream.read(end - start) + rest
        first, *lines = block.split(b"\n")
        offset = start + len(block)
        if lines and not all(needle in block for needle in raw):
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
        yield 0, rest, len(rest)


def _end_of(stream: BinaryIO, size: int, until: float) -> int:
    """Offset behind which every line is later than *until*: lines are in the order of time, nearly."""
    low, high = 0, size
    while high - low > _BLOCK:
        middle = (low + high) // 2
        stream.seek(middle)
        stream.readline(_LONGEST)
        line = parsed(stream.readline(_LONGEST))
        if line is not None and instant_of(line) > until + 1:
            high = middle
        elif line is None:
            return size
        else:
            low = middle
    stream.seek(high)
    stream.readline(_LONGEST)
    return stream.tell()

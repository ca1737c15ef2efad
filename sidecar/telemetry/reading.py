"""Read audit lines back: from the file and those that were rotated away, also compressed; and follow the file."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

Line = Mapping[str, Any]
_POLL = 0.25
_LONGEST = 1024 * 1024
_PORTION = 64 * 1024


def files_of(path: Path) -> Sequence[Path]:
    """*path* and what was rotated away from it (``.1``, ``.2.gz``, ``-20260101``), the oldest first."""
    numbered: list[tuple[int, Path]] = []
    dated: list[Path] = []
    for other in path.parent.glob(f"{_escaped(path.name)}*"):
        rest = other.name[len(path.name) :]
        if found := re.fullmatch(r"\.([0-9]{1,6})(?:\.gz)?", rest):
            numbered.append((int(found[1]), other))
        elif re.fullmatch(r"-[0-9]{4,14}(?:\.gz)?", rest):
            dated.append(other)
    older = [other for _, other in sorted(numbered, reverse=True)]
    return (*sorted(dated), *older, *([path] if path.exists() else ()))


def _escaped(name: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", name)


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line of *path*, without line feed. Raises OSError."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        try:
            for number, line in enumerate(stream, 1):
                yield number, line.rstrip(b"\n")
        except (EOFError, zlib.error):
            raise OSError(errno.EIO, "is cut short, or no gzip file", str(path)) from None


def parsed(line: bytes) -> Line | None:
    """The line as a mapping; None when it is none."""
    if len(line) > _LONGEST:
        return None
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def lines_of(paths: Sequence[Path]) -> Iterator[Line]:
    """All readable lines of *paths* in their order. Raises OSError."""
    for path in paths:
        for _, raw in raw_lines(path):
            line = parsed(raw)
            if line is not None:
                yield line


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for: each field that is set must fit. ``text`` may stand anywhere in a value.

    Of the (field, value) pairs in ``any_of`` one must be in the line, and its reference is another than ``but``.
    """

    event: frozenset[str] = frozenset()
    person: str = ""
    client: str = ""
    path: str = ""
    reason: str = ""
    reference: str = ""
    session: str = ""
    text: str = ""
    since: float = 0.0
    until: float = float("inf")
    any_of: frozenset[tuple[str, str]] = frozenset()
    but: str = ""

    def fits(self, line: Line) -> bool:
        """True when *line* is one of those."""
        if self.event and line.get("event") not in self.event:
            return False
        for name in ("client", "reason", "reference", "session"):
            wanted = getattr(self, name)
            if wanted and line.get(name) != wanted:
                return False
        if self.person and self.person not in {line.get(name) for name in ("person", "subject", "username", "account")}:
            return False
        if self.path and not str(line.get("path", "")).startswith(self.path):
            return False
        if self.text and not any(self.text in str(value) for value in line.values()):
            return False
        if self.any_of and not any(line.get(name) == value for name, value in self.any_of):
            return False
        if self.but and line.get("reference") == self.but:
            return False
        return not self._is_bounded or self.since <= instant_of(line) <= self.until

    @property
    def needles(self) -> Sequence[str]:
        """Texts that stand in the bytes of every line that fits, as far as that is known: they spare the parsing."""
        texts = (self.reference, self.session, self.client, self.reason, self.person, self.path)
        events = tuple(self.event) if len(self.event) == 1 else ()
        digits = (self.text,) if self.text.isascii() and self.text.isdigit() else ()
        return [text for text in (*texts, *events) if is_as_written(text)] + list(digits)

    @property
    def some(self) -> Sequence[str]:
        """Texts one of which stands in the bytes of every line that fits; none where that is not known."""
        values = {value for _, value in self.any_of}
        return sorted(values) if all(map(is_as_written, values)) else ()

    @property
    def _is_bounded(self) -> bool:
        return self.since > 0 or self.until != float("inf")


def is_as_written(text: str) -> bool:
    """True for what stands in an audit line as it is."""
    return bool(text) and text.isascii() and text.isprintable() and not set(text) & set('"\\')


def instant_of(line: Line) -> float:
    """When *line* was written, in epoch seconds; 0 when it does not say."""
    try:
        return datetime.fromisoformat(str(line.get("time", ""))).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def follow(path: Path) -> Iterator[bytes]:
    """Lines that come to *path* from now on, for ever; through rotations. Raises OSError when it is not there."""
    stream = path.open("rb")
    stream.seek(0, os.SEEK_END)
    rest = b""
    while True:
        # Looked up first: what is read after that is all that the file ever got, if it has been moved away.
        after = _after(stream, path)
        part = stream.read(_PORTION)
        if part:
            *whole, rest = (rest + part).split(b"\n")
            yield from whole
        elif after is not None:
            stream.close()
            stream, rest = after.open("rb"), b""
        else:
            time.sleep(_POLL)


def _after(stream: BinaryIO, path: Path) -> Path | None:
    """The file that followed the one that is open; None when that one is *path* still, or nothing has followed yet."""
    inode = os.fstat(stream.fileno()).st_ino
    try:
        if path.stat().st_ino == inode:
            return None
    except FileNotFoundError:
        return None
    files = files_of(path)
    for number, file in enumerate(files[:-1]):
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_ino == inode:
                return files[number + 1]
    return path

"""Open a file of people: the newest of its kind, whole, and the same from beginning to end."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from sidecar.config.sync_source import FileSource
from sidecar.core.sync.entry import Row
from sidecar.sync.sources.source import End, Reading, down, in_thread

_BLOCK = 1 << 20
CHUNK = 500


class People:
    """A file as a source; what is in it, the kind of file says by ``chunks``."""

    def __init__(self, section: FileSource) -> None:
        """Read what *section* says."""
        self.section = section
        self._path = section.path
        self._stamp: tuple[int, ...] = ()
        self._digest = ""
        self._is_same = False
        self.faults: list[str] = []

    async def begin(self, since: str) -> Reading:
        """See Source: a file that is the same as before need not be read again."""
        self._path, self._stamp, self._digest = await asyncio.to_thread(_opened, self.section)
        self._is_same = bool(since) and since == self._digest
        return "same" if self._is_same else "full"

    def batches(self) -> AsyncIterator[Sequence[Row]]:
        """See Source."""
        return in_thread(iter(()) if self._is_same else self._guarded())

    def _guarded(self) -> Iterator[list[dict[str, Any]]]:
        try:
            yield from self.chunks(self._path)
        except UnicodeDecodeError:
            self.faults.append(f"the text is not {self.section.encoding}")
        except OSError as error:
            raise down(f"{self._path.name}: {error.strerror or type(error).__name__}") from None
        try:
            if _stamp_of(self._path) != self._stamp:
                self.faults.append("the file was changed while it was read")
        except OSError:
            self.faults.append("the file was removed while it was read")

    def chunks(self, path: Path) -> Iterator[list[dict[str, Any]]]:
        """The rows of the file at *path*; what is wrong with it goes to ``faults``."""
        raise NotImplementedError

    def named(self, row: dict[str, Any]) -> dict[str, Any]:
        """*row* with its columns as the configuration calls them."""
        names = self.section.rename
        return {names.get(name, name): value for name, value in row.items()} if names else row

    def end(self) -> End:
        """See Source."""
        if self.faults:
            more = f", and {len(self.faults) - 1} more" if len(self.faults) > 1 else ""
            return End(is_complete=False, why=f"{self._path.name}: {self.faults[0]}{more}")
        return End(is_complete=True, cursor=self._digest)

    async def probe(self) -> str:
        """See Source."""
        path, stamp, _ = await asyncio.to_thread(_opened, self.section)
        return f"{path.name}, {stamp[1]} bytes"

    async def close(self) -> None:
        """Nothing stays open."""


def _opened(section: FileSource) -> tuple[Path, tuple[int, ...], str]:
    """The file, what tells whether it changes, and the digest of its content."""
    path = newest(section.path)
    if path is None:
        raise down(f"there is no file {section.path}")
    try:
        stamp = _stamp_of(path)
        if stamp[1] > section.largest:
            raise down(f"{path.name} is larger than {section.largest} bytes")
        return path, stamp, _digest_of(path)
    except OSError as error:
        raise down(f"{path.name}: {error.strerror or type(error).__name__}") from None


def newest(path: Path) -> Path | None:
    """The file at *path*, or the newest one that fits it; None when there is none."""
    if "*" not in path.name:
        return path if path.is_file() else None
    found = [(one.stat().st_mtime_ns, one.name, one) for one in path.parent.glob(path.name) if one.is_file()]
    return max(found)[2] if found else None


def _stamp_of(path: Path) -> tuple[int, ...]:
    status = os.stat(path)  # noqa: PTH116 - follows what the path leads to now
    return status.st_ino, status.st_size, status.st_mtime_ns


def _digest_of(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def chunked(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """*rows*, some hundreds at a time."""
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk

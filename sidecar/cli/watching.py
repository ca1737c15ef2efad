"""Look at files every few seconds, and tell when they have changed and are quiet again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MOST_FILES = 1000
Stamp = tuple[object, ...]
Stamps = Mapping[Path, Stamp]


@dataclass(frozen=True, slots=True)
class Watched:
    """What is looked at, how often (seconds), and whether at all."""

    files: Sequence[Path]
    every: float
    is_on: bool


class Watch:
    """Works on every file system, also where files are replaced by renaming or by moving a link (Kubernetes)."""

    def __init__(self, watched: Callable[[], Watched], changed: Callable[[], Awaitable[object]]) -> None:
        """Call *changed* when what is *watched* at that time has changed; it may be something else every time."""
        self._watched = watched
        self._changed = changed

    async def run(self) -> None:
        """Look for ever."""
        # Nothing is taken for seen: files may have changed after they were read and before the first look.
        seen: Stamps | None = None
        last = await self._look()
        while True:
            await asyncio.sleep(self._watched().every)
            now = await self._look()
            is_quiet, last = now == last, now
            if not self._watched().is_on:
                seen = now
            elif is_quiet and (seen is None or _differs(seen, now)):
                await self._changed()
                # Files that are new to us count as they are; what changed while they were read is seen next time.
                last = await self._look()
                seen = {path: now.get(path, stamp) for path, stamp in last.items()}

    async def _look(self) -> Stamps:
        files = self._watched().files
        return await asyncio.to_thread(lambda: {path: stamp_of(path) for path in files})


def _differs(seen: Stamps, now: Stamps) -> bool:
    return any(seen.get(path, stamp) != stamp for path, stamp in now.items())


def stamp_of(path: Path) -> Stamp:
    """What changes when *path*, or what it links to, does; empty where nothing is."""
    try:
        status = path.stat()
        own = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        if not path.is_dir():
            return own
        inner = sorted(one for one in path.rglob("*") if one.is_file())[:_MOST_FILES]
        return (own, *((one, stamp_of(one)) for one in inner))
    except OSError:
        return ()

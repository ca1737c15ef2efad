"""Keep messages on disk until they are delivered: bounded, in order, safe from a kill, taken over from the dead."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

_LOCK = "lock"
_REFUSED = ".refused"


class Spool:
    """A folder of this process's own among those of others; it appears with the first message."""

    def __init__(self, folder: Path, purpose: str, most: int) -> None:
        """Keep messages below *folder*, *most* bytes of them. Only spools of the same *purpose* are taken over."""
        self._folder = folder
        self._purpose = purpose
        self._most = most
        self._name = f"{purpose}-{secrets.token_hex(8)}"
        self._lock = -1
        self._number = 0
        self._adopted: dict[Path, int] = {}
        # One thread puts, another one delivers.
        self._counting = threading.Lock()
        self.size = 0
        self.lost = 0

    @property
    def _own(self) -> Path:
        return self._folder / self._name

    def next_id(self) -> str:
        """What the next message will be called: the same name however often it is sent."""
        return f"{self._name}-{self._number + 1:012d}"

    def put(self, body: bytes) -> None:
        """Keep *body*, under the name that ``next_id`` gave. Raises OSError when it is full or cannot be written."""
        if self._lock < 0:
            self._begin()
        if self.size + len(body) > self._most and not self._make_room(len(body)):
            raise OSError(errno.EDQUOT, f"the spool {self._folder} is full")
        path = self._own / f"{self._number + 1:012d}"
        fresh = path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.rename(path)
        self._number += 1
        with self._counting:
            self.size += len(body)

    def _begin(self) -> None:
        self._own.mkdir(mode=0o700, parents=True)
        self._lock = _locked(self._own)

    def _make_room(self, wanted: int) -> bool:
        """Let go of what the receiver refused for good, the oldest first."""
        for path in sorted(self._own.glob(f"*{_REFUSED}")):
            with self._counting:
                self.size -= path.stat().st_size
            self.lost += 1
            path.unlink()
            if self.size + wanted <= self._most:
                return True
        return False

    def waiting(self) -> Iterator[tuple[str, Path]]:
        """(name, file) of each message that waits, the oldest first; those of dead processes before our own."""
        for folder in (*sorted(self._adopted), *([self._own] if self._lock >= 0 else [])):
            for path in sorted(one for one in folder.iterdir() if one.name.isdigit()):
                yield f"{folder.name}-{path.name}", path

    def done(self, path: Path) -> None:
        """Forget a message that was delivered."""
        size = path.stat().st_size
        path.unlink()
        if path.parent == self._own:
            with self._counting:
                self.size -= size

    def put_aside(self, path: Path) -> None:
        """Keep a message that the receiver will never take for people to look at, as long as there is room."""
        path.rename(path.with_name(path.name + _REFUSED))

    def adopt(self) -> None:
        """Take over what processes left that have died; let go of what has become empty. Raises OSError."""
        for folder, lock in list(self._adopted.items()):
            if not any(one.name.isdigit() for one in folder.iterdir()):
                del self._adopted[folder]
                _removed(folder, lock)
        for folder in self._folder.glob(f"{self._purpose}-*"):
            if folder.name != self._name and folder not in self._adopted:
                with contextlib.suppress(OSError):
                    _refuse_foreign(folder)
                    self._adopted[folder] = _locked(folder)

    def close(self) -> None:
        """Let go; whoever comes next takes over what still waits."""
        for folder, lock in self._adopted.items():
            _removed(folder, lock)
        self._adopted.clear()
        if self._lock >= 0:
            _removed(self._own, self._lock)
            self._lock = -1


def _refuse_foreign(folder: Path) -> None:
    """Raise OSError unless *folder* is ours: what others put there would be signed, or lead to our own files."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "not ours")


def _locked(folder: Path) -> int:
    """The lock of *folder*, which ends with the process that holds it. Raises OSError when somebody else does."""
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever removed it before we had the lock has left nothing.
        if not (folder / _LOCK).exists():
            raise FileNotFoundError(errno.ENOENT, "gone")
    except OSError:
        os.close(lock)
        raise
    return lock


def _removed(folder: Path, lock: int) -> None:
    """Let go of *folder*, and take it away when nothing waits in it."""
    with contextlib.suppress(OSError):
        for unfinished in folder.glob("*.new"):
            unfinished.unlink()
        if [one.name for one in folder.iterdir()] == [_LOCK]:
            (folder / _LOCK).unlink()
            folder.rmdir()
    os.close(lock)

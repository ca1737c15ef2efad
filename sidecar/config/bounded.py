"""Read the beginning of a file that somebody else may have replaced by anything: it keeps nobody waiting."""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path

# Milliseconds for each piece that a pipe has to say: `sidecar check <(decrypt config.yaml)` takes a moment.
_PATIENCE = 5000
_PIECE = 1 << 16


def read_at_most(path: Path, most: int) -> bytes:
    """The first *most* bytes of *path*. Raises OSError, ETIMEDOUT among it, when there is no end to the waiting.

    A named pipe that nobody writes to would hold up whoever opens it for ever, and a reload with it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        is_waited_for = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        read = bytearray()
        while len(read) < most:
            if is_waited_for:
                _wait(descriptor)
            piece = os.read(descriptor, min(_PIECE, most - len(read)))
            if not piece:
                break
            read += piece
        return bytes(read)
    finally:
        os.close(descriptor)


def _wait(descriptor: int) -> None:
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    if not ready.poll(_PATIENCE):
        raise OSError(errno.ETIMEDOUT, "it is no file, and nothing comes out of it")

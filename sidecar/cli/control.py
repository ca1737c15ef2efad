"""Let commands on this machine speak to the sidecar that runs: a Unix socket for its own user and root alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from sidecar.cancelling import cancelled
from sidecar.listening import bound

if TYPE_CHECKING:
    from sidecar.cli.wire import Serve

_log = structlog.get_logger("control")
_LONGEST = 64 * 1024
_PATIENCE = 10.0
_PAUSE = 0.5
# Linux: struct ucred.
_CREDENTIALS = struct.Struct("3i")


@asynccontextmanager
async def control(path: Path | None, serve: Serve) -> AsyncIterator[None]:
    """Answer by *serve* what is asked at *path*, as long as the block lasts. Raises OSError that names the setting."""
    if path is None:
        yield
        return
    (door,) = await bound("reload.control", f"unix:{path}")
    # Before anybody can connect.
    path.chmod(0o600)  # noqa: ASYNC240 - as quick as binding it
    door.listen(8)
    door.setblocking(False)  # noqa: FBT003 - the standard library's signature
    task = asyncio.create_task(_accept(door, serve))
    try:
        yield
    finally:
        await cancelled([task])
        door.close()
        with contextlib.suppress(OSError):
            path.unlink()  # noqa: ASYNC240 - as above


async def _accept(door: socket.socket, serve: Serve) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        while True:
            try:
                one, _ = await loop.sock_accept(door)
            except OSError as error:
                # Too many open files, for instance: whoever asks waits, and is heard when there are fewer.
                _log.warning("nobody can be heard at reload.control now", error=error.strerror)
                await asyncio.sleep(_PAUSE)
                continue
            group.create_task(_speak(one, serve))


async def _speak(one: socket.socket, serve: Serve) -> None:
    try:
        with one:
            uid = _CREDENTIALS.unpack(one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1]
            # The file's mode says the same; a folder that somebody opens up by mistake must not be enough.
            if uid not in {0, os.geteuid()}:
                _log.warning("refused at reload.control", uid=uid)
                return
            async with asyncio.timeout(_PATIENCE):
                asked = json.loads(await _line(one, _LONGEST))
            answer = await serve({**asked, "who": f"uid {uid}"})
            async with asyncio.timeout(_PATIENCE):
                await asyncio.get_running_loop().sock_sendall(one, json.dumps(answer).encode() + b"\n")
    except Exception as error:  # noqa: BLE001 - whatever it is, the next command shall be heard
        _log.warning("a command was not understood", error=type(error).__name__)


async def _line(one: socket.socket, longest: int) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        piece = await asyncio.get_running_loop().sock_recv(one, 65536)
        if not piece or len(data) > longest:
            raise ValueError
        data += piece
    return data

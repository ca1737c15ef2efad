"""Tie a worker to its parent: it says when it serves, does what the parent asks, and ends when the parent is gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from sidecar.cli.wire import Message, Serve, Wire


class Leash:
    """The worker's end of a socket pair; for a process without a parent of ours it does nothing."""

    def __init__(self, descriptor: int | None) -> None:
        """Take the end that was inherited as *descriptor*; raises OSError when that is none."""
        self._socket = None if descriptor is None else socket.socket(fileno=descriptor)
        self._wire: Wire | None = None
        self._listening: asyncio.Task[None] | None = None

    @property
    def is_tied(self) -> bool:
        """True for a worker."""
        return self._socket is not None

    async def tie(self, serve: Serve, end: Callable[[], None]) -> None:
        """Do from now on what the parent asks; call *end* when it has died: what nobody replaces must not stay."""
        if self._socket is None:
            return
        self._socket.settimeout(0)
        self._wire = wire = await Wire.over(self._socket, serve)

        async def listen() -> None:
            await wire.run()
            end()

        self._listening = asyncio.create_task(listen())

    async def ask(self, do: str, patience: float | None = None, **fields: Any) -> Message:
        """Ask the parent. Raises ConnectionError when it is gone or there is none, TimeoutError."""
        if self._wire is None:
            raise ConnectionResetError
        return await self._wire.ask(do, patience, **fields)

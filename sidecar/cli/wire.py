"""Let two processes of ours ask each other things over a socket: one line of JSON for each question and answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

_log = structlog.get_logger("wire")
_LONGEST = 1 << 20
Message = Mapping[str, Any]
Serve = Callable[[Message], Awaitable[Message]]


class Wire:
    """One end. What the other one asks is answered by ``serve``; both may ask at the same time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, serve: Serve) -> None:
        """Speak over *reader* and *writer*; ``run`` does the listening."""
        self._reader = reader
        self._writer = writer
        self._serve = serve
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    @classmethod
    async def over(cls, one: socket.socket, serve: Serve) -> Wire:
        """Speak over *one* end of a socket pair, which belongs to the wire from now on."""
        reader, writer = await asyncio.open_unix_connection(sock=one, limit=_LONGEST)
        return cls(reader, writer, serve)

    async def ask(self, do: str, patience: float | None = None, **fields: Any) -> Message:
        """Ask, and wait for the answer. Raises ConnectionError when the other one is gone, TimeoutError."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"number": number, "ask": {"do": do, **fields}})
            async with asyncio.timeout(patience):
                answered: Message = await answer
                return answered
        finally:
            self._waiting.pop(number, None)

    def _send(self, message: Message) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def run(self) -> None:
        """Listen until the other one is gone."""
        try:
            while line := await self._reader.readline():
                self._hear(json.loads(line))
        except (OSError, ValueError):
            _log.warning("a process of ours does not speak any more")
        finally:
            self.close()

    def _hear(self, message: Message) -> None:
        if "ask" in message:
            task = asyncio.create_task(self._answer(message["number"], message["ask"]))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            return
        waiting = self._waiting.get(message["number"])
        if waiting is not None and not waiting.done():
            waiting.set_result(message["answer"])

    async def _answer(self, number: int, asked: Message) -> None:
        answer = await self._serve(asked)
        with contextlib.suppress(OSError):
            self._send({"number": number, "answer": answer})

    def close(self) -> None:
        """Hang up; whoever waits for an answer gets ConnectionError."""
        self._writer.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError())

"""Let in connections that a load balancer announces by the PROXY protocol; everybody else stays outside."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence

import structlog

from sidecar.core.addresses import Network, is_trusted
from sidecar.core.proxy_protocol import (
    HEAD_SIZE,
    LONGEST_LINE,
    SHORTEST,
    SIGNATURE,
    Announced,
    read_block,
    read_line,
    rest_of_block,
)

_log = structlog.get_logger("doorway")
_PATIENCE = 5.0
_AFTER_A_FAULT = 0.1


class Doorway:
    """Accepts, reads what is announced, and only then begins TLS or HTTP.

    The announcement stands before everything else, also before TLS, so it is read from the socket itself.
    """

    def __init__(
        self,
        listening: socket.socket,
        speak: Callable[[Announced | None], asyncio.Protocol],
        *,
        trusted: Sequence[Network],
        tls: ssl.SSLContext | None,
        tls_patience: float,
    ) -> None:
        """Accept on *listening* from *trusted* peers; *speak* makes the protocol for whoever was announced."""
        self._socket = listening
        self._speak = speak
        self.trusted = trusted
        self._tls = tls
        self._tls_patience = tls_patience if tls is not None else None
        self._admitting: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def open(self, backlog: int) -> None:
        """Begin."""
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._socket.listen(backlog)
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        """Accept nobody any more; connections that were let in stay."""
        for task in (self._accepting, *self._admitting):
            if task is not None:
                task.cancel()
        self._socket.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, address = await loop.sock_accept(self._socket)
            except OSError as error:
                _log.error("cannot accept", error=str(error))
                await asyncio.sleep(_AFTER_A_FAULT)
                continue
            if not is_trusted(address[0], self.trusted):
                _log.warning("refused: not one of server.trusted_proxies", peer=address[0])
                peer.close()
                continue
            task = loop.create_task(self._admit(peer, address[0]))
            self._admitting.add(task)
            task.add_done_callback(self._admitting.discard)

    async def _admit(self, peer: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_PATIENCE):
                announced = await _announced(peer)
            await loop.connect_accepted_socket(
                lambda: self._speak(announced), peer, ssl=self._tls, ssl_handshake_timeout=self._tls_patience
            )
        except (ValueError, TimeoutError, EOFError) as error:
            _log.warning("refused: no valid PROXY protocol header", peer=address, error=type(error).__name__)
            peer.close()
        except BaseException as error:
            peer.close()
            # A client that fails in its TLS handshake, or leaves.
            if not isinstance(error, OSError):
                raise


async def _announced(peer: socket.socket) -> Announced | None:
    """Take the announcement off *peer*, and not a byte more. Raises ValueError, EOFError or OSError."""
    start = await _take(peer, SHORTEST)
    if start == SIGNATURE:
        head = start + await _take(peer, HEAD_SIZE - SHORTEST)
        return read_block(head, await _take(peer, rest_of_block(head)))
    line = start
    while not line.endswith(b"\r\n"):
        if not line.startswith(b"PROXY ") or len(line) >= LONGEST_LINE:
            raise ValueError(line[:8])
        line += await _take(peer, 1)
    return read_line(line.removesuffix(b"\r\n"))


async def _take(peer: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    taken = b""
    while len(taken) < size:
        with contextlib.suppress(BlockingIOError):
            piece = await loop.sock_recv(peer, size - len(taken))
            if not piece:
                raise EOFError
            taken += piece
    return taken

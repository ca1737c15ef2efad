"""Ask a server of the application something by ourselves: no body goes, and only the head of the answer is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import hdrs

from sidecar.upstream.answer import judge
from sidecar.upstream.head import Framing, Head, compose

if TYPE_CHECKING:
    from sidecar.upstream.answer import Answer
    from sidecar.upstream.server import Server

_WITH_LENGTH = Framing(length=0)


async def ask(server: Server, head: Head) -> Answer:
    """Send *head* over a connection of its own. The caller bounds the time.

    Raises Unavailable, Refused(HEADERS_INVALID) and HttpProcessingError.
    """
    connection = await server.pool.connect()
    try:
        connection.begin(for_head=False)
        connection.send(compose(head, Framing() if head.method == hdrs.METH_GET else _WITH_LENGTH).data)
        return judge(await connection.message(), head.method)
    finally:
        connection.abort()

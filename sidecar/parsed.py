"""What aiohttp's parser made of the bytes of a client: which of its messages end where they do."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD

# A head, or a fault in its place, and the stream of its body.
Messages = MutableSequence[tuple[Any, Any]]


def make_last(messages: Messages, data: bytes) -> None:
    """Nothing is served after a chunked request: aiohttp's parser makes its trailers lines of the next head.

    Whoever shares a connection of a front proxy with others could plant cookies into their requests. Nor after one
    that wants to upgrade unless *data* ends with its head: what stands behind it, the parser may throw away.
    """
    for number, (message, payload) in enumerate(messages):
        if isinstance(message, RawRequestMessage) and (
            message.chunked or (message.upgrade and not _ends_with_head(data))
        ):
            messages[number] = message._replace(should_close=True), payload


def is_at_end(messages: Messages, data: bytes) -> bool:
    """Whether the parser is surely between two requests: one came out, it has no body, and *data* ended with it."""
    return data.endswith(b"\r\n\r\n") and bool(messages) and messages[-1][1] is EMPTY_PAYLOAD


def parts_of(messages: Messages, data: bytes) -> tuple[bytes, bytes] | None:
    """All lines of *data* after its first, and its body, if it is one whole request of which nothing is missing."""
    if not messages:
        return None
    payload = messages[-1][1]
    start, end = data.find(b"\r\n"), data.find(b"\r\n\r\n") + 4
    # What is chunked is longer than its body.
    is_whole = payload.is_eof() and start > 0 and end + payload.total_bytes == len(data)
    return (data[start:end], data[end:]) if is_whole else None


def _ends_with_head(data: bytes) -> bool:
    """Whether the first head that ends in *data* is the end of it."""
    return 0 <= data.find(b"\r\n\r\n") == len(data) - 4

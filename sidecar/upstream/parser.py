"""Make aiohttp's parser of answers, in C where it is there, and tell whether it is between two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp.http import HttpResponseParser

from sidecar.upstream.answer import MAX_HEAD, MAX_LINES

if TYPE_CHECKING:
    import asyncio

BUFFER = 64 * 1024


def new_parser(protocol: Any, loop: asyncio.AbstractEventLoop, *, with_body: bool) -> Any:
    """Make one for *protocol*, whose reading is paused while a body piles up; *with_body* False for answers to HEAD."""
    return HttpResponseParser(
        protocol,
        loop,
        BUFFER,
        max_line_size=MAX_HEAD,
        max_field_size=MAX_HEAD,
        max_headers=MAX_LINES,
        response_with_body=with_body,
        read_until_eof=True,
        auto_decompress=False,
    )


def has_leftover(parser: Any) -> bool:
    """True when the parser holds the beginning of an answer that nobody asked for.

    Such bytes would become the head of the next person's answer. The C parser tells by ``feed_eof``, which does nothing
    between two messages; the one in Python by what it keeps.
    """
    if getattr(parser, "_lines", None) or getattr(parser, "_tail", None):
        return True
    try:
        return parser.feed_eof() is not None
    except Exception:  # noqa: BLE001 - an unfinished head that cannot be parsed either
        return True

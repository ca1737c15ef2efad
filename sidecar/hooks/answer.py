"""Read an HTTP answer within bounds of bytes, also when it is compressed."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from sidecar.hooks.context import Fields, fields_of

_CHUNK = 64 * 1024
_LONGEST_TEXT = 4096
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class AnswerUnusable(Exception):  # noqa: N818 - what it is
    """The answer is too large or malformed; the message is for the log and carries nothing of the answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as templates see it: ``headers`` by lower-case name, ``body`` the JSON value or a short text."""

    status: int
    headers: Fields = field(repr=False)
    body: Any = field(repr=False)
    is_json: bool

    def context(self) -> dict[str, Any]:
        """Variables for templates."""
        return {"status": self.status, "headers": self.headers, "body": self.body}


async def read_answer(response: aiohttp.ClientResponse, limit: int) -> Answer:
    """Read the whole answer; raises AnswerUnusable past *limit* bytes, before or after decompression."""
    raw = await _bounded(response, limit)
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raw = _inflated(raw, encoding, limit)
    headers = Fields({name.lower(): value for name, value in response.headers.items()})
    try:
        body, is_json = fields_of(json.loads(raw, parse_constant=_no_constant)), True
    except (ValueError, RecursionError):
        body, is_json = _short_text(response.content_type, raw), False
    return Answer(response.status, headers, body, is_json)


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    raw = bytearray()
    async for piece in response.content.iter_chunked(_CHUNK):
        raw += piece
        if len(raw) > limit:
            message = f"the answer is larger than {limit} bytes"
            raise AnswerUnusable(message)
    return bytes(raw)


def _inflated(raw: bytes, encoding: str, limit: int) -> bytes:
    # The client library would inflate before anybody can count.
    if encoding not in _WINDOW_BITS:
        message = "the answer is compressed in an unknown way"
        raise AnswerUnusable(message)
    try:
        inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
        plain = inflater.decompress(raw, limit + 1)
    except zlib.error:
        message = "the answer is not compressed as it says"
        raise AnswerUnusable(message) from None
    if len(plain) > limit:
        message = f"the answer is larger than {limit} bytes"
        raise AnswerUnusable(message)
    return plain


def _no_constant(name: str) -> Any:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _short_text(content_type: str, raw: bytes) -> str:
    """Only short plain text is worth a condition; pages and binaries read as ""."""
    if content_type != "text/plain" or len(raw) > _LONGEST_TEXT:
        return ""
    return raw.decode("utf-8", "replace").strip()

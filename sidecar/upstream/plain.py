"""Read an answer that came whole and is plain, line by line; whatever is not goes to the parser.

An answer is plain when each of its lines is spelled as nearly everybody spells it, and nothing in it takes any care:
no cookie, no coding, no challenge, no stream. What a line means is remembered, since applications say the same all day.
"""

from __future__ import annotations

import re
from typing import TypeVar

from sidecar.upstream.answer import BODILESS, MAX_LINES, Fate, fate_of

# Longer ones are read anew each time.
_LONGEST_KEPT = 256
_MOST_KEPT = 4096
_LONGEST_HEAD = 16 * 1024
_START = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2}) [!-~]+(?: [!-~]+)*")
# RFC 9112, section 5: one space after the colon, none at the end, and nothing that folds or controls.
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):(?: ([!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?))?")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,8}")
V = TypeVar("V")


class Plain:
    """A whole answer: its status, and the bytes that the client gets."""

    __slots__ = ("data", "status")

    def __init__(self, status: int, data: bytes) -> None:
        """Of *status*, as *data*."""
        self.status = status
        self.data = data


class Arrived:
    """An answer that the client has got: its status, and whether the client's connection ``stays``."""

    __slots__ = ("status", "stays")

    def __init__(self, status: int, *, stays: bool) -> None:
        """Of *status*."""
        self.status = status
        self.stays = stays


class _Line:
    """What one line means: bytes for the client, and the length of the body if it tells."""

    __slots__ = ("data", "length")

    def __init__(self, data: bytes, length: int | None = None) -> None:
        """Pass *data* on; *length* is None where the line does not tell it."""
        self.data = data
        self.length = length


_starts: dict[bytes, int] = {}
_lines: dict[bytes, _Line] = {}


def plain_answer(data: bytes) -> Plain | None:
    """Read *data* as the whole answer to a GET; None when it is not whole, not plain, or more than one."""
    end = data.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
    if end < 0:
        return None
    start, *lines = data[:end].split(b"\r\n")
    status = _starts.get(start) or _status(start)
    if not status or len(lines) > MAX_LINES:
        return None
    kept, length = [start, b"\r\n"], None
    for line in lines:
        known = _lines.get(line) or _read(line)
        if known is None:
            return None
        kept.append(known.data)
        if known.length is not None:
            if length is not None:
                return None
            length = known.length
    if length is None or end + 4 + length != len(data):
        return None
    kept.append(data[end + 2 :])
    return Plain(status, b"".join(kept))


def _status(start: bytes) -> int:
    """Status of a final answer that has a body, 0 when the line is none of that."""
    match = _START.fullmatch(start)
    status = int(match[1]) if match is not None else 0
    if status in BODILESS:
        return 0
    _keep(_starts, start, status)
    return status


def _read(line: bytes) -> _Line | None:
    """What *line* means, None when that takes more than to pass it on or to leave it out."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    name, value = match[1], match[2] or b""
    fate = fate_of(name)
    whole = b"%b: %b\r\n" % (name, value)
    if fate is Fate.KEEP or (fate is Fate.TYPE and not value.lower().startswith(b"text/event-stream")):
        known = _Line(whole)
    elif fate is Fate.LENGTH and _LENGTH.fullmatch(value):
        known = _Line(b"Content-Length: %b\r\n" % value, int(value))
    elif fate is Fate.DROP or (fate is Fate.CONNECTION and value.lower() == b"keep-alive"):
        known = _Line(b"")
    else:
        return None
    _keep(_lines, line, known)
    return known


def _keep(memo: dict[bytes, V], line: bytes, meaning: V) -> None:
    if len(line) <= _LONGEST_KEPT:
        if len(memo) >= _MOST_KEPT:
            memo.clear()
        memo[line] = meaning

"""Where WebSocket frames begin in a stream of bytes (RFC 6455, section 5.2), without looking at what they carry."""

from __future__ import annotations

_CLOSE = 0x8
_SHORT_HEADER = 2
_LONGEST_CONTROL = 125
_FINAL = 0x80
_LENGTH_16 = 126
_LENGTH_64 = 127


class FrameTrack:
    """Follows one direction of a WebSocket; cheap, because payloads are skipped and never copied."""

    __slots__ = ("_header", "_limit", "_message", "_payload", "has_closed", "is_too_large")

    def __init__(self, limit: int | None = None) -> None:
        """Begin between two frames; *limit* is the largest message in bytes, all frames together."""
        self._limit = limit
        self._message = 0
        self.is_too_large = False
        self._header = bytearray()
        self._payload = 0
        self.has_closed = False

    @property
    def is_at_boundary(self) -> bool:
        """True when the next byte begins a frame, so that a frame of our own may stand there."""
        return not self._payload and not self._header

    def feed(self, data: bytes) -> None:
        """Take note of *data*, whatever its cut."""
        position, end = 0, len(data)
        while position < end:
            if self._payload:
                step = min(self._payload, end - position)
                self._payload -= step
                position += step
                continue
            missing = self._missing()
            self._header += data[position : position + missing]
            position += missing
            if not self._missing():
                self._open()

    def _missing(self) -> int:
        """How many bytes the header lacks, as far as it can be told now; 0 when it is complete."""
        if len(self._header) < _SHORT_HEADER:
            return _SHORT_HEADER - len(self._header)
        length = self._header[1] & 0x7F
        size = _SHORT_HEADER + {_LENGTH_16: 2, _LENGTH_64: 8}.get(length, 0)
        size += 4 if self._header[1] & 0x80 else 0
        return size - len(self._header)

    def _open(self) -> None:
        header, length = self._header, self._header[1] & 0x7F
        if length == _LENGTH_16:
            length = int.from_bytes(header[2:4], "big")
        elif length == _LENGTH_64:
            length = int.from_bytes(header[2:10], "big")
        opcode = header[0] & 0x0F
        if opcode >= _CLOSE:
            self.has_closed = self.has_closed or opcode == _CLOSE
            # Section 5.5; they may stand within a message, and are none (section 5.4).
            is_too_large = length > _LONGEST_CONTROL
        else:
            # Until its last frame all is one message, whatever an opcode says that may not stand there.
            self._message += length
            is_too_large = self._limit is not None and self._message > self._limit
            if header[0] & _FINAL:
                self._message = 0
        self.is_too_large = self.is_too_large or (self._limit is not None and is_too_large)
        self._payload = length
        header.clear()


def close_frame(code: int, reason: str) -> bytes:
    """Build a server's Close frame (RFC 6455, section 5.5.1); *reason* is ASCII of at most 123 bytes."""
    body = code.to_bytes(2, "big") + reason.encode("ascii")
    return bytes((0x80 | _CLOSE, len(body))) + body

"""What audit lines look like, and lines of which all but a few values was written before."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from json.encoder import encode_basestring

from sidecar.core.audit_export import DECEIVING
from sidecar.telemetry.personal import Treat

_HOLE, _QUOTED = secrets.token_hex(16), secrets.token_hex(16)
# Made once: json.dumps with options makes one for every line.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


class Form:
    """A line with holes: what stands before and after its time, then what is done to each value and stands after it."""

    __slots__ = ("holes", "middle", "start")

    def __init__(self, start: bytes, middle: bytes, holes: tuple[tuple[Treat | None, bytes], ...]) -> None:
        """Put together what surrounds the *holes*."""
        self.start = start
        self.middle = middle
        self.holes = holes


class Stamp:
    """Writes times; what a second and a moment look like is worked out once. For one thread."""

    def __init__(self) -> None:
        """Begin with nothing worked out."""
        self._second = self._moment = -1
        self._second_text = self._moment_text = ""

    def text(self, now: float) -> str:
        """*now* (epoch seconds) in ISO 8601, in milliseconds."""
        moment = int(now * 1000)
        if moment != self._moment:
            self._moment = moment
            second, thousandths = divmod(moment, 1000)
            if second != self._second:
                self._second = second
                self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._moment_text = f"{self._second_text}.{thousandths:03d}+00:00"
        return self._moment_text


def line_of(time: str, event: str, fields: Mapping[str, object]) -> bytes:
    """One line of JSON, whatever strangers put into it: bytes that are no UTF-8 come out as escapes.

    Fields that are empty are left out.
    """
    return _sealed(_encode(_object(time, event, fields)) + "\n")


def form_of(event: str, fields: Mapping[str, object], holes: Mapping[str, Treat | None]) -> Form:
    """A form of the line that ``line_of`` gives, with *holes* after *fields*, each with what is done to its values."""
    text = _encode(_object(_HOLE, event, fields) | dict.fromkeys(holes, _QUOTED)) + "\n"
    start, middle, *after = map(_sealed, text.replace(f'"{_QUOTED}"', _HOLE).split(_HOLE))
    return Form(start, middle, tuple(zip(holes.values(), after, strict=True)))


def filled(form: Form, time: str, values: Sequence[str]) -> bytes:
    """*form* at *time* with *values* for its holes, as ``line_of`` would write it."""
    pieces = [form.start, time.encode(), form.middle]
    for place, (treat, after) in enumerate(form.holes):
        text = encode_basestring(values[place] if treat is None else treat(values[place]))
        pieces.append(text.encode() if text.isascii() and "\x7f" not in text else _sealed(text))
        pieces.append(after)
    return b"".join(pieces)


def _object(time: str, event: str, fields: Mapping[str, object]) -> dict[str, object]:
    return {"time": time, "event": event, **{name: value for name, value in fields.items() if value or value == 0}}


def _sealed(text: str) -> bytes:
    return text.translate(DECEIVING).encode(errors="backslashreplace")

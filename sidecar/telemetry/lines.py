"""What audit lines look like, and lines of which all but a few values was written before."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from json.encoder import encode_basestring
from typing import NamedTuple

from sidecar.core.audit_export import DECEIVING
from sidecar.telemetry.personal import Treat

_HOLE, _TIME = secrets.token_hex(16), secrets.token_hex(16)
# Made once: json.dumps with options makes one for every line.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


class Form(NamedTuple):
    """A line with holes, and what is done to what goes into them; the first hole is for the time."""

    text: str
    treats: tuple[Treat | None, ...]
    size: int


# A line that is not written yet, since whoever takes it to a sink has the time to: its form, when (epoch seconds), what
# goes into its holes, and about how many bytes it will take. No class of its own: one is made for nearly every request.
Blank = tuple[Form, float, tuple[str, ...], int]
Line = bytes | Blank


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
    text = _encode(_object(_TIME, event, fields) | dict.fromkeys(holes, _HOLE)) + "\n"
    text = text.replace("%", "%%").replace(_TIME, "%s").replace(f'"{_HOLE}"', "%s")
    treats = tuple(holes.values())
    return Form(text, treats if any(treats) else (), len(text))


def blank_of(form: Form, now: float, values: tuple[str, ...]) -> Blank:
    """*form* at *now* (epoch seconds) with *values* for its holes."""
    return form, now, values, form.size + sum(map(len, values))


def written(lines: Iterable[Line], stamp: Stamp) -> list[bytes]:
    """*lines* as ``line_of`` would write each."""
    return [line if isinstance(line, bytes) else _filled(line, stamp.text(line[1])) for line in lines]


def size_of(line: Line) -> int:
    """About how many bytes *line* keeps occupied."""
    return len(line) if isinstance(line, bytes) else line[3]


def _filled(blank: Blank, time: str) -> bytes:
    form, _, values, _ = blank
    if form.treats:
        pairs = zip(values, form.treats, strict=True)
        values = tuple(value if treat is None else treat(value) for value, treat in pairs)
    text = form.text % (time, *map(encode_basestring, values))
    return text.encode() if text.isascii() and "\x7f" not in text else _sealed(text)


def _object(time: str, event: str, fields: Mapping[str, object]) -> dict[str, object]:
    return {"time": time, "event": event, **{name: value for name, value in fields.items() if value or value == 0}}


def _sealed(text: str) -> bytes:
    return text.translate(DECEIVING).encode(errors="backslashreplace")

"""Read path patterns: ``/exact``, ``/one/*/segment`` and ``/prefix/**``."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern taken apart: its segments, and whether everything below them belongs to it."""

    segments: tuple[str, ...]
    open_end: bool


def read_pattern(path: str) -> Pattern:
    """Take *path* apart at its slashes; ``/**`` at the end opens it."""
    segments = path.split("/")[1:]
    open_end = segments[-1] == "**"
    return Pattern(tuple(segments[:-1] if open_end else segments), open_end)


def segment_text(segment: str, *, captures: bool = False) -> str:
    """Regular expression of one segment, in which ``*`` stands for any text without a slash.

    With *captures* each star's text is a group.

    What stands between two stars is looked for once, from the left, and never again (an atomic group): the first place
    is as good as any later one. Else a path of many hyphens would take minutes to be compared with ``*-*-*``.
    """
    first, *rest = map(re.escape, segment.split("*"))
    if not rest:
        return first
    short, long = ("([^/]*?)", "([^/]*)") if captures else ("[^/]*?", "[^/]*")
    return first + "".join(f"(?>{short}{part})" for part in rest[:-1]) + long + rest[-1]


def compile_segment(segment: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """Compile one segment to a full match."""
    return re.compile(segment_text(segment), _flags(ignore_case=ignore_case))


def compile_pattern(path: str, *, ignore_case: bool = False, captures: bool = False) -> re.Pattern[str]:
    """Compile a whole pattern to a full match; with *captures* what each star stands for is a group, ``**`` too.

    ``/admin/**`` covers ``/admin`` and everything below it, but never ``/administrator``.
    """
    pattern = read_pattern(path)
    text = "".join("/" + segment_text(segment, captures=captures) for segment in pattern.segments)
    if pattern.open_end:
        rest = "(.*)" if captures else ".*"
        text += f"(?:/{rest})?" if pattern.segments else f"/{rest}"
    return re.compile(text, _flags(ignore_case=ignore_case))


def _flags(*, ignore_case: bool) -> re.RegexFlag:
    return re.DOTALL | (re.IGNORECASE if ignore_case else re.NOFLAG)

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


def segment_text(segment: str) -> str:
    """Regular expression of one segment, in which ``*`` stands for any text without a slash.

    What stands between two stars is looked for once, from the left, and never again (an atomic group): the first place
    is as good as any later one. Else a path of many hyphens would take minutes to be compared with ``*-*-*``.
    """
    first, *rest = map(re.escape, segment.split("*"))
    if not rest:
        return first
    return first + "".join(f"(?>[^/]*?{part})" for part in rest[:-1]) + "[^/]*" + rest[-1]


def compile_segment(segment: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """Compile one segment to a full match."""
    return re.compile(segment_text(segment), _flags(ignore_case=ignore_case))


def compile_pattern(path: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """Compile a whole pattern to a full match.

    ``/admin/**`` covers ``/admin`` and everything below it, but never ``/administrator``.
    """
    pattern = read_pattern(path)
    text = "".join("/" + segment_text(segment) for segment in pattern.segments)
    if pattern.open_end:
        text += "(?:/.*)?" if pattern.segments else "/.*"
    return re.compile(text, _flags(ignore_case=ignore_case))


def _flags(*, ignore_case: bool) -> re.RegexFlag:
    return re.DOTALL | (re.IGNORECASE if ignore_case else re.NOFLAG)

"""What an examination found: a stable name, how bad it is, what was seen and the way out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How bad it is; ``SKIPPED`` means that it could not be seen from here."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing that is examined: by which check, why it matters, and what to change in general."""

    check: str
    why: str
    change: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``part`` says which of several, ``path`` is the place in the YAML ("" for none)."""

    name: str
    severity: Severity
    part: str
    seen: str
    why: str
    change: str = ""
    file: str = ""
    line: int = 0
    path: str = ""

    def as_data(self) -> Mapping[str, str | int]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "severity": self.severity.value,
            "part": self.part,
            "seen": self.seen,
            "why": self.why,
            "change": self.change,
            "file": self.file,
            "line": self.line,
            "path": self.path,
        }


# One probe is one line of questions, carried out beside all others; it may give any number of findings.
Probe = AsyncIterator[Finding]


def worst(findings: Sequence[Finding]) -> Severity:
    """The worst of *findings*; OK when there are none."""
    order = list(Severity)
    return max((finding.severity for finding in findings), key=order.index, default=Severity.OK)


Tell = Callable[[str, int, int], None]

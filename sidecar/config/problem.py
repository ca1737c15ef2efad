"""A problem in a configuration file: where it is, what it is, and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. ``line`` and ``column`` count from 1, 0 when there is none; ``path`` is the place in the YAML."""

    severity: Severity
    file: str
    line: int
    column: int
    path: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        """``file:line:column: severity: path: message. fix``."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        subject = f"{self.path}: " if self.path else ""
        return f"{place}: {self.severity}: {subject}{self.message}" + (f". {self.fix}" if self.fix else "")


def explain_problem(problem: Problem) -> str:
    """Say a problem on several lines, for people who read one at a time.

    The line of the file itself is not shown: a password may stand in it.
    """
    place = f"{problem.file}, line {problem.line}, column {problem.column}" if problem.line else problem.file
    lines = [f"{problem.severity} in {place}"]
    for title, text in (("where", problem.path), ("what", problem.message), ("way out", problem.fix)):
        if text:
            lines.append(f"  {title + ':':<9}{text}")
    return "\n".join(lines)


class ConfigError(Exception):
    """A configuration that cannot be used; ``problems`` holds everything that was found, warnings too."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Hold all *problems*, in the order of the file."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)

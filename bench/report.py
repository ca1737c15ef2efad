"""Put what was measured into tables, for the terminal and for bench/results.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Table:
    """One table with a sentence above it."""

    title: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """As Markdown that also reads well as it is."""
        lines = [list(self.columns), *map(list, self.rows)]
        widths = [max(len(line[number]) for line in lines) for number in range(len(self.columns))]
        written = ["| " + " | ".join(_padded(line, widths)) + " |" for line in lines]
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        return "\n".join([f"## {self.title}", "", self.about, "", written[0], rule, *written[1:], ""])


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    first = line[0].ljust(widths[0])
    return [first, *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target, what was measured, and whether it holds."""

    target: str
    measured: str
    holds: bool


@dataclass(slots=True)
class Report:
    """Everything that one run found out."""

    is_quick: bool
    tables: list[Table] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def judge(self, target: str, measured: float, most: float, unit: str = "") -> None:
        """Note that *measured* should be at most *most*."""
        self.verdicts.append(Verdict(target, f"{measured:.3g}{unit}", measured <= most))

    def judge_least(self, target: str, measured: float, least: float, unit: str = "") -> None:
        """Note that *measured* should be at least *least*."""
        self.verdicts.append(Verdict(target, f"{measured:.3g}{unit}", measured >= least))

    def _targets(self) -> Table:
        rows = [(one.target, one.measured, "yes" if one.holds else "no") for one in self.verdicts]
        return Table(
            "Targets", "What is aimed at, and whether this run reached it.", ("target", "measured", "holds"), rows
        )

    def text(self, versions: Mapping[str, str], absent: Mapping[str, str]) -> str:
        """The whole of bench/results.md."""
        kind = "`--quick`: runs are short, so differences of some per cent mean nothing." if self.is_quick else ""
        parts = ["# Results of `make bench`", "", machine(), kind, ""]
        if self.verdicts:
            parts.append(self._targets().text())
        parts += [table.text() for table in self.tables]
        parts += ["## Versions", "", *(f"- {name}: {version}" for name, version in versions.items())]
        parts += [f"- {name}: absent, {why}" for name, why in absent.items()]
        return "\n".join([*parts, ""])


def machine() -> str:
    """What it ran on: processor, cores, memory and kernel; no names."""
    model = _first("/proc/cpuinfo", "model name") or platform.machine()
    memory = int((_first("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 1024**2
    load = os.getloadavg()[0]
    system = f"Linux {platform.release().partition('-')[0]}"
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model}), {memory:.0f} GB, {system}; "
        f"load average at the end {load:.1f}."
    )


def _first(file: str, field_name: str) -> str:
    for line in Path(file).read_text().splitlines():
        if line.startswith(field_name):
            return line.partition(":")[2].strip()
    return ""

"""Show how far something is, on a terminal only."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sidecar.cli.saying import console


class Bar:
    """A bar on standard error: ``bar(what, done, of)``; *of* 0 is a number that nobody knows."""

    def __init__(self) -> None:
        """Begin without anything to show."""
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Begin to show, where somebody looks."""
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, console=console(error=True), transient=True)
            self._progress.start()
        return self

    def __call__(self, what: str, done: int, of: int) -> None:
        """Show that *what* is at *done* of *of*."""
        if self._progress is None:
            return
        total = max(done, of) if of else None
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away again."""
        if self._progress is not None:
            self._progress.stop()

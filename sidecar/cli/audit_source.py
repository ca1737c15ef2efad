"""Where commands read audit lines from: here a file and what was rotated away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sidecar.cli.saying import EXIT_UNAVAILABLE, give_up
from sidecar.core.audit import Event
from sidecar.telemetry.reading import Line, Query, files_of, follow, lines_of, parsed, raw_lines
from sidecar.telemetry.trail import look_back

if TYPE_CHECKING:
    from sidecar.core.chain import Finding, Verifier

# How long a line may have waited to be written: for a full disk, for instance.
SLACK = 3600.0


class Source(Protocol):
    """Somewhere that audit lines stand. What cannot be read ends the command."""

    def lines(self, wanted: Query) -> Iterator[Line]:
        """Lines that may fit *wanted*, the oldest first."""

    def newest(self, wanted: Query, most: int, slack: float = SLACK) -> Sequence[Line]:
        """The newest lines that fit, at most so many, the oldest first.

        Where *wanted* has times, lines that were written more than *slack* seconds late may be missed.
        """

    def follow(self) -> Iterator[Line]:
        """Lines as they come, for ever."""

    def verified(self, check: Verifier) -> Iterator[Finding]:
        """What *check* finds in all of them."""


class FileSource:
    """Audit files."""

    def __init__(self, file: Path) -> None:
        """Read *file* and its forerunners."""
        self._file = file

    def _paths(self) -> Sequence[Path]:
        paths = files_of(self._file)
        if not paths:
            give_up(f"{self._file}: there is no such file", EXIT_UNAVAILABLE)
        return paths

    def lines(self, wanted: Query) -> Iterator[Line]:  # noqa: ARG002 - a file has to be read as a whole
        """See Source.lines."""
        try:
            yield from lines_of(self._paths())
        except OSError as error:
            give_up(f"{error.filename}: {error.strerror}", EXIT_UNAVAILABLE)

    def newest(self, wanted: Query, most: int, slack: float = SLACK) -> Sequence[Line]:
        """See Source.newest; read from the end on, and no further than it takes."""
        self._paths()
        try:
            looked = look_back(
                self._file,
                lambda line: is_told(line, wanted),
                needles=wanted.needles,
                some=wanted.some,
                most=most,
                since=wanted.since,
                until=wanted.until,
                slack=slack,
                budget=float("inf"),
                unpacks=True,
            )
        except OSError as error:
            give_up(f"{error.filename}: {error.strerror}", EXIT_UNAVAILABLE)
        return looked.lines[::-1]

    def follow(self) -> Iterator[Line]:
        """See Source.follow."""
        try:
            for raw in follow(self._file):
                line = parsed(raw)
                if line is not None:
                    yield line
        except OSError as error:
            give_up(f"{self._file}: {error.strerror}", EXIT_UNAVAILABLE)

    def verified(self, check: Verifier) -> Iterator[Finding]:
        """See Source.verified."""
        try:
            for path in self._paths():
                for number, raw in raw_lines(path):
                    yield from check.read(f"{path.name}:{number}", raw)
        except OSError as error:
            give_up(f"{error.filename}: {error.strerror}", EXIT_UNAVAILABLE)


def is_told(line: Line, wanted: Query) -> bool:
    """True for a line that fits. Anchors are for the verifier; whoever wants them asks for them."""
    return wanted.fits(line) and (line.get("event") != Event.AUDIT_ANCHOR.value or bool(wanted.event))

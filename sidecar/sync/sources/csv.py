"""Read people from a table as text: CSV, TSV and their kin."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sidecar.config.sync_source import CsvSource
from sidecar.sync.sources.files import People, chunked

_MOST_FAULTS = 100


class CsvPeople(People):
    """A table. A line that is too short or too long makes the reading incomplete: the file was cut, or is broken."""

    def __init__(self, section: CsvSource) -> None:
        """Read what *section* says."""
        super().__init__(section)
        self._csv = section

    def chunks(self, path: Path) -> Iterator[list[dict[str, Any]]]:
        """See People."""
        return chunked(self._rows(path))

    def _rows(self, path: Path) -> Iterator[dict[str, Any]]:
        with path.open(encoding=self._csv.encoding, newline="") as stream:
            lines = csv.reader(stream, delimiter=self._csv.delimiter, strict=True)
            try:
                yield from self._people(lines)
            except csv.Error as error:
                self.faults.append(f"line {lines.line_num}: {error}")

    def _people(self, lines: Any) -> Iterator[dict[str, Any]]:
        header = [name.strip() for name in self._csv.header or tuple(next(lines, ()))]
        if not header or len(set(header)) != len(header):
            self.faults.append("two columns have the same name" if header else "the file is empty")
            return
        count, told = 0, None
        for line in lines:
            if not line:
                continue
            if told is not None:
                self.faults.append(f"line {lines.line_num} stands after the last one")
                return
            if self._csv.trailer is not None and line[0].strip() == self._csv.trailer:
                told = line[1].strip() if len(line) > 1 else ""
                continue
            if len(line) != len(header):
                self._fault(f"line {lines.line_num} has {len(line)} columns in place of {len(header)}")
                continue
            count += 1
            yield self.named(dict(zip(header, line, strict=True)))
        if self._csv.trailer is not None and told != str(count):
            said = "the last line is missing" if told is None else f"the last line says {told!r} people"
            self.faults.append(f"{said}, there are {count}")

    def _fault(self, text: str) -> None:
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(text)

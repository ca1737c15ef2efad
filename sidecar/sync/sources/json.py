"""Read people from a JSON file: one list, or one object on each line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sidecar.config.sync_source import JsonSource
from sidecar.sync.sources.files import People, chunked


class JsonPeople(People):
    """Objects. Whatever is no object, or cannot be read, makes the reading incomplete."""

    def __init__(self, section: JsonSource) -> None:
        """Read what *section* says."""
        super().__init__(section)
        self._json = section

    def chunks(self, path: Path) -> Iterator[list[dict[str, Any]]]:
        """See People."""
        return chunked(self._lines(path) if self._json.lines else self._list(path))

    def _lines(self, path: Path) -> Iterator[dict[str, Any]]:
        with path.open(encoding=self._json.encoding) as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield from self._objects(line, f"line {number}")

    def _objects(self, text: str, where: str) -> Iterator[dict[str, Any]]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            self.faults.append(f"{where} is no JSON")
            return
        if isinstance(value, dict):
            yield self.named(value)
        else:
            self.faults.append(f"{where} is no object")

    def _list(self, path: Path) -> Iterator[dict[str, Any]]:
        try:
            whole = json.loads(path.read_text(encoding=self._json.encoding))
        except (json.JSONDecodeError, RecursionError):
            self.faults.append("it is no JSON, or not all of it")
            return
        people = _at(whole, self._json.at)
        if not isinstance(people, list):
            self.faults.append(f"there is no list at {self._json.at or 'the top'}")
            return
        told = _at(whole, self._json.count) if self._json.count else len(people)
        if told != len(people):
            self.faults.append(f"{self._json.count} does not say {len(people)}, the number of people")
        for number, one in enumerate(people):
            if isinstance(one, dict):
                yield self.named(one)
            else:
                self.faults.append(f"[{number}] is no object")


def _at(value: Any, place: str) -> Any:
    for name in place.split(".") if place else ():
        value = value.get(name) if isinstance(value, dict) else None
    return value

"""Read the files of a Cedar engine, and find everything that is wrong with them, with file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.config.bounded import read_at_most
from sidecar.config.engines import CedarEngine

if TYPE_CHECKING:
    import cedarpy

_LARGEST = 4 << 20
# One piece at a time: text in quotes, a comment, the end of a policy, anything else.
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|;|[^";/]+|.', re.DOTALL)
_BLANK = re.compile(r"(?:\s+|//[^\n]*)*")
_INNER_NAME = re.compile(r"^for policy `[^`]*`, ")


class CedarMissingError(Exception):
    """The library is not installed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong at ``line`` (from 1) of ``file``; ``key`` is the setting that names the file."""

    key: str
    file: Path
    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Policies:
    """What the files say, ready to be asked; with ``faults`` it is not to be used.

    ``policies`` are known by their ``@id``, or else by file and line.
    """

    policies: cedarpy.PolicySet | None = None
    schema: cedarpy.Schema | None = None
    entities: cedarpy.Entities | None = None
    faults: tuple[Fault, ...] = ()


@dataclass(slots=True)
class _Reading:
    """One pass over the files of *section*."""

    section: CedarEngine
    faults: list[Fault] = field(default_factory=list)

    def text(self, key: str, path: Path) -> str:
        try:
            raw = read_at_most(path, _LARGEST + 1)
            if len(raw) > _LARGEST:
                self.fault(key, path, 1, f"is larger than {_LARGEST >> 20} MiB")
                return ""
            return raw.decode()
        except OSError as error:
            self.fault(key, path, 1, f"cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            self.fault(key, path, raw[: error.start].count(b"\n") + 1, "is not UTF-8 text")
        return ""

    def fault(self, key: str, path: Path, line: int, message: str) -> None:
        self.faults.append(Fault(key, path, line, message))


def read_policies(section: CedarEngine) -> Policies:
    """Read the files of *section*; everything that is wrong with them is in ``faults``.

    Raises CedarMissingError.
    """
    try:
        import cedarpy  # noqa: F401, PLC0415 - only for those who have such an engine
    except ImportError:
        raise CedarMissingError from None
    reading = _Reading(section)
    schema = _schema(reading)
    policies = _policies(reading, schema)
    entities = _entities(reading, schema)
    if reading.faults:
        return Policies(faults=tuple(reading.faults))
    return Policies(policies, schema, entities)


def _schema(reading: _Reading) -> cedarpy.Schema | None:
    import cedarpy  # noqa: PLC0415 - as above

    path = reading.section.schema_file
    text = reading.text("schema", path) if path is not None else ""
    if path is None or not text:
        return None
    read = cedarpy.Schema.from_json_str if text.lstrip().startswith("{") else cedarpy.Schema.from_str
    try:
        return read(text)
    except ValueError as error:
        said = str(error).removeprefix("error parsing schema: ")
        reading.fault("schema", path, _line_of_quoted(text, said), said)
        return None


def _line_of_quoted(text: str, said: str) -> int:
    """The library names no line, only what it did not expect: where that stands, if it stands in one place."""
    match = re.search(r"`([^`]+)`|: (\w+)$", said)
    word = (match[1] or match[2]) if match else ""
    places = [found.start() for found in re.finditer(re.escape(word), text)] if word else []
    return text.count("\n", 0, places[0]) + 1 if len(places) == 1 else 1


def _policies(reading: _Reading, schema: cedarpy.Schema | None) -> cedarpy.PolicySet | None:
    import cedarpy  # noqa: PLC0415 - as above

    found: dict[str, Any] = {}
    for number, path in enumerate(reading.section.policies):
        key = f"policies[{number}]"
        for line, text in _statements(reading.text(key, path)):
            policy = _policy(reading, key, path, line, text)
            if policy is None:
                continue
            name = policy.get("annotations", {}).get("id") or f"{path.name}:{line}"
            if name in found:
                reading.fault(key, path, line, f"there is another policy called {name}")
            found[name] = policy
            if schema is not None:
                for error in cedarpy.validate_policies(text, schema).errors:
                    reading.fault(key, path, line, _INNER_NAME.sub("", error.error))
    if not found and not reading.faults:
        reading.fault("policies[0]", reading.section.policies[0], 1, "there is no policy, so everything is denied")
    if reading.faults:
        return None
    return cedarpy.PolicySet.from_json_str(json.dumps({"staticPolicies": found, "templates": {}, "templateLinks": []}))


def _policy(reading: _Reading, key: str, path: Path, line: int, text: str) -> dict[str, Any] | None:
    """One policy as JSON; None, and a fault, when it is none."""
    import cedarpy  # noqa: PLC0415 - as above

    try:
        made = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        reading.fault(key, path, line, str(error))
        return None
    policies: Sequence[dict[str, Any]] = list(made["staticPolicies"].values())
    if len(policies) != 1:
        reading.fault(key, path, line, "a template authorizes nothing by itself: write a policy without ?slots")
        return None
    return policies[0]


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """(line, text) of every policy of a file."""
    start = 0
    for piece in _PIECE.finditer(text):
        if piece[0] == ";":
            yield _begun(text, start, piece.end())
            start = piece.end()
    if text[start:] and not _is_blank(text[start:]):
        yield _begun(text, start, len(text))


def _begun(text: str, start: int, end: int) -> tuple[int, str]:
    match = _BLANK.match(text, start, end)
    begin = match.end() if match is not None else start
    return text.count("\n", 0, begin) + 1, text[begin:end]


def _is_blank(text: str) -> bool:
    return _BLANK.fullmatch(text) is not None


def _entities(reading: _Reading, schema: cedarpy.Schema | None) -> cedarpy.Entities | None:
    import cedarpy  # noqa: PLC0415 - as above

    path = reading.section.entities
    if path is None:
        return cedarpy.Entities.from_json_str("[]")
    text = reading.text("entities", path)
    if not text:
        return None
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        reading.fault("entities", path, line, "is not JSON")
        return None
    if not isinstance(listed, list):
        reading.fault("entities", path, 1, "must be a list of entities")
        return None
    for line, entity in _items(text):
        _judge_entity(reading, path, line, entity, schema)
    if reading.faults:
        return None
    try:
        return cedarpy.Entities.from_json_str(text, schema)
    except ValueError as error:
        reading.fault("entities", path, 1, str(error))
        return None


def _judge_entity(reading: _Reading, path: Path, line: int, entity: Any, schema: cedarpy.Schema | None) -> None:
    import cedarpy  # noqa: PLC0415 - as above

    try:
        cedarpy.Entities.from_json_str(json.dumps([entity]), schema)
    except ValueError as error:
        reading.fault("entities", path, line, str(error))
        return
    uid = entity.get("uid", {})
    uid = uid.get("__entity", uid)
    if uid.get("type") == reading.section.principal:
        reading.fault("entities", path, line, f"a {reading.section.principal} is made of the sign-in, never of a file")


def _items(text: str) -> Iterator[tuple[int, Any]]:
    """(line, value) of every item of a JSON list that is known to be one."""
    decoder, place = json.JSONDecoder(), text.index("[") + 1
    separators = re.compile(r"[\s,]*")
    while True:
        match = separators.match(text, place)
        place = match.end() if match is not None else place
        if text[place] == "]":
            return
        value, end = decoder.raw_decode(text, place)
        yield text.count("\n", 0, place) + 1, value
        place = end

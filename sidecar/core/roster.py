"""Read a list of people that an operator wrote, and say line by line what is wrong with it."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LONGEST = 1024
MOST_LINES = 200_000
_MOST_GROUPS = 1000
_COLUMNS = frozenset(["id", "username", "email", "name", "groups", "active"])
_UNSEEN = frozenset(["Cc", "Cf", "Cs"])
_YES, _NO = frozenset(["true", "yes", "1"]), frozenset(["false", "no", "0"])


@dataclass(frozen=True, slots=True)
class Entry:
    """One person. ``id`` never changes and is the user name in lower case where none was given.

    ``groups`` and ``active`` are None where nothing was said.
    """

    id: str
    username: str
    email: str = ""
    name: str = ""
    groups: tuple[str, ...] | None = None
    active: bool | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a line; the first one is 1."""

    line: int
    problem: str

    def __str__(self) -> str:
        """As it is shown."""
        return f"line {self.line}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Roster:
    """A list that was read: (line, person) of what is fine, and every flaw."""

    entries: Sequence[tuple[int, Entry]]
    flaws: Sequence[Flaw]


def entry_of(said: Mapping[str, Any]) -> Entry:
    """One person out of what was written. Raises ValueError that says what is wrong."""
    username = _text(said, "username")
    if not username:
        message = "username is missing"
        raise ValueError(message)
    email = _text(said, "email")
    if email and not _is_address(email):
        message = "email is no address"
        raise ValueError(message)
    return Entry(
        id=_text(said, "id") or username.lower(),
        username=username,
        email=email,
        name=_text(said, "name"),
        groups=_groups(said.get("groups")),
        active=_active(said.get("active")),
        attributes={name: value for name, value in said.items() if name not in _COLUMNS and value not in ("", None)},
    )


def read_roster(content: bytes, form: str) -> Roster:
    """Read CSV (with a first line of column names) or JSONL (an object a line), as *form* says. UTF-8 only."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Roster((), [Flaw(content.count(b"\n", 0, error.start) + 1, "is not UTF-8")])
    entries: list[tuple[int, Entry]] = []
    flaws: list[Flaw] = []
    seen: dict[tuple[str, str], int] = {}
    for line, said in _csv(text) if form == "csv" else _jsonl(text):
        if isinstance(said, str):
            flaws.append(Flaw(line, said))
        elif len(entries) >= MOST_LINES:
            return Roster(entries, [*flaws, Flaw(line, f"more than {MOST_LINES} people in one file")])
        else:
            try:
                entry = entry_of(said)
                _refuse_twice(entry, line, seen)
            except ValueError as error:
                flaws.append(Flaw(line, str(error)))
            else:
                entries.append((line, entry))
    return Roster(entries, flaws)


def _refuse_twice(entry: Entry, line: int, seen: dict[tuple[str, str], int]) -> None:
    keys = [("id", entry.id), ("username", entry.username.lower()), ("email", entry.email.lower())]
    for kind, value in keys:
        if value and (kind, value) in seen:
            message = f"{kind} stands in line {seen[kind, value]} already"
            raise ValueError(message)
    seen.update({(kind, value): line for kind, value in keys if value})


def _csv(text: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    line = 1
    try:
        for row in rows:
            if not columns:
                columns = [name.strip() for name in row]
                if "username" not in columns or len(set(columns)) != len(columns):
                    yield 1, "the first line names the columns, each once, and one of them is username"
                    return
            elif row and len(row) != len(columns):
                yield line, f"has {len(row)} fields, and there are {len(columns)} columns"
            elif row:
                yield line, dict(zip(columns, row, strict=True))
            line = rows.line_num + 1
    except csv.Error as error:
        yield line, f"is no CSV: {error}"


def _jsonl(text: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            yield number, "is no JSON"
            continue
        yield number, said if isinstance(said, dict) else "is no JSON object"


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        message = f"{name} is no text"
        raise ValueError(message)  # noqa: TRY004 - what an operator wrote, not what we did
    text = unicodedata.normalize("NFC", value).strip()
    if len(text) > LONGEST or any(unicodedata.category(letter) in _UNSEEN for letter in text):
        message = f"{name} is too long or has control characters"
        raise ValueError(message)
    return text


def _groups(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = value.split(";") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names) or len(names) > _MOST_GROUPS:
        message = "groups is no list of names (in CSV: names with ; between them)"
        raise ValueError(message)
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))


def _active(value: Any) -> bool | None:
    text = str("" if value is None else value).strip().lower()
    if text in _YES | _NO:
        return text in _YES
    if text:
        message = "active is neither true nor false"
        raise ValueError(message)
    return None


def _is_address(text: str) -> bool:
    local, _, domain = text.partition("@")
    return bool(local and domain) and "@" not in domain and not any(letter in text for letter in ' "<>(),;:\\[]\t')

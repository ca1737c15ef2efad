"""Compare two configurations, and say what differs without saying a secret."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sidecar.config.bounded import read_at_most
from sidecar.config.document import Document
from sidecar.config.models import Config
from sidecar.config.redaction import redacted

# Files whose content is a part of the configuration; others are written by us, or read again by themselves.
_CONTENTS = frozenset(
    ["ca", "certificate", "key", "metadata_certificate", "policies", "schema", "entities", "templates"]
)
_LARGEST = 16 << 20
_MOST_FILES = 1000
_LONGEST_TEXT = 120
_MOST_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Held:
    """A file that belongs to the configuration, and a hash of what it holds."""

    path: Path
    content: str


@dataclass(frozen=True, slots=True)
class Change:
    """What changed at a path: as text before and after, "" where nothing was; "changed" for what is not shown."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        """``path: before → after``; ``path: changed`` for secrets and contents of files."""
        if self.before == self.after:
            return f"{self.path}: changed"
        return f"{self.path}: {self.before or '(nothing)'} → {self.after or '(nothing)'}"


def digest_of(config: Config) -> str:
    """A name for *config*: a hash of it without its secrets, which therefore says nothing of them."""
    return hashlib.sha256(json.dumps(redacted(config), sort_keys=True).encode()).hexdigest()


def fingerprint_of(laid: Mapping[str, Hashable]) -> str:
    """A name for everything that is *laid* out, contents of files and secrets too; it must never leave the machine."""
    text = "\0".join(f"{path}={_revealed(value)}" for path, value in laid.items())
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _revealed(value: Any) -> str:
    if isinstance(value, frozenset):
        # In another process it has another order.
        return repr(sorted(map(_revealed, value)))
    return value.reveal() if hasattr(value, "reveal") else repr(value)


def laid_out(config: Config) -> dict[str, Hashable]:
    """Every single value of *config* by its path, with the contents of the files that belong to it."""
    return dict(_leaves(config, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from _leaves(getattr(value, name), _below(path, field.alias or name))
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _leaves(part, _below(path, str(name)))
    elif isinstance(value, list | tuple) and any(isinstance(part, BaseModel | Mapping | Path) for part in value):
        for number, part in enumerate(value):
            yield from _leaves(part, f"{path}[{number}]")
    elif isinstance(value, Path):
        is_read = path.rpartition(".")[2].partition("[")[0].removeprefix("redis_") in _CONTENTS
        yield path, Held(value, content_of(value)) if is_read else str(value)
    else:
        yield path, tuple(value) if isinstance(value, list) else value


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def content_of(path: Path) -> str:
    """A hash of what a file holds, or all files of a folder; "" for what is not there or cannot be read."""
    try:
        if path.is_dir():
            files = sorted(one for one in path.rglob("*") if one.is_file())[:_MOST_FILES]
            return hashlib.sha256("".join(f"{one}\0{content_of(one)}" for one in files).encode()).hexdigest()
        return hashlib.sha256(read_at_most(path, _LARGEST)).hexdigest()
    except OSError:
        return ""


Laid = Mapping[str, Hashable]


def changes_between(before: Config, old: Laid, after: Config, new: Laid) -> tuple[Change, ...]:
    """What differs, in the order of the file; of a section that comes or goes as a whole only its name.

    *old* and *new* are both laid out, each when it was read: the files may be others by now.
    """
    texts = _texts(before), _texts(after)
    paths = [path for path in dict.fromkeys([*new, *old]) if old.get(path, ...) != new.get(path, ...)]
    roots = {path for path in paths if old.get(path, ...) is None or new.get(path, ...) is None}
    found = [path for path in paths if not any(path.startswith((f"{root}.", f"{root}[")) for root in roots)]
    return tuple(
        Change(path, "", "…")
        if old.get(path, ...) is None and path not in texts[1]
        else Change(path, "…", "")
        if new.get(path, ...) is None and path not in texts[0]
        else Change(path, texts[0].get(path, ""), texts[1].get(path, ""))
        for path in found
    )


def _texts(config: Config) -> Mapping[str, str]:
    """The redacted texts by the paths of ``laid_out``."""
    return dict(_written(redacted(config), ""))


def _written(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _written(part, _below(path, str(name)))
    elif isinstance(value, list):
        yield path, _short(json.dumps(value, ensure_ascii=False))
        for number, part in enumerate(value):
            yield from _written(part, f"{path}[{number}]")
    elif value is not None:
        yield path, _short(value if isinstance(value, str) else json.dumps(value))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def shown(changes: Sequence[Change]) -> list[str]:
    """*changes* as lines for an audit line, which must not grow without end."""
    more = len(changes) - _MOST_SHOWN
    return [*map(str, changes[:_MOST_SHOWN]), *([f"and {more} more"] if more > 0 else [])]


def files_of(path: Path, document: Document | None, config: Config | None) -> tuple[Path, ...]:
    """Every file that the configuration at *path* is made of: itself, those that it refers to, certificates, pages."""
    base = path.resolve().parent
    # What stands under audit is written by us: a file of its own there is no reference.
    data = {} if document is None else {key: part for key, part in document.data.items() if key != "audit"}
    keys = [] if document is None else _named(list(_inside(document.data.get("audit"))))
    named = [base / name for name in (*_named(data), *keys)]
    inner = [] if config is None else [value.path for _, value in _leaves(config, "") if isinstance(value, Held)]
    return tuple(dict.fromkeys([path, *named, *inner]))


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if len(value) == 1 and isinstance(value.get("file"), str):
            yield value["file"]
        for part in value.values():
            yield from _named(part)
    elif isinstance(value, list):
        for part in value:
            yield from _named(part)

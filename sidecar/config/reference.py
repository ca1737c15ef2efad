"""Write the reference of every key out of the models, as Markdown for docs/configuration.md."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from sidecar.config.anatomy import fields_of, kinds_of, plain_kinds
from sidecar.config.models import Config
from sidecar.config.redaction import plain
from sidecar.config.section import Section
from sidecar.config.values import Dsn, OneOrMany, Secret, parse_size
from sidecar.core.template import Template

BEGIN, END = "<!-- reference: begin -->", "<!-- reference: end -->"
_WORDS: dict[Any, str] = {
    str: "text",
    int: "number",
    bool: "true, false",
    timedelta: "duration",
    Path: "path",
    Secret: "secret",
    Dsn: "address",
    Template: "template",
    Any: "JSON with templates",
    ipaddress.IPv4Network: "network",
    ipaddress.IPv6Network: "network",
}
_KIB = 1024


def reference() -> str:
    """Tables of all keys, section after section, in the order of the models."""
    return "\n\n".join(_table(name, section) for name, section in _sections("", Config))


def in_place(text: str) -> str:
    """*text* of the guide with the reference between its marks made anew."""
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def _sections(path: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """Every section with the path where it is met first."""
    seen: set[type[Section]] = set()

    def walk(path: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
        if section in seen:
            return
        seen.add(section)
        yield path, section
        for key, field in fields_of(section).items():
            for kind, suffix in _inner(field.annotation):
                if isinstance(kind, type) and issubclass(kind, Section):
                    yield from walk(f"{path}.{key}{suffix}".lstrip("."), kind)

    yield from walk(path, section)


def _inner(annotation: Any) -> Iterator[tuple[Any, str]]:
    for kind in plain_kinds(annotation):
        if get_origin(kind) is dict:
            yield from ((inner, ".NAME") for inner in plain_kinds(get_args(kind)[1]))
        elif get_origin(kind) is tuple:
            yield from ((inner, "[]") for inner in plain_kinds(get_args(kind)[0]))
        else:
            yield kind, ""


def _table(path: str, section: type[Section]) -> str:
    about = (section.__doc__ or "").strip().replace("\n    ", "\n").replace("``", "`")
    kinds = kinds_of(section)
    title = f"### `{path}`" if path else "### The file"
    title += f" with `type: {kinds[0]}`" if kinds else ""
    rows = [_row(key, field) for key, field in fields_of(section).items()]
    return "\n".join([title, "", about, "", "| key | value | default | |", "|---|---|---|---|", *rows])


def _row(key: str, field: FieldInfo) -> str:
    cells = (f"`{key}`", _value(field), _default(field), field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    default = field.default
    if field.default_factory is not None or default is None or default == () or isinstance(default, Section):
        return ""
    if _is_size(field):
        return f"`{default // _KIB}KiB`" if default % _KIB**2 else f"`{default // _KIB**2}MiB`"
    shown = plain(default)
    if isinstance(shown, list):
        return f"`[{', '.join(map(str, shown))}]`"
    return f"`{str(shown).lower() if isinstance(shown, bool) else shown}`" if shown != "" else ""


def _value(field: FieldInfo) -> str:
    if _is_size(field):
        return "size"
    kinds = [kind for kind in plain_kinds(field.annotation) if kind is not type(None)]
    words = list(dict.fromkeys(_word(kind) for kind in kinds))
    is_either = any(part is OneOrMany for part in field.metadata)
    return " or ".join(words) + (", or one alone" if is_either else "")


def _is_size(field: FieldInfo) -> bool:
    # An optional size keeps its annotation inside the union.
    inner = [part for kind in get_args(field.annotation) for part in getattr(kind, "__metadata__", ())]
    return any(getattr(part, "func", None) is parse_size for part in (*field.metadata, *inner))


def _word(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if origin is dict:
        return f"name → {_words(get_args(kind)[1])}"
    if origin is tuple:
        return f"list of {_words(get_args(kind)[0])}"
    return _WORDS.get(kind, "section")


def _words(annotation: Any) -> str:
    return " or ".join(dict.fromkeys(_word(kind) for kind in plain_kinds(annotation)))

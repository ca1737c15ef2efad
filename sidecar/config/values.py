"""The kinds of value that the configuration is made of: durations, sizes, secrets, templates, networks."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainValidator, ValidationInfo, WithJsonSchema

from sidecar.config.bounded import read_at_most
from sidecar.config.secret import Dsn, Secret
from sidecar.config.shorthand import OneOrMany, Shorthand
from sidecar.core.rates import Rate
from sidecar.core.template import Compiler, Template

__all__ = [
    "TEXT_SCHEMA",
    "Dsn",
    "DsnText",
    "Duration",
    "FilePath",
    "JsonTemplate",
    "Network",
    "OneOrMany",
    "Peer",
    "RateText",
    "Secret",
    "SecretOrTemplate",
    "SecretOrText",
    "SecretText",
    "Shorthand",
    "Size",
    "Status",
    "Surroundings",
    "TemplateText",
    "Text",
    "Texts",
    "parse_duration",
    "parse_rate",
    "parse_size",
    "secret_of",
    "surroundings_of",
]  # fmt: skip

# The number of digits is bounded, because Python refuses to read longer ones and dates end somewhere.
_DURATION = re.compile(
    r"(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,9})m(?!s))?(?:([0-9]{1,9})s)?(?:([0-9]{1,9})ms)?"
)
_RATE_NUMBER = re.compile(r"[1-9][0-9]{0,6}")
_SIZE = re.compile(r"([0-9]{1,15})\s*(B|KiB|MiB|GiB)?")
_STATUS = re.compile(r"[1-5](?:[0-9]{2}|xx)")
_SIZE_UNITS = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SECRET_FILE_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a configuration file may refer to beyond itself; handed to the parser as its validation context.

    ``base`` is the folder that relative paths start from. ``needs_secrets`` False lets unresolved secrets pass
    (for editors and schema checks); the value is then empty.
    """

    base: Path
    environment: Mapping[str, str]
    compiler: Compiler
    needs_secrets: bool = True


def surroundings_of(info: ValidationInfo) -> Surroundings:
    """Surroundings handed to this validation; a default one when a model is built in code."""
    if isinstance(info.context, Surroundings):
        return info.context
    return Surroundings(Path.cwd(), os.environ, Compiler())


def _from_environment(name: Any, around: Surroundings) -> str:
    if not isinstance(name, str) or not name:
        message = "env takes the name of an environment variable"
        raise ValueError(message)
    value = around.environment.get(name)
    if value is None:
        if not around.needs_secrets:
            return ""
        message = f"the environment variable {name} is not set; set it, or write {{file: PATH}}"
        raise ValueError(message)
    return value


def _from_file(name: Any, around: Surroundings) -> str:
    if not isinstance(name, str) or not name:
        message = "file takes a path"
        raise ValueError(message)
    path = around.base / name
    try:
        raw = read_at_most(path, _SECRET_FILE_LIMIT + 1)
        if len(raw) > _SECRET_FILE_LIMIT:
            message = f"the file {path} is larger than {_SECRET_FILE_LIMIT} bytes"
            raise ValueError(message)
        return raw.decode().rstrip("\r\n")
    except OSError as error:
        if not around.needs_secrets:
            return ""
        message = (
            f"the file {path} cannot be read: {error.strerror}; relative paths start beside the configuration file"
        )
        raise ValueError(message) from None
    except UnicodeDecodeError:
        message = f"the file {path} is not UTF-8 text"
        raise ValueError(message) from None


_SOURCES: dict[str, Callable[[Any, Surroundings], str]] = {"env": _from_environment, "file": _from_file}


def _reference(value: Any, info: ValidationInfo) -> tuple[str, str] | None:
    """(text, origin) of ``{env: NAME}`` or ``{file: PATH}``; None when the value is not such a mapping."""
    if not (isinstance(value, Mapping) and len(value) == 1):
        return None
    kind, name = next(iter(value.items()))
    if kind not in _SOURCES:
        return None
    return _SOURCES[kind](name, surroundings_of(info)), f"{kind} {name}"


def _secret(value: Any, info: ValidationInfo) -> Secret:
    if isinstance(value, Secret):
        return value
    found = _reference(value, info)
    if found is None:
        message = "a secret is written {env: NAME} or {file: PATH}, never in the file itself"
        raise ValueError(message)
    if not found[0] and surroundings_of(info).needs_secrets:
        message = f"the secret from {found[1]} is empty"
        raise ValueError(message)
    return Secret(*found)


def secret_of(value: Any, info: ValidationInfo) -> Secret:
    """Secret of ``{env: NAME}`` or ``{file: PATH}``; raises ValueError."""
    return _secret(value, info)


def _dsn(value: Any, info: ValidationInfo) -> Dsn:
    if isinstance(value, Dsn):
        return value
    if isinstance(value, str):
        return Dsn(value)
    found = _reference(value, info)
    if found is None:
        message = "an address is written as text, {env: NAME} or {file: PATH}"
        raise ValueError(message)
    return Dsn(*found)


def _plain(value: Any, info: ValidationInfo) -> Any:
    found = _reference(value, info)
    return value if found is None else found[0]


def parse_duration(value: Any) -> timedelta:
    """Parse ``90s``, ``30m``, ``12h``, ``1d12h``, ``500ms``; raises ValueError."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if match is None:
        message = "a duration is written like 90s, 30m, 12h, 7d or 500ms"
        raise ValueError(message)
    days, hours, minutes, seconds, milliseconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)


def parse_rate(value: Any) -> Rate:
    """Parse ``30/1m``, ``5/10s``, or ``off``; raises ValueError."""
    if isinstance(value, Rate):
        return value
    if value is False or value == "off":
        return Rate(0, 1.0)
    number, _, seconds = value.partition("/") if isinstance(value, str) else ("", "", "")
    if not _RATE_NUMBER.fullmatch(number) or not (span := parse_duration(seconds).total_seconds()):
        message = "a rate is written like 30/1m: so many in so long; off for no limit"
        raise ValueError(message)
    return Rate(int(number), span)


def parse_size(value: Any) -> int:
    """Parse ``64KiB``, ``1MiB`` or a number of bytes; raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        message = "a size is written like 64KiB, 1MiB or a number of bytes"
        raise ValueError(message)
    return int(match[1]) * _SIZE_UNITS[match[2]]


def _template(value: Any, info: ValidationInfo) -> Template:
    if isinstance(value, Template):
        return value
    if isinstance(value, bool | int | float):
        value = str(value).lower() if isinstance(value, bool) else str(value)
    if not isinstance(value, str):
        message = "a template is text with {{ expressions }} in it"
        raise ValueError(message)  # noqa: TRY004 - pydantic collects ValueError
    return surroundings_of(info).compiler.compile(value)


def _json_template(value: Any, info: ValidationInfo) -> Any:
    """JSON-like tree in which every text is a template; the shape is kept, mappings and lists stay as they are."""
    if isinstance(value, Mapping):
        return {str(name): _json_template(part, info) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_json_template(part, info) for part in value)
    return _template(value, info) if isinstance(value, str) else value


def _network(value: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    try:
        return ipaddress.ip_network(str(value))
    except ValueError as error:
        message = f"a network is written like 10.0.0.0/8 or fd00::/8: {error}"
        raise ValueError(message) from None


def _peer(value: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network | str:
    return "unix" if value == "unix" else _network(value)


def _path(value: Any, info: ValidationInfo) -> Path:
    text = _plain(value, info)
    if text == "" and not surroundings_of(info).needs_secrets:
        return surroundings_of(info).base
    if not isinstance(text, str | Path) or not str(text):
        message = "a path is text"
        raise ValueError(message)
    return surroundings_of(info).base / text


def _secret_or_text(value: Any, info: ValidationInfo) -> Secret | str:
    if isinstance(value, str):
        return value
    return _secret(value, info)


def _secret_or_template(value: Any, info: ValidationInfo) -> Secret | Template:
    if isinstance(value, Mapping | Secret):
        return _secret(value, info)
    template = _template(value, info)
    if template.is_static:
        message = "a secret is written {env: NAME} or {file: PATH}, never in the file itself"
        raise ValueError(message)
    return template


def _status(value: Any) -> int | str:
    text = str(value).lower() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not _STATUS.fullmatch(text):
        message = "a status is written like 201, or 2xx for a whole class"
        raise ValueError(message)
    return int(text) if text.isdecimal() else text


def _reference_schema(kind: str, description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {kind: {"type": "string", "description": description}},
        "required": [kind],
        "additionalProperties": False,
    }


_REFERENCES = [
    _reference_schema("env", "name of an environment variable"),
    _reference_schema("file", "path of a file, relative to the configuration"),
]
TEXT_SCHEMA: dict[str, Any] = {"anyOf": [{"type": "string"}, *_REFERENCES]}

SecretText = Annotated[Secret, PlainValidator(_secret), WithJsonSchema({"oneOf": _REFERENCES})]
DsnText = Annotated[Dsn, PlainValidator(_dsn), WithJsonSchema(TEXT_SCHEMA)]
Text = Annotated[str, BeforeValidator(_plain), WithJsonSchema(TEXT_SCHEMA)]
Texts = Annotated[tuple[Text, ...], OneOrMany]
Duration = Annotated[
    timedelta,
    PlainValidator(parse_duration),
    WithJsonSchema(
        {"type": "string", "pattern": r"^(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$", "examples": ["30m", "12h"]}
    ),
]
RateText = Annotated[
    Rate,
    PlainValidator(parse_rate),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": ["30/1m"]}, {"const": False}]}),
]
Size = Annotated[
    int,
    PlainValidator(parse_size),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^\d+\s*(B|KiB|MiB|GiB)?$"}]}),
]
TemplateText = Annotated[
    Template,
    PlainValidator(_template),
    WithJsonSchema({"type": ["string", "number", "boolean"], "description": "text with {{ expressions }}"}),
]
JsonTemplate = Annotated[
    Any, PlainValidator(_json_template), WithJsonSchema({"description": "any JSON; {{ expressions }} in its texts"})
]
Network = Annotated[
    ipaddress.IPv4Network | ipaddress.IPv6Network,
    PlainValidator(_network),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8"]}),
]
Peer = Annotated[
    ipaddress.IPv4Network | ipaddress.IPv6Network | Literal["unix"],
    PlainValidator(_peer),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8", "unix"]}),
]
FilePath = Annotated[Path, PlainValidator(_path), WithJsonSchema(TEXT_SCHEMA)]
SecretOrText = Annotated[Secret | str, PlainValidator(_secret_or_text), WithJsonSchema(TEXT_SCHEMA)]
SecretOrTemplate = Annotated[Secret | Template, PlainValidator(_secret_or_template), WithJsonSchema(TEXT_SCHEMA)]
Status = Annotated[
    int | str,
    PlainValidator(_status),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 100, "maximum": 599},
                {"type": "string", "pattern": "^[1-5]([0-9]{2}|[xX]{2})$"},
            ]
        }
    ),
]

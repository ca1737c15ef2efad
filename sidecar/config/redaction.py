"""Show a whole configuration, with every default filled in and without its secrets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from sidecar.config.models import Config
from sidecar.config.provision import RestConnection
from sidecar.config.secret import names_a_credential
from sidecar.config.values import Dsn, Secret
from sidecar.core.template import Template

_MASK = "***"
# What calls send under names that the configuration chooses.
_SENT = ("headers", "query", "form")


def redacted(config: Config) -> dict[str, Any]:
    """Plain data of *config* as JSON can hold it, by the keys of the file; secrets say only where they come from."""
    return {name: plain(getattr(config, name)) for name in Config.model_fields}


def plain(value: Any) -> Any:
    """One value of the models as plain data."""
    if isinstance(value, BaseModel):
        return _section(value)
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, frozenset):
        # Another process would give another order, and so another digest.
        return sorted((plain(part) for part in value), key=str)
    return value if value is None or isinstance(value, str | int | float | bool) else _written(value)


def _written(value: Any) -> str:
    if isinstance(value, Dsn):
        return value.redacted
    if isinstance(value, Secret):
        return _masked(value)
    if isinstance(value, Template):
        return value.source
    return written_duration(value) if isinstance(value, timedelta) else str(value)


def _section(section: BaseModel) -> dict[str, Any]:
    found = {field.alias or name: plain(getattr(section, name)) for name, field in type(section).model_fields.items()}
    if isinstance(section, RestConnection):
        # A header that is sent with every call is nearly always a credential, also where it stands in the file.
        found["headers"] = {name: _masked(line) for name, line in section.headers.items()}
    for place in _SENT:
        lines = getattr(section, place, None)
        if isinstance(lines, Mapping):
            found[place] |= {name: _MASK for name, line in lines.items() if _is_credential(name, line)}
    return found


def _is_credential(name: str, line: Any) -> bool:
    """Whether a text is sent that stands in the file itself, under a name that says what it is."""
    is_literal = isinstance(line, str) or (isinstance(line, Template) and line.is_static)
    return is_literal and names_a_credential(name)


def _masked(value: Secret | str) -> str:
    return f"{_MASK} ({value.origin})" if isinstance(value, Secret) else _MASK


def written_duration(duration: timedelta) -> str:
    """Duration as the file has it: ``12h``, ``1m30s``, ``500ms``."""
    rest = duration // timedelta(milliseconds=1)
    pieces = []
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, length)
        if count:
            pieces.append(f"{count}{unit}")
    return "".join(pieces) or "0s"

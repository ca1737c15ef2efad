"""Carry values between templates and databases."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time
from typing import Any

from sidecar.core.template import TemplateError
from sidecar.hooks.context import Fields


def bindable(name: str, value: Any, dialect: str) -> Any:
    """Make *value* fit for a bind of *dialect* (SQLAlchemy's name); raises TemplateError when it cannot be."""
    if value is None:
        return None
    if isinstance(value, list | tuple) and dialect == "postgresql":
        return [bindable(name, part, dialect) for part in value]
    if not isinstance(value, str | bool | int | float):
        message = f"the param {name} is a {type(value).__name__}; a statement takes text, numbers and true or false"
        raise TemplateError(message)
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            message = f"the param {name} holds characters that no database takes"
            raise TemplateError(message)
        return value
    if dialect in ("mysql", "mariadb"):
        # MySQL compares a text column with the number 0 by turning the text into a number, and 'root' is 0 too.
        return str(int(value)) if isinstance(value, bool) else str(value)
    return value


def readable(value: Any) -> Any:
    """Make a column's value fit for templates: text, number, bool, None or a list of those; bytes become hex."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return Fields({str(name): readable(part) for name, part in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return [readable(part) for part in value]
    return str(value)

"""Find everything of one kind in a configuration, however deep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from sidecar.config.document import Location

T = TypeVar("T")


def within(value: Any, kind: type[T], place: Location = ()) -> Iterator[tuple[Location, T]]:
    """Every value of *kind* in *value*, which is at *place*, each with its own location; nothing within those."""
    if isinstance(value, kind):
        yield place, value
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from within(getattr(value, name), kind, (*place, field.alias or name))
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from within(part, kind, (*place, name))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from within(part, kind, (*place, number))

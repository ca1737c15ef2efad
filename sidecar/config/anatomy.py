"""Find the section of the models that a place in the file belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from sidecar.config.models import Config
from sidecar.config.section import Section


def fields_of(section: type[Section]) -> Mapping[str, FieldInfo]:
    """Fields of *section* by the key that stands in the file."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def section_at(location: tuple[str | int, ...]) -> type[Section] | None:
    """Section whose keys are written at *location*; None where there are none or any key is possible."""
    kinds: list[Any] = [Config]
    for part in location:
        kinds = [kind for one in kinds for kind in _inside(one, part)] or kinds
    return next((kind for kind in kinds if _is_section(kind)), None)


def kinds_of(section: type[Section]) -> tuple[str, ...]:
    """What the key ``type`` says in sections of this kind, where several kinds may stand at one place."""
    field = section.model_fields.get("type")
    return get_args(field.annotation) if field is not None and get_origin(field.annotation) is Literal else ()


def plain_kinds(annotation: Any) -> Iterator[Any]:
    """Types that *annotation* is made of, without Annotated, optional and union around them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from plain_kinds(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from plain_kinds(part)
    else:
        yield annotation


def inner_kinds(annotation: Any) -> Iterator[Any]:
    """Types of the values in a mapping or list, of the annotation itself otherwise."""
    for kind in plain_kinds(annotation):
        if get_origin(kind) is dict:
            yield from plain_kinds(get_args(kind)[1])
        elif get_origin(kind) is tuple:
            yield from plain_kinds(get_args(kind)[0])
        else:
            yield kind


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _inside(kind: Any, part: str | int) -> Iterator[Any]:
    if _is_section(kind):
        if part in kinds_of(kind):
            # Pydantic names the alternative that it took.
            yield kind
            return
        # A list may be written as its only item, so its number need not be there.
        field = fields_of(kind).get(str(part))
        if field is not None:
            yield from plain_kinds(field.annotation)
    elif get_origin(kind) is dict and isinstance(part, str):
        yield from plain_kinds(get_args(kind)[1])
    elif get_origin(kind) is tuple:
        for item in plain_kinds(get_args(kind)[0]):
            yield from [item] if isinstance(part, int) else _inside(item, part)

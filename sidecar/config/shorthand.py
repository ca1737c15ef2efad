"""Accept a shorter way of writing, and say so in the JSON Schema."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Shorthand:
    """Annotation: *expand* turns a short way of writing into the long one; *schema* describes the short way."""

    def __init__(self, expand: Callable[[Any], Any], schema: Mapping[str, Any]) -> None:
        """Accept what *expand* understands beside the annotated type itself."""
        self._expand = expand
        self._schema = schema

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Expand before validating."""
        return core_schema.no_info_before_validator_function(self._expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe both ways of writing."""
        return {"anyOf": [dict(self._schema), handler(schema)]}


class Presets(Shorthand):
    """Annotation of a mapping: its key ``preset`` stands for lines that have a name."""

    def __init__(self, expand: Callable[[Any], Any], names: Iterable[str]) -> None:
        """Let *expand* put the lines of *names* in."""
        super().__init__(expand, {"enum": list(names)})

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe the mapping with that key in it, and null for a preset's line that is not wanted."""
        mapping = handler(schema)
        name = dict(self._schema)
        preset = {"anyOf": [name, {"type": "array", "items": name}]}
        line = {"anyOf": [mapping["additionalProperties"], {"type": "null"}]}
        return {**mapping, "properties": {"preset": preset}, "additionalProperties": line}


class OneOrManyItems(Shorthand):
    """Annotation of a tuple: a list, or its only item without the brackets."""

    def __init__(self) -> None:
        """Take anything that is no list for the only item."""
        super().__init__(_many, {})

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe the list and its item."""
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


def _many(value: Any) -> Any:
    return value if isinstance(value, list | tuple | frozenset | set) else (value,)


OneOrMany = OneOrManyItems()

"""The JSON Schema of the configuration, for editors."""

from __future__ import annotations

import warnings
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, PydanticJsonSchemaWarning
from pydantic_core import core_schema

from sidecar.config.models import Config


class _Generator(GenerateJsonSchema):
    """Defaults that JSON cannot say are left out."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - the base's own type

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        """A list may be written as its only item."""
        many = super().tuple_schema(schema)
        items = many.get("items")
        return {"anyOf": [items, many]} if isinstance(items, dict) else many


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) that every valid configuration file fits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PydanticJsonSchemaWarning)
        warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
        found = Config.model_json_schema(schema_generator=_Generator)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "sidecar configuration", **found}

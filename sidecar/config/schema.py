"""The JSON Schema of the configuration, for editors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from sidecar.config.models import Config
from sidecar.config.redaction import plain

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    """Writes defaults as the file has them."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Leave defaults out that are whole sections, nothing, or empty: they say nothing to an editor."""
        inner = self.generate_inner(schema["schema"])
        default = schema.get("default")
        if default is None or isinstance(default, BaseModel) or default in ((), ""):
            return inner
        return {**inner, "default": plain(default)}


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) that every valid configuration file fits."""
    found = Config.model_json_schema(schema_generator=_Generator)
    return {"$schema": _DIALECT, **found, "title": "sidecar configuration"}

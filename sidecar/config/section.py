"""The base of every section: frozen, and no key that it does not know."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One mapping of the configuration file; unknown keys are errors, inputs never appear in messages."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        strict=False,
        # Built when first asked: all of them at once, as parts of the whole, instead of each by itself as well.
        defer_build=True,
    )

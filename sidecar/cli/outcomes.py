"""Pass what a reload came to from one process to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.config.comparing import Change
from sidecar.lasting import Outcome


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """*outcome* as JSON can hold it."""
    return {
        "loaded": outcome.is_loaded,
        "digest": outcome.digest,
        "changes": [[change.path, change.before, change.after] for change in outcome.changes],
        "problems": list(outcome.problems),
    }


def outcome_of(fields: Mapping[str, Any]) -> Outcome:
    """The outcome that ``outcome_fields`` made."""
    changes = tuple(Change(*change) for change in fields["changes"])
    return Outcome(bool(fields["loaded"]), str(fields["digest"]), changes, tuple(fields["problems"]))

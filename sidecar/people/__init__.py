"""Know who somebody is: what their sign-in says, and what the sources say that own people."""

from sidecar.people.changes import Changes
from sidecar.people.people import People, SourcePlan

__all__ = ["Changes", "People", "SourcePlan"]

"""Know who somebody is: what their sign-in says, and what the sources say that own people."""

from sidecar.people.changes import Changes
from sidecar.people.invitations import Invitations
from sidecar.people.people import People, SourcePlan

__all__ = ["Changes", "Invitations", "People", "SourcePlan"]

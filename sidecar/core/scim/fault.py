"""What SCIM clients are told when they are wrong (RFC 7644, section 3.12)."""

from __future__ import annotations

from sidecar.faults import Refused
from sidecar.reason import Reason


class Fault(Refused):
    """A refusal with a word of RFC 7644, table 9, in ``scim_type``; its ``detail`` is shown to the client.

    So nothing may stand there but what the client sent itself, or the names of attributes.
    """

    def __init__(self, scim_type: str, detail: str, status: int = 400, reason: Reason = Reason.SCIM_INVALID) -> None:
        """Refuse with *scim_type*, "" where the RFC has no word for it."""
        super().__init__(reason, status, detail)
        self.scim_type = scim_type


def bad_value(detail: str) -> Fault:
    """A value that is missing, of the wrong type, or too long."""
    return Fault("invalidValue", detail)


def bad_path(detail: str) -> Fault:
    """A path that leads nowhere."""
    return Fault("invalidPath", detail)


def bad_syntax(detail: str) -> Fault:
    """A body that is not what the RFC says."""
    return Fault("invalidSyntax", detail)


def not_there() -> Fault:
    """No such resource."""
    return Fault("", "there is no such resource", 404, Reason.NOT_FOUND)


def taken(attribute: str) -> Fault:
    """Somebody else has this value."""
    return Fault("uniqueness", f"{attribute} is taken", 409, Reason.CONFLICT)

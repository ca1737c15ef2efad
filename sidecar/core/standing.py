"""Work out what a signed-in person is to this configuration: roles and header values, once per session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.core.headers import Line, encode_value
from sidecar.core.template import MissingValueError, Template, TemplateError
from sidecar.model import Account, Identity, Reason, Refused, Session


@dataclass(frozen=True, slots=True)
class HeaderTemplate:
    """One header to inject."""

    name: str
    value: Template
    encoding: str = "utf-8"
    limit: int = 8192


def user_of(identity: Identity) -> dict[str, Any]:
    """The ``user`` that templates see."""
    return {
        "username": identity.username,
        "email": identity.email,
        "name": identity.name,
        "groups": list(identity.groups or ()),
    }


def roles_of(identity: Identity, conditions: Mapping[str, Template]) -> tuple[str, ...]:
    """Names of the roles whose condition holds, in the order of the configuration.

    A condition that reads something missing does not hold: absence never grants. Any other mistake in a condition is
    refused, since nobody could tell what was meant.
    """
    context = {
        "user": user_of(identity),
        "groups": list(identity.groups or ()),
        "claims": dict(identity.claims),
    }
    held = []
    for role, condition in conditions.items():
        try:
            if condition.is_true(context):
                held.append(role)
        except MissingValueError:
            continue
        except TemplateError as error:
            raise Refused(Reason.IDENTITY_INCOMPLETE, 403, f"roles.{role}: {error}") from None
    return tuple(held)


def header_context(session: Session, roles: Sequence[str], account: Account | None) -> dict[str, Any]:
    """The names that header and assertion templates may use."""
    identity = session.identity
    known = account or Account(key="")
    return {
        "user": user_of(identity),
        "groups": list(identity.groups or ()),
        "claims": dict(identity.claims),
        "roles": list(roles),
        "account": {"key": known.key, "id": known.id, **known.outputs},
        "session": {
            "id": session.id,
            "provider": identity.provider,
            "acr": session.acr,
            "issuer": identity.issuer,
        },
    }


def header_lines(templates: Sequence[HeaderTemplate], context: Mapping[str, Any]) -> tuple[Line, ...]:
    """Evaluate the headers for one person. A header whose value is missing or empty is left out.

    Raises Refused(HEADER_VALUE) for values that cannot stand in a header.
    """
    lines = []
    for header in templates:
        try:
            text = header.value.text(context)
        except MissingValueError:
            continue
        except TemplateError as error:
            raise Refused(Reason.HEADER_VALUE, 403, f"{header.name}: {error}") from None
        if text:
            lines.append((header.name, encode_value(header.name, text, header.encoding, header.limit)))
    return tuple(lines)

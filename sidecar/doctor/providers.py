"""What the providers of the logins say of themselves, fetched once for all checks that read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.config.login import OidcLogin
from sidecar.doctor.looking import Seen, UnseenError, fetch
from sidecar.doctor.patient import Patient
from sidecar.logins.discovery import discovery_address
from sidecar.logins.strict_json import parse_object

_GOOD = 200


def address_of(patient: Patient, name: str) -> str:
    """Where the login's provider describes itself."""
    section = patient.config.logins[name]
    if isinstance(section, OidcLogin):
        return section.discovery or discovery_address(section.issuer)
    return section.metadata


async def document_of(patient: Patient, name: str) -> Seen:
    """The answer with that description; raises UnseenError."""
    section = patient.config.logins[name]
    return await patient.once(f"document {name}", lambda: fetch(address_of(patient, name), ca=section.ca))


async def discovered(patient: Patient, name: str) -> Mapping[str, Any]:
    """The discovery document of an OpenID provider; raises UnseenError."""
    seen = await document_of(patient, name)
    if seen.status != _GOOD:
        message = f"status {seen.status} at {address_of(patient, name)}"
        raise UnseenError(message)
    try:
        return parse_object(seen.body)
    except ValueError:
        message = f"no JSON object at {address_of(patient, name)}"
        raise UnseenError(message) from None

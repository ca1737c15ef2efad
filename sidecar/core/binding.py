"""Hold a token to the client certificate that it was issued for (RFC 8705, section 3)."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from sidecar.faults import Refused
from sidecar.reason import Reason

_THUMBPRINT = "x5t#S256"


def bound_to(claims: Mapping[str, Any]) -> str:
    """Thumbprint of the certificate that the token is bound to, "" when it is bound to nothing.

    Raises Refused(TOKEN_BINDING, 401) for a binding that nobody here can verify, such as that of DPoP: to take such a
    token from anybody would undo what its issuer meant.
    """
    binding = claims.get("cnf")
    if binding is None:
        return ""
    if not isinstance(binding, Mapping) or set(binding) != {_THUMBPRINT} or not isinstance(binding[_THUMBPRINT], str):
        raise Refused(Reason.TOKEN_BINDING, 401, "cnf is of a kind that cannot be verified here")
    return str(binding[_THUMBPRINT]) or "?"


def thumbprint(certificate: bytes) -> str:
    """What tokens call a certificate: SHA-256 of its DER."""
    return urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode()


def refuse_others(bound: str, certificate: bytes) -> None:
    """Raise Refused(TOKEN_BINDING, 401) unless a token that is *bound* (if it is) came with that *certificate*."""
    if bound and not (certificate and hmac.compare_digest(bound.encode(), thumbprint(certificate).encode())):
        raise Refused(Reason.TOKEN_BINDING, 401, "the token is bound to another client certificate")

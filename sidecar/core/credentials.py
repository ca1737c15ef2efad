"""Read what stands in an Authorization header."""

from __future__ import annotations

import base64
import binascii
import hashlib

from sidecar.core.api_tokens import is_ours


def bearer_in(authorization: str) -> str:
    """The bearer token (RFC 6750, section 2.1), "" when there is none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else ""


def bearer_hash(authorization: str) -> bytes:
    """SHA-256 of the bearer token, to be compared with those of known ones; b"" when there is none."""
    token = bearer_in(authorization)
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest() if token else b""


def basic_in(authorization: str) -> tuple[str, str] | None:
    """User name and password (RFC 7617), None when there are none or they cannot be read."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(" "), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


def is_basic(authorization: str) -> bool:
    """True for Basic credentials, readable or not."""
    return authorization.partition(" ")[0].lower() == "basic"


def carries_ours(authorization: str) -> bool:
    """True when one of our own API tokens is in it, in whatever way."""
    pair = basic_in(authorization)
    return is_ours(bearer_in(authorization)) or (pair is not None and any(map(is_ours, pair)))

"""Read what stands in an Authorization header."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from sidecar.core.api_tokens import holds_ours, is_ours

# RFC 9110, section 11.1: a token.
_SCHEME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")
_PARTS = re.compile(r"[\s,]+")
_NO_LETTERS = re.compile(r"[^0-9A-Za-z+/]")


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
    """True for what the least careful reader takes for Basic credentials."""
    return _scheme_of(authorization) == "basic"


def is_bearer(authorization: str) -> bool:
    """True for what the least careful reader takes for a bearer token."""
    return _scheme_of(authorization) == "bearer"


def _scheme_of(authorization: str) -> str:
    # Whatever ends it: a tab, a comma, or a space that is none to us but one to others.
    match = _SCHEME.match(authorization.lstrip())
    return match[0].lower() if match is not None else ""


def carries_ours(authorization: str) -> bool:
    """True when one of our own API tokens is in it, in whatever way: also where we would not know it as one."""
    pair = basic_in(authorization)
    if is_ours(bearer_in(authorization)) or (pair is not None and any(map(is_ours, pair))):
        return True
    if holds_ours(authorization):
        return True
    parts = _PARTS.split(authorization, 4)
    return any(holds_ours(_loosely_decoded(part)) for part in (*parts, "".join(parts[1:])))


def _loosely_decoded(text: str) -> str:
    """*text* as those read Base64 who do without padding, skip what does not belong, or take that of addresses."""
    letters = _NO_LETTERS.sub("", text.replace("-", "+").replace("_", "/"))
    whole = letters[: len(letters) - (len(letters) % 4 == 1)]
    return base64.b64decode(whole + "=" * (-len(whole) % 4)).decode("latin-1")

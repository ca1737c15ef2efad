"""Codes of authenticator apps (RFC 6238)."""

from __future__ import annotations

import base64
import binascii
import hmac

# Half a minute for a code, and one before and after it for clocks that differ.
STEP, TOLERANCE = 30, 1
_DIGITS = 6


def totp_key(text: str) -> bytes:
    """Key from its base32 text. Raises ValueError."""
    bare = text.replace(" ", "").replace("-", "").rstrip("=").upper()
    try:
        return base64.b32decode(bare + "=" * (-len(bare) % 8))
    except binascii.Error:
        message = "is no base32 text"
        raise ValueError(message) from None


def totp_code(key: bytes, counter: int) -> str:
    """Code number *counter* (RFC 4226, section 5.3)."""
    digest = hmac.digest(key, counter.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return str(number % 10**_DIGITS).zfill(_DIGITS)


def fitting(key: bytes, code: str, now: float) -> int | None:
    """Number of the code of about *now* that *code* is; None when it is none."""
    step = int(now) // STEP
    for counter in range(step - TOLERANCE, step + TOLERANCE + 1):
        if hmac.compare_digest(totp_code(key, counter).encode(), code.encode(errors="replace")):
            return counter
    return None

"""Verify that a provider signed a token, by an algorithm that the operator chose and a key that the provider publishes.

All JOSE work is joserfc's (Authlib's own successor for it; ``authlib.jose`` is deprecated and not imported): it decodes
and verifies. Which algorithms, keys and headers are let through to it is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NewType

from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import Key
from joserfc.util import urlsafe_b64decode

from sidecar.faults import Refused
from sidecar.logins.keys import Keys
from sidecar.logins.strict_json import parse_object
from sidecar.reason import Reason

TOKEN_LIMIT = 64 * 1024
SignedClaims = NewType("SignedClaims", Mapping[str, Any])
"""Claims whose signature was verified; only ``verify`` makes them."""

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_HEADER_LIMIT = 4096
# Keys and places of keys (RFC 7515, section 4.1) that the sender of a token would like us to use, and extensions that
# change what is signed (RFC 7797) or what must be understood.
_FORBIDDEN = ("jwk", "jku", "x5u", "x5c", "crit", "b64", "enc", "zip")


@dataclass(frozen=True, slots=True)
class Header:
    """The part of a token's header that matters; nothing in it is believed yet. ``type`` is lower case."""

    algorithm: str
    kid: str
    type: str


@dataclass(frozen=True, slots=True)
class Verified:
    """A token's header and claims, signed by the provider."""

    header: Header
    claims: SignedClaims


class _Pinned(jws.JWSRegistry):
    """joserfc's algorithms, exactly the given ones.

    Its own registry falls back to recommended algorithms (HMAC among them) when no list is given, and warns about the
    name EdDSA, which providers still use (RFC 9864 renames it).
    """

    max_header_length = _HEADER_LIMIT
    max_payload_length = TOKEN_LIMIT

    def __init__(self, algorithm: str) -> None:
        # Unknown header fields that are not critical are ignored (RFC 7515, section 4).
        super().__init__(algorithms=[algorithm], strict_check_header=False)
        self._algorithm = algorithm

    def get_alg(self, name: str) -> Any:
        if name != self._algorithm:
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


def read_header(token: str) -> Header:
    """Check a token's size and form, and what its header asks for; raises Refused."""
    if len(token) > TOKEN_LIMIT:
        raise Refused(Reason.TOKEN_INVALID, detail=f"a token of more than {TOKEN_LIMIT} bytes")
    if not _COMPACT.fullmatch(token):
        raise Refused(Reason.TOKEN_INVALID, detail="not a signed token in compact form")
    fields = _part(token, 0)
    for name in _FORBIDDEN:
        if name in fields:
            raise Refused(Reason.TOKEN_INVALID, detail=f"the header {name} is not accepted")
    return Header(_text(fields, "alg"), _text(fields, "kid"), _text(fields, "typ").lower())


def unverified_claims(token: str) -> Mapping[str, Any]:
    """Read claims that nobody vouches for yet, to choose who might; raises Refused."""
    read_header(token)
    return _part(token, 1)


async def verify(token: str, keys: Keys, algorithms: Collection[str]) -> Verified:
    """Verify the signature of *token* with one of *keys* and one of *algorithms* (the configured ones).

    Raises Refused with a reason ``token-…``, or Unavailable when the keys cannot be had.
    """
    header = read_header(token)
    if header.algorithm not in algorithms or header.algorithm.lower().startswith(("hs", "none")):
        # The token does not choose (RFC 8725, section 3.1).
        raise Refused(Reason.TOKEN_ALGORITHM, detail=f"algorithm {header.algorithm[:20]!a} is not configured")
    for key in await keys.candidates(header.kid, header.algorithm):
        if _is_signed(token, header.algorithm, key):
            return Verified(header, SignedClaims(_part(token, 1)))
    raise Refused(Reason.TOKEN_INVALID, detail="the signature is wrong")


def _is_signed(token: str, algorithm: str, key: Key) -> bool:
    registry = _Pinned(algorithm)
    try:
        return jws.validate_compact(
            jws.extract_compact(token.encode("ascii"), registry=registry), key, registry=registry
        )
    except (JoseError, ValueError):
        return False


def _part(token: str, position: int) -> dict[str, Any]:
    encoded = token.split(".")[position].encode("ascii")
    if position == 0 and len(encoded) > _HEADER_LIMIT:
        raise Refused(Reason.TOKEN_INVALID, detail="the header is too long")
    try:
        return parse_object(urlsafe_b64decode(encoded))
    except ValueError:
        raise Refused(Reason.TOKEN_INVALID, detail="not JSON objects inside") from None


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise Refused(Reason.TOKEN_INVALID, detail=f"the header {name} is not text")
    return value

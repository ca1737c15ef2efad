"""Sign ID tokens, and recognise them again."""

from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey

ALGORITHM = "RS256"


def _new_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"use": "sig", "alg": ALGORITHM}, private=True, auto_kid=True)


class Signer:
    """An RSA key made at start, so that nothing signed by one demo is worth anything to the next."""

    def __init__(self) -> None:
        """Make the first key."""
        self._keys = [_new_key()]

    def rotate(self) -> None:
        """Sign with a new key from now on; the one before it stays published."""
        self._keys = [_new_key(), self._keys[0]]

    def public_keys(self) -> dict[str, Any]:
        """Return the JWKS (RFC 7517 section 5)."""
        return {"keys": [key.as_dict(private=False) for key in self._keys]}

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a signed JWT."""
        key = self._keys[0]
        return jwt.encode({"alg": ALGORITHM, "kid": key.kid, "typ": "JWT"}, dict(claims), key, [ALGORITHM])

    def claims_of(self, token: str) -> Mapping[str, Any] | None:
        """Return the claims of a token that was signed here, however old, else None."""
        try:
            return jwt.decode(token, KeySet(list(self._keys)), [ALGORITHM]).claims
        except (JoseError, ValueError):
            return None

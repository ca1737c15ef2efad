"""Say to the token endpoint which client asks.

Authlib's ``ClientAuth`` puts the credentials into the request (post and none as it has them, basic and private_key_jwt
as given here), and its ``private_key_jwt_sign`` makes the assertion, signed by joserfc.
"""

from __future__ import annotations

import json
from base64 import b64encode
from functools import partial
from urllib.parse import quote_plus

from authlib.common.urls import add_params_to_qs  # type: ignore[import-untyped]
from authlib.oauth2.auth import ClientAuth  # type: ignore[import-untyped]
from authlib.oauth2.rfc7523 import private_key_jwt_sign  # type: ignore[import-untyped]
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, Key, RSAKey

from sidecar.config.login import OidcLogin

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_LIFETIME = 60
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_SMALLEST_RSA = 2048

Parts = tuple[str, dict[str, str], str]


class ClientCredentials:
    """The credentials of one login's client."""

    def __init__(self, section: OidcLogin) -> None:
        """Take them from the configuration; raises ValueError when private_key is not usable."""
        self._id = section.client_id
        self._secret = section.client_secret.reveal() if section.client_secret is not None else ""
        self._method = section.client_authentication
        self._key: Key | None = None
        self._key_id = section.private_key_id
        if self._method == "private_key_jwt" and section.private_key is not None:
            self._key = _private_key(section.private_key.reveal())

    def sign(self, url: str, body: str, now: float) -> tuple[str, dict[str, str]]:
        """Return the encoded form *body* and the headers with the client's credentials in them."""
        ways = {"client_secret_basic": _basic, "private_key_jwt": partial(self._assert, now)}
        client = ClientAuth(self._id, self._secret, ways.get(self._method, self._method))
        _, headers, signed = client.prepare("POST", url, {}, body)
        return str(signed), dict(headers)

    def _assert(
        self, now: float, _client: ClientAuth, _method: str, uri: str, headers: dict[str, str], body: str
    ) -> Parts:
        """RFC 7523, sections 2.2 and 3; Authlib adds jti."""
        assertion = private_key_jwt_sign(
            self._key,
            self._id,
            uri,
            alg=_algorithm(self._key),
            header={"kid": self._key_id} if self._key_id else {},
            issued_at=int(now),
            expires_in=_ASSERTION_LIFETIME,
        )
        fields = [
            ("client_id", self._id),
            ("client_assertion_type", _ASSERTION_TYPE),
            ("client_assertion", assertion),
        ]
        return uri, headers, add_params_to_qs(body, fields)


def _basic(client: ClientAuth, _method: str, uri: str, headers: dict[str, str], body: str) -> Parts:
    """RFC 6749, section 2.3.1: both are form-encoded before they are joined; Authlib's own way forgets that."""
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    return uri, {**headers, "Authorization": f"Basic {b64encode(pair.encode()).decode()}"}, body


def _private_key(text: str) -> Key:
    """Read a PEM or a JWK; raises ValueError, which never quotes it."""
    try:
        key = _from_jwk(text) if text.lstrip().startswith("{") else _from_pem(text)
    except (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm, SecurityWarning):
        key = None
    if key is None or _algorithm(key) is None:
        message = "private_key: needs an RSA (2048 bits or more) or EC private key without password, as PEM or JWK"
        raise ValueError(message)
    return key


def _from_jwk(text: str) -> Key | None:
    fields = json.loads(text)
    kinds: dict[object, type[RSAKey | ECKey]] = {"RSA": RSAKey, "EC": ECKey}
    kind = kinds.get(fields.get("kty"))
    key = kind.import_key(fields) if kind is not None else None
    return key if key is not None and key.is_private else None


def _from_pem(text: str) -> Key | None:
    key = load_pem_private_key(text.encode(), None)
    if isinstance(key, RSAPrivateKey):
        return RSAKey.import_key(key)
    return ECKey.import_key(key) if isinstance(key, EllipticCurvePrivateKey) else None


def _algorithm(key: Key | None) -> str | None:
    if isinstance(key, RSAKey):
        return "RS256" if key.raw_value.key_size >= _SMALLEST_RSA else None
    return _CURVES.get(key.curve_name) if isinstance(key, ECKey) else None

"""Sign a short-lived JWT about the person, for applications that verify their identity header."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from sidecar.config.login import Assertion
from sidecar.core.headers import Line
from sidecar.core.standing import header_context
from sidecar.core.template import MissingValueError, TemplateError
from sidecar.faults import Refused
from sidecar.model import Account, Session
from sidecar.reason import Reason

# A token made for the application must never pass as a token made for us: bearer checks refuse this typ.
TYPE = "sidecar-assertion+jwt"


def read_key(pem: str) -> tuple[Key, str]:
    """Private key and its algorithm from PEM text; raises ValueError for other kinds of key."""
    private = serialization.load_pem_private_key(pem.encode(), password=None)
    if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
        return ECKey.import_key(pem), "ES256"
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return OKPKey.import_key(pem), "Ed25519"
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size >= 2048:
        return RSAKey.import_key(pem), "RS256"
    message = "the assertion key must be EC P-256, Ed25519, or RSA with 2048 bits or more"
    raise ValueError(message)


class AssertionSigner:
    """Makes the header lines; keeps one signed token per caller until half its life is over."""

    def __init__(self, section: Assertion, issuer: str) -> None:
        """Sign as *issuer* (our public origin). Raises ValueError when the key cannot be used."""
        self._section = section
        self._issuer = issuer
        self._key, self._algorithm = read_key(section.key.reveal())
        self._kid = self._key.thumbprint()
        self._lifetime = section.lifetime.total_seconds()
        self._kept: dict[str, tuple[tuple[object, ...], float, tuple[Line, ...]]] = {}

    @property
    def keys(self) -> Mapping[str, object]:
        """The public JWK set (RFC 7517) that applications verify with."""
        public = self._key.as_dict(private=False)
        return {"keys": [{**public, "kid": self._kid, "alg": self._algorithm, "use": "sig"}]}

    def __call__(self, session: Session, roles: Sequence[str], account: Account | None, now: float) -> Sequence[Line]:
        """Give the assertion header for this person; *now* in epoch seconds."""
        same = (session, tuple(roles), account)
        known = self._kept.get(session.id)
        if known is not None and known[0] == same and now < known[1]:
            return known[2]
        claims = self._claims(session, roles, account, now)
        token = jwt.encode(
            {"alg": self._algorithm, "kid": self._kid, "typ": TYPE}, claims, self._key, algorithms=[self._algorithm]
        )
        if len(token) > self._section.max:
            # What refuses it is a page of ours that says why, not the application's 400.
            detail = f"{self._section.header}: longer than {self._section.max} bytes"
            raise Refused(Reason.HEADER_VALUE, 403, detail)
        if len(self._kept) >= 10_000:
            self._kept.clear()
        lines = ((self._section.header, token),)
        self._kept[session.id] = (same, now + self._lifetime / 2, lines)
        return lines

    def _claims(self, session: Session, roles: Sequence[str], account: Account | None, now: float) -> dict[str, Any]:
        identity = session.identity
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._section.audience,
            "sub": identity.subject,
            "iat": int(now),
            "exp": int(now + self._lifetime),
            "jti": secrets.token_urlsafe(16),
            "preferred_username": identity.username,
            "email": identity.email,
            "name": identity.name,
            "roles": list(roles),
            "idp": identity.issuer,
        }
        context = header_context(session, roles, account)
        for name, template in self._section.claims.items():
            try:
                claims[name] = template.value(context)
            except MissingValueError:
                continue
            except TemplateError as error:
                raise Refused(Reason.HEADER_VALUE, 403, f"assertion.claims.{name}: {error}") from None
        return claims

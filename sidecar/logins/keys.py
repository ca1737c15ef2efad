"""Know a provider's signing keys, through rotations and without being made to fetch them all day."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey

from sidecar.faults import Refused, Unavailable
from sidecar.logins.flight import Flight
from sidecar.logins.http import ProviderHttp
from sidecar.reason import Reason

_MOST_KEYS = 100
_FRESH = 3600.0
_USABLE = 24 * 3600.0
_BETWEEN_REFETCHES = 10.0
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
# Certificates and addresses beside a key say nothing that is needed, and could only make its import fail.
_NEEDED = ("kty", "n", "e", "crv", "x", "y")
# Below 2048 bits a key can be broken; far above, or with a large exponent, verifying a signature takes seconds.
_RSA_BITS = range(2048, 8193)
_RSA_EXPONENT_BITS = 64


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key with the algorithms that it fits; ``kid`` is "" when the provider named none."""

    kid: str
    algorithms: frozenset[str]
    key: Key


def signing_keys(document: Mapping[str, Any]) -> tuple[SigningKey, ...]:
    """Pick the usable keys from a JWK set (RFC 7517, section 5); raises Unavailable when it is no set.

    Left out are keys for encryption, symmetric and private ones, weak ones, and kinds that are not known; joserfc
    imports the rest one by one, so that a key it cannot read does not take the others away.
    """
    members = document.get("keys")
    if not isinstance(members, list) or len(members) > _MOST_KEYS:
        raise Unavailable(Reason.PROVIDER_DOWN, f"JWK set: keys is not a list of at most {_MOST_KEYS}")
    found = (_signing_key(member) for member in members if isinstance(member, dict))
    return tuple(key for key in found if key is not None)


def _signing_key(member: dict[str, Any]) -> SigningKey | None:
    operations = member.get("key_ops")
    is_for_signatures = member.get("use", "sig") == "sig" and (
        operations is None or (isinstance(operations, list) and "verify" in operations)
    )
    if not is_for_signatures or "d" in member:
        return None
    try:
        key = JWKRegistry.import_key({name: member[name] for name in _NEEDED if name in member})
    except (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm, SecurityWarning):
        return None
    algorithms = _algorithms(key)
    if "alg" in member:
        algorithms &= {member["alg"]} if isinstance(member["alg"], str) else frozenset()
    kid = member.get("kid", "")
    return SigningKey(kid, algorithms, key) if algorithms and isinstance(kid, str) else None


def _algorithms(key: Key) -> frozenset[str]:
    if isinstance(key, RSAKey):
        numbers = key.public_key.public_numbers()
        is_sane = numbers.n.bit_length() in _RSA_BITS and numbers.e.bit_length() <= _RSA_EXPONENT_BITS
        return _RSA if is_sane else frozenset()
    if isinstance(key, ECKey | OKPKey):
        return _CURVES.get((key.key_type, key.curve_name), frozenset())
    return frozenset()


class Described(Protocol):
    """What somebody who signs says of themselves."""

    @property
    def jwks_uri(self) -> str:
        """Where their keys are."""


class Describing(Protocol):
    """Knows what they say."""

    async def metadata(self) -> Described:
        """Give it; raises Unavailable."""


class Keys:
    """One provider's keys. Only these verify its tokens, never one that a token brings along."""

    def __init__(self, http: ProviderHttp, discovery: Describing, clock: Callable[[], float]) -> None:
        """Fetch the keys from where *discovery* says; *clock* gives seconds."""
        self._http = http
        self._discovery = discovery
        self._clock = clock
        self._flight = Flight(self._fetch)
        self._keys: tuple[SigningKey, ...] | None = None
        self._fetched_at = 0.0
        self._refetched_at: float | None = None
        self._failure: Unavailable | None = None

    async def candidates(self, kid: str, algorithm: str) -> tuple[Key, ...]:
        """Return the keys that may have signed a token with this header; never empty.

        An unknown *kid* makes the set be fetched again, once for all who wait and not again for ten seconds.
        Raises Refused(TOKEN_KEY), or Unavailable when the keys cannot be had.
        """
        is_new = self._keys is None
        keys = await self._current()
        if not _knows(keys, kid, algorithm) and not is_new:
            keys = await self._again(keys)
        return _fitting(keys, kid, algorithm)

    async def usable(self) -> tuple[SigningKey, ...]:
        """Give the keys that are known, fetched now when none are; raises Unavailable."""
        return await self._current()

    async def fetch(self) -> tuple[SigningKey, ...]:
        """Fetch the keys now; raises Unavailable."""
        return await self._flight.join()

    async def close(self) -> None:
        """Stop fetching."""
        await self._flight.close()

    async def _current(self) -> tuple[SigningKey, ...]:
        age = self._clock() - self._fetched_at
        if self._keys is None or not 0 <= age < _USABLE:
            return await self._flight.join()
        if age > _FRESH and self._may_refetch():
            # A key that the provider withdrew must not be good for ever.
            self._refetched_at = self._clock()
            self._flight.start()
        return self._keys

    async def _again(self, keys: tuple[SigningKey, ...]) -> tuple[SigningKey, ...]:
        if self._may_refetch():
            self._refetched_at = self._clock()
            return await self._flight.join()
        if self._flight.is_under_way:
            return await self._flight.join()
        if self._failure is not None:
            raise type(self._failure)(Reason.PROVIDER_DOWN, "the keys could not be fetched again")
        return keys

    def _may_refetch(self) -> bool:
        if self._refetched_at is None:
            return True
        return not 0 <= self._clock() - self._refetched_at < _BETWEEN_REFETCHES

    async def _fetch(self) -> tuple[SigningKey, ...]:
        # Also for whoever asks while this is under way, or after it was given up.
        self._failure = Unavailable(Reason.PROVIDER_DOWN)
        try:
            metadata = await self._discovery.metadata()
            answer = await self._http.get(metadata.jwks_uri)
            self._keys = signing_keys(answer.document())
        except Unavailable as fault:
            self._failure = fault
            raise
        self._fetched_at = self._clock()
        self._failure = None
        return self._keys


def _knows(keys: tuple[SigningKey, ...], kid: str, algorithm: str) -> bool:
    if kid:
        return any(key.kid == kid for key in keys)
    return any(algorithm in key.algorithms for key in keys)


def _fitting(keys: tuple[SigningKey, ...], kid: str, algorithm: str) -> tuple[Key, ...]:
    fitting = tuple(key.key for key in keys if algorithm in key.algorithms and kid in ("", key.kid))
    if not fitting:
        raise Refused(Reason.TOKEN_KEY, detail="the provider publishes no such key")
    if not kid and len(fitting) > 1:
        # OpenID Connect Core 1.0, section 10.1: kid is needed when there are several keys.
        raise Refused(Reason.TOKEN_KEY, detail="no kid, and several keys fit")
    return fitting

"""Keep values in the store so that only who holds their token can read them, and only we can have written them."""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sidecar.sessions.store import Store

_log = structlog.get_logger("vault")
_TOKEN_BYTES = 32
_TOKEN_LENGTH = 43
_NONCE = 12
_MOST_TOLD = 1000
_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def is_token(text: str) -> bool:
    """True when *text* could be one of our tokens: 256 bits in base64url."""
    return len(text) == _TOKEN_LENGTH and _ALPHABET.issuperset(text)


class Vault:
    """Seals values of one kind.

    The store's key is the SHA-256 of the token; the value is AES-256-GCM under HKDF(token, server secret). A dump of
    the store opens nothing, and somebody who can write to it can forge nothing, because both parts are needed. The
    store key is bound in, so a record copied under another key does not open.
    """

    def __init__(self, store: Store, server_secrets: Sequence[bytes], kind: str) -> None:
        """The first of *server_secrets* seals, all of them open: that is how they are rotated."""
        if not server_secrets or not all(server_secrets):
            message = "a vault needs at least one secret, and no empty ones"
            raise ValueError(message)
        self._store = store
        self._secrets = tuple(server_secrets)
        self._kind = kind
        self._told: set[str] = set()

    @staticmethod
    def token() -> str:
        """Fresh random token, 256 bits."""
        return secrets.token_urlsafe(_TOKEN_BYTES)

    @staticmethod
    def id_of(token: str) -> str:
        """Public name of a token: its hash, which opens nothing."""
        return urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).decode().rstrip("=")

    def key_of(self, token_id: str) -> str:
        """Store key of the record with that id."""
        return f"{self._kind}:{token_id}"

    def seal(self, token: str, payload: bytes) -> bytes:
        """Encrypt *payload* for *token*."""
        nonce = secrets.token_bytes(_NONCE)
        cipher = AESGCM(self._derived(token, self._secrets[0]))
        return nonce + cipher.encrypt(nonce, payload, self.key_of(self.id_of(token)).encode())

    def open(self, token: str, sealed: bytes) -> bytes | None:
        """Decrypt, by any of the secrets; None (and one log line) when none fits or the record was tampered with."""
        bound = self.key_of(self.id_of(token)).encode()
        for secret in self._secrets:
            try:
                return AESGCM(self._derived(token, secret)).decrypt(sealed[:_NONCE], sealed[_NONCE:], bound)
            except (InvalidTag, ValueError):
                continue
        self._tell(bound.decode())
        return None

    def _tell(self, key: str) -> None:
        """Say it once for each record, however often its owner comes back with it."""
        if key in self._told:
            return
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told.add(key)
        _log.warning(
            "a record does not open: tampered with, or sealed by a secret that is gone", kind=self._kind, key=key
        )

    def _derived(self, token: str, secret: bytes) -> bytes:
        kdf = HKDF(algorithm=SHA256(), length=32, salt=hashlib.sha256(secret).digest(), info=self._kind.encode())
        return kdf.derive(token.encode() + secret)

    async def put(self, token: str, payload: bytes, ttl: float) -> None:
        """Seal and store for *ttl* seconds."""
        await self._store.put(self.key_of(self.id_of(token)), self.seal(token, payload), ttl)

    async def replace(self, token: str, payload: bytes, ttl: float) -> bool:
        """Seal and store only if a record is still there."""
        return await self._store.replace(self.key_of(self.id_of(token)), self.seal(token, payload), ttl)

    async def change(self, token: str, edit: Callable[[bytes], tuple[bytes, float] | None]) -> bool:
        """Read, *edit* to (payload, ttl in seconds) or None for no change, and write back.

        True when written; False also when the record is gone, or somebody else wrote meanwhile: theirs stays.
        """
        key = self.key_of(self.id_of(token))
        sealed = await self._store.get(key)
        payload = None if sealed is None else self.open(token, sealed)
        edited = None if payload is None else edit(payload)
        if sealed is None or edited is None:
            return False
        return await self._store.exchange(key, sealed, self.seal(token, edited[0]), edited[1])

    async def get(self, token: str) -> bytes | None:
        """Read; None when there is none or it does not open."""
        return await self._opened(token, take=False)

    async def take(self, token: str) -> bytes | None:
        """Read and delete: of many callers only one gets it."""
        return await self._opened(token, take=True)

    async def _opened(self, token: str, *, take: bool) -> bytes | None:
        if not is_token(token):
            return None
        key = self.key_of(self.id_of(token))
        sealed = await (self._store.take(key) if take else self._store.get(key))
        return None if sealed is None else self.open(token, sealed)

    async def delete(self, token: str) -> None:
        """Delete."""
        await self._store.delete(self.key_of(self.id_of(token)))

"""Chain the lines of one sink as they are written, and put anchors between them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from sidecar.core.chain import ANCHOR, Sign, Verify, beginning, linked, linked_all


@dataclass(frozen=True, slots=True)
class Anchoring:
    """How often anchors come (seconds), who signs them, and where their copies go."""

    every: float
    sign: Sign | None = None
    copies: Path | None = None


class Chain:
    """The chain of one sink of this process."""

    def __init__(self, anchoring: Anchoring, clock: Callable[[], float], place: Callable[[], str]) -> None:
        """Begin a chain; *place* tells the line that stands last where the lines go (see core.chain.Place), or ""."""
        self._anchoring = anchoring
        self._clock = clock
        self._place = place
        self._name = secrets.token_hex(8)
        self._number = 0
        self._last = beginning(self._name)
        self._anchored = clock()
        self._is_uncovered = False

    @property
    def wants_anchor(self) -> bool:
        """True when ``seal`` would begin with an anchor or end with one, for which it asks where it goes."""
        return not self._number or self._is_due()

    def seal(self, lines: Sequence[bytes], lost: int, *, may_ask: bool = True) -> bytes:
        """*lines* chained, with an anchor where one is due; *lost* lines were thrown away so far. Raises OSError.

        Unless it *may_ask*, an anchor is left for later, when the chain has begun.
        """
        is_due = may_ask and (self._is_uncovered or bool(lines)) and self._is_due()
        # Asked before anything is counted: when nobody can know, nothing has happened yet.
        after = self._place() if is_due or not self._number else ""
        sealed = [] if self._number else [self._anchor("first", lost, after)]
        more, self._last = linked_all(lines, self._name, self._number + 1, self._last)
        sealed += more
        self._number += len(more)
        self._is_uncovered = self._is_uncovered or bool(lines)
        if is_due:
            sealed.append(self._anchor("middle", lost, after))
        return b"".join(sealed)

    def pause(self) -> float | None:
        """Seconds until the next anchor is due; None when nothing is there that one would cover."""
        if not self._is_uncovered:
            return None
        return max(0.0, self._left())

    def end(self, lost: int) -> bytes:
        """The last anchor; nothing when the chain never began. Raises OSError."""
        return self._anchor("last", lost, self._place()) if self._number else b""

    def _is_due(self) -> bool:
        return self._left() <= 0

    def _left(self) -> float:
        left = self._anchored + self._anchoring.every - self._clock()
        # More than a whole period: the clock was set back, and nothing would be anchored until it is where it was.
        return 0.0 if left > self._anchoring.every else left

    def _anchor(self, kind: str, lost: int, after: str) -> bytes:
        now = self._clock()
        time = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        said = f'{{"time":"{time}","event":"{ANCHOR}","kind":"{kind}","after":"{after}",'
        said += f'"before":"{self._last.hex()}","lost":{lost}}}\n'
        self._number += 1
        text, self._last = linked(said.encode(), self._name, self._number, self._last, self._anchoring.sign)
        self._anchored, self._is_uncovered = now, False
        self._copy(text)
        return text

    def _copy(self, anchor: bytes) -> None:
        if self._anchoring.copies is None:
            return
        # The chain holds without its copies: a full disk there shall not keep audit lines from being written.
        with suppress(OSError):
            # Nor shall a pipe that somebody put there, and nobody reads.
            how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(self._anchoring.copies, how, 0o640)
            try:
                os.write(descriptor, anchor)
            finally:
                os.close(descriptor)


def signer(pem: str) -> Sign:
    """Sign by the Ed25519 private key *pem*. Raises ValueError when it is none."""
    return _private(pem).sign


def verifier(pem: str) -> Verify:
    """Verify by the Ed25519 key *pem*, public or private. Raises ValueError when it is none."""
    if "PRIVATE KEY" in pem:
        key = _private(pem).public_key()
    else:
        try:
            loaded = load_pem_public_key(pem.encode())
        except ValueError as error:
            message = "is not the PEM text of a public key"
            raise ValueError(message) from error
        if not isinstance(loaded, Ed25519PublicKey):
            message = "is not an Ed25519 key"
            raise ValueError(message)
        key = loaded

    def verify(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return verify


def _private(pem: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError) as error:
        message = "is not the PEM text of a private key without a password"
        raise ValueError(message) from error
    if not isinstance(key, Ed25519PrivateKey):
        message = "is not an Ed25519 key; `sidecar audit key` makes one"
        raise ValueError(message)  # noqa: TRY004 - a wrong value of the configuration
    return key

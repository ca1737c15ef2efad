"""Check passwords of emergency accounts: as slowly for a name that nobody has, and never too many at once."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import unicodedata
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import argon2
import argon2.profiles
from argon2.exceptions import InvalidHashError, VerificationError

from sidecar.config.break_glass import BreakGlassAccount
from sidecar.core.argon2id import LANES, MEMORY_KIB, PASSES, SALT_BYTES, TAG_BYTES, Parameters, parameters_of
from sidecar.core.totp import STEP, TOLERANCE, fitting, totp_key
from sidecar.faults import Unavailable
from sidecar.portal.attempts import CLOCKS_APART
from sidecar.reason import Reason
from sidecar.sessions.store import Store

# Each takes 64 MiB for as long as it runs; the others wait, and there is an end to waiting, too.
_AT_ONCE, _MOST_WAITING = 2, 8
_USUAL = Parameters(MEMORY_KIB, PASSES, LANES, SALT_BYTES, TAG_BYTES)


def hashed(password: str) -> str:
    """Hash of a new password, with the parameters of RFC 9106's second recommendation."""
    return argon2.PasswordHasher.from_parameters(argon2.profiles.RFC_9106_LOW_MEMORY).hash(normal(password))


def normal(password: str) -> str:
    """One spelling for what looks the same (RFC 8265, section 4.2): keyboards differ in how they make an é."""
    return unicodedata.normalize("NFC", password)


class Vetting:
    """Knows the accounts; the store remembers which codes were used, for all replicas."""

    def __init__(self, accounts: Mapping[str, BreakGlassAccount], store: Store) -> None:
        """Check against *accounts*."""
        self._accounts = accounts
        self._store = store
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="argon2")
        self._asked = 0
        # Costs what the accounts' own do, so that the time says nothing of who there is.
        cost = parameters_of(next(iter(accounts.values())).hash.reveal()) or _USUAL
        self._hasher = argon2.PasswordHasher(cost.passes, cost.memory_kib, cost.lanes)
        self._nobody = self._hasher.hash(secrets.token_urlsafe(32))

    async def vetted(self, name: str, password: str, code: str, now: float) -> tuple[BreakGlassAccount | None, str]:
        """Account whose *name*, *password* and *code* these are; None and why for operators when they are nobody's.

        Raises Unavailable.
        """
        account = self._accounts.get(name)
        is_right = await self._matches(account.hash.reveal() if account else self._nobody, password)
        if account is None or not is_right:
            return None, ""
        fault = "" if account.totp is None else await self._fault(name, totp_key(account.totp.reveal()), code, now)
        return (None, f"the password is right, but {fault}") if fault else (account, "")

    async def _matches(self, known: str, password: str) -> bool:
        if self._asked >= _AT_ONCE + _MOST_WAITING:
            raise Unavailable(Reason.BUSY, "too many passwords are being checked")
        self._asked += 1
        answer = asyncio.get_running_loop().run_in_executor(self._pool, self._verified, known, password)
        answer.add_done_callback(self._was_answered)
        # Whoever goes away does not take their work with them, and so keeps their place in the count.
        return await asyncio.shield(answer)

    def _was_answered(self, _answer: asyncio.Future[bool]) -> None:
        self._asked -= 1

    def _verified(self, known: str, password: str) -> bool:
        try:
            return self._hasher.verify(known, normal(password)) and password != ""
        except (VerificationError, InvalidHashError):
            return False

    async def _fault(self, name: str, key: bytes, code: str, now: float) -> str:
        """What is wrong with a *code*; "" for one of about now that was never used before (RFC 6238, section 5.2)."""
        counter = fitting(key, code, now)
        if counter is None:
            return "the code is not one of about now: if it was typed well, compare this machine's clock"
        used = hashlib.sha256(name.encode()).hexdigest()
        lifetime = STEP * (2 * TOLERANCE + 2) + CLOCKS_APART
        is_first = await self._store.claim(f"once:totp:{used}:{counter}", b"1", lifetime)
        return "" if is_first else "the code was used before"

    async def close(self) -> None:
        """Let go of the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

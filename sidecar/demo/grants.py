"""Issue codes and tokens, each for one use, one client and one sign-in, and take them back."""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from secrets import compare_digest, token_urlsafe

from sidecar.demo.authorization import AuthorizationRequest, Fault, OAuthError
from sidecar.demo.shelf import Shelf

CODE_SECONDS = 60
ACCESS_SECONDS = 300
REFRESH_SECONDS = 12 * 3600
MOST_SPENT = 10_000

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 section 4.1


@dataclass(frozen=True, slots=True)
class SignIn:
    """One person at one browser; `auth_time` in seconds since the epoch."""

    sid: str
    login: str
    auth_time: int
    acr: str


@dataclass(frozen=True, slots=True)
class Grant:
    """What a client was given; every code and token of one authorization carries the same `family`."""

    family: str
    client_id: str
    scopes: frozenset[str]
    sign_in: SignIn
    nonce: str | None


@dataclass(frozen=True, slots=True)
class _Code:
    grant: Grant
    redirect_uri: str
    challenge: str


def is_verified(verifier: str, challenge: str) -> bool:
    """Compare a PKCE verifier with its S256 challenge (RFC 7636 section 4.6)."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    digest = base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return compare_digest(digest, challenge)


class Grants:
    """The provider's memory of what it gave away. Nothing here awaits, so every step is atomic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns seconds since the epoch."""
        self._codes: Shelf[_Code] = Shelf(CODE_SECONDS, clock)
        self._access: Shelf[Grant] = Shelf(ACCESS_SECONDS, clock)
        self._refresh: Shelf[Grant] = Shelf(REFRESH_SECONDS, clock)
        # Spent names are remembered as long as what they begot can live, to notice a thief's second use.
        self._spent: dict[str, str] = {}

    def code(self, asked: AuthorizationRequest, sign_in: SignIn) -> str:
        """Return a new authorization code."""
        grant = Grant(token_urlsafe(16), asked.back.client_id, asked.scopes, sign_in, asked.nonce)
        return self._codes.put(_Code(grant, asked.back.redirect_uri, asked.challenge))

    def redeem(self, code: str, client_id: str, redirect_uri: str, verifier: str) -> Grant:
        """Exchange a code. Any attempt uses it up.

        Raises OAuthError.
        """
        found = self._codes.take(code)
        if found is None:
            raise self._refusal(code)
        self._spend(code, found.grant)
        if found.grant.client_id != client_id or found.redirect_uri != redirect_uri:
            raise OAuthError(Fault.INVALID_GRANT, "the code was issued to another client or redirect_uri")
        if not is_verified(verifier, found.challenge):
            raise OAuthError(Fault.INVALID_GRANT, "the code_verifier does not match the code_challenge")
        return found.grant

    def refresh(self, token: str, client_id: str) -> Grant:
        """Exchange a refresh token, which is void from now on (RFC 9700 section 4.14.2).

        Raises OAuthError.
        """
        grant = self._refresh.take(token)
        if grant is None:
            raise self._refusal(token)
        self._spend(token, grant)
        if grant.client_id != client_id:
            raise OAuthError(Fault.INVALID_GRANT, "the refresh token was issued to another client")
        return grant

    def tokens(self, grant: Grant) -> tuple[str, str]:
        """Return a new access token and a new refresh token."""
        return self._access.put(grant), self._refresh.put(grant)

    def of_access_token(self, token: str) -> Grant | None:
        """Return what an access token stands for, if it is live."""
        return self._access.get(token)

    def end(self, sid: str) -> None:
        """Void everything that one sign-in was given."""
        self._discard(lambda grant: grant.sign_in.sid == sid)

    def _spend(self, name: str, grant: Grant) -> None:
        while len(self._spent) >= MOST_SPENT:
            del self._spent[next(iter(self._spent))]
        self._spent[name] = grant.family

    def _refusal(self, name: str) -> OAuthError:
        family = self._spent.get(name)
        if family is not None:  # Used twice, so one of the users is a thief: RFC 6749 section 4.1.2.
            self._discard(lambda grant: grant.family == family)
        return OAuthError(Fault.INVALID_GRANT, "unknown, used or expired")

    def _discard(self, unwanted: Callable[[Grant], bool]) -> None:
        self._codes.discard(lambda code: unwanted(code.grant))
        self._access.discard(unwanted)
        self._refresh.discard(unwanted)

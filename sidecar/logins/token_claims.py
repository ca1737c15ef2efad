"""Check what a verified token says: one table of checks for each kind of token."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.faults import Refused
from sidecar.logins.tokens import SignedClaims
from sidecar.reason import Reason

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_YEAR = 366 * 24 * 3600.0
_LONGEST_ID = 1024
_MOST_METHODS = 20
_FRESH_LOGOUT = 600.0
# EdDSA with Ed25519 hashes with SHA-512 inside (OpenID Connect Core 1.0 says "the hash algorithm used in alg").
_HASHES = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512, "DSA": hashlib.sha512}


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must agree with. Times are epoch seconds; empty texts and None expect nothing.

    ``oldest_login`` is the earliest ``auth_time`` that will do; ``longest`` the longest lifetime in seconds. ``is_new``
    says that the provider was asked for the token just now.
    """

    issuer: str
    audience: frozenset[str]
    now: float
    leeway: float
    algorithm: str
    client_id: str = ""
    nonce: str = ""
    oldest_login: float | None = None
    access_token: str = ""
    code: str = ""
    longest: float = _YEAR
    is_new: bool = False


Check = Callable[[SignedClaims, Expected], None]


def check(claims: SignedClaims, table: tuple[Check, ...], expected: Expected) -> None:
    """Run every check of *table*; raises Refused with the reason of the first that fails."""
    if not table:
        message = "a table without checks accepts everything"
        raise ValueError(message)
    for one in table:
        one(claims, expected)


def time_claim(claims: Mapping[str, Any], name: str, now: float) -> float | None:
    """Read a NumericDate (RFC 7519, section 2), None when missing; raises Refused(TOKEN_TIME).

    Only whole seconds between 1970 and a year from *now*: text, booleans, fractions and the year 33658 are mistakes
    or tricks.
    """
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= now + _YEAR or value % 1:
        raise Refused(Reason.TOKEN_TIME, detail=f"{name} is not a sensible time")
    return float(value)


def text_claim(claims: Mapping[str, Any], name: str) -> str:
    """Read a text, "" when missing; raises Refused(TOKEN_CLAIM) when it is something else."""
    value = claims.get(name, "")
    if not isinstance(value, str):
        raise Refused(Reason.TOKEN_CLAIM, detail=f"{name} is not text")
    return value


def methods_claim(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Read ``amr``, () when missing; raises Refused(TOKEN_CLAIM). Some providers send a text in place of the list."""
    value = claims.get("amr", [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or len(values) > _MOST_METHODS or not all(isinstance(one, str) for one in values):
        raise Refused(Reason.TOKEN_CLAIM, detail="amr is not a list of texts")
    return tuple(values)


def audiences(claims: Mapping[str, Any]) -> frozenset[str]:
    """Read ``aud``, one text or a list of them (RFC 7519, section 4.1.3); raises Refused(TOKEN_AUDIENCE)."""
    value = claims.get("aud")
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise Refused(Reason.TOKEN_AUDIENCE, detail="aud is missing or not text")
    return frozenset(values)


def _issuer(claims: SignedClaims, expected: Expected) -> None:
    if claims.get("iss") != expected.issuer:
        raise Refused(Reason.TOKEN_ISSUER, detail="iss is another issuer")


def _audience(claims: SignedClaims, expected: Expected) -> None:
    if not audiences(claims) & expected.audience:
        raise Refused(Reason.TOKEN_AUDIENCE, detail="aud is somebody else")


def _authorized_party(claims: SignedClaims, expected: Expected) -> None:
    """Core 1.0, section 3.1.3.7, 4 and 5: named when there are several audiences, and then it is this client."""
    party = claims.get("azp")
    if party is None and len(audiences(claims)) == 1:
        return
    if party != expected.client_id:
        raise Refused(Reason.TOKEN_AUDIENCE, detail="azp is missing or another client")


def _subject(claims: SignedClaims, _: Expected) -> None:
    if not 0 < len(text_claim(claims, "sub")) <= _LONGEST_ID:
        raise Refused(Reason.TOKEN_CLAIM, detail="sub is missing or too long")


def _expiry(claims: SignedClaims, expected: Expected) -> None:
    expires = time_claim(claims, "exp", expected.now)
    if expires is None:
        raise Refused(Reason.TOKEN_TIME, detail="exp is missing")
    if expires + expected.leeway <= expected.now:
        detail = f"expired {expected.now - expires:.0f} s ago"
        issued = time_claim(claims, "iat", expected.now)
        # Made a moment ago: if that is long ago, a clock is wrong.
        if expected.is_new and issued is not None and issued + expected.leeway < expected.now:
            detail += f", and was issued {expected.now - issued:.0f} s ago by its own account: compare the clocks"
        raise Refused(Reason.TOKEN_EXPIRED, detail=detail)


def _issued(claims: SignedClaims, expected: Expected) -> None:
    issued = time_claim(claims, "iat", expected.now)
    if issued is None:
        raise Refused(Reason.TOKEN_TIME, detail="iat is missing")
    _not_in_the_future(issued, "iat", expected)


def _not_before(claims: SignedClaims, expected: Expected) -> None:
    _not_in_the_future(time_claim(claims, "nbf", expected.now), "nbf", expected)


def _not_in_the_future(at: float | None, name: str, expected: Expected) -> None:
    if at is not None and at > expected.now + expected.leeway:
        detail = f"{name} is {at - expected.now:.0f} s in the future: compare the clocks"
        raise Refused(Reason.TOKEN_TIME, detail=detail)


def _lifetime(claims: SignedClaims, expected: Expected) -> None:
    issued, expires = time_claim(claims, "iat", expected.now), time_claim(claims, "exp", expected.now)
    if issued is None or expires is None or not 0 < expires - issued <= expected.longest:
        raise Refused(Reason.TOKEN_TIME, detail=f"lives longer than {expected.longest:.0f} s")


def _nonce(claims: SignedClaims, expected: Expected) -> None:
    said = text_claim(claims, "nonce")
    if not expected.nonce or not hmac.compare_digest(said.encode(), expected.nonce.encode()):
        raise Refused(Reason.TOKEN_NONCE, detail="nonce is not the one of this sign-in")


def _login_age(claims: SignedClaims, expected: Expected) -> None:
    """Core 1.0, section 3.1.3.7, 13: asked with max_age, the provider must say when."""
    at = time_claim(claims, "auth_time", expected.now)
    _not_in_the_future(at, "auth_time", expected)
    if expected.oldest_login is None:
        return
    if at is None:
        raise Refused(Reason.STEP_UP_UNMET, detail="auth_time is missing, and max_age asks for it")
    if at + expected.leeway < expected.oldest_login:
        by = f"{expected.oldest_login - at:.0f} s older than max_age allows"
        detail = f"auth_time is {by}: if they signed in just now, compare the clocks"
        raise Refused(Reason.STEP_UP_UNMET, detail=detail)


def _access_token_hash(claims: SignedClaims, expected: Expected) -> None:
    _half_hash(claims, "at_hash", expected.access_token, expected.algorithm)


def _code_hash(claims: SignedClaims, expected: Expected) -> None:
    _half_hash(claims, "c_hash", expected.code, expected.algorithm)


def _half_hash(claims: SignedClaims, name: str, text: str, algorithm: str) -> None:
    """Core 1.0, section 3.1.3.6: the left half of the hash, with the hash function of the token's algorithm."""
    said = claims.get(name)
    if said is None or not text:
        return
    digest = _HASHES[algorithm[-3:]](text.encode()).digest()
    due = urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=")
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(), due):
        raise Refused(Reason.TOKEN_CLAIM, detail=f"{name} belongs to something else")


def _recent(claims: SignedClaims, expected: Expected) -> None:
    issued = time_claim(claims, "iat", expected.now)
    if issued is None or issued + _FRESH_LOGOUT + expected.leeway < expected.now:
        raise Refused(Reason.TOKEN_TIME, detail="iat is too long ago for a logout token")


def _token_id(claims: SignedClaims, _: Expected) -> None:
    if not 0 < len(text_claim(claims, "jti")) <= _LONGEST_ID:
        raise Refused(Reason.TOKEN_CLAIM, detail="jti is missing or too long")


def _logout_event(claims: SignedClaims, _: Expected) -> None:
    events = claims.get("events")
    if not isinstance(events, Mapping) or not isinstance(events.get(LOGOUT_EVENT), Mapping):
        raise Refused(Reason.TOKEN_CLAIM, detail="events does not name a back-channel logout")


def _no_nonce(claims: SignedClaims, _: Expected) -> None:
    if "nonce" in claims:
        raise Refused(Reason.TOKEN_CLAIM, detail="a logout token has no nonce; this is another kind of token")


def _subject_or_session(claims: SignedClaims, _: Expected) -> None:
    subject, sid = text_claim(claims, "sub"), text_claim(claims, "sid")
    if not (subject or sid) or max(len(subject), len(sid)) > _LONGEST_ID:
        raise Refused(Reason.TOKEN_CLAIM, detail="neither sub nor sid")


def _client(claims: SignedClaims, _: Expected) -> None:
    # RFC 9068, section 2.2 has client_id; azp and appid are what providers put there before it.
    if not any(text_claim(claims, name) for name in ("client_id", "azp", "appid")):
        raise Refused(Reason.TOKEN_CLAIM, detail="client_id is missing")


def _is_for_access(claims: SignedClaims, _: Expected) -> None:
    """RFC 8725, section 3.12: where typ does not tell kinds apart, claims that only other kinds have do."""
    # Ory Hydra introspects refresh tokens as active, too, and with the same aud; Cognito's ID tokens look alike.
    is_other = claims.get("token_use", "access") not in ("access", "access_token")
    is_other = is_other or claims.get("typ") in ("ID", "Refresh", "Offline", "Logout")
    if is_other or claims.keys() & {"at_hash", "c_hash", "events"}:
        raise Refused(Reason.TOKEN_CLAIM, detail="this is another kind of token")


def _not_older(claims: SignedClaims, expected: Expected) -> None:
    issued = time_claim(claims, "iat", expected.now)
    if issued is None or issued + expected.longest + expected.leeway < expected.now:
        raise Refused(Reason.TOKEN_TIME, detail=f"iat is more than {expected.longest:.0f} s ago")


def _is_event(claims: SignedClaims, expected: Expected) -> None:
    """RFC 8417, section 4: an event must not pass for another kind of token, nor one of those for an event."""
    if "exp" in claims:
        _expiry(claims, expected)
    if claims.keys() & {"nonce", "at_hash", "c_hash"} or not isinstance(claims.get("events"), Mapping):
        raise Refused(Reason.TOKEN_CLAIM, detail="this is another kind of token")


REFRESHED_ID_TOKEN: tuple[Check, ...] = (
    _issuer, _audience, _authorized_party, _subject, _expiry, _issued, _not_before, _login_age, _access_token_hash
)  # fmt: skip
"""OpenID Connect Core 1.0, section 12.2."""
ID_TOKEN: tuple[Check, ...] = (*REFRESHED_ID_TOKEN, _nonce, _code_hash)
"""OpenID Connect Core 1.0, section 3.1.3.7."""
LOGOUT_TOKEN: tuple[Check, ...] = (
    _issuer, _audience, _expiry, _issued, _recent, _not_before, _token_id, _logout_event, _no_nonce, _subject_or_session
)  # fmt: skip
"""OpenID Connect Back-Channel Logout 1.0, section 2.6."""
ACCESS_TOKEN: tuple[Check, ...] = (
    _issuer, _audience, _subject, _expiry, _issued, _not_before, _lifetime, _client, _is_for_access
)  # fmt: skip
"""RFC 9068, section 4."""
INTROSPECTED_TOKEN: tuple[Check, ...] = (_issuer, _audience, _subject, _expiry, _not_before, _is_for_access)
"""RFC 7662, section 4: what is checked of a token that the issuer itself says is active."""

SECURITY_EVENT: tuple[Check, ...] = (_issuer, _audience, _issued, _not_older, _not_before, _token_id, _is_event)
"""RFC 8417, section 2.2, and OpenID Shared Signals Framework 1.0, section 4.1; ``longest`` bounds the age."""

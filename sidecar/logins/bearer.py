"""Recognise API callers by the JWT access tokens of configured providers (RFC 6750, RFC 9068)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.config.login import Bearer, OidcLogin
from sidecar.core.binding import bound_to, refuse_others
from sidecar.core.claims import IdentityPlan, identity_from
from sidecar.core.credentials import bearer_in
from sidecar.faults import Refused
from sidecar.logins.keys import Keys
from sidecar.logins.token_claims import (
    ACCESS_TOKEN,
    Expected,
    audiences,
    check,
    methods_claim,
    text_claim,
    time_claim,
)
from sidecar.logins.tokens import Header, unverified_claims, verify
from sidecar.model import Session, Visit
from sidecar.reason import Reason

_CACHED_TOKENS = 10_000
# So long at most does a token outlive the key that signed it.
_CACHED_FOR = 300.0


@dataclass(frozen=True, slots=True)
class AcceptedTokens:
    """The access tokens of one provider that are accepted: issuer, audience, keys and looks."""

    provider: str
    issuer: str
    audience: frozenset[str]
    types: frozenset[str]
    algorithms: frozenset[str]
    longest: float
    leeway: float
    keys: Keys
    plan: IdentityPlan


def accepted_tokens(
    provider: str, section: OidcLogin, bearer: Bearer, keys: Keys, plan: IdentityPlan
) -> AcceptedTokens:
    """Take what the login named *provider* says about bearer tokens; *keys* are that login's."""
    return AcceptedTokens(
        provider=provider,
        issuer=bearer.issuer or section.issuer,
        audience=frozenset(bearer.audience),
        types=frozenset(_plain_type(one) for one in bearer.types),
        algorithms=frozenset(section.algorithms),
        longest=bearer.max_age.total_seconds(),
        leeway=section.leeway.total_seconds(),
        keys=keys,
        plan=plan,
    )


class BearerAuthenticator:
    """Verifies ``Authorization: Bearer`` tokens and remembers the good ones for a while, by their hash."""

    via = "bearer"
    knows = False

    def __init__(self, accepted: Iterable[AcceptedTokens], own_issuer: str = "") -> None:
        """Accept the *accepted* ones, and never one that says *own_issuer*: our assertions to the application.

        Raises ValueError when there are none, or one has no audience.
        """
        self._accepted = tuple(accepted)
        self._own_issuer = own_issuer
        self._known: dict[bytes, tuple[float, Session, str]] = {}
        if not self._accepted or not all(one.audience for one in self._accepted):
            message = "bearer tokens need at least one provider, and each an audience"
            raise ValueError(message)

    async def identify(self, visit: Visit, now: float) -> Session | None:
        """Return who the caller is; None without a bearer token, and for one without dots (no JWT: somebody else's).

        Raises Refused with status 401 for a bad token, 403 for a good one that names nobody usable; Unavailable.
        """
        token = bearer_in(visit.authorization)
        if "." not in token:
            return None
        session = self.at_hand(visit, now)
        if session is None:
            digest = _digest(token)
            self._known.pop(digest, None)
            session, bound = await self._verified(token, digest, now)
            self._remember(digest, session, bound, now)
            refuse_others(bound, visit.certificate)
        return session

    def at_hand(self, visit: Visit, now: float) -> Session | None:
        """As ``identify`` for a token that was good a short while ago, None for any other.

        Raises Refused(TOKEN_BINDING, 401).
        """
        token = bearer_in(visit.authorization)
        until, session, bound = self._known.get(_digest(token), (0.0, None, "")) if token else (0.0, None, "")
        if session is None or now >= until:
            return None
        refuse_others(bound, visit.certificate)
        return session

    async def _verified(self, token: str, digest: bytes, now: float) -> tuple[Session, str]:
        try:
            one = self._chosen(token)
            verified = await verify(token, one.keys, one.algorithms)
            _check_type(verified.header, one)
            check(verified.claims, ACCESS_TOKEN, _expected(one, verified.header.algorithm, now))
            bound = bound_to(verified.claims)
        except Refused as refusal:
            # RFC 6750, section 3.1: invalid_token.
            raise Refused(refusal.reason, 401, refusal.detail) from None
        # Its id is the token's hash, which no other token has.
        return session_of(one, verified.claims, f"bearer-{digest.hex()[:32]}", now), bound

    def _chosen(self, token: str) -> AcceptedTokens:
        """Choose whose token this claims to be; all of it is verified against that provider afterwards."""
        claims = unverified_claims(token)
        issuer = claims.get("iss")
        fitting = [one for one in self._accepted if one.issuer == issuer and issuer != self._own_issuer]
        if not fitting:
            raise Refused(Reason.TOKEN_ISSUER, detail="iss is no configured issuer of bearer tokens")
        meant = audiences(claims)
        return next((one for one in fitting if one.audience & meant), fitting[0])

    def _remember(self, digest: bytes, session: Session, bound: str, now: float) -> None:
        while len(self._known) >= _CACHED_TOKENS:
            self._known.pop(next(iter(self._known)))
        self._known[digest] = (min(session.expires, now + _CACHED_FOR), session, bound)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _check_type(header: Header, one: AcceptedTokens) -> None:
    if _plain_type(header.type) not in one.types:
        raise Refused(Reason.TOKEN_INVALID, detail="typ is not that of an access token")


def _expected(one: AcceptedTokens, algorithm: str, now: float) -> Expected:
    return Expected(one.issuer, one.audience, now, one.leeway, algorithm, longest=one.longest)


def session_of(one: AcceptedTokens, claims: Mapping[str, Any], session_id: str, now: float) -> Session:
    """Make a session that lasts as long as its token. Raises Refused(IDENTITY_INCOMPLETE)."""
    return Session(
        id=session_id,
        identity=identity_from(one.provider, one.issuer, claims, one.plan),
        created=time_claim(claims, "iat", now) or now,
        expires=time_claim(claims, "exp", now) or now,
        seen=now,
        auth_time=time_claim(claims, "auth_time", now) or 0.0,
        acr=text_claim(claims, "acr"),
        amr=methods_claim(claims),
        sid=text_claim(claims, "sid"),
    )


def _plain_type(text: str) -> str:
    """RFC 7515, section 4.1.9: application/ may be left out."""
    return text.lower().removeprefix("application/")

"""Recognise API callers by opaque access tokens, by asking the provider that issued them (RFC 7662)."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sidecar.config.login import Introspection
from sidecar.core.api_tokens import is_ours
from sidecar.core.binding import bound_to, refuse_others
from sidecar.core.credentials import bearer_in
from sidecar.faults import Refused, Unavailable
from sidecar.logins.bearer import AcceptedTokens, session_of
from sidecar.logins.flight import Flight
from sidecar.logins.provider import Provider
from sidecar.logins.token_claims import INTROSPECTED_TOKEN, Expected, check, time_claim
from sidecar.logins.tokens import SignedClaims
from sidecar.model import Session, Visit
from sidecar.reason import Reason

_MOST = 10_000
_LONGEST = 4096
_PAUSE = 1.0
# RFC 6750, section 2.1: b64token.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True, slots=True)
class _Known:
    """What the provider said of one token, and until when that counts; ``fault`` when it said nothing of use."""

    until: float
    session: Session | None
    bound: str = ""
    refusal: tuple[Reason, int, str] | None = None
    fault: Unavailable | None = None


class IntrospectingAuthenticator:
    """Asks one provider about tokens that are no JWTs; answers are remembered by the token's hash, for a short while.

    Good and bad ones are remembered apart, so that nobody can push the good ones out with bad ones.
    """

    via = "bearer"
    knows = False

    def __init__(self, section: Introspection, accepted: AcceptedTokens, provider: Provider) -> None:
        """Ask *provider* for what it says of tokens, and hold that to *accepted*. Raises ValueError."""
        if not accepted.audience:
            message = "opaque tokens need an audience"
            raise ValueError(message)
        self._section = section
        self._accepted = accepted
        self._provider = provider
        self._good: OrderedDict[bytes, _Known] = OrderedDict()
        self._bad: OrderedDict[bytes, _Known] = OrderedDict()
        self._flights: dict[bytes, Flight[_Known]] = {}
        self._fault: tuple[float, Unavailable] | None = None

    async def identify(self, visit: Visit, now: float) -> Session | None:
        """Who the caller is; None without a token that could be the provider's.

        Raises Refused with status 401 for a bad token, 403 for a good one that names nobody usable; Unavailable when
        the provider does not say.
        """
        token = bearer_in(visit.authorization)
        if not token or "." in token or is_ours(token):
            return None
        if len(token) > _LONGEST or not _TOKEN.fullmatch(token):
            raise Refused(Reason.TOKEN_INVALID, 401, "no token has such letters, or so many")
        digest = hashlib.sha256(token.encode()).digest()
        known = self._good.get(digest) or self._bad.get(digest)
        if known is None or now >= known.until:
            known = await self._asked(token, digest, now)
        if known.fault is not None:
            # Without the places where it was raised before, which hold whole requests.
            raise known.fault.with_traceback(None)
        if known.refusal is not None:
            raise Refused(*known.refusal)
        refuse_others(known.bound, visit.certificate)
        return known.session

    def at_hand(self, visit: Visit, now: float) -> Session | None:
        """As ``identify`` for a token that was good a short while ago, None for any other.

        Raises Refused(TOKEN_BINDING, 401).
        """
        token = bearer_in(visit.authorization)
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        known = self._good.get(digest) if token else None
        if known is None or now >= known.until:
            return None
        refuse_others(known.bound, visit.certificate)
        return known.session

    async def _asked(self, token: str, digest: bytes, now: float) -> _Known:
        """Ask once, however many come with the token at the same time."""
        if self._fault is not None and now < self._fault[0]:
            raise self._fault[1].with_traceback(None)
        flight = self._flights.get(digest)
        if flight is None:
            flight = self._flights[digest] = Flight(partial(self._learnt, token, digest, now))
            flight.start().add_done_callback(lambda _: self._flights.pop(digest, None))
        return await flight.join()

    async def _learnt(self, token: str, digest: bytes, now: float) -> _Known:
        try:
            async with asyncio.timeout(self._section.timeout.total_seconds()):
                said = await self._provider.introspect(self._section.endpoint or "", token, now)
        except (TimeoutError, Unavailable) as error:
            fault = (
                error if isinstance(error, Unavailable) else Unavailable(Reason.PROVIDER_DOWN, "introspection: slow")
            )
            # Those who come meanwhile need not all wait as long; but what is wrong with one token is its own affair.
            if not fault.is_answer:
                self._fault = now + _PAUSE, fault
                raise fault from None
            known = _Known(now + _PAUSE, None, fault=fault)
        else:
            known = self._known_of(said, digest, now)
        self._good.pop(digest, None)
        self._bad.pop(digest, None)
        memory = self._bad if known.session is None else self._good
        memory[digest] = known
        if len(memory) > _MOST:
            memory.popitem(last=False)
        return known

    def _known_of(self, said: Mapping[str, Any], digest: bytes, now: float) -> _Known:
        try:
            return self._judged(said, digest, now)
        except Refused as refused:
            until = now + self._section.negative.total_seconds()
            return _Known(until, None, refusal=(refused.reason, _status(refused), refused.detail))

    def _judged(self, said: Mapping[str, Any], digest: bytes, now: float) -> _Known:
        if said.get("active") is not True:
            raise Refused(Reason.TOKEN_INVALID, 401, "the provider says that it is not active")
        one = self._accepted
        kind = said.get("token_type", "Bearer")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise Refused(Reason.TOKEN_BINDING, 401, "token_type is not Bearer")
        # The provider may leave out who it is: it was asked at its own address.
        claims = SignedClaims({"iss": one.issuer, **said})
        check(claims, INTROSPECTED_TOKEN, Expected(one.issuer, one.audience, now, one.leeway, ""))
        bound = bound_to(claims)
        session = session_of(one, claims, f"opaque-{digest.hex()[:32]}", now)
        ends = time_claim(claims, "exp", now) or now
        return _Known(min(ends, now + self._section.cache.total_seconds()), session, bound)

    async def close(self) -> None:
        """Give up what is under way."""
        for flight in list(self._flights.values()):
            await flight.close()


def _status(refused: Refused) -> int:
    """RFC 6750, section 3.1: a token that is bad is 401; a good one that names nobody usable 403."""
    return 403 if refused.reason is Reason.IDENTITY_INCOMPLETE else 401

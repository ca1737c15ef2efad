"""Sign people in at an OpenID provider: authorization code with PKCE (OpenID Connect Core 1.0, RFC 7636, RFC 9207).

Authlib makes the code challenge and the authorization address, and (in provider.py and client_auth.py) token requests
and client authentication; joserfc verifies tokens (tokens.py). The order of checks is ours.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import structlog
from authlib.common.urls import add_params_to_uri  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]

from sidecar.config.login import OidcLogin
from sidecar.core.claims import IdentityPlan, identity_from
from sidecar.faults import Refused, Unavailable
from sidecar.logins.addresses import is_safe_address
from sidecar.logins.claim_sources import lacks_claims, merged, remembered
from sidecar.logins.groups_source import Groups
from sidecar.logins.login import Ask, Begin, LoggedOut
from sidecar.logins.provider import Provider, Tokens, error_code
from sidecar.logins.token_claims import (
    ID_TOKEN,
    LOGOUT_TOKEN,
    REFRESHED_ID_TOKEN,
    Check,
    Expected,
    check,
    methods_claim,
    text_claim,
    time_claim,
)
from sidecar.logins.tokens import SignedClaims, unverified_claims, verify
from sidecar.model import Grant, Identity, Session, SignedIn
from sidecar.reason import Reason

_log = structlog.get_logger("oidc")
_CODE = re.compile(r"[\x20-\x7e]{1,4096}")
_REFRESH_AFTER = 0.8
_SOONEST_REFRESH = 30.0
_LONGEST_HINT = 6000
_LOGOUT_TYPES = ("", "jwt", "logout+jwt", "application/logout+jwt")
# What this side of the protocol decides; an operator's extra parameter or a stranger's link never does.
_OWN = frozenset(
    {"response_type", "response_mode", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge"}
    | {"code_challenge_method", "max_age", "request", "request_uri", "id_token_hint", "registration"}
)


class OpenIdLogin:
    """One OpenID provider as a Login."""

    answers_by_post = False
    takes_unsolicited = False
    calls_provider = True

    def __init__(
        self,
        name: str,
        section: OidcLogin,
        redirect_uri: str,
        plan: IdentityPlan,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Sign in at the provider of *section*, coming back to *redirect_uri*; no network is used yet.

        *clock* gives epoch seconds, for the age of what was fetched and of sign-ins. Raises ValueError, which names the
        setting, when extra parameters, key or CA file cannot be used.
        """
        overridden = _OWN & section.parameters.keys()
        if overridden:
            message = f"parameters: {', '.join(sorted(overridden))} cannot be set, the sign-in itself needs them"
            raise ValueError(message)
        self.name = name
        self.title = section.title or name
        self.domains = section.domains
        self.provider = Provider(name, section, clock)
        self.place = self.provider.place
        self.plan = plan
        self._groups = None if section.groups_source is None else Groups(name, section.groups_source)
        self._section = section
        self._redirect_uri = redirect_uri
        self._clock = clock
        self._leeway = section.leeway.total_seconds()

    async def begin(self, state: str, ask: Ask) -> Begin:
        """Begin a sign-in. An ``acr`` is asked for, not demanded: whether it came is seen in ``SignedIn.acr``."""
        metadata = await self.provider.metadata()
        nonce, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        max_age = _smallest(ask.max_age, self._section.max_login_age)
        asked = {
            "max_age": "" if max_age is None else str(int(max_age)),
            "acr_values": " ".join(ask.acr),
            "login_hint": ask.login_hint,
            "prompt": ask.prompt,
            # Core 1.0, section 5.5.1.1: acr_values alone is a wish, which a sign-in that is there already may ignore.
            "claims": _essential(ask) if metadata.takes_claims else "",
        }
        url = prepare_grant_uri(
            _with_parameters(metadata.authorization_endpoint, {**self._section.parameters, **_without_empty(asked)}),
            self._section.client_id,
            "code",
            redirect_uri=self._redirect_uri,
            scope=[*self._section.scopes, *(self._groups.scope if self._groups is not None else ())],
            state=state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        kept = {"nonce": nonce, "verifier": verifier, "issuer": metadata.issuer, "redirect_uri": self._redirect_uri}
        if max_age is not None:
            kept["oldest_login"] = str(int(self._clock() - max_age))
        return Begin(url, kept)

    async def finish(self, kept: Mapping[str, str], answer: Mapping[str, str], now: float) -> SignedIn:
        """Verify the answer, redeem the code, verify the ID token, complete the claims."""
        await self._check_sender(kept, answer)
        code = _code(answer)
        tokens = await self.provider.tokens(
            Reason.LOGIN_CODE_REFUSED,
            now,
            "authorization_code",
            code=code,
            redirect_uri=self._redirect_uri,
            code_verifier=kept["verifier"],
        )
        if not tokens.id_token:
            raise Unavailable(Reason.PROVIDER_DOWN, f"{self.name}: no id_token in the token answer")
        oldest = float(kept["oldest_login"]) if "oldest_login" in kept else None
        signed = await self._id_token(tokens, ID_TOKEN, now, nonce=kept["nonce"], code=code, oldest_login=oldest)
        claims = await self._completed(signed, tokens.access_token)
        try:
            identity = self._identity(await self._with_groups(claims, tokens))
        except Unavailable as fault:
            # Unknown groups give nobody anything: the sign-in need not fail with their source.
            _log.warning("groups unknown, their source is unavailable", provider=self.name, detail=fault.detail)
            identity = self._identity(claims)
        return self._signed_in(identity, signed, tokens, Grant(), now=now)

    async def refresh(self, session: Session, grant: Grant, now: float) -> SignedIn:
        """Ask with the refresh token. When only the claims cannot be had, the identity stays, to be asked for soon."""
        if not grant.refresh_token:
            raise Refused(Reason.REFRESH_REFUSED, detail="there is no refresh token")
        if session.identity.issuer != self.provider.issuer:
            # This login had another provider once, or has in another replica: its token is not for this one's eyes.
            raise Refused(Reason.REFRESH_REFUSED, detail="the session was opened at another provider")
        tokens = await self.provider.tokens(
            Reason.REFRESH_REFUSED, now, "refresh_token", refresh_token=grant.refresh_token
        )
        signed = SignedClaims({})
        try:
            if tokens.id_token:
                signed = await self._id_token(tokens, REFRESHED_ID_TOKEN, now)
                _check_same_person(signed, session, now)
                identity = await self._fresh(signed, grant, tokens)
            else:
                identity = await self._renewed(session, grant, tokens)
        except Unavailable:
            # The old refresh token may be used up: the new one must not be lost because something else is down.
            identity, tokens = session.identity, replace(tokens, id_token="", lifetime=0.0)
        return self._signed_in(identity, signed, tokens, grant, now=now, session=session)

    async def begin_sign_out(self, session: Session, grant: Grant, return_to: str, state: str) -> Begin | None:
        """OpenID Connect RP-Initiated Logout 1.0, section 2; None too when the login has ``sign_out: false``."""
        if not self._section.sign_out or session.provider != self.name:
            return None
        endpoint = (await self.provider.metadata()).end_session_endpoint
        if not endpoint:
            return None
        # A hint longer than servers take in an address would end the sign-out on an error page.
        hint = grant.id_token if len(grant.id_token) <= _LONGEST_HINT else ""
        parameters = {"post_logout_redirect_uri": return_to, "state": state, "id_token_hint": hint}
        own = {"client_id": self._section.client_id}
        return Begin(_with_parameters(endpoint, _without_empty({**own, **parameters})))

    async def logged_out(self, token: str, now: float) -> LoggedOut:
        """Verify a logout token; the caller acts once on its ``jti``."""
        verified = await verify(token, self.provider.keys, self._section.algorithms)
        if verified.header.type not in _LOGOUT_TYPES:
            raise Refused(Reason.TOKEN_INVALID, detail="typ is not logout+jwt")
        claims = verified.claims
        check(claims, LOGOUT_TOKEN, self._expected(verified.header.algorithm, now))
        return LoggedOut(
            issuer=self.provider.issuer,
            subject=text_claim(claims, "sub"),
            sid=text_claim(claims, "sid"),
            jti=text_claim(claims, "jti"),
            expires=(time_claim(claims, "exp", now) or now) + self._leeway,
            provider=self.name,
        )

    @property
    def issuer(self) -> str:
        """The provider's issuer."""
        return self.provider.issuer

    @property
    def takes_front_channel(self) -> bool:
        """True when sign-outs through the browser are wanted."""
        return self._section.front_channel

    async def frames(self) -> tuple[str, ...]:
        """Origins of the provider's own pages: of its issuer, and of where one signs out there."""
        places = [self.provider.issuer]
        with contextlib.suppress(Unavailable):
            places.append((await self.provider.metadata()).end_session_endpoint)
        parts = [urlsplit(place) for place in places if place]
        return tuple(dict.fromkeys(f"{part.scheme}://{part.netloc}" for part in parts))

    async def probe(self) -> str:
        """Fetch discovery document and keys, and look at the redirect URI."""
        if not is_safe_address(self._redirect_uri):
            raise Unavailable(Reason.PROVIDER_DOWN, f"{self.name}: providers refuse {self._redirect_uri}: not https")
        line = await self.provider.probe()
        return f"{line}; register {self._redirect_uri} as redirect URI of {self._section.client_id}"

    async def reach(self) -> None:
        """See Login."""
        await self.provider.reach()

    async def close(self) -> None:
        """Let go of connections."""
        await self.provider.close()
        if self._groups is not None:
            await self._groups.close()

    async def _check_sender(self, kept: Mapping[str, str], answer: Mapping[str, str]) -> None:
        """Refuse answers of another provider than the one that was asked (RFC 9207, section 2.4) and errors."""
        if (kept.get("issuer"), kept.get("redirect_uri")) != (self.provider.issuer, self._redirect_uri):
            raise Refused(Reason.LOGIN_ISSUER_MIXED, detail="this sign-in was begun at another provider")
        issuer = answer.get("iss")
        if issuer is not None and issuer != self.provider.issuer:
            raise Refused(Reason.LOGIN_ISSUER_MIXED, detail="iss is another provider")
        if "error" in answer:
            if "code" in answer:
                raise Refused(Reason.LOGIN_ANSWER_INVALID, detail="both a code and an error")
            code = error_code(answer["error"])
            # OpenID Connect Core Error Code unmet_authentication_requirements 1.0.
            unmet = code == "unmet_authentication_requirements"
            raise Refused(Reason.STEP_UP_UNMET if unmet else Reason.LOGIN_PROVIDER_ERROR, detail=code)
        if issuer is None and (await self.provider.metadata()).names_itself:
            raise Refused(Reason.LOGIN_ISSUER_MIXED, detail="iss is missing, and this provider always sends it")

    async def _id_token(self, tokens: Tokens, table: tuple[Check, ...], now: float, **expected: Any) -> SignedClaims:
        verified = await verify(tokens.id_token, self.provider.keys, self._section.algorithms)
        due = self._expected(verified.header.algorithm, now)
        check(verified.claims, table, replace(due, access_token=tokens.access_token, is_new=True, **expected))
        return verified.claims

    async def _completed(self, signed: SignedClaims, access_token: str) -> Mapping[str, Any]:
        """Add what userinfo says, where the configuration wants it asked; the signed claims are stronger."""
        wanted = self._section.userinfo
        if wanted == "never" or (wanted == "auto" and not lacks_claims(signed, self.plan)):
            return signed
        return merged(await self.provider.userinfo(access_token, signed["sub"]), signed)

    async def _fresh(self, signed: SignedClaims, grant: Grant, tokens: Tokens) -> Identity:
        """Identity after a refresh that brought an ID token, which may be slimmer than the first one was."""
        earlier = remembered(_claims_of(grant), self.plan, with_groups=False)
        claims = merged(earlier, await self._completed(signed, tokens.access_token))
        return self._identity(await self._with_groups(claims, tokens))

    async def _renewed(self, session: Session, grant: Grant, tokens: Tokens) -> Identity:
        """Identity after a refresh that brought no ID token: userinfo is then the fresher of the two."""
        if self._section.userinfo == "never":
            return session.identity
        fresh = await self.provider.userinfo(tokens.access_token, session.identity.subject)
        if not fresh:
            return session.identity
        claims = merged(remembered(_claims_of(grant), self.plan, with_groups=True), fresh)
        return self._identity(await self._with_groups(claims, tokens))

    async def _with_groups(self, claims: Mapping[str, Any], tokens: Tokens) -> Mapping[str, Any]:
        return claims if self._groups is None else await self._groups.completed(claims, tokens.access_token)

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        return identity_from(self.name, self.provider.issuer, claims, self.plan)

    def _signed_in(
        self,
        identity: Identity,
        signed: Mapping[str, Any],
        tokens: Tokens,
        grant: Grant,
        *,
        now: float,
        session: Session | None = None,
    ) -> SignedIn:
        """Join what the provider signed with what is known of the *session* that is refreshed."""
        refresh_token = (tokens.refresh_token or grant.refresh_token) if self._section.refresh else ""
        soon = max(_SOONEST_REFRESH, _REFRESH_AFTER * tokens.lifetime)
        # An unknown time of sign-in is the oldest there is, so that a step-up asks instead of trusting.
        return SignedIn(
            identity=identity,
            auth_time=time_claim(signed, "auth_time", now) or (session.auth_time if session else 0.0),
            acr=text_claim(signed, "acr") or (session.acr if session else ""),
            amr=methods_claim(signed) or (session.amr if session else ()),
            sid=text_claim(signed, "sid") or (session.sid if session else ""),
            grant=Grant(tokens.id_token or grant.id_token, refresh_token),
            refresh_at=now + soon if refresh_token else 0.0,
        )

    def _expected(self, algorithm: str, now: float) -> Expected:
        client = self._section.client_id
        return Expected(self.provider.issuer, frozenset({client}), now, self._leeway, algorithm, client)


def _check_same_person(signed: SignedClaims, session: Session, now: float) -> None:
    """Core 1.0, section 12.2: same issuer, same subject, and auth_time still that of the first sign-in."""
    person = session.identity
    if (signed["iss"], signed["sub"]) != (person.issuer, person.subject):
        raise Refused(Reason.REFRESH_REFUSED, detail="the refreshed ID token is about somebody else")
    at = time_claim(signed, "auth_time", now)
    if at is not None and session.auth_time and at != session.auth_time:
        raise Refused(Reason.REFRESH_REFUSED, detail="the refreshed ID token has another auth_time")


def _claims_of(grant: Grant) -> Mapping[str, Any]:
    """Claims of the ID token that was verified at sign-in and kept sealed since; {} when there is none to read."""
    if not grant.id_token:
        return {}
    return unverified_claims(grant.id_token)


def _code(answer: Mapping[str, str]) -> str:
    code = answer.get("code", "")
    if not _CODE.fullmatch(code):
        raise Refused(Reason.LOGIN_ANSWER_INVALID, 400, "no usable code")
    return code


def _essential(ask: Ask) -> str:
    return json.dumps({"id_token": {"acr": {"essential": True, "values": ask.acr}}}) if ask.acr else ""


def _smallest(asked: float | None, configured: timedelta | None) -> float | None:
    ages = [age for age in (asked, configured.total_seconds() if configured is not None else None) if age is not None]
    return max(0.0, min(ages)) if ages else None


def _without_empty(parameters: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if value}


def _with_parameters(url: str, parameters: Mapping[str, str]) -> str:
    return str(add_params_to_uri(url, dict(parameters)))

"""Ask one OpenID provider: for metadata, tokens, claims."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from authlib.oauth2.rfc6749.parameters import prepare_token_request  # type: ignore[import-untyped]

from sidecar.config.login import OidcLogin
from sidecar.faults import Refused, Unavailable, Unreached
from sidecar.logins.client_auth import ClientCredentials
from sidecar.logins.discovery import Discovery, Metadata, discovery_address, metadata_from
from sidecar.logins.http import Answer, ProviderHttp
from sidecar.logins.keys import Keys
from sidecar.reason import Reason

_DEFAULT_LIFETIME = 3600.0
_LONGEST_LIFETIME = 24 * 3600.0
_TOKEN_LIMIT = 64 * 1024
# What ends a grant: RFC 6749, section 5.2; some providers answer refreshes also with what that RFC (4.1.2.1) and OpenID
# Connect Core (3.1.2.6) have for sign-ins.
_NO = frozenset(["invalid_grant", "access_denied", "login_required", "interaction_required", "consent_required"])
# RFC 6749, sections 5.2 and 4.1.2.1: about this client, whoever it asks for; and about the provider.
_ABOUT_US = frozenset(["invalid_client", "unauthorized_client", "unsupported_grant_type"])
_STATUS_ABOUT_US = frozenset([HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS])
_ITS_OWN_FAULT = frozenset(["server_error", "temporarily_unavailable"])
_ERROR_CODE = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


@dataclass(frozen=True, slots=True)
class Tokens:
    """A checked answer of the token endpoint (RFC 6749, section 5.1); ``lifetime`` of the access token in seconds."""

    access_token: str
    id_token: str
    refresh_token: str
    lifetime: float

    def __repr__(self) -> str:
        """Show no token."""
        return "Tokens(…)"


def error_code(value: object) -> str:
    """Return an OAuth error code that is safe to log, "unreadable" for anything that does not look like one."""
    return value if isinstance(value, str) and _ERROR_CODE.fullmatch(value) else "unreadable"


class Provider:
    """One provider as a client of it sees it; everything that goes over the network to it goes through here."""

    def __init__(self, name: str, section: OidcLogin, clock: Callable[[], float]) -> None:
        """Serve the login *name*; raises ValueError when its key or CA file cannot be used."""
        self.name = name
        self.issuer = section.issuer
        self.http = ProviderHttp(name, section.timeout.total_seconds(), section.ca)
        # Connections of their own: a crowd of sign-ins that waits for the others must not look like an outage.
        self._about = ProviderHttp(name, section.timeout.total_seconds(), section.ca)
        self.place = section.discovery or discovery_address(section.issuer)
        self.discovery = Discovery(self._about, section.issuer, self.place, metadata_from, clock)
        self.keys = Keys(self._about, self.discovery, clock)
        self._credentials = ClientCredentials(section)

    async def metadata(self) -> Metadata:
        """Return what the provider says about itself; raises Unavailable."""
        return await self.discovery.metadata()

    async def tokens(self, refusal: Reason, now: float, grant: str, **parameters: str) -> Tokens:
        """Ask the token endpoint with a *grant* type and its parameters.

        Raises ``Refused(refusal)`` for ``invalid_grant``; Unavailable for everything else that is not a proper answer:
        it is down, or one of both sides is set up wrongly.
        """
        url = (await self.metadata()).token_endpoint
        form, headers = self._credentials.sign(url, prepare_token_request(grant, **parameters), now)
        answer = await self.http.post(url, form, headers)
        if answer.status != HTTPStatus.OK:
            raise _failure(answer, refusal)
        return _tokens(answer)

    async def introspect(self, endpoint: str, token: str, now: float) -> Mapping[str, Any]:
        """Ask what *token* is (RFC 7662, section 2), at *endpoint* or, for "", where the provider says.

        Raises Unavailable unless there is a proper answer: a refusal is one of us, not of the token. It says
        ``is_answer`` where another token may get a proper one: firewalls dislike some, and what a person is called can
        be what nobody can read.
        """
        url = endpoint or (await self.metadata()).introspection_endpoint
        if not url:
            raise Unavailable(Reason.PROVIDER_DOWN, f"{self.name}: the provider names no introspection_endpoint")
        asked = urlencode({"token": token, "token_type_hint": "access_token"})
        form, headers = self._credentials.sign(url, asked, now)
        answer = await self.http.post(url, form, headers)
        if answer.status != HTTPStatus.OK:
            if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                # A server that tripped over the question; one that is away or too busy says 502 to 504.
                raise Unavailable(Reason.PROVIDER_DOWN, f"{answer.place}: status 500", is_answer=True)
            is_about_it = answer.status >= HTTPStatus.BAD_REQUEST and answer.status not in _STATUS_ABOUT_US
            raise answer.failure(is_answer=is_about_it)
        return answer.json_object(is_answer=True)

    async def userinfo(self, access_token: str, subject: str) -> Mapping[str, Any]:
        """Read the userinfo endpoint, {} when there is none (Core 1.0, section 5.3).

        Raises Refused(TOKEN_CLAIM) when it speaks of anybody but *subject*, Unavailable when it gives no JSON object;
        signed userinfo is not supported.
        """
        url = (await self.metadata()).userinfo_endpoint
        if not url:
            return {}
        claims = (await self.http.get(url, access_token)).document()
        if claims.get("sub") != subject:
            # Section 5.3.2: without this anybody's access token could be slipped in (token substitution).
            raise Refused(Reason.TOKEN_CLAIM, detail="userinfo is about somebody else")
        return claims

    async def probe(self) -> str:
        """Fetch metadata and keys now and describe them in a line; raises Unavailable."""
        metadata = await self.discovery.fetch()
        keys = await self.keys.fetch()
        if not keys:
            raise Unavailable(Reason.PROVIDER_DOWN, f"{self.name}: no usable signing key at {metadata.jwks_uri}")
        algorithms = sorted(frozenset().union(*(key.algorithms for key in keys)))
        return f"{self.issuer}: {len(keys)} signing keys for {', '.join(algorithms)}"

    async def reach(self) -> None:
        """See Login. Sign-ins need the token endpoint and keys; the document alone may live somewhere else."""
        try:
            metadata = await self.discovery.fetch()
        except Unreached:
            known = self.discovery.known
            if (
                known is None
                or (await self._about.get(known.token_endpoint)).status >= HTTPStatus.INTERNAL_SERVER_ERROR
            ):
                raise
        else:
            # What it answers to a GET says nothing: any answer will do.
            await self._about.get(metadata.token_endpoint)
        await self.keys.usable()

    async def close(self) -> None:
        """Let go of connections and background work."""
        await self.discovery.close()
        await self.keys.close()
        await self._about.close()
        await self.http.close()


def _failure(answer: Answer, refusal: Reason) -> Refused | Unavailable:
    """RFC 6749, section 5.2: only a 400 or 401 with an error code is the provider's word on the grant."""
    if answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED):
        code = error_code(answer.json_object().get("error"))
        if code in _NO:
            return Refused(refusal, detail=code)
        said = f"{answer.place}: the provider says {code}"
        if code in _ITS_OWN_FAULT:
            return Unreached(Reason.PROVIDER_DOWN, said)
        return Unavailable(Reason.PROVIDER_DOWN, said, is_answer=code not in _ABOUT_US)
    return answer.failure(is_answer=True)


def _tokens(answer: Answer) -> Tokens:
    fields = answer.json_object()
    kind = fields.get("token_type")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise Unavailable(Reason.PROVIDER_DOWN, f"{answer.place}: token_type is not Bearer", is_answer=True)
    return Tokens(
        access_token=_token(fields, "access_token", answer.place) or _missing("access_token", answer.place),
        id_token=_token(fields, "id_token", answer.place),
        refresh_token=_token(fields, "refresh_token", answer.place),
        lifetime=_lifetime(fields.get("expires_in")),
    )


def _token(fields: Mapping[str, Any], name: str, place: str) -> str:
    value = fields.get(name, "")
    is_token = isinstance(value, str) and len(value) <= _TOKEN_LIMIT and value.isascii() and value.isprintable()
    if not is_token:
        raise Unavailable(Reason.PROVIDER_DOWN, f"{place}: {name} is not a token, or too long", is_answer=True)
    return str(value)


def _missing(name: str, place: str) -> str:
    raise Unavailable(Reason.PROVIDER_DOWN, f"{place}: no {name} in the answer", is_answer=True)


def _lifetime(value: object) -> float:
    # Some providers write the number as text.
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return _DEFAULT_LIFETIME
    return float(min(value, _LONGEST_LIFETIME))

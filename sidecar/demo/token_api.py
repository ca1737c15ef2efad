"""The provider's endpoints for programs: discovery, keys, tokens and userinfo."""

import base64
import binascii
from http import HTTPStatus
from secrets import compare_digest
from typing import Any
from urllib.parse import unquote_plus

from aiohttp import web
from multidict import MultiMapping

from sidecar.demo.authorization import ACR_SUPPORTED, Fault, OAuthError, once
from sidecar.demo.grants import ACCESS_SECONDS, Grant
from sidecar.demo.register import Register


class TokenApi:
    """RFC 6749 section 3.2 and OpenID Connect Core sections 3.1.3, 5.3 and 12."""

    def __init__(self, register: Register) -> None:
        """Answer from `register`."""
        self._register = register

    def routes(self, prefix: str) -> list[web.RouteDef]:
        """Return the routes below the issuer's path."""
        return [
            web.get(f"{prefix}/.well-known/openid-configuration", self._discovery),
            web.get(f"{prefix}/jwks", self._keys),
            web.post(f"{prefix}/token", self._token),
            web.get(f"{prefix}/userinfo", self._userinfo),
            web.post(f"{prefix}/userinfo", self._userinfo),
        ]

    async def _discovery(self, _request: web.Request) -> web.Response:
        return web.json_response(metadata(self._register.issuer))

    async def _keys(self, _request: web.Request) -> web.Response:
        return web.json_response(self._register.signer.public_keys())

    async def _token(self, request: web.Request) -> web.Response:
        try:
            form = await _form(request)
            client_id = self._authenticated_client(request, form)
            return web.json_response(self._answer(client_id, form))
        except OAuthError as error:
            answer = {"error": error.code, "error_description": error.description}
            unauthorised = (
                {"WWW-Authenticate": 'Basic realm="token"'} if error.status == HTTPStatus.UNAUTHORIZED else {}
            )
            return web.json_response(answer, status=error.status, headers=unauthorised)

    def _authenticated_client(self, request: web.Request, form: MultiMapping[str]) -> str:
        client_id, secret = _credentials(request, form)
        client = self._register.clients.get(client_id)
        expected = "" if client is None else client.secret
        if client is None or not secret or not compare_digest(expected.encode(), secret.encode()):
            raise OAuthError(Fault.INVALID_CLIENT, "client authentication failed", HTTPStatus.UNAUTHORIZED)
        return client_id

    def _answer(self, client_id: str, form: MultiMapping[str]) -> dict[str, Any]:
        grants = self._register.grants
        match once(form, "grant_type"):
            case "authorization_code":
                code, verifier = _required(form, "code"), _required(form, "code_verifier")
                grant = grants.redeem(code, client_id, _required(form, "redirect_uri"), verifier)
                return self._tokens(grant, grant.nonce)
            case "refresh_token":
                # No nonce in a refreshed ID token: OpenID Connect Core section 12.2.
                return self._tokens(grants.refresh(_required(form, "refresh_token"), client_id), None)
            case None:
                raise OAuthError(Fault.INVALID_REQUEST, "grant_type is missing")
            case _:
                raise OAuthError(Fault.UNSUPPORTED_GRANT_TYPE, "use authorization_code or refresh_token")

    def _tokens(self, grant: Grant, nonce: str | None) -> dict[str, Any]:
        access, refresh = self._register.grants.tokens(grant)
        return {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": ACCESS_SECONDS,
            "refresh_token": refresh,
            "scope": " ".join(sorted(grant.scopes)),
            "id_token": self._register.id_token(grant, nonce),
        }

    async def _userinfo(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        grant = self._register.grants.of_access_token(token.strip())
        if grant is None:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return web.json_response(self._register.claims_about(grant))


async def _form(request: web.Request) -> MultiMapping[str]:
    if request.content_type != "application/x-www-form-urlencoded":
        raise OAuthError(Fault.INVALID_REQUEST, "the body must be application/x-www-form-urlencoded")
    return await request.post()  # type: ignore[return-value]  # This content type carries no files.


def _required(form: MultiMapping[str], name: str) -> str:
    value = once(form, name)
    if value is None:
        raise OAuthError(Fault.INVALID_REQUEST, f"{name} is missing")
    return value


def _credentials(request: web.Request, form: MultiMapping[str]) -> tuple[str, str]:
    """Read client_secret_basic or client_secret_post, not both (RFC 6749 section 2.3)."""
    posted_id, posted_secret = once(form, "client_id"), once(form, "client_secret")
    header = request.headers.get("Authorization")
    if header is None:
        return posted_id or "", posted_secret or ""
    if posted_secret is not None:
        raise OAuthError(Fault.INVALID_REQUEST, "use one way of client authentication")
    client_id, secret = _basic(header)
    if posted_id not in {None, client_id}:
        raise OAuthError(Fault.INVALID_REQUEST, "client_id differs from the one that authenticates")
    return client_id, secret


def _basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise OAuthError(Fault.INVALID_CLIENT, "the Authorization header is not Basic", HTTPStatus.UNAUTHORIZED)
    try:
        pair = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise OAuthError(Fault.INVALID_CLIENT, "the Basic credentials are garbled", HTTPStatus.UNAUTHORIZED) from error
    client_id, _, secret = pair.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)  # Form-encoded first: RFC 6749 section 2.3.1.


def metadata(issuer: str) -> dict[str, Any]:
    """Return the discovery document (OpenID Connect Discovery section 3)."""
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "jwks_uri": f"{issuer}/jwks",
        "end_session_endpoint": f"{issuer}/end-session",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "scopes_supported": ["openid", "profile", "email"],
        "claims_supported": [
            *("sub", "name", "preferred_username", "email", "email_verified", "groups"),
            *("auth_time", "acr", "sid"),
        ],
        "acr_values_supported": list(ACR_SUPPORTED),
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "claims_parameter_supported": False,
    }

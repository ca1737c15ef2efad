"""Read an OpenID authorization request strictly, without I/O."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlencode

from multidict import MultiMapping

from sidecar.demo.people import DemoClient

# The two strengths that this provider can pretend to.
ACR_SIMPLE = "urn:demo:simple"
ACR_STRONG = "urn:demo:strong"
ACR_SUPPORTED = (ACR_SIMPLE, ACR_STRONG)

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # base64url of a SHA-256, RFC 7636 section 4.2
_PROMPTS = frozenset({"none", "login", "consent", "select_account"})


class Fault(StrEnum):
    """The error codes of RFC 6749 sections 4.1.2.1 and 5.2, and OpenID Connect Core section 3.1.2.6."""

    INVALID_REQUEST = "invalid_request"
    INVALID_SCOPE = "invalid_scope"
    INVALID_CLIENT = "invalid_client"
    INVALID_GRANT = "invalid_grant"
    UNSUPPORTED_RESPONSE_TYPE = "unsupported_response_type"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    LOGIN_REQUIRED = "login_required"
    ACCESS_DENIED = "access_denied"
    REQUEST_NOT_SUPPORTED = "request_not_supported"
    REQUEST_URI_NOT_SUPPORTED = "request_uri_not_supported"
    REGISTRATION_NOT_SUPPORTED = "registration_not_supported"


class UnknownReturn(Exception):  # noqa: N818 - the domain's word
    """The request names no registered client and redirect URI, so the answer must not be a redirect."""


class OAuthError(Exception):
    """An error answer of RFC 6749: a code from the specification and a sentence for developers."""

    def __init__(self, code: Fault, description: str, status: int = 400) -> None:
        """`status` is the HTTP status of the token endpoint's answer."""
        super().__init__(code)
        self.code = code
        self.description = description
        self.status = status


@dataclass(frozen=True, slots=True)
class Return:
    """Where the answer goes: a checked client and one of its registered URIs."""

    client_id: str
    redirect_uri: str
    state: str | None

    def location(self, issuer: str, answer: Mapping[str, str]) -> str:
        """Return the URL that carries `answer` home, with state and issuer (RFC 9207 section 2)."""
        state = {} if self.state is None else {"state": self.state}
        separator = "&" if "?" in self.redirect_uri else "?"
        return self.redirect_uri + separator + urlencode({**answer, **state, "iss": issuer})


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """What a client asked for, every part checked; `max_age` in seconds."""

    back: Return
    scopes: frozenset[str]
    challenge: str
    nonce: str | None
    prompts: frozenset[str]
    max_age: int | None
    acr_values: tuple[str, ...]
    login_hint: str

    @property
    def acr(self) -> str:
        """The first wanted strength that is supported here (OpenID Connect Core section 3.1.2.1)."""
        return next((acr for acr in self.acr_values if acr in ACR_SUPPORTED), ACR_SIMPLE)


def once(parameters: MultiMapping[str], name: str) -> str | None:
    """Return a parameter; an empty one counts as omitted and a repeated one is refused (RFC 6749 3.1).

    Raises OAuthError.
    """
    values = parameters.getall(name, [])
    if len(values) > 1:
        raise OAuthError(Fault.INVALID_REQUEST, f"{name} must not be repeated")
    return str(values[0]) or None if values else None


def read_return(parameters: MultiMapping[str], clients: Mapping[str, DemoClient]) -> Return:
    """Check client_id and redirect_uri, character by character.

    Raises UnknownReturn, whose text may be shown to the person.
    """
    try:
        client_id, redirect_uri = once(parameters, "client_id"), once(parameters, "redirect_uri")
    except OAuthError as error:
        raise UnknownReturn(error.description) from error
    client = clients.get(client_id or "")
    if client_id is None or client is None:
        message = "No client is registered under this client_id."
        raise UnknownReturn(message)
    if redirect_uri is None or redirect_uri not in client.redirect_uris:
        message = "The redirect_uri is not one of those registered for this client."
        raise UnknownReturn(message)
    states = parameters.getall("state", [])
    return Return(client_id, redirect_uri, states[0] if len(states) == 1 else None)


def read_request(parameters: MultiMapping[str], back: Return) -> AuthorizationRequest:
    """Check everything else. Raises OAuthError, which the caller sends to `back`."""
    given = {name: once(parameters, name) for name in sorted(set(parameters))}
    _refuse_other_flows(given)
    scopes = frozenset((given.get("scope") or "").split())
    if "openid" not in scopes:
        raise OAuthError(Fault.INVALID_SCOPE, "scope must contain openid")
    return AuthorizationRequest(
        back=back,
        scopes=scopes,
        challenge=_challenge(given),
        nonce=given.get("nonce"),
        prompts=_prompts(given),
        max_age=_max_age(given),
        acr_values=tuple((given.get("acr_values") or "").split()),
        login_hint=given.get("login_hint") or "",
    )


def _refuse_other_flows(given: Mapping[str, str | None]) -> None:
    for unsupported in ("request", "request_uri", "registration"):
        if given.get(unsupported):
            raise OAuthError(Fault(f"{unsupported}_not_supported"), f"{unsupported} is not supported")
    if given.get("response_type") is None:
        raise OAuthError(Fault.INVALID_REQUEST, "response_type is missing")
    if given["response_type"] != "code":
        raise OAuthError(Fault.UNSUPPORTED_RESPONSE_TYPE, "only response_type=code is supported")
    if given.get("response_mode") not in {None, "query"}:
        raise OAuthError(Fault.INVALID_REQUEST, "only response_mode=query is supported")


def _challenge(given: Mapping[str, str | None]) -> str:
    challenge = given.get("code_challenge") or ""
    # A missing method would mean "plain" (RFC 7636 section 4.3), which protects nothing.
    if given.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise OAuthError(Fault.INVALID_REQUEST, "PKCE with code_challenge_method=S256 is required")
    return challenge


def _prompts(given: Mapping[str, str | None]) -> frozenset[str]:
    prompts = frozenset((given.get("prompt") or "").split())
    if not prompts <= _PROMPTS or ("none" in prompts and len(prompts) > 1):
        raise OAuthError(Fault.INVALID_REQUEST, "prompt has an unknown value, or none together with another")
    return prompts


def _max_age(given: Mapping[str, str | None]) -> int | None:
    max_age = given.get("max_age")
    if max_age is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", max_age):
        raise OAuthError(Fault.INVALID_REQUEST, "max_age must be a number of seconds")
    return int(max_age)
